package wire

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/internal/pgtest"
)

// relay is the smallest proxy: Accept, Authenticate, Connect, and then bytes both ways.
type relay struct {
	accept  *AcceptConfig
	auth    *Authenticator
	rules   Rules
	secrets map[string]Secret
	node    ConnectConfig
}

func (r *relay) handle(raw net.Conn) {
	ctx := context.Background()
	got, err := Accept(ctx, raw, r.accept)
	if err != nil {
		return
	}
	if got.Cancel != nil {
		_ = SendCancel(ctx, &r.node, *got.Cancel)
		return
	}
	method, ok := r.rules.Match(got.Startup, raw.RemoteAddr())
	if !ok {
		method = MethodReject
	}
	secret, known := r.secrets[got.Startup.User()]
	if err := r.auth.Authenticate(ctx, got.Conn, got.Startup, method, secret, known); err != nil {
		return
	}
	server, err := Connect(ctx, &r.node)
	if err != nil {
		return
	}
	defer server.Conn.Close()
	var messages []message
	for name, value := range server.Params {
		messages = append(messages, &pgproto3.ParameterStatus{Name: name, Value: value})
	}
	messages = append(messages, &pgproto3.BackendKeyData{ProcessID: server.Key.PID, SecretKey: []byte(server.Key.Secret)},
		&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if err := writeHandshake(got.Conn, messages...); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(server.Conn, got.Conn)
		_ = server.Conn.Close()
	}()
	_, _ = io.Copy(got.Conn, server.Conn)
	_ = got.Conn.Close()
	<-done
}

// psql runs a statement by the real libpq and gives what it printed and, on failure, what it said.
func psql(t *testing.T, dsn, password string) (out, failure string) {
	t.Helper()
	bin, err := pgtest.Binaries()
	must(t, err)
	cmd := exec.CommandContext(testContext(t), filepath.Join(bin, "psql"), "-X", "-w", "-At", "-c", "SELECT 6*7", dsn)
	// HOME: libpq must find no certificate and no password there.
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "PGPASSWORD="+password, "PGCONNECT_TIMEOUT=5")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Sprintf("%v: %s", err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), ""
}

func TestPsqlLogsIn(t *testing.T) {
	ca := newAuthority(t)
	s := pgtest.Start(t)
	verifier, err := NewVerifier("secret")
	must(t, err)
	rules, err := ParseRules([]string{
		"hostssl all u_cert all cert",
		"host    all u_scram,u_pg,u_plain,nobody all scram-sha-256",
		"host    all u_md5,u_md5plain,u_md5scram all md5",
		"hostssl all u_password all password",
		"host    all u_trust all trust",
	})
	must(t, err)
	r := &relay{
		accept: &AcceptConfig{TLS: ca.serverTLS(t)}, auth: NewAuthenticator(AuthConfig{}), rules: rules,
		secrets: map[string]Secret{
			"u_scram": verifier, "u_pg": postgresVerifier, "u_plain": "secret", "u_md5": NewMD5Secret("u_md5", "secret"),
			"u_md5plain": "secret", "u_md5scram": verifier, "u_password": verifier, "u_cert": "",
		},
		node: ConnectConfig{Network: "tcp", Address: net.JoinHostPort(s.Host, strconv.Itoa(s.Port)), User: "postgres", Database: "postgres"},
	}
	_, port, err := net.SplitHostPort(serve(t, r.handle))
	must(t, err)
	aliceCert, aliceKey := ca.issue(t, "u_cert")
	full := "sslmode=verify-full sslrootcert=" + ca.file
	withCert := full + " sslcert=" + aliceCert + " sslkey=" + aliceKey
	const denied = "password authentication failed for user"
	for _, c := range []struct{ user, options, password, failure string }{
		{"u_trust", "sslmode=disable", "", ""},
		{"u_trust", full, "", ""},
		{"u_scram", "sslmode=disable", "secret", ""},
		{"u_scram", "sslmode=prefer", "secret", ""},
		{"u_scram", full + " channel_binding=require", "secret", ""},
		{"u_scram", full + " channel_binding=disable", "secret", ""},
		{"u_scram", full + " channel_binding=require", "wrong", denied},
		{"u_scram", "sslmode=disable channel_binding=require", "secret", "channel binding required"},
		{"u_scram", "sslmode=disable", "wrong", denied},
		{"u_pg", full, "secret", ""},
		{"u_plain", full + " channel_binding=require", "secret", ""},
		{"u_plain", "sslmode=disable", "wrong", denied},
		{"nobody", "sslmode=disable", "secret", denied},
		{"u_md5", "sslmode=disable", "secret", ""},
		{"u_md5", full, "secret", ""},
		{"u_md5", "sslmode=disable", "wrong", denied},
		{"u_md5plain", "sslmode=disable", "secret", ""},
		{"u_md5scram", "sslmode=disable", "secret", ""},
		{"u_md5scram", "sslmode=disable", "wrong", denied},
		{"u_password", full, "secret", ""},
		{"u_password", full, "wrong", denied},
		{"u_password", "sslmode=disable", "secret", "no authentication rule lets in host"},
		{"u_scram", "sslmode=disable", "", "no password supplied"},
		{"u_cert", withCert, "", ""},
		{"u_cert", full, "", "connection requires a valid client certificate"},
		{"u_scram", withCert, "secret", ""},
		{"stranger", "sslmode=disable", "", `no authentication rule lets in host "127.0.0.1", user "stranger", database "app", no encryption`},
	} {
		dsn := fmt.Sprintf("host=localhost hostaddr=127.0.0.1 port=%s dbname=app user=%s %s", port, c.user, c.options)
		out, failure := psql(t, dsn, c.password)
		if c.failure == "" && out != "42" || c.failure != "" && !strings.Contains(failure, c.failure) {
			t.Errorf("%s %s password %q: printed %q, failed with %q; want %q", c.user, c.options, c.password, out, failure, c.failure)
		}
	}
	t.Run("certificate of another user", func(t *testing.T) {
		bobCert, bobKey := ca.issue(t, "bob")
		_, failure := psql(t, fmt.Sprintf("host=localhost port=%s dbname=app user=u_cert %s sslcert=%s sslkey=%s", port, full, bobCert, bobKey), "")
		if !strings.Contains(failure, `certificate authentication failed for user "u_cert"`) {
			t.Errorf("got %q", failure)
		}
	})
	t.Run("cancel through the relay", func(t *testing.T) {
		testCancel(t, &ConnectConfig{
			Network: "tcp", Address: net.JoinHostPort("127.0.0.1", port), Host: "localhost", User: "u_trust",
			Database: "app", TLS: ca.clientTLS(t, SSLVerifyFull),
		})
	})
}
