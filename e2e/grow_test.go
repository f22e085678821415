package e2e

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/e2e/harness"
)

// growSchema has at least one of all that a new shard must get.
const growSchema = `
	CREATE SCHEMA "Odd schema";
	CREATE TYPE "Odd schema"."Mood" AS ENUM ('sad', 'it''s ok');
	CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
	CREATE TYPE pair AS (a int, b text);
	CREATE SEQUENCE counter START 5;
	CREATE TABLE users (id bigint PRIMARY KEY, email email, mood "Odd schema"."Mood" DEFAULT 'sad', p pair, n int NOT NULL DEFAULT 0);
	CREATE TABLE "Odd schema"."Odd ""table" (user_id bigint REFERENCES users, "Id" int GENERATED ALWAYS AS IDENTITY, s serial, note text, PRIMARY KEY (user_id, "Id"));
	CREATE TABLE log (user_id bigint, at date, PRIMARY KEY (user_id, at)) PARTITION BY RANGE (at);
	CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
	CREATE TABLE log_rest PARTITION OF log DEFAULT;
	CREATE TABLE plans (id int PRIMARY KEY, name text, price numeric, twice numeric GENERATED ALWAYS AS (price * 2) STORED, n bigint NOT NULL DEFAULT 0);
	CREATE TABLE "Odd schema"."Rates" (plan int REFERENCES plans, cur text, rate float8, p pair, tags text[], raw bytea, mood "Odd schema"."Mood", PRIMARY KEY (plan, cur)) PARTITION BY LIST (cur);
	CREATE TABLE "Odd schema".rates_eur PARTITION OF "Odd schema"."Rates" FOR VALUES IN ('eur');
	CREATE TABLE "Odd schema".rates_rest PARTITION OF "Odd schema"."Rates" DEFAULT;
	CREATE TABLE loose (a int, b text);
	CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
	CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.note := coalesce(NEW.note, 'none'); RETURN NEW; END$$;
	CREATE TRIGGER touch BEFORE INSERT ON "Odd schema"."Odd ""table" FOR EACH ROW EXECUTE FUNCTION touched();
	CREATE VIEW cheap AS SELECT id, name FROM plans WHERE price < 10;
	CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM plans;
	CREATE INDEX ON plans (lower(name));
	GRANT SELECT ON plans TO PUBLIC;
	INSERT INTO plans (id, name, price) SELECT g, 'plan ' || g, g FROM generate_series(1, 3000) g;
	INSERT INTO "Odd schema"."Rates" VALUES (1, 'eur', 0.1, ROW(1, 'x'), '{a,NULL}', '\x00ff', 'it''s ok'), (2, 'usd', 1e300, NULL, NULL, NULL, NULL);
	INSERT INTO loose VALUES (1, 'a'), (1, 'a'), (2, NULL);
	REFRESH MATERIALIZED VIEW counted`

// growContents is one row with what the shards must agree on.
const growContents = `SELECT (SELECT md5(string_agg(t::text, ',' ORDER BY t::text COLLATE "C")) FROM plans t),
	(SELECT string_agg(t::text, ',' ORDER BY t::text COLLATE "C") FROM "Odd schema"."Rates" t), (SELECT string_agg(t::text, ',' ORDER BY t::text COLLATE "C") FROM loose t),
	(SELECT count(*) > 0 FROM cheap), (SELECT twice(4)), (SELECT count(*) FROM "Odd schema".rates_eur)`

