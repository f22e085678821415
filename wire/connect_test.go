package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"
)

// node is a scripted server: it reads the StartupMessage and sends reply, whatever was asked.
func node(t *testing.T, reply string) *ConnectConfig {
	t.Helper()
	address := serve(t, func(conn net.Conn) {
		length := make([]byte, 4)
		if _, err := io.ReadFull(conn, length); err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(length))-4)
		_, _ = io.WriteString(conn, reply)
		_, _ = io.Copy(io.Discard, conn)
	})
	return &ConnectConfig{Network: "tcp", Address: address, User: "u", Password: "secret", Timeout: 2 * time.Second}
}

const (
	authOk     = "R\x00\x00\x00\x08\x00\x00\x00\x00"
	keyData    = "K\x00\x00\x00\x0c\x00\x00\x00\x07abcd"
	readyIdle  = "Z\x00\x00\x00\x05I"
	someStatus = "S\x00\x00\x00\x08a\x00b\x00"
	notice     = "N\x00\x00\x00\x08Mx\x00\x00"
)

func TestConnectScripted(t *testing.T) {
	cfg := node(t, notice+authOk+someStatus+notice+keyData+"S\x00\x00\x00\x08a\x00c\x00"+readyIdle+someStatus)
	cfg.Timeout = 100 * time.Millisecond
	server, err := Connect(testContext(t), cfg)
	must(t, err)
	defer server.Conn.Close()
	if d := cmp.Diff(map[string]string{"a": "c"}, server.Params); d != "" {
		t.Error(d)
	}
	if server.Key != (CancelKey{PID: 7, Secret: "abcd"}) {
		t.Errorf("key %+v", server.Key)
	}
	// What came behind ReadyForQuery is still there.
	messageType, _, err := readHandshakeMessage(server.Conn, 100)
	if err != nil || messageType != 'S' {
		t.Errorf("behind ReadyForQuery: %q, %v", messageType, err)
	}
}

