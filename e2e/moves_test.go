package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/e2e/harness"
	"shardproxy/internal/postgres"
)

// TestMoves splits a shard with shardctl while writers run through two proxies. No statement of theirs fails, and all that they were
// told is there once, on its owner: after a move that is aborted in its copy, one that is reversed, and one that comes to its end.
func TestMoves(t *testing.T) {
	needCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c, err := harness.StartCluster(ctx, harness.Options{Binary: proxyBin, Shards: 3, Args: []string{"--proxies", "2"}})
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
	ctl := &controller{t, buildShardctl(t).path, c.Proxies[1].Admin}
	first := connect(t, c.Proxies[0].DSN)
	first.must(t, "CREATE TABLE moved (user_id bigint PRIMARY KEY, n bigint NOT NULL, pad text)")
	first.must(t, "CREATE TABLE moved_notes (user_id bigint REFERENCES moved, id int, PRIMARY KEY (user_id, id))")
	other := connect(t, c.Proxies[1].Admin)
	waitFor(t, "the other proxy knows the tables", func() bool {
		return strings.Contains(strings.Join(other.must(t, "SHOW TABLES").lines, "\n"), "moved_notes")
	})
	l := startLedger(ctx, t, c)

	if out, errOut, status := ctl.run("split", "s9", "--to", "s2"); status != 1 || out != "" || strings.Count(errOut, "\n") != 1 || !strings.Contains(errOut, `there is no shard "s9"`) {
		t.Errorf("a wrong name: status %d, %q, %q", status, out, errOut)
	}
	plan, _, status := ctl.run("split", "s1", "--to", "s2", "--plan")
	if status != 0 || !strings.Contains(plan, "public.moved_notes") || strings.Contains(plan, "problem") || ctl.phase("1") != "" {
		t.Errorf("a plan: status %d, %s", status, plan)
	}
	owners := ctl.ok("ranges")
	abortInCopy(ctx, t, c, ctl)
	if got := ctl.ok("ranges"); got != owners {
		t.Errorf("after an abort:\n%s\nbefore:\n%s", got, owners)
	}
	nothingLeft(t, c)
	l.progress(t)

	ctl.ok("split", "s1", "--to", "s2", "--wait")
	if got := ctl.phase("2"); got != "soak" {
		t.Errorf("after --wait, the move is %s", got)
	}
	l.progress(t)
	ctl.ok("reverse", "2")
	waitForMove(t, ctl, "2", "phase", "reversed")
	l.progress(t)
	if _, errOut, status := ctl.run("reverse", "2"); status != 1 || !strings.Contains(errOut, "SQLSTATE 55000") {
		t.Errorf("a second reverse: status %d, %s", status, errOut)
	}
	ctl.ok("verify")
	nothingLeft(t, c)

	ctl.ok("split", "s1", "--to", "s2,s3", "--into", "3", "--by-size", "--wait", "--finish")
	if a, b := ctl.phase("3"), ctl.phase("4"); a != "cleaned" || b != "cleaned" {
		t.Errorf("after --finish, the moves are %s and %s", a, b)
	}
	l.progress(t)
	l.check(t, c)
	ctl.ok("verify")
	ctl.ok("verify", "--move", "3")
	ctl.ok("doctor")
	nothingLeft(t, c)
}

