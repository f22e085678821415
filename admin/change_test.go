package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/rebalance/join"
	"shardproxy/topology"
	"shardproxy/wire"
)

// desk is a proxy whose topology the console changes; it stands for the catalog.
type desk struct {
	*fixed

	mu   sync.Mutex // guards the fields below
	snap *topology.Snapshot
	who  []topology.Actor
	err  error // of the next change
}

func newDesk(t testing.TB) *desk {
	f := newFixed(t)
	return &desk{fixed: f, snap: f.snapshot}
}

func (d *desk) Snapshot() *topology.Snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.snap
}

// Add makes no shard, and says so.
func (d *desk) Add(ctx context.Context, shard topology.Shard, who topology.Actor, note func(string)) (*topology.Snapshot, error) {
	if shard.Name == "ill" {
		return nil, &join.Refusal{Code: "28P01", Message: "it does not let us in", Hint: "Look."}
	}
	snap, err := d.Apply(ctx, topology.AddShard{Shard: shard}, who)
	if err == nil {
		note("nothing was made")
	}
	return snap, err
}

func (d *desk) Apply(_ context.Context, c topology.Change, who topology.Actor) (*topology.Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return nil, d.err
	}
	next, err := d.snap.Apply(c)
	if err == nil {
		d.snap, d.who = next, append(d.who, who)
	}
	return next, err
}

// TestChanges runs commands one after the other: an answer is the epoch and the change, or the error.
func TestChanges(t *testing.T) {
	var log bytes.Buffer
	cfg, d := testConfig(), newDesk(t)
	cfg.Operator, cfg.Joiner, cfg.Log = d, d, slog.New(slog.NewTextHandler(&log, nil))
	conn := connectListening(t, startConsoleOf(t, cfg, d), "root")
	for _, test := range []struct{ sql, want string }{
		{"ADD SHARD ill h:1", "28P01 it does not let us in"},
		{"ADD SHARD s3 10.0.0.3:5432", "NOTICE 8 add shard s3 (primary 10.0.0.3:5432/app)"},
		{"add shard Eu-1 postgres://h:5432/db [::1]:5433 '/var/run/pg:5432/a b'", "NOTICE 9 add shard Eu-1 (primary h:5432/db, replica [::1]:5433/app, replica /var/run/pg:5432/a b)"},
		{"DRAIN SHARD Eu-1", "10 drain shard Eu-1      "},
		{"DRAIN SHARD eu-1", `55000 drain shard eu-1: there is no shard "eu-1"`},
		{"UNDRAIN SHARD \"Eu-1\"", "11 activate shard Eu-1"},
		{"REMOVE SHARD 'Eu-1'", "12 remove shard Eu-1"},
		{"REMOVE SHARD s1", "55000 remove shard s1: it owns key ranges (2 of them); move them to other shards first"},
		{"ADD NODE s2 h:1/Db", "13 add replica h:1/Db to shard s2"},
		{"ADD NODE s2 h:2 replica", "14 add replica h:2/app to shard s2"},
		{"ADD NODE s2 h:3 PRIMARY", "15 add replica h:3/app to shard s2; make h:3/app the primary of shard s2"},
		{"MAKE PRIMARY s2 h:2", "16 make h:2/app the primary of shard s2"},
		{"REMOVE NODE s2 h:3", "17 remove node h:3/app from shard s2"},
		{"REMOVE NODE s2 h:2", "55000 remove node h:2/app from shard s2: it is the primary; make another node the primary first, or remove the shard"},
		{"ADD TABLE Orders.Customer_Id", "18 shard table public.orders by customer_id"},
		{`ADD TABLE a."B.c"."D"""`, `19 shard table a.B.c by D"`},
		{"ADD REFERENCE plans; REMOVE TABLE public.plans", "20 make public.plans a reference table, 21 remove the rule of table public.plans"},
		{"REMOVE TABLE plans", "55000 remove the rule of table public.plans: the rules do not list the table"},
		{"ADD TABLE countries.id", "WARNING 22 shard table public.countries by id"},
		{"ADD REFERENCE countries", "23 make public.countries a reference table"},

		{"ADD SHARD", "42601 ADD SHARD: the name of the shard is missing"},
		{"ADD SHARD s4", "42601 ADD SHARD: the address of a node is missing"},
		{"ADD SHARD s4 h", `42601 ADD SHARD: "h" is not of the form host:port/database`},
		{"ADD SHARD s4 h:1/", `42601 ADD SHARD: "h:1/" is not of the form host:port/database`},
		{"ADD SHARD s4 :5432", `42601 ADD SHARD: ":5432" is not of the form host:port/database`},
		{"ADD SHARD s4 h:70000", `42601 ADD SHARD: "h:70000" is not of the form host:port/database`},
		{"ADD SHARD s4 ::1:5432", `42601 ADD SHARD: in "::1:5432", an IPv6 address stands in brackets`},
		{"ADD SHARD s4 postgres://me:secret@h/db", "42601 ADD SHARD: the URL of a node has no user and no password: the proxy logs in as its configuration says"},
		{"ADD SHARD s4 postgres://h/db?sslmode=disable", "42601 ADD SHARD: the URL of a node has no parameters"},
		{"ADD SHARD s4 h:1 h:1", "55000 add shard s4 (primary h:1/app, replica h:1/app): node h:1/app is listed twice"},
		{"DRAIN SHARD a'b'", "42601 DRAIN SHARD: the name of the shard has quotes in its middle"},
		{"DRAIN SHARD s1 s2", "42601 DRAIN SHARD: s2 is too much"},
		{"ADD NODE s1 h:1 leader", "42601 ADD NODE: leader is too much"},
		{"ADD TABLE orders", "42601 ADD TABLE: orders is not the name of a table and its column"},
		{"ADD TABLE a.b.c.d", "42601 ADD TABLE: a.b.c.d is not the name of a table and its column"},
		{"ADD TABLE a.", "42601 ADD TABLE: a. is not the name of a table and its column"},
		{"ADD TABLE 'a.b'", "42601 ADD TABLE: 'a.b' is not the name of a table and its column"},
		{"ADD REFERENCE a . b", "42601 ADD REFERENCE: . is too much"},
		{"ADD", `42601 unknown command "ADD"`},
		{"BEGIN; DRAIN SHARD s1", "25001 DRAIN SHARD cannot run inside a transaction block"},
		{"ROLLBACK", ""},
	} {
		if got := run(t, conn, test.sql); got != test.want {
			t.Errorf("%s\n got  %s\n want %s", test.sql, got, test.want)
		}
	}
	local := conn.Conn().LocalAddr().String()
	if d.who[0] != (topology.Actor{User: "root", From: local}) || len(d.who) != 16 {
		t.Errorf("%d changes, the first by %v", len(d.who), d.who[0])
	}
	if want := fmt.Sprintf(`msg="topology changed" user=root from=%s change="drain shard Eu-1" epoch=10`, local); !strings.Contains(log.String(), want) {
		t.Errorf("no line %s in\n%s", want, log.String())
	}
	if n := strings.Count(log.String(), "topology changed"); n != 16 || strings.Contains(log.String(), "secret") {
		t.Errorf("%d changes were logged\n%s", n, log.String())
	}
}

