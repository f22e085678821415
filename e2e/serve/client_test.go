package serve

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/lib/pq" // as a driver of database/sql

	"shardproxy/topology"
)

// dsn is the address of the proxy for a user, who has his name as password unless it is given as USER:PASSWORD.
func (p *proxy) dsn(user string, params ...string) string {
	name, password, given := strings.Cut(user, ":")
	if !given {
		password = name
	}
	u := url.URL{Scheme: "postgres", User: url.UserPassword(name, password), Host: p.address, Path: "/shop"}
	q := url.Values{"sslmode": {"disable"}}
	for _, param := range params {
		key, value, _ := strings.Cut(param, "=")
		if key == "dbname" {
			u.Path = "/" + value
			continue
		}
		q.Set(key, value)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// client is one connection.
type client struct{ *pgconn.PgConn }

// connect opens a connection that is closed after the test.
func connect(t *testing.T, dsn string) *client {
	t.Helper()
	c, err := tryConnect(t, dsn)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func tryConnect(t *testing.T, dsn string, changes ...func(*pgconn.Config)) (*client, error) {
	t.Helper()
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		change(cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c := &client{conn}
	t.Cleanup(func() { c.leave() })
	return c, nil
}

func (c *client) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = c.Close(ctx)
}

// try runs simple statements and gives the rows of the last, each with blanks between its values.
func (c *client) try(statements string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	results, err := c.Exec(ctx, statements).ReadAll()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, row := range results[len(results)-1].Rows {
		values := make([]string, len(row))
		for i := range row {
			values[i] = string(row[i])
		}
		lines = append(lines, strings.Join(values, " "))
	}
	return lines, nil
}

// must is try for what has to succeed; it gives the rows as lines of one text.
func (c *client) must(t *testing.T, statements string) string {
	t.Helper()
	lines, err := c.try(statements)
	if err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
	return strings.Join(lines, "\n")
}

// expect compares the rows with what is wanted.
func (c *client) expect(t *testing.T, statements, want string) {
	t.Helper()
	if got := c.must(t, statements); got != want {
		t.Errorf("%s: %q, want %q", statements, got, want)
	}
}

// refuses wants an error of the server with the SQLSTATE, whose text the expression matches.
func (c *client) refuses(t *testing.T, statements, code, expression string) {
	t.Helper()
	_, err := c.try(statements)
	refused(t, statements, err, code, expression)
}

func refused(t *testing.T, what string, err error, code, expression string) {
	t.Helper()
	var e *pgconn.PgError
	switch {
	case err == nil:
		t.Errorf("%s: succeeds, want %s", what, code)
	case !errors.As(err, &e):
		t.Errorf("%s: %v, want %s from the proxy", what, err, code)
	case e.Code != code || !regexp.MustCompile(expression).MatchString(e.Message+"\n"+e.Detail+"\n"+e.Hint):
		t.Errorf("%s: %s %s (%s) (%s), want %s /%s/", what, e.Code, e.Message, e.Detail, e.Hint, code, expression)
	}
}

// cannotConnect wants a refusal at login.
func cannotConnect(t *testing.T, dsn, code, expression string) {
	t.Helper()
	c, err := tryConnect(t, dsn)
	if err == nil {
		c.leave()
	}
	refused(t, "connect", err, code, expression)
}

// onServer asks the server itself, as its superuser.
func onServer(t *testing.T, database, query string) string {
	t.Helper()
	return connect(t, server.DSN(database)).must(t, query)
}

// console opens the admin console.
func (p *proxy) console(t *testing.T) *client {
	t.Helper()
	return connect(t, p.dsn("admin", "dbname=shardproxy"))
}

// pq runs one query by lib/pq.
func pq(t *testing.T, dsn, query string) (got string, err error) {
	t.Helper()
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = db.QueryRowContext(ctx, query).Scan(&got)
	return got, err
}

// keyOn gives the n-th key that the shard with this number owns, of two equal ones.
func keyOn(shard, n int) int64 {
	for k := int64(1); ; k++ {
		if int(topology.HashInt(k)>>63) == shard {
			if n == 0 {
				return k
			}
			n--
		}
	}
}

// at runs a statement on a shard.
func at(shard, statement string) string {
	return fmt.Sprintf("/* shardproxy: shard=%s */ %s", shard, statement)
}
