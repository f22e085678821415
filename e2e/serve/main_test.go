package serve

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/e2e/harness"
	"shardproxy/internal/postgres"
)

// What all tests share. They change nothing in s1 and s2 but rows of keys of their own.
var (
	proxyBin string
	server   *postgres.Server
	sockets  string     // folder of the server's Unix socket
	nodeCA   *authority // of the server's certificate, which is for "localhost"
)

// hba asks for what the tests of TLS and passwords need; the superuser comes in without.
const hba = `
host      all postgres  127.0.0.1/32 trust
hostssl   all secure    127.0.0.1/32 scram-sha-256
hostssl   all certified 127.0.0.1/32 cert
hostnossl all plain     127.0.0.1/32 scram-sha-256
host      all md5role   127.0.0.1/32 md5
host      all clear     127.0.0.1/32 password
host      all secure,certified,plain 127.0.0.1/32 reject
host      all all       127.0.0.1/32 scram-sha-256
local     all all                    scram-sha-256
`

// roles have their name as password.
var roles = []string{"app", "secure", "certified", "plain", "clear", "owner", "service", "dynamic"}

// rows is in both shards: items is sharded, plans a reference table.
const rows = `
GRANT ALL ON SCHEMA public TO PUBLIC;
CREATE TABLE items (user_id bigint PRIMARY KEY, n int);
CREATE TABLE plans (id int PRIMARY KEY, name text);
CREATE TABLE logins (name text PRIMARY KEY, secret text);
GRANT ALL ON items, plans, logins TO PUBLIC`

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // tests mostly wait
		panic(err)
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // a cold build of the SQL grammar takes half a minute
	defer cancel()
	dir, err := harness.TempDir()
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if proxyBin, err = harness.Build(ctx, dir); err != nil {
		return 0, err
	}
	if err := startServer(ctx, dir); err != nil {
		return 0, err
	}
	code = m.Run()
	if code != 0 {
		fmt.Fprintf(os.Stderr, "log of the server:\n%s\n", server.LogTail())
	}
	return code, server.StopImmediately()
}

func startServer(ctx context.Context, dir string) error {
	binaries, err := postgres.Find()
	if err != nil {
		return err
	}
	sockets = filepath.Join(dir, "sock")
	if err := errors.Join(os.Mkdir(sockets, 0o755), postgres.Own(sockets)); err != nil {
		return err
	}
	server, err = postgres.New(postgres.Config{
		Binaries: binaries, Name: "shards", Dir: filepath.Join(dir, "data"), Log: filepath.Join(dir, "server.log"),
		HBA: hba, Settings: map[string]string{"unix_socket_directories": sockets}, Ephemeral: true,
	})
	if err != nil {
		return err
	}
	if err := errors.Join(server.Init(ctx), server.Start(ctx)); err != nil {
		return err
	}
	if err := fillServer(ctx); err != nil {
		return errors.Join(err, server.StopImmediately())
	}
	return nil
}

func fillServer(ctx context.Context) error {
	if nodeCA = newAuthority("node CA"); nodeCA == nil {
		return errors.New("no certificate authority")
	}
	cert, key := nodeCA.issue("localhost", "localhost")
	for name, text := range map[string][]byte{"server.crt": cert, "server.key": key, "root.crt": nodeCA.pem} {
		path := filepath.Join(server.Dir(), name)
		if err := errors.Join(os.WriteFile(path, text, 0o600), postgres.Own(path)); err != nil {
			return err
		}
	}
	statements := []string{"ALTER SYSTEM SET ssl_ca_file = 'root.crt'", "ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"}
	for _, role := range roles {
		statements = append(statements, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%[1]s'", role))
	}
	statements = append(statements, "SET password_encryption = md5; CREATE ROLE md5role LOGIN PASSWORD 'md5role'",
		"CREATE DATABASE s1 OWNER app", "CREATE DATABASE s2 OWNER app")
	for _, sql := range statements {
		if err := execute(ctx, "postgres", sql); err != nil {
			return err
		}
	}
	return errors.Join(execute(ctx, "s1", rows), execute(ctx, "s2", rows))
}

// execute runs sql as the superuser on the server itself.
func execute(ctx context.Context, database, sql string) error {
	conn, err := pgconn.Connect(ctx, server.DSN(database))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}