// connectListening is connect, with a connection that run sees the warnings of.
func connectListening(t testing.TB, c *console, user string) *pgconn.PgConn {
	t.Helper()
	config, err := pgconn.ParseConfig(c.dsn(user))
	if err != nil {
		t.Fatal(err)
	}
	config.OnNotice = func(conn *pgconn.PgConn, n *pgconn.Notice) {
		conn.CustomData()["warned"] = n.Severity + " "
		said, _ := conn.CustomData()["said"].([]string)
		conn.CustomData()["said"] = append(said, n.Severity+" "+n.Message)
	}
	conn, err := pgconn.ConnectConfig(testContext(t), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// run gives the rows of a simple query, or the message of its error.
func run(t testing.TB, conn *pgconn.PgConn, sql string) string {
	t.Helper()
	results, err := conn.Exec(testContext(t), sql).ReadAll()
	if err != nil {
		e, ok := errorAs(err)
		if !ok {
			t.Fatalf("%s: %v", sql, err)
		}
		if e.Code == wire.CodeSyntaxError && (e.Hint == "" || e.Position == 0) {
			t.Errorf("%s: hint %q, position %d", sql, e.Hint, e.Position)
		}
		return e.Code + " " + e.Message
	}
	var rows []string
	for _, r := range results {
		for _, row := range r.Rows {
			rows = append(rows, string(bytes.Join(row, []byte(" "))))
		}
	}
	warned, _ := conn.CustomData()["warned"].(string)
	delete(conn.CustomData(), "warned")
	return warned + strings.Join(rows, ", ")
}

// TestChangeFails holds which SQLSTATE tells a driver what came of a change.
func TestChangeFails(t *testing.T) {
	cfg, d := testConfig(), newDesk(t)
	cfg.Operator = d
	c := startConsoleOf(t, cfg, d)
	conn := connect(t, c, "root")
	for _, test := range []struct {
		err  error
		sql  string
		want string
	}{
		{topology.ErrConflict{Have: 9, Want: 7}, "DRAIN SHARD s1", "40001 " + topology.ErrConflict{Have: 9, Want: 7}.Error()},
		{fmt.Errorf("drain shard s1: %w", topology.ErrOutcomeUnknown), "DRAIN SHARD s1", "08007 drain shard s1: " + topology.ErrOutcomeUnknown.Error()},
		{errors.New("connection refused"), "DRAIN SHARD s1", "57P03 the change was not made: connection refused"},
		{errors.New("there is none"), "DRAIN SHARD s9", "55000 there is none"},
	} {
		d.mu.Lock()
		d.err = test.err
		d.mu.Unlock()
		if got := run(t, conn, test.sql); got != test.want {
			t.Errorf("%v: %s, want %s", test.err, got, test.want)
		}
	}
	if got := run(t, connect(t, c, "watcher"), "DRAIN SHARD s1"); got != "42501 permission denied for DRAIN SHARD" {
		t.Errorf("a user who may only look: %s", got)
	}
	without := connect(t, startConsole(t, testConfig()), "root")
	_, err := without.Exec(testContext(t), "DRAIN SHARD s1").ReadAll()
	if e := wantError(t, err, "ERROR", wire.CodeFeatureNotSupported); !strings.Contains(e.Hint, "shardctl init") {
		t.Errorf("without a catalog: hint %q", e.Hint)
	}
}

func TestLocate(t *testing.T) {
	conn := connect(t, startConsole(t, testConfig()), "watcher")
	for _, test := range []struct{ sql, want string }{
		{"LOCATE public.users 5", "public.users id int"},
		{"LOCATE events {12345678-9abc-def0-1234-56789abcdef0}", "public.events user_id uuid"},
		{"LOCATE events '123456789abcdef0123456789abcdef0'", "public.events user_id uuid"},
		{"LOCATE users abc", `22P02 "abc" is not a key of type int, as public.users.id is`},
		{"LOCATE events 5", `22P02 "5" is not a key of type uuid, as public.events.user_id is`},
		{"LOCATE nobody 5", "42P01 there is no table public.nobody"},
		{"LOCATE countries 5", "22023 public.countries is a reference table: every shard has all of its rows"},
		{"LOCATE billing.odd 5", "22023 billing.odd has no shard key"},
		{"LOCATE users", "42601 LOCATE: the key is missing"},
		{"LOCATE users 5 6", "42601 LOCATE: 6 is too much"},
	} {
		if got := run(t, conn, test.sql); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %s, want %s", test.sql, got, test.want)
		}
	}
	braces, bare := run(t, conn, "LOCATE events {12345678-9abc-def0-1234-56789abcdef0}"), run(t, conn, "LOCATE events 123456789abcdef0123456789abcdef0")
	if braces != bare {
		t.Errorf("one uuid, two places: %s and %s", braces, bare)
	}
}

// TestLocateAgreesWithOwner holds that the range that LOCATE shows is the one that is routed to.
func TestLocateAgreesWithOwner(t *testing.T) {
	snap := newFixed(t).snapshot
	users := topology.TableName{Schema: "public", Name: "users"}
	seen := map[string]bool{}
	for n := range int64(100) {
		rows, err := locate(snap, users, fmt.Sprint(n))
		if err != nil {
			t.Fatal(err)
		}
		h := topology.HashInt(n)
		row := rows[0]
		if row[3] != h.Signed() || row[4] != hashText(h) || row[7] != snap.Shards[snap.Owner(h)].Name {
			t.Fatalf("key %d: %v, owned by %s", n, row, snap.Shards[snap.Owner(h)].Name)
		}
		if row[5].(string) > row[4].(string) || row[6] != nil && row[6].(string) <= row[4].(string) {
			t.Fatalf("key %d is not in its range: %v", n, row)
		}
		seen[row[5].(string)] = true
	}
	if len(seen) != 3 {
		t.Errorf("%d of 3 ranges were met", len(seen))
	}
}