// abortInCopy gives move 1 up while it copies: it waits there for a row that another transaction has put in its way.
func abortInCopy(ctx context.Context, t *testing.T, c *harness.Cluster, ctl *controller) {
	t.Helper()
	source, target := superConn(ctx, t, c.Shards[0]), superConn(ctx, t, c.Shards[1])
	exec := func(conn *pgx.Conn, sql string) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec(source, "BEGIN")
	exec(source, "SELECT pg_current_xact_id()") // a new replication slot waits for it
	ctl.ok("split", "s1", "--to", "s2")
	waitFor(t, "the slot is being made", func() bool {
		return onShard(t, c.Shards[0], "SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'shardproxy_move%'")[0][0] == "1"
	})
	exec(target, "BEGIN")
	exec(target, "SET LOCAL session_replication_role = replica")
	exec(target, fmt.Sprintf("INSERT INTO moved SELECT k, 0 FROM generate_series(1, %d) k WHERE hashint8extended(k, %s) BETWEEN -5764607523034234880 AND -3458764513820540928", ledgerKeys, hashSeed))
	exec(source, "COMMIT")
	waitForMove(t, ctl, "1", "phase", "copying")
	ctl.ok("moves", "pause", "1")
	ctl.ok("moves", "resume", "1")
	ctl.ok("abort", "1")
	exec(target, "ROLLBACK")
	waitForMove(t, ctl, "1", "phase", "aborted")
}

// nothingLeft looks for what a mover makes on shards.
func nothingLeft(t *testing.T, c *harness.Cluster) {
	t.Helper()
	for _, shard := range c.Shards {
		const left = `SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'shardproxy_move%') + (SELECT count(*) FROM pg_publication)`
		if got := onShard(t, shard, left)[0][0]; got != "0" {
			t.Errorf("shard %s has %s slots and publications", shard.Name, got)
		}
		if onShard(t, shard, "SELECT to_regclass('shardproxy.progress') IS NOT NULL")[0][0] == "t" {
			if got := onShard(t, shard, "SELECT count(*) FROM shardproxy.progress")[0][0]; got != "0" {
				t.Errorf("shard %s has the progress of %s moves", shard.Name, got)
			}
		}
	}
}

func superConn(ctx context.Context, t *testing.T, shard harness.Shard) *pgx.Conn {
	t.Helper()
	dsn, err := url.Parse(shard.Primary().DSN)
	if err != nil {
		t.Fatal(err)
	}
	dsn.User = url.User(postgres.Superuser)
	conn, err := pgx.Connect(ctx, dsn.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// controller is shardctl at one proxy.
type controller struct {
	t    *testing.T
	path string
	dsn  string
}

func (c *controller) run(args ...string) (out, errOut string, status int) {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), c.path, args...)
	cmd.Env = append(cmd.Environ(), "SHARDCTL_DSN="+c.dsn)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// ok runs what must succeed.
func (c *controller) ok(args ...string) string {
	c.t.Helper()
	out, errOut, status := c.run(args...)
	if status != 0 {
		c.t.Fatalf("shardctl %s: status %d\n%s%s", strings.Join(args, " "), status, out, errOut)
	}
	return out
}

// value of a column of a move; "" where there is none.
func (c *controller) value(id, column string) string {
	c.t.Helper()
	var moves []map[string]any
	if err := json.Unmarshal([]byte(c.ok("moves", "--all", "--json")), &moves); err != nil {
		c.t.Fatal(err)
	}
	for _, m := range moves {
		if fmt.Sprint(m["id"]) == id && m[column] != nil {
			return fmt.Sprint(m[column])
		}
	}
	return ""
}

func (c *controller) phase(id string) string {
	c.t.Helper()
	return c.value(id, "phase")
}

// waitForMove waits longer than leases last, for which moves wait.
func waitForMove(t *testing.T, ctl *controller, id, column, value string) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); ctl.value(id, column) != value; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("move %s: %s is not %s:\n%s", id, column, value, ctl.ok("moves", "--all", "--json"))
		}
	}
}

const (
	ledgerWriters = 4
	ledgerKeys    = 400 // of all writers
)

// ledger is what writers were told to be stored.
type ledger struct {
	stop    context.CancelFunc
	writers sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	counts map[int]int
	notes  map[[2]int]bool
	done   int
	failed []string
}

