package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// dialRaw opens a TCP connection to the proxy.
func dialRaw(t *testing.T) net.Conn {
	t.Helper()
	u, err := url.Parse(proxyDSN)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(answerPatience))
	return conn
}

// sendCancel sends a CancelRequest and waits for the proxy to close the connection.
func sendCancel(t *testing.T, pid uint32, secret []byte) {
	t.Helper()
	conn := dialRaw(t)
	packet := binary.BigEndian.AppendUint32(nil, uint32(12+len(secret)))
	packet = binary.BigEndian.AppendUint32(packet, 80877102) // CancelRequest
	packet = binary.BigEndian.AppendUint32(packet, pid)
	if _, err := conn.Write(append(packet, secret...)); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, conn) // to its end, however that comes
}

// TestWrongLogin is refused as PostgreSQL refuses, with its SQLSTATEs.
func TestWrongLogin(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*url.URL)
		codes  string
	}{
		"wrong password":   {func(u *url.URL) { u.User = url.UserPassword("app", "wrong") }, "28P01"},
		"no password":      {func(u *url.URL) { u.User = url.User("app") }, "28P01 fe_sendauth"},
		"unknown user":     {func(u *url.URL) { u.User = url.UserPassword("nobody", "app") }, "28P01 28000"},
		"unknown database": {func(u *url.URL) { u.Path = "/nosuch" }, "3D000"},
	} {
		t.Run(name, func(t *testing.T) {
			if cluster == nil && strings.HasSuffix(name, "password") {
				t.Skip("PostgreSQL here may trust loopback")
			}
			u, err := url.Parse(proxyDSN)
			if err != nil {
				t.Fatal(err)
			}
			c.change(u)
			_, err = pgconn.Connect(t.Context(), u.String())
			var pgErr *pgconn.PgError
			if !errors.As(err, &pgErr) {
				t.Fatalf("%v, want one of %s", err, c.codes)
			}
			if pgErr.Severity != "FATAL" || !strings.Contains(c.codes, pgErr.Code) {
				t.Errorf("%s %s, want FATAL and one of %s", pgErr.Severity, pgErr.Code, c.codes)
			}
		})
	}
	connect(t, proxyDSN).must(t, "SELECT 1")
}

// TestGarbage sends bytes that are no protocol, before and after the login. The connection must end without
// hurting others, and the proxy must live on.
func TestGarbage(t *testing.T) {
	random := rand.New(rand.NewPCG(8816, 6783))
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	startup := func(body string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(4+len(body))), body...)
	}
	before := map[string][]byte{
		"noise":                noise,
		"HTTP":                 []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"TLS":                  {0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03},
		"zero length":          {0, 0, 0, 0},
		"negative length":      {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"huge length":          {0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"cut short":            {0, 0, 0, 50, 0, 3},
		"no user":              startup("\x00\x03\x00\x00\x00"),
		"no end of parameters": startup("\x00\x03\x00\x00user\x00app"),
		"protocol 2":           startup("\x00\x02\x00\x00user\x00app\x00\x00"),
		"protocol 9":           startup("\x00\x09\x00\x00user\x00app\x00\x00"),
		"nothing":              nil,
	}
	witness := connect(t, proxyDSN)
	for name, data := range before {
		t.Run("before login/"+name, func(t *testing.T) {
			conn := dialRaw(t)
			if _, err := conn.Write(data); err != nil {
				t.Fatal(err)
			}
			if tcp, ok := conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite() // the proxy may have closed it already
			}
			_, _ = io.Copy(io.Discard, conn) // to its end, however that comes
			witness.must(t, "SELECT 1")
		})
	}
	after := map[string][]byte{
		"noise":             noise,
		"unknown message":   {'~', 0, 0, 0, 4},
		"length too small":  {'Q', 0, 0, 0, 3},
		"negative length":   {'Q', 0xff, 0xff, 0xff, 0xff},
		"huge length":       {'Q', 0x7f, 0xff, 0xff, 0xff, 'x'},
		"no end of string":  {'Q', 0, 0, 0, 5, 'x'},
		"Bind without end":  {'B', 0, 0, 0, 6, 0, 0},
		"Parse lies":        {'P', 0, 0, 0, 8, 0, 0, 0x7f, 0xff},
		"Bind lies":         {'B', 0, 0, 0, 12, 0, 0, 0, 0, 0x7f, 0xff, 0, 0},
		"Describe of what":  {'D', 0, 0, 0, 6, 'X', 0},
		"CopyData alone":    {'d', 0, 0, 0, 5, 'x'},
		"a second password": {'p', 0, 0, 0, 5, 0},
		"a second startup":  startup("\x00\x03\x00\x00user\x00app\x00\x00"),
	}
	for name, data := range after {
		t.Run("after login/"+name, func(t *testing.T) {
			s := connect(t, proxyDSN)
			_ = s.conn.SetDeadline(time.Now().Add(answerPatience))
			if _, err := s.conn.Write(data); err != nil {
				t.Fatal(err)
			}
			if tcp, ok := s.conn.(*net.TCPConn); ok {
				_ = tcp.CloseWrite() // the proxy may have closed it already
			}
			if _, err := io.Copy(io.Discard, s.conn); errors.Is(err, context.DeadlineExceeded) {
				t.Error("the proxy keeps the connection")
			}
			witness.must(t, "SELECT 1")
		})
	}
	if cluster != nil && !cluster.Alive() {
		t.Fatal("the proxy has died")
	}
}

