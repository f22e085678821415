package fence

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"shardproxy/topology"
)

// users is a shard of the whole ring at epoch 5, and a map of epoch 6 that leaves it the lower half.
func users(t *testing.T) (s *shard, now, next State) {
	s = newShard(t, "CREATE TABLE users (id int PRIMARY KEY, n int); CREATE TABLE plans (id int PRIMARY KEY)")
	now = State{Shard: "s1", Epoch: 5, Owned: all}
	s.install(now)
	return s, now, State{Shard: "s1", Epoch: 6, Owned: half(false)}
}

func TestSet(t *testing.T) {
	s, now, next := users(t)
	s.set(next)
	if diff := cmp.Diff(next, s.read()); diff != "" {
		t.Error(diff)
	}
	if found := s.check(next); found != nil {
		t.Errorf("%q", found)
	}
	var later *EpochError
	if err := Set(t.Context(), s.query, now, s.tables()); !errors.As(err, &later) || *later != (EpochError{Shard: "s1", Fence: 6, Wanted: 5}) {
		t.Errorf("back: %v", err)
	}
	before := s.picture()
	s.set(next)
	if after := s.picture(); after != before {
		t.Errorf("the same again: %s", cmp.Diff(before, after))
	}
	wide := next
	wide.Owned = all
	s.set(wide)
	if diff := cmp.Diff(wide, s.read()); diff != "" {
		t.Errorf("other ranges at the same epoch: %s", diff)
	}
}

func TestSetRefuses(t *testing.T) {
	s, now, next := users(t)
	set := func(st State, tables []Table) error {
		t.Helper()
		err := Set(t.Context(), s.query, st, tables)
		if diff := cmp.Diff(now, s.read()); diff != "" {
			t.Errorf("something was changed: %s", diff)
		}
		return err
	}
	tables := s.tables()
	other := next
	other.Shard = "s2"
	var wrong *OtherShardError
	if err := set(other, tables); !errors.As(err, &wrong) {
		t.Errorf("another shard: %v", err)
	}
	if err := set(State{Shard: "s1"}, tables); err == nil {
		t.Error("no epoch: no error")
	}
	s.must(s.conn, "CREATE TABLE orders (user_id int); ALTER TABLE plans DISABLE TRIGGER ALL")
	var gaps *IncompleteError
	if err := set(next, s.tables()); !errors.As(err, &gaps) || len(gaps.Problems) != 5 || !strings.Contains(err.Error(), "public.orders: trigger shardproxy_epoch is missing") {
		t.Errorf("gaps: %v", err)
	}
	s.must(s.conn, "DROP SCHEMA shardproxy CASCADE")
	if err := Set(t.Context(), s.query, next, tables); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("no fence: %v", err)
	}
}

// TestSetWaitsForWriters holds that a fence does not move while a writer of the old map may still run, and that nothing is
// left of the attempt.
func TestSetWaitsForWriters(t *testing.T) {
	s, now, next := users(t)
	_, upper := keys(3)
	for _, table := range []string{"users", "plans"} {
		writer := s.session(5)
		s.must(writer, fmt.Sprintf("BEGIN; INSERT INTO %s VALUES (%d)", table, upper[0]))
		if err := Set(t.Context(), s.query, next, s.tables()); !errors.Is(err, ErrBusy) || sqlState(err) != lockNotAvailable {
			t.Errorf("%s: %v", table, err)
		}
		if diff := cmp.Diff(now, s.read()); diff != "" {
			t.Errorf("%s: something was changed: %s", table, diff)
		}
		s.must(writer, fmt.Sprintf("INSERT INTO %s VALUES (%d); COMMIT", table, upper[1]))
	}
	// A reader is in nobody's way.
	reader := s.session(5)
	s.must(reader, "BEGIN; SELECT * FROM users")
	s.set(next)
	s.must(reader, "SELECT * FROM users; COMMIT")
	if got := refusal(s.exec(s.session(5), fmt.Sprintf("INSERT INTO users VALUES (%d)", upper[2]))); got != staleWrite {
		t.Errorf("afterwards: %q", got)
	}
	// One that canceled the caller's ctx is no reason to ask again.
	writer := s.session(6)
	s.must(writer, "BEGIN; DELETE FROM users WHERE false")
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Set(canceled, queryOf(s.session(0)), State{Shard: "s1", Epoch: 7}, s.tables()); !errors.Is(err, context.Canceled) || errors.Is(err, ErrBusy) {
		t.Errorf("canceled: %v", err)
	}
}