// startLedger stores a row for each key, and starts writers, each with keys of its own, in turn at the proxies.
func startLedger(ctx context.Context, t *testing.T, c *harness.Cluster) *ledger {
	t.Helper()
	l := &ledger{counts: make(map[int]int), notes: make(map[[2]int]bool)}
	fill := connect(t, c.Proxies[0].DSN)
	var rows []string
	for k := 1; k <= ledgerKeys; k++ {
		rows = append(rows, fmt.Sprintf("(%d, 0, '%s')", k, strings.Repeat("x", 500)))
		l.counts[k] = 0
	}
	fill.must(t, "INSERT INTO moved VALUES "+strings.Join(rows, ", "))
	writing, stop := context.WithCancel(ctx)
	l.stop = stop
	t.Cleanup(func() {
		stop()
		l.writers.Wait()
	})
	for w := range ledgerWriters {
		l.writers.Go(func() { l.write(writing, c.Proxies[w%len(c.Proxies)].DSN, w) })
	}
	return l
}

func (l *ledger) write(ctx context.Context, dsn string, w int) {
	conn, err := pgx.Connect(context.WithoutCancel(ctx), dsn)
	if err != nil {
		l.fail(err)
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	random := rand.New(rand.NewPCG(uint64(w), 7))
	for ctx.Err() == nil {
		// A statement that has begun is let end: what came of it must be known.
		if err := l.step(context.WithoutCancel(ctx), conn, 1+w+ledgerWriters*random.IntN(ledgerKeys/ledgerWriters), random.IntN(8)); err != nil {
			l.fail(err)
			return
		}
	}
}

// step does one thing with a key, and notes it.
func (l *ledger) step(ctx context.Context, conn *pgx.Conn, key, note int) error {
	l.mu.Lock()
	there := l.notes[[2]int{key, note}]
	l.mu.Unlock()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, "UPDATE moved SET n = n + 1 WHERE user_id = $1", key); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	sql := "INSERT INTO moved_notes VALUES ($1, $2)"
	if there {
		sql = "DELETE FROM moved_notes WHERE user_id = $1 AND id = $2"
	}
	tag, err := conn.Exec(ctx, sql, key, note)
	if err == nil && tag.RowsAffected() != 1 {
		err = fmt.Errorf("%s of (%d, %d): %d rows", sql, key, note, tag.RowsAffected())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[key]++
	if err == nil {
		l.notes[[2]int{key, note}] = !there
		l.done++
	}
	return err
}

func (l *ledger) fail(err error) {
	text := err.Error()
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		text = fmt.Sprintf("%s: %s (%s)", refused.Code, refused.Message, refused.Hint)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, text)
}

// progress waits until the writers have done some more, so that each part of a test has them running.
func (l *ledger) progress(t *testing.T) {
	t.Helper()
	now := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.failed) > 0 {
			t.Fatalf("writers have failed: %s", strings.Join(l.failed, "\n"))
		}
		return l.done
	}
	before := now()
	waitFor(t, "writers go on", func() bool { return now() > before+20 })
}

// check ends the writers and compares the rows of the shards with what they were told.
func (l *ledger) check(t *testing.T, c *harness.Cluster) {
	t.Helper()
	l.stop()
	l.writers.Wait()
	if len(l.failed) > 0 {
		t.Fatalf("writers have failed: %s", strings.Join(l.failed, "\n"))
	}
	counts, notes := map[int]int{}, map[[2]int]bool{}
	for _, shard := range c.Shards {
		for _, row := range onShard(t, shard, "SELECT user_id, n FROM moved") {
			key, n := number(t, row[0]), number(t, row[1])
			if _, twice := counts[key]; twice {
				t.Errorf("key %d is on two shards", key)
			}
			counts[key] = n
		}
		for _, row := range onShard(t, shard, "SELECT user_id, id FROM moved_notes") {
			notes[[2]int{number(t, row[0]), number(t, row[1])}] = true
		}
	}
	for key, want := range l.counts {
		if got, there := counts[key]; !there || got != want {
			t.Errorf("key %d: %d of %d increments (there: %v)", key, got, want, there)
		}
	}
	for note, want := range l.notes {
		if notes[note] != want {
			t.Errorf("note %v: stored %v, want %v", note, notes[note], want)
		}
	}
	t.Logf("%d steps of %d writers", l.done, ledgerWriters)
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