// TestKillersOfTheParser sends statements that overrun, or might, the stack of PostgreSQL's parser. The
// proxy must refuse the known ones with 54001, answer the others somehow, and go on.
func TestKillersOfTheParser(t *testing.T) {
	needCluster(t)
	const n = 25_000
	s := connect(t, proxyDSN)
	for _, c := range []struct {
		name, sql string
		refused   bool
	}{
		{"plus", "SELECT 1" + strings.Repeat("+1", n), true},
		{"cast", "SELECT 1" + strings.Repeat("::int", n), true},
		{"concat", "SELECT 'a'" + strings.Repeat("||'a'", n), true},
		{"join", "SELECT * FROM pg_class" + strings.Repeat(" CROSS JOIN pg_class", n), true},
		{"parentheses", "SELECT " + strings.Repeat("(", n) + "1" + strings.Repeat(")", n), true},
		{"minus", "SELECT " + strings.Repeat("- ", n) + "1", true},
		{"subscript", "SELECT '{}'::int[]" + strings.Repeat("[1]", n), true},
		{"array", "SELECT " + strings.Repeat("ARRAY[", n) + "1" + strings.Repeat("]", n), true},
		{"sub-select", "SELECT " + strings.Repeat("(SELECT ", n) + "1" + strings.Repeat(")", n), true},
		{"not", "SELECT " + strings.Repeat("NOT ", n) + "true", false},
		{"case", "SELECT " + strings.Repeat("CASE WHEN true THEN ", n) + "1" + strings.Repeat(" END", n), false},
		{"and", "SELECT true" + strings.Repeat(" AND true", n), false},
		{"union", "SELECT 1" + strings.Repeat(" UNION SELECT 1", n), false},
		{"field", "SELECT " + strings.Repeat("(", n) + "x" + strings.Repeat(").a", n), false},
		{"function", "SELECT " + strings.Repeat("abs(", n) + "1" + strings.Repeat(")", n), false},
		{"explain", strings.Repeat("EXPLAIN ", n) + "SELECT 1", false},
		{"rows of VALUES", "SELECT count(*) FROM (VALUES (1)" + strings.Repeat(", (1)", 40_000) + ") v", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, protocol := range []func(*session, *entry) *transcript{(*session).simple, (*session).extended} {
				line, failed := protocol(s, &entry{sql: c.sql}).failed()
				if c.refused && !strings.HasPrefix(line, "error ERROR 54001 ") {
					t.Errorf("%.200q, want 54001", line)
				}
				if failed && !strings.HasPrefix(line, "error ERROR ") {
					t.Fatalf("%.200q", line)
				}
			}
			s.must(t, "SELECT 1")
		})
	}
}
