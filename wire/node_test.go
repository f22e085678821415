package wire

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/internal/pgtest"
	"shardproxy/internal/postgres"
)

const realHBA = `
local     all all                         trust
host      all postgres    127.0.0.1/32    trust
host      all u_scram     127.0.0.1/32    scram-sha-256
host      all raw         127.0.0.1/32    scram-sha-256
host      all u_md5       127.0.0.1/32    md5
host      all u_password  127.0.0.1/32    password
hostssl   all u_ssl       127.0.0.1/32    trust
hostnossl all u_plain     127.0.0.1/32    trust
hostssl   all u_cert      127.0.0.1/32    cert
`

// startReal is a PostgreSQL with TLS, a unix socket in its data folder, and one user for each method.
func startReal(t *testing.T, ca *authority) *pgtest.Server {
	t.Helper()
	s := pgtest.Start(t, pgtest.Options{HBA: realHBA, Settings: map[string]string{"unix_socket_directories": "."}})
	cert, key := ca.issue(t, "node")
	for name, file := range map[string]string{"server.crt": cert, "server.key": key, "root.crt": ca.file} {
		data, err := os.ReadFile(file)
		must(t, err)
		path := filepath.Join(s.Dir, name)
		must(t, os.WriteFile(path, data, 0o600))
		must(t, postgres.Own(path))
	}
	for _, sql := range []string{
		`CREATE USER u_scram PASSWORD 'secret'`,
		`CREATE USER u_password PASSWORD 'secret'`,
		`CREATE USER u_ssl`, `CREATE USER u_plain`, `CREATE USER u_cert`,
		`SET password_encryption = 'md5'; CREATE USER u_md5 PASSWORD 'secret'`,
		`ALTER SYSTEM SET ssl = on`, `ALTER SYSTEM SET ssl_ca_file = 'root.crt'`,
	} {
		s.Exec(t, "postgres", sql)
	}
	must(t, s.Restart())
	return s
}

// ask sends a simple Query and gives the first column of the first row, or the error.
func ask(server *ServerConn, sql string) (string, error) {
	if err := server.Conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		return "", err
	}
	if err := writeHandshake(server.Conn, &pgproto3.Query{String: sql}); err != nil {
		return "", err
	}
	var value string
	var failure error
	for {
		messageType, body, err := readHandshakeMessage(server.Conn, 1<<16)
		if err != nil {
			return "", err
		}
		switch messageType {
		case 'D':
			if size := int32(binary.BigEndian.Uint32(body[2:])); size > 0 {
				value = string(body[6 : 6+size])
			}
		case 'E':
			refusal, err := DecodeError(body)
			if err != nil {
				return "", err
			}
			failure = refusal
		case 'Z':
			return value, failure
		}
	}
}