// TestPrepare holds that a prepared change waits for nobody and is in nobody's way until its commit, which is nothing else's.
func TestPrepare(t *testing.T) {
	s, now, next := users(t)
	_, upper := keys(1)
	tables := s.tables()
	query := queryOf(s.session(0))
	writer := s.session(5)
	s.must(writer, "BEGIN; DELETE FROM users WHERE false")
	prepare := func() *Prepared {
		t.Helper()
		p, err := Prepare(t.Context(), query, next, tables)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := prepare()
	s.must(s.session(5), fmt.Sprintf("INSERT INTO users VALUES (%d)", upper[0]))
	if err := Set(t.Context(), s.query, next, tables); !errors.Is(err, ErrBusy) {
		t.Errorf("two at a time: %v", err)
	}
	if err := p.Commit(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("beside a writer: %v", err)
	}
	if diff := cmp.Diff(now, s.read()); diff != "" {
		t.Errorf("what was given up is there: %s", diff)
	}
	if err := p.Commit(t.Context()); err == nil {
		t.Error("a change was committed that had been given up")
	}
	prepare().Undo(t.Context())
	if diff := cmp.Diff(now, s.read()); diff != "" {
		t.Errorf("what was undone is there: %s", diff)
	}
	if err := prepare().CommitUnlocked(t.Context()); err != nil {
		t.Errorf("without the lock, beside a writer: %v", err)
	}
	if diff := cmp.Diff(next, s.read()); diff != "" {
		t.Error(diff)
	}
	if err := Set(t.Context(), s.query, next, tables); !errors.Is(err, ErrBusy) {
		t.Errorf("the same with the lock, beside a writer of before: %v", err)
	}
	if err := Raise(t.Context(), s.query, next.Epoch, tables); !errors.Is(err, ErrBusy) {
		t.Errorf("raised, beside a writer of before: %v", err)
	}
	s.must(writer, "COMMIT")
	next.Epoch = 7
	if err := prepare().Commit(t.Context()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(next, s.read()); diff != "" {
		t.Error(diff)
	}
	if got := refusal(s.exec(s.session(6), "DELETE FROM users")); got != staleWrite {
		t.Errorf("afterwards: %q", got)
	}
}

// TestLockTimeIsBounded holds that the wait is bounded for all tables together, not for each.
func TestLockTimeIsBounded(t *testing.T) {
	ddl := ""
	for i := range 4 {
		ddl += fmt.Sprintf("CREATE TABLE t%d (user_id int);", i)
	}
	s := newShard(t, ddl)
	s.install(State{Shard: "s1", Epoch: 5, Owned: all})
	s.must(s.conn, "SET statement_timeout = '1h'")
	// The server itself lets each lock go when it was waited for; what is left is the limit on the statement.
	var statements []string
	spy := func(ctx context.Context, sql string) ([][]string, error) {
		statements = append(statements, sql)
		return s.query(ctx, sql)
	}
	if err := Set(t.Context(), spy, State{Shard: "s1", Epoch: 6, Owned: all}, s.tables()); err != nil {
		t.Fatal(err)
	}
	const lock = `LOCK TABLE "public"."t0", "public"."t1", "public"."t2", "public"."t3" IN EXCLUSIVE MODE`
	if !slices.Contains(statements, "SAVEPOINT there; SET LOCAL statement_timeout = 300; "+lock+"; SET LOCAL statement_timeout = 0; COMMIT") {
		t.Errorf("%q", statements)
	}
	timeout := func(ctx context.Context, sql string) ([][]string, error) {
		return s.query(ctx, strings.Replace(sql, lock, "SELECT pg_sleep(60)", 1))
	}
	if err := Set(t.Context(), timeout, State{Shard: "s1", Epoch: 7, Owned: all}, s.tables()); !errors.Is(err, ErrBusy) || sqlState(err) != queryCanceled {
		t.Errorf("%v", err)
	}
}

// TestOldSnapshot holds that a transaction which reads by a snapshot from before a fence is refused by it all the same.
func TestOldSnapshot(t *testing.T) {
	for _, level := range []string{"REPEATABLE READ", "SERIALIZABLE"} {
		s, _, next := users(t)
		lower, upper := keys(1)
		old, wrong, right := s.session(5), s.session(6), s.session(6)
		for _, conn := range []*pgx.Conn{old, wrong, right} {
			s.must(conn, "BEGIN ISOLATION LEVEL "+level+"; SELECT * FROM users")
		}
		s.set(next)
		if got := refusal(s.exec(old, "UPDATE users SET n = 1 WHERE false")); got != staleWrite {
			t.Errorf("%s, old epoch: %q", level, got)
		}
		if got := refusal(s.exec(wrong, fmt.Sprintf("INSERT INTO users VALUES (%d)", upper[0]))); got != foreignRow {
			t.Errorf("%s, foreign row: %q", level, got)
		}
		if got := refusal(s.exec(right, fmt.Sprintf("INSERT INTO users VALUES (%d); COMMIT", lower[0]))); got != "" {
			t.Errorf("%s, own row: %q", level, got)
		}
	}
}

// TestCachedPlans holds that sessions that have compiled the functions and planned their statements before find the new ones.
func TestCachedPlans(t *testing.T) {
	s, _, next := users(t)
	lower, upper := keys(30)
	conn := s.session(5)
	s.must(conn, "SET plan_cache_mode = force_generic_plan; PREPARE ins AS INSERT INTO users VALUES ($1); PREPARE upd AS UPDATE users SET n = 1 WHERE id = $1")
	s.must(conn, "CREATE FUNCTION ins(int) RETURNS void LANGUAGE plpgsql AS 'BEGIN INSERT INTO users VALUES ($1); END'")
	for _, key := range upper[:10] {
		s.must(conn, fmt.Sprintf("EXECUTE ins(%d); EXECUTE upd(%[1]d); SELECT ins(%d)", key, key+1_000_000))
	}
	s.set(next)
	if got := refusal(s.exec(conn, fmt.Sprintf("EXECUTE upd(%d)", upper[20]))); got != staleWrite {
		t.Errorf("old epoch: %q", got)
	}
	s.stamp(conn, 6)
	for _, test := range []struct {
		sql  string
		key  int
		want string
	}{
		{"EXECUTE ins(%d)", upper[21], foreignRow},
		{"EXECUTE upd(%d)", upper[0], foreignRow},
		{"SELECT ins(%d)", upper[22], foreignRow},
		{"EXECUTE ins(%d)", lower[0], ""},
		{"EXECUTE upd(%d)", lower[0], ""},
		{"SELECT ins(%d)", lower[1], ""},
	} {
		if got := refusal(s.exec(conn, fmt.Sprintf(test.sql, test.key))); got != test.want {
			t.Errorf(test.sql+": %q, want %q", test.key, got, test.want)
		}
	}
}

// TestConcurrentSets lets many move one fence at once: the highest epoch stays, and each is told what became of his.
func TestConcurrentSets(t *testing.T) {
	s, _, _ := users(t)
	tables := s.tables()
	const most = 8
	var running sync.WaitGroup
	for i := range most {
		conn := s.session(0)
		running.Go(func() {
			st := State{Shard: "s1", Epoch: topology.Epoch(6 + i), Owned: half(i%2 == 0)}
			for {
				err := Set(t.Context(), queryOf(conn), st, tables)
				var later *EpochError
				switch {
				case errors.Is(err, ErrBusy):
					continue
				case errors.As(err, &later) && later.Fence > st.Epoch:
				case err != nil:
					t.Errorf("epoch %d: %v", st.Epoch, err)
				}
				return
			}
		})
	}
	running.Wait()
	if diff := cmp.Diff(State{Shard: "s1", Epoch: 6 + most - 1, Owned: half((most-1)%2 == 0)}, s.read()); diff != "" {
		t.Error(diff)
	}
}

// TestWritersMeetSets runs writers against a fence that goes to and fro. A row is written only by a session whose epoch the
// fence had, and only where the shard owned its key at that epoch.
func TestWritersMeetSets(t *testing.T) {
	s, _, _ := users(t)
	s.must(s.conn, "CREATE TABLE log (user_id int, epoch bigint)")
	s.install(State{Shard: "s1", Epoch: 5, Owned: all})
	tables := s.tables()
	lower, upper := keys(50)
	const last = 40
	var running sync.WaitGroup
	done := make(chan struct{})
	for _, mine := range [][]int{lower, upper} {
		conn := s.session(0)
		running.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				default:
				}
				// The epoch is read before, as a proxy's map is, and may be old when the row is written.
				err := s.exec(conn, fmt.Sprintf("SELECT set_config('shardproxy.epoch', epoch::text, false) FROM shardproxy.fence; INSERT INTO log VALUES (%d, current_setting('shardproxy.epoch')::bigint)", mine[i%len(mine)]))
				if got := refusal(err); got != "" && got != staleWrite && got != foreignRow {
					t.Error(got)
					return
				}
			}
		})
	}
	for epoch := topology.Epoch(6); epoch <= last; {
		err := Set(t.Context(), s.query, State{Shard: "s1", Epoch: epoch, Owned: half(epoch%2 == 0)}, tables)
		if errors.Is(err, ErrBusy) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for !t.Failed() && s.one(fmt.Sprintf("SELECT count(*) FROM log WHERE epoch = %d", epoch)) == "0" {
			runtime.Gosched() // until a writer has come through
		}
		epoch++
	}
	close(done)
	running.Wait()
	rows, err := s.query(t.Context(), "SELECT DISTINCT user_id, epoch FROM log WHERE epoch > 5")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		var key, epoch int
		if _, err := fmt.Sscan(row[0]+" "+row[1], &key, &epoch); err != nil {
			t.Fatal(err)
		}
		if !contains(half(epoch%2 == 0), topology.HashInt(int64(key))) {
			t.Errorf("key %d was written at epoch %d", key, epoch)
		}
	}
}

