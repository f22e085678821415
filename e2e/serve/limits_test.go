package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestMaxClients refuses one too many, but not the console: that is where one looks why.
func TestMaxClients(t *testing.T) {
	t.Parallel()
	p := start(t, "[listen]\nmax_clients = 2\n")
	a, b := connect(t, p.dsn("app")), connect(t, p.dsn("app"))
	cannotConnect(t, p.dsn("app"), "53300", "too many clients")
	p.console(t).must(t, "SHOW CLIENTS")
	a.must(t, "SELECT 1")
	b.leave()
	mayConnect(t, p.dsn("app"))
}

// mayConnect waits until a client may log in.
func mayConnect(t *testing.T, dsn string) *client {
	t.Helper()
	var c *client
	waitFor(t, "a client may log in", func() (ok bool) {
		var err error
		c, err = tryConnect(t, dsn)
		return err == nil
	})
	return c
}

func TestMaxConnectionsOfUser(t *testing.T) {
	t.Parallel()
	p := start(t, "[[users]]\nname = \"app\"\nsecret = \"app\"\nmax_connections = 1\n")
	a := connect(t, p.dsn("app"))
	cannotConnect(t, p.dsn("app"), "53300", `too many connections for role "app"`)
	connect(t, p.dsn("admin:admin", "dbname=shardproxy"))
	a.leave()
	mayConnect(t, p.dsn("app")).must(t, "SELECT 1")
}

// dial opens a connection that says nothing by itself.
func dial(t *testing.T, p *proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// startup is the message of a client who wants to log in.
func startup(t *testing.T, params ...string) []byte {
	t.Helper()
	m := pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: map[string]string{"user": "app", "database": "shop"}}
	for _, param := range params {
		name, value, _ := strings.Cut(param, "=")
		m.Parameters[name] = value
	}
	text, err := m.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestMaxUnauthenticated lets those who are slow to log in wait for nobody's harm.
func TestMaxUnauthenticated(t *testing.T) {
	t.Parallel()
	p := start(t, "[listen]\nmax_unauthenticated = 2\n")
	inside := connect(t, p.dsn("app")) // counts no more
	silent, slow := dial(t, p), dial(t, p)
	if _, err := slow.Write(startup(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(slow, make([]byte, 9)); err != nil { // it is asked for its password
		t.Fatal(err)
	}
	cannotConnect(t, p.dsn("app"), "53300", "too many connections that are not logged in")
	inside.must(t, "SELECT 1")
	silent.Close()
	mayConnect(t, p.dsn("app")).must(t, "SELECT 1")
}

// TestLoginTimeout closes connections that do not log in.
func TestLoginTimeout(t *testing.T) {
	t.Parallel()
	p := start(t, "[listen]\nlogin_timeout = \"200ms\"\n")
	inside := connect(t, p.dsn("app"))
	silent, slow := dial(t, p), dial(t, p)
	if _, err := slow.Write(startup(t)); err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.Conn{"that says nothing": silent, "that gives no password": slow} {
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("a client %s is not closed: %v", name, err)
		}
	}
	inside.must(t, at("s1", "SELECT pg_sleep(0.3)")) // the timeout is not for sessions
}

func TestMaxStartupBytes(t *testing.T) {
	t.Parallel()
	p := start(t, "[listen]\nmax_startup_bytes = 300\n")
	connect(t, p.dsn("app", "application_name="+strings.Repeat("x", 100)))
	cannotConnect(t, p.dsn("app", "application_name="+strings.Repeat("x", 300)), "08P01", "invalid length of startup packet")
}

// TestStatementLimits refuses what is too long or too deep, and goes on with the next statement.
func TestStatementLimits(t *testing.T) {
	t.Parallel()
	p := start(t, "[limits]\nmessage_bytes = 65536\nquery_bytes = 1024\nparser_tokens = 100\nplan_cache_entries = 1\nprepared_statements = 3\n")
	c := connect(t, p.dsn("app"))
	c.expect(t, "SELECT length('"+strings.Repeat("x", 900)+"')", "900")
	c.refuses(t, "SELECT '"+strings.Repeat("x", 1100)+"'", "54000", "1024")
	c.refuses(t, "SELECT 1"+strings.Repeat("+1", 150), "54001", "")
	for i := range 20 { // statements of different shapes, of which one plan is kept
		c.expect(t, fmt.Sprintf("SELECT %d AS c%d", i%3, i%4), fmt.Sprint(i%3))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range 4 {
		_, err := c.Prepare(ctx, fmt.Sprintf("p%d", i), "SELECT $1::int", nil)
		if i < 3 && err != nil {
			t.Fatal(err)
		}
		if i == 3 {
			refused(t, "a fourth prepared statement", err, "54000", "prepared")
		}
	}
	if err := c.Deallocate(ctx, "p0"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Prepare(ctx, "p3", "SELECT $1::int", nil); err != nil {
		t.Errorf("in the place of one that is gone: %v", err)
	}
	// A parameter is no statement: it may be longer, up to the limit of messages.
	result := c.ExecParams(ctx, "SELECT length($1)", [][]byte{[]byte(strings.Repeat("x", 50_000))}, nil, nil, nil).Read()
	if result.Err != nil || string(result.Rows[0][0]) != "50000" {
		t.Errorf("%v, %v", result.Rows, result.Err)
	}
	c.refuses(t, "SELECT '"+strings.Repeat("x", 70_000)+"'", "54000", "message of [0-9]+ bytes is above the limit of 65536")
	waitFor(t, "the session has ended", func() bool { return c.IsClosed() || errors.Is(c.Ping(ctx), io.ErrUnexpectedEOF) || c.IsClosed() })
	connect(t, p.dsn("app")).must(t, "SELECT 1")
}