func TestConnectToPostgreSQL(t *testing.T) {
	ca := newAuthority(t)
	s := startReal(t, ca)
	address := net.JoinHostPort(s.Host, strconv.Itoa(s.Port))
	verifyFull := ca.clientTLS(t, SSLVerifyFull)
	certFile, keyFile := ca.issue(t, "u_cert")
	withCert, err := LoadClientTLS(ClientTLSFiles{Mode: SSLVerifyFull, RootCert: ca.file, Cert: certFile, Key: keyFile})
	must(t, err)
	allow, prefer := ca.clientTLS(t, SSLAllow), ca.clientTLS(t, SSLPrefer)
	for _, c := range []struct {
		user, password string
		tls            *ClientTLS
		code           string // SQLSTATE, empty: is let in
		wantTLS        bool
	}{
		{"postgres", "", nil, "", false},
		{"u_scram", "secret", nil, "", false},
		{"u_scram", "secret", verifyFull, "", true}, // SCRAM-SHA-256-PLUS
		{"u_scram", "wrong", verifyFull, "28P01", true},
		{"u_scram", "wrong", nil, "28P01", false},
		{"u_md5", "secret", nil, "", false},
		{"u_md5", "secret", verifyFull, "", true},
		{"u_md5", "wrong", nil, "28P01", false},
		{"u_password", "secret", nil, "", false},
		{"u_password", "secret", verifyFull, "", true},
		{"u_password", "wrong", nil, "28P01", false},
		{"u_ssl", "", nil, "28000", false},
		{"u_ssl", "", allow, "", true},
		{"u_ssl", "", prefer, "", true},
		{"u_plain", "", allow, "", false},
		{"u_plain", "", prefer, "", false},
		{"u_plain", "", verifyFull, "28000", true},
		{"u_cert", "", withCert, "", true},
		{"u_cert", "", verifyFull, "28000", true},
		{"nobody", "x", nil, "28000", false},
	} {
		name := fmt.Sprintf("%s %q sslmode=%s", c.user, c.password, c.tls.Mode())
		server, err := Connect(testContext(t), &ConnectConfig{
			Network: "tcp", Address: address, Host: "localhost", User: c.user, Password: c.password, Database: "postgres", TLS: c.tls,
			Params: map[string]string{"application_name": "wire test"},
		})
		if c.code != "" {
			if err == nil {
				server.Conn.Close()
			}
			wantCode(t, err, c.code)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if server.Params["server_version_num"] != "" || !strings.HasPrefix(server.Params["server_version"], "15") ||
			server.Params["application_name"] != "wire test" || server.Key.PID == 0 || len(server.Key.Secret) != 4 {
			t.Errorf("%s: got %+v", name, server)
		}
		got, err := ask(server, "SELECT current_user || ' ' || pg_backend_pid() || ' ' || (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid())")
		if want := fmt.Sprintf("%s %d %v", c.user, server.Key.PID, c.wantTLS); err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", name, got, err, want)
		}
		server.Conn.Close()
	}

	t.Run("passwords that SASLprep changes or refuses", func(t *testing.T) { testPasswords(t, s, address) })
	t.Run("unix socket", func(t *testing.T) {
		server, err := Connect(testContext(t), &ConnectConfig{
			Network: "unix", Address: filepath.Join(s.Dir, ".s.PGSQL."+strconv.Itoa(s.Port)), User: "u_plain", Database: "postgres",
		})
		must(t, err)
		server.Conn.Close()
	})
	t.Run("unknown database", func(t *testing.T) {
		_, err := Connect(testContext(t), &ConnectConfig{Network: "tcp", Address: address, User: "postgres", Database: "nowhere"})
		if e := wantCode(t, err, CodeInvalidCatalogName); e.Message != `database "nowhere" does not exist` || !e.Fatal() {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("error with all its fields", func(t *testing.T) {
		server, err := Connect(testContext(t), &ConnectConfig{Network: "tcp", Address: address, User: "postgres", Database: "postgres"})
		must(t, err)
		defer server.Conn.Close()
		_, err = ask(server, "SELECT nonsense")
		if e := wantCode(t, err, "42703"); e.Position != 8 || e.Severity != "ERROR" || e.File != "parse_relation.c" || e.Line == 0 || e.Routine == "" {
			t.Errorf("got %+v", e)
		}
	})
	for name, secure := range map[string]*ClientTLS{"plain": nil, "TLS": verifyFull} {
		t.Run("cancel "+name, func(t *testing.T) {
			cfg := &ConnectConfig{Network: "tcp", Address: address, Host: "localhost", User: "postgres", Database: "postgres", TLS: secure}
			testCancel(t, cfg)
		})
	}
}

// testPasswords checks that we prepare passwords as PostgreSQL does, by verifiers that it made.
func testPasswords(t *testing.T, s *pgtest.Server, address string) {
	for _, password := range []string{
		"ke\u00a0y\u2168", "zero\u200bwidth", "soft\u00adhyphen", "\u00ad", "\u00adx\u00ad", "tab\tand\x01control", "b\u0308ig o\u0308",
		"emoji \U0001f600", "\u0627\u0031", "\u0627\u0628", "a\u0627", "\ufb01 ligature", "private \ue000", " spaces ", "\u3000", "\u0221 unassigned",
	} {
		s.Exec(t, "postgres", `DROP USER IF EXISTS raw; CREATE USER raw PASSWORD '`+password+`'`)
		server, err := Connect(testContext(t), &ConnectConfig{Network: "tcp", Address: address, User: "raw", Password: password, Database: "postgres"})
		if err != nil {
			t.Errorf("%+q: %v", password, err)
			continue
		}
		server.Conn.Close()
	}
}

// testCancel cancels a statement that would take a minute.
func testCancel(t *testing.T, cfg *ConnectConfig) {
	t.Helper()
	server, err := Connect(testContext(t), cfg)
	must(t, err)
	defer server.Conn.Close()
	watcher, err := Connect(testContext(t), cfg)
	must(t, err)
	defer watcher.Conn.Close()
	outcome := make(chan error, 1)
	go func() {
		_, err := ask(server, "SELECT pg_sleep(60)")
		outcome <- err
	}()
	// A cancel that comes before the statement has no effect.
	ctx, running := testContext(t), fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND wait_event = 'PgSleep'", server.Key.PID)
	for {
		n, err := ask(watcher, running)
		must(t, err)
		if n == "1" {
			break
		}
		must(t, ctx.Err())
	}
	must(t, SendCancel(ctx, cfg, server.Key))
	wantCode(t, <-outcome, CodeQueryCanceled)
}

// BenchmarkConnect tells what SCRAMCache spares.
func BenchmarkConnect(b *testing.B) {
	gate := NewAuthenticator(AuthConfig{})
	verifier, err := NewVerifier("secret")
	must(b, err)
	address := serve(b, func(conn net.Conn) {
		got, err := Accept(context.Background(), conn, &AcceptConfig{})
		if err == nil && gate.Authenticate(context.Background(), conn, got.Startup, MethodSCRAM, verifier, true) == nil {
			_ = writeHandshake(conn, &pgproto3.ReadyForQuery{TxStatus: 'I'})
		}
	})
	for name, cache := range map[string]*SCRAMCache{"fresh": nil, "cached": {}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				server, err := Connect(context.Background(), &ConnectConfig{Network: "tcp", Address: address, User: "u", Password: "secret", SCRAM: cache})
				must(b, err)
				server.Conn.Close()
			}
		})
	}
}