// TestSetKnowsTablesInTheMaking holds that a fence waits for a transaction that creates a fenced table, as rows that it writes are
// in nobody's sight.
func TestSetKnowsTablesInTheMaking(t *testing.T) {
	s, _, next := users(t)
	_, upper := keys(1)
	client := s.session(5)
	s.must(client, "BEGIN; CREATE TABLE orders (user_id int)")
	s.must(client, strings.Join(Triggers(Table{TableName: topology.TableName{Schema: "public", Name: "orders"}, Key: "user_id", KeyType: topology.KeyInt}), ";"))
	tables := s.tables()
	if err := Set(t.Context(), s.query, next, tables); !errors.Is(err, ErrBusy) {
		t.Errorf("while a table is made: %v", err)
	}
	s.must(client, fmt.Sprintf("INSERT INTO orders VALUES (%d); COMMIT", upper[0]))

	// The table is locked although it is not in the list.
	s.must(client, "BEGIN; DELETE FROM orders WHERE false")
	if err := Set(t.Context(), s.query, next, tables); !errors.Is(err, ErrBusy) {
		t.Errorf("while the new table is written to: %v", err)
	}
	s.must(client, "COMMIT")
	if err := Set(t.Context(), s.query, next, tables); err != nil {
		t.Fatal(err)
	}
	s.stamp(client, 6)
	if got := refusal(s.exec(client, "DELETE FROM orders")); got != foreignRow {
		t.Errorf("%q", got)
	}

	// And a table in the making waits for whoever changes the fence.
	s.must(s.conn, "BEGIN; SELECT pg_advisory_xact_lock("+strconv.Itoa(changesLock)+")")
	s.must(client, "SET lock_timeout = 1")
	if got := refusal(s.exec(client, strings.Join(Triggers(tables[0]), ";"))); !strings.HasPrefix(got, lockNotAvailable) {
		t.Errorf("while the fence is changed: %q", got)
	}
	s.must(s.conn, "COMMIT")
}