// TestGrow makes empty databases shards while writers of sharded and reference tables run through two proxies, and none of them
// fails. What cannot be a shard is refused, and leaves nothing.
func TestGrow(t *testing.T) {
	needCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	c, err := harness.StartCluster(ctx, harness.Options{
		Binary: proxyBin, Shards: 2, Args: []string{"--servers", "1", "--replicas", "1", "--spare", "1", "--proxies", "2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Log(c.Log())
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}()
	through := connect(t, c.Proxies[0].DSN)
	through.must(t, growSchema)
	var rows []string
	for k := range 500 {
		rows = append(rows, fmt.Sprintf("(%d)", k))
	}
	through.must(t, "INSERT INTO users (id) VALUES "+strings.Join(rows, ", "))
	spare := harness.Shard{Name: "s3", Nodes: c.Spares}
	ctl := &controller{t, buildShardctl(t).path, c.Proxies[0].Admin}
	other := connect(t, c.Proxies[1].Admin)
	waitFor(t, "the other proxy knows the tables", func() bool {
		return strings.Contains(strings.Join(other.must(t, "SHOW TABLES").lines, "\n"), "loose")
	})
	onShard(t, c.Shards[0], "SELECT setval('counter', 70)")
	onShard(t, c.Shards[1], "SELECT setval('counter', 90)")

	growRefused(t, c, ctl, spare)
	w := startGrowWriters(ctx, t, c)
	growBlocked(ctx, t, c, ctl, spare)
	out := ctl.ok("shard", "add", "s3", "--dsn", spare.Primary().DSN)
	if !strings.Contains(out, "add shard s3") {
		t.Errorf("shard add says %q", out)
	}
	if got := onShard(t, spare, "SELECT nextval('counter')")[0][0]; got != "91" {
		t.Errorf("the sequence goes on at %s", got)
	}
	if got := onShard(t, spare, "SELECT n FROM counted")[0][0]; got != "3000" {
		t.Errorf("the materialized view has %s", got)
	}
	w.progress(t)
	w.alone.Store(true)
	ctl.ok("rebalance", "--wait", "--finish")
	w.progress(t)
	total := w.check(t)
	want := onShard(t, c.Shards[0], growContents)
	for _, shard := range []harness.Shard{c.Shards[1], spare} {
		if got := onShard(t, shard, growContents); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("shard %s has\n%v\ns1 has\n%v", shard.Name, got, want)
		}
	}
	if got := number(t, onShard(t, spare, "SELECT sum(n) FROM plans")[0][0]); got != total {
		t.Errorf("%d increments on the new shard, and %d were told to be done", got, total)
	}
	share := func() int { return number(t, onShard(t, spare, "SELECT count(*) FROM users")[0][0]) }
	if n := share(); n < 100 || n > 230 {
		t.Errorf("the new shard has %d of 500 rows", n)
	}
	ctl.ok("verify")
	ctl.ok("fence", "check")
	ctl.ok("doctor", "--deep")

	ctl.ok("shard", "drain", "s3", "--wait", "--finish")
	ctl.ok("shard", "remove", "s3")
	if n := share(); n != 0 {
		t.Errorf("%d rows were left on the shard that was taken out", n)
	}
	through.must(t, "DELETE FROM loose WHERE a = 2")
	through.must(t, "UPDATE plans SET price = 7 WHERE id = 1")
	if out := ctl.ok("shard", "add", "s3", "--json", "--dsn", spare.Primary().DSN); !strings.Contains(out, `"epoch"`) { // once more, with what it has
		t.Errorf("shard add --json says %q", out)
	}
	ctl.ok("verify")
	ctl.ok("doctor", "--deep")
}

// growRefused tries what is no shard. None of it may come into the map, or be changed.
func growRefused(t *testing.T, c *harness.Cluster, ctl *controller, spare harness.Shard) {
	t.Helper()
	before := ctl.ok("shards")
	at := func(of harness.Shard, database string) string {
		dsn, err := url.Parse(of.Primary().DSN)
		if err != nil {
			t.Fatal(err)
		}
		return dsn.Host + "/" + database
	}
	onShardAsSuper(t, spare, "CREATE DATABASE latin OWNER app ENCODING latin1 LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	onShardAsSuper(t, spare, "CREATE DATABASE full_of OWNER app")
	full := spare
	full.Nodes = []harness.Node{{Role: "primary", DSN: strings.Replace(spare.Primary().DSN, "/app?", "/full_of?", 1)}}
	onShard(t, full, "CREATE TABLE something (id int)")
	first := strings.Split(at(c.Shards[0], ""), ":")
	port, _, _ := strings.Cut(first[1], "/")
	for _, r := range []struct{ node, want string }{
		{"127.0.0.1:1/app", "SQLSTATE 08001"},
		{at(spare, "nowhere"), "SQLSTATE 3D000"},
		{at(spare, "latin"), "the encoding of shard s3 is LATIN1, and UTF8 on s1"},
		{at(spare, "full_of"), "is not empty: it has something"},
		{at(c.Shards[0], "app_000"), "is a node of shard \"s1\" already"},
		{"localhost:" + port + "/app_000", "the database is that of shard s1"},
		{at(spare, "app") + " " + at(c.Shards[1], "app_001"), "is a node of shard"},
		{at(spare, "app") + " localhost:" + port + "/app_000", "is no replica"},
	} {
		args := append([]string{"shard", "add", "s3"}, strings.Fields(r.node)...)
		if out, errOut, status := ctl.run(args...); status != 1 || out != "" || !strings.Contains(errOut, r.want) {
			t.Errorf("%s, want %q: status %d, %s%s", r.node, r.want, status, out, errOut)
		}
	}
	if out, errOut, status := ctl.run("shard", "add", "s3"); status != 2 || out != "" || !strings.Contains(errOut, "the address of the primary is missing") {
		t.Errorf("without an address: status %d, %s%s", status, out, errOut)
	}
	onShardAsSuper(t, spare, "ALTER ROLE app PASSWORD 'another'")
	if _, errOut, status := ctl.run("shard", "add", "s3", at(spare, "app")); status != 1 || !strings.Contains(errOut, "SQLSTATE 28P01") {
		t.Errorf("a wrong password: status %d, %s", status, errOut)
	}
	onShardAsSuper(t, spare, "ALTER ROLE app PASSWORD 'app'")
	onShardAsSuper(t, c.Shards[0], "CREATE ROLE reader; GRANT SELECT ON plans TO reader")
	if _, errOut, status := ctl.run("shard", "add", "s3", at(spare, "app")); status != 1 || !strings.Contains(errOut, "the new server lacks roles that own something on shard s1, or have rights there: reader") {
		t.Errorf("a role that is missing: status %d, %s", status, errOut)
	}
	onShardAsSuper(t, c.Shards[0], "REVOKE SELECT ON plans FROM reader; DROP ROLE reader")
	if after := ctl.ok("shards"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if n := onShard(t, spare, "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('public', 'shardproxy')")[0][0]; n != "0" {
		t.Errorf("the database of the new shard has %s relations", n)
	}
}

// growBlocked holds a lock that the last steps need. The addition is given up, and the next one, without the lock, is not hindered by what it left.
func growBlocked(ctx context.Context, t *testing.T, c *harness.Cluster, ctl *controller, spare harness.Shard) {
	t.Helper()
	blocker := superConn(ctx, t, c.Shards[0])
	if _, err := blocker.Exec(ctx, "BEGIN; LOCK TABLE loose IN ROW EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	before := ctl.ok("shards")
	if _, errOut, status := ctl.run("shard", "add", "s3", "--dsn", spare.Primary().DSN); status != 1 || !strings.Contains(errOut, "took longer than 4s") {
		t.Errorf("with a lock in the way: status %d, %s", status, errOut)
	}
	if after := ctl.ok("shards"); after != before {
		t.Errorf("before\n%s\nafter\n%s", before, after)
	}
	if _, err := blocker.Exec(ctx, "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
}

// growWriters count what they were told to be done to reference tables.
type growWriters struct {
	stop  func()
	done  atomic.Int64
	alone atomic.Bool // no transactions of several statements: a cutover may refuse one that writes on all shards

	mu     sync.Mutex // guards failed
	failed []string
}

func startGrowWriters(ctx context.Context, t *testing.T, c *harness.Cluster) *growWriters {
	t.Helper()
	writing, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	w := &growWriters{}
	w.stop = func() {
		cancel()
		all.Wait()
	}
	t.Cleanup(w.stop)
	for i := range 4 {
		all.Go(func() {
			if err := w.write(writing, c.Proxies[i%2].DSN, i); err != nil {
				text := err.Error()
				if e, ok := err.(*pgconn.PgError); ok {
					text = fmt.Sprintf("%s: %s (%s)", e.Code, e.Message, e.Hint)
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				w.failed = append(w.failed, text)
			}
		})
	}
	return w
}

// write writes to a reference table, alone, or twice behind a write on one shard, in either protocol, and lets what has begun end.
func (w *growWriters) write(ctx context.Context, dsn string, writer int) error {
	whole := context.WithoutCancel(ctx)
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return err
	}
	if writer >= 2 {
		config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	}
	conn, err := pgx.ConnectConfig(whole, config)
	if err != nil {
		return err
	}
	defer conn.Close(whole)
	const increment = "UPDATE plans SET n = n + 1 WHERE id = $1"
	for i := writer; ctx.Err() == nil; i += 4 {
		if _, err := conn.Exec(whole, increment, 1+i%3000); err != nil {
			return err
		}
		w.done.Add(1)
		if w.alone.Load() {
			continue
		}
		err := pgx.BeginFunc(whole, conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(whole, "UPDATE users SET n = n + 1 WHERE id = $1", i%500); err != nil {
				return err
			}
			for range 2 { // once it has written on all shards by one map, it must end by that one
				if _, err := tx.Exec(whole, increment, 1+i%3000); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		w.done.Add(2)
	}
	return nil
}

// progress waits until there is some.
func (w *growWriters) progress(t *testing.T) {
	t.Helper()
	before := w.done.Load()
	waitFor(t, "writers go on", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.failed) > 0 {
			t.Fatalf("writers have failed: %s", strings.Join(w.failed, "\n"))
		}
		return w.done.Load() > before+20
	})
}

// check ends the writers and gives the number of increments.
func (w *growWriters) check(t *testing.T) int {
	t.Helper()
	w.stop()
	if len(w.failed) > 0 {
		t.Fatalf("writers have failed: %s", strings.Join(w.failed, "\n"))
	}
	return int(w.done.Load())
}