func TestConnectRefusesOddServers(t *testing.T) {
	for name, c := range map[string]struct{ reply, want string }{
		"error":                 {"E\x00\x00\x00\x17SFATAL\x00C57P03\x00Mup\x00\x00", "57P03"},
		"malformed error":       {"E\x00\x00\x00\x06Mx", "malformed ErrorResponse"},
		"endless message":       {"R\x7f\xff\xff\xff", "invalid message length"},
		"short message":         {"R\x00\x00\x00\x03", "invalid message length"},
		"no authentication":     {readyIdle, "unexpected message 'Z'"},
		"Kerberos":              {"R\x00\x00\x00\x08\x00\x00\x00\x07", "kind 7"},
		"short md5 salt":        {"R\x00\x00\x00\x0a\x00\x00\x00\x05ab", "malformed AuthenticationMD5Password"},
		"unknown SASL":          {"R\x00\x00\x00\x0e\x00\x00\x00\x0aOAU\x00\x00\x00", "none of our SASL"},
		"PLUS without TLS":      {"R\x00\x00\x00\x1c\x00\x00\x00\x0aSCRAM-SHA-256-PLUS\x00\x00", "without TLS"},
		"short key":             {authOk + "K\x00\x00\x00\x09\x00\x00\x00\x07a", "malformed BackendKeyData"},
		"within a transaction":  {authOk + "Z\x00\x00\x00\x05T", "malformed ReadyForQuery"},
		"malformed status":      {authOk + "S\x00\x00\x00\x06ab", "malformed ParameterStatus"},
		"rows":                  {authOk + "D\x00\x00\x00\x06\x00\x00", "unexpected message 'D'"},
		"never ready":           {authOk + strings.Repeat(someStatus, noticesMax), "no ReadyForQuery"},
		"notices without end":   {strings.Repeat(notice, noticesMax), "notices"},
		"Ok without server key": {"R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00" + authOk, "kind 0 instead of 11"},
		"costly SCRAM": {"R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00" +
			"R\x00\x00\x00\x21\x00\x00\x00\x0br=abc,s=YWJj,i=2000000000", "iterations"},
	} {
		t.Run(name, func(t *testing.T) {
			server, err := Connect(testContext(t), node(t, c.reply))
			if err == nil {
				server.Conn.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	t.Run("no password", func(t *testing.T) {
		cfg := node(t, "R\x00\x00\x00\x08\x00\x00\x00\x03")
		cfg.Password = ""
		if _, err := Connect(testContext(t), cfg); !errors.Is(err, errNoPassword) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("hangs up", func(t *testing.T) {
		cfg := &ConnectConfig{Network: "tcp", Address: serve(t, func(net.Conn) {}), User: "u"}
		if _, err := Connect(testContext(t), cfg); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("bad parameter", func(t *testing.T) {
		for name, value := range map[string]string{"user": "root", "database": "x", "": "x", "a\x00b": "x", "a": "x\x00user\x00root"} {
			cfg := node(t, authOk+readyIdle)
			cfg.Params = map[string]string{name: value}
			if _, err := Connect(testContext(t), cfg); err == nil {
				t.Errorf("parameter %q = %q was sent", name, value)
			}
		}
	})
}

func TestConnectTimesOut(t *testing.T) {
	cfg := node(t, authOk)
	cfg.Timeout = 30 * time.Millisecond
	if _, err := Connect(context.Background(), cfg); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	cfg.Timeout = 0
	reason := errors.New("shutdown")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(20*time.Millisecond, func() { cancel(reason) })
	if _, err := Connect(ctx, cfg); !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
	if err := SendCancel(ctx, cfg, CancelKey{PID: 1, Secret: "abcd"}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestConnectUnixSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	startups := make(chan *Startup, 1)
	serveOn(t, "unix", socket, func(conn net.Conn) {
		got, err := Accept(context.Background(), conn, &AcceptConfig{RequireTLS: true}) // which does not hold here
		if err != nil {
			return
		}
		startups <- got.Startup
		_, _ = io.WriteString(conn, authOk+keyData+readyIdle)
		_, _ = io.Copy(io.Discard, conn)
	})
	server, err := Connect(testContext(t), &ConnectConfig{
		Network: "unix", Address: socket, User: "u", Database: "d", Params: map[string]string{"application_name": "x"},
		TLS: newAuthority(t).clientTLS(t, SSLVerifyFull), // ignored, as in libpq
	})
	must(t, err)
	server.Conn.Close()
	st := <-startups
	if d := cmp.Diff(map[string]string{"user": "u", "database": "d", "application_name": "x"}, st.Params); d != "" || st.Minor != 0 {
		t.Error(d, st.Minor)
	}
}

func TestSendCancelScripted(t *testing.T) {
	for _, secret := range []string{"abcd", strings.Repeat("k", 256)} {
		keys := make(chan *CancelKey, 1)
		address := serve(t, func(conn net.Conn) {
			if got, err := Accept(context.Background(), conn, &AcceptConfig{}); err == nil {
				keys <- got.Cancel
			}
		})
		want := CancelKey{PID: 12, Secret: secret}
		must(t, SendCancel(testContext(t), &ConnectConfig{Network: "tcp", Address: address}, want))
		if got := <-keys; *got != want {
			t.Errorf("got %+v", got)
		}
	}
	if err := SendCancel(testContext(t), &ConnectConfig{Network: "tcp", Address: serve(t, func(net.Conn) {})},
		CancelKey{Secret: strings.Repeat("k", 257)}); err == nil {
		t.Error("a key of 257 bytes was sent")
	}
}

// sslNode answers SSLRequest with answer, and after 'N' or in plain text plays a session.
func sslNode(t *testing.T, secure *ServerTLS, refusePlain, refuseTLS bool) string {
	t.Helper()
	return serve(t, func(raw net.Conn) {
		got, err := Accept(context.Background(), raw, &AcceptConfig{TLS: secure})
		if err != nil || got.Startup == nil {
			return
		}
		if got.Startup.TLS && refuseTLS || !got.Startup.TLS && refusePlain {
			_, _ = got.Conn.Write(Fatalf(CodeInvalidAuthorization, "no pg_hba.conf entry").Append(nil))
			return
		}
		_ = writeHandshake(got.Conn, &pgproto3.AuthenticationOk{}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
		_, _ = io.Copy(io.Discard, got.Conn)
	})
}

func TestConnectSSLModes(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	secure := ca.serverTLS(t)
	servers := map[string]string{
		"plain":     sslNode(t, nil, false, false),
		"both":      sslNode(t, secure, false, false),
		"tls only":  sslNode(t, secure, true, false),
		"tls shown": sslNode(t, secure, false, true), // has TLS, but lets nobody in by it
		"odd":       serve(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "E\x00\x00\x00\x08Mx\x00\x00") }),
	}
	const plain, overTLS, fails = "plain", "tls", "fails"
	for _, c := range []struct {
		mode   SSLMode
		server string
		root   string
		host   string
		want   string
	}{
		{SSLDisable, "plain", "", "localhost", plain},
		{SSLDisable, "both", "", "localhost", plain},
		{SSLDisable, "tls only", "", "localhost", fails},
		{SSLAllow, "plain", "", "localhost", plain},
		{SSLAllow, "both", "", "localhost", plain},
		{SSLAllow, "tls only", "", "localhost", overTLS},
		{SSLPrefer, "plain", "", "localhost", plain},
		{SSLPrefer, "both", "", "localhost", overTLS},
		{SSLPrefer, "both", stranger.file, "localhost", overTLS},
		{SSLPrefer, "tls shown", "", "localhost", plain},
		{SSLPrefer, "odd", "", "localhost", fails},
		{SSLRequire, "plain", "", "localhost", fails},
		{SSLRequire, "both", "", "elsewhere", overTLS},
		{SSLRequire, "both", ca.file, "elsewhere", overTLS},
		{SSLRequire, "both", stranger.file, "localhost", fails},
		{SSLRequire, "tls shown", "", "localhost", fails},
		{SSLRequire, "odd", "", "localhost", fails},
		{SSLVerifyCA, "both", ca.file, "elsewhere", overTLS},
		{SSLVerifyCA, "both", stranger.file, "localhost", fails},
		{SSLVerifyCA, "plain", ca.file, "localhost", fails},
		{SSLVerifyFull, "both", ca.file, "localhost", overTLS},
		{SSLVerifyFull, "both", ca.file, "", overTLS}, // 127.0.0.1, from the address
		{SSLVerifyFull, "both", ca.file, "elsewhere", fails},
		{SSLVerifyFull, "both", stranger.file, "localhost", fails},
		{SSLVerifyFull, "both", systemRoots, "localhost", fails},
	} {
		client, err := LoadClientTLS(ClientTLSFiles{Mode: c.mode, RootCert: c.root})
		must(t, err)
		got := fails
		server, err := Connect(testContext(t), &ConnectConfig{
			Network: "tcp", Address: servers[c.server], Host: c.host, User: "u", TLS: client,
		})
		if err == nil {
			got = plain
			if onTLS(server.Conn) {
				got = overTLS
			}
			server.Conn.Close()
		}
		if got != c.want {
			t.Errorf("sslmode=%s root=%q host=%s server %q: %s (%v), want %s", c.mode, filepath.Base(c.root), c.host, c.server, got, err, c.want)
		}
	}
}

func TestServerTextBeforeTLSIsNotShown(t *testing.T) {
	address := serve(t, func(conn net.Conn) { _, _ = conn.Write(Errorf("XX000", "visit evil.example").Append(nil)) })
	require, err := LoadClientTLS(ClientTLSFiles{Mode: SSLRequire})
	must(t, err)
	_, err = Connect(testContext(t), &ConnectConfig{Network: "tcp", Address: address, User: "u", TLS: require})
	if err == nil || strings.Contains(err.Error(), "evil") {
		t.Errorf("got %v", err)
	}
}

func TestPlainTextBehindServersAnswerBreaksTLS(t *testing.T) {
	address := serve(t, func(conn net.Conn) {
		_, _ = io.WriteString(conn, "S"+authOk+keyData+readyIdle)
		_, _ = io.Copy(io.Discard, conn)
	})
	require, err := LoadClientTLS(ClientTLSFiles{Mode: SSLRequire})
	must(t, err)
	if _, err = Connect(testContext(t), &ConnectConfig{Network: "tcp", Address: address, User: "u", TLS: require}); err == nil {
		t.Error("injected plain text passes for the server's own")
	}
}

func TestSCRAMCache(t *testing.T) {
	var c SCRAMCache
	first, err := c.get("a")
	must(t, err)
	for range scramClientUsesMax - 1 {
		if again, _ := c.get("a"); again != first {
			t.Fatal("the keys of the same password are derived anew")
		}
	}
	if late, _ := c.get("a"); late == first {
		t.Error("the keys are kept for ever")
	}
	if other, _ := c.get("b"); other == first {
		t.Error("two passwords share their keys")
	}
}
