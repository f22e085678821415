package proxy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/fence"
	"shardproxy/topology"
)

// fences makes the fence of each shard hold it to a map.
func (k *kit) fences(snap *topology.Snapshot) {
	k.t.Helper()
	for i := range snap.Shards {
		k.fence(i, snap)
	}
}

func (k *kit) fence(shard int, snap *topology.Snapshot) {
	k.t.Helper()
	k.fenceBy(shard, snap, fence.Install, fence.Set)
}

// widen fences a shard that only gains, as a cutover does: beside its writers.
func (k *kit) widen(shard int, snap *topology.Snapshot) {
	k.t.Helper()
	k.fenceBy(shard, snap, func(ctx context.Context, query topology.Query, st fence.State, tables []fence.Table) error {
		p, err := fence.Prepare(ctx, query, st, tables)
		if err == nil {
			err = p.CommitUnlocked(ctx)
		}
		return err
	})
}

func (k *kit) fenceBy(shard int, snap *topology.Snapshot, how ...func(context.Context, topology.Query, fence.State, []fence.Table) error) {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := pgconn.Connect(ctx, k.pg.DSN(shardDatabases()[shard]))
	if err != nil {
		k.t.Fatal(err)
	}
	defer c.Close(ctx)
	query := func(ctx context.Context, sql string) (rows [][]string, err error) {
		results, err := c.Exec(ctx, sql).ReadAll()
		if err != nil {
			return nil, err
		}
		for _, row := range results[len(results)-1].Rows {
			values := make([]string, len(row))
			for i, v := range row {
				values[i] = string(v)
			}
			rows = append(rows, values)
		}
		return rows, nil
	}
	st := fence.StateOf(snap, topology.ShardID(shard))
	st.Epoch = snap.Stamp()
	tables := fence.Tables(k.srv.Snapshot().Schema)
	install := func(f func(context.Context, topology.Query, fence.State, []fence.Table) error) {
		for err = fence.ErrBusy; errors.Is(err, fence.ErrBusy) && ctx.Err() == nil; {
			err = f(ctx, query, st, tables)
		}
		if err != nil {
			k.t.Fatalf("fencing %s: %v", st.Shard, err)
		}
	}
	for _, set := range how {
		install(set)
	}
}

// apply makes the map that follows the one in force, and does not publish it.
func (k *kit) apply(c topology.Change) *topology.Snapshot {
	k.t.Helper()
	next, err := k.srv.Snapshot().Apply(c)
	if err != nil {
		k.t.Fatal(err)
	}
	return next
}

// moveOf gives all keys of one shard to another.
func (k *kit) moveOf(from, to int) topology.Change {
	snap := k.srv.Snapshot()
	for _, r := range snap.Ranges() {
		if r.Shard == topology.ShardID(from) {
			return topology.MoveRange{Start: r.Start, End: r.End, Shard: snap.Shards[to].Name}
		}
	}
	k.t.Fatalf("shard %d owns nothing", from)
	return nil
}

// expire makes all leases as old as they may be.
func (k *kit) expire() {
	for _, p := range k.srv.pools.All() {
		if l := p.Lease(); l != nil {
			old := *l
			old.At = time.Now().Add(-2 * topology.LeaseTime)
			p.SetLease(&old)
		}
	}
}

// TestFenceStampsAndFollows moves a shard's keys while sessions work. What was planned with the old map waits for the new
// one, and lands where the keys are now.
func TestFenceStampsAndFollows(t *testing.T) {
	var told atomic.Uint64
	k := newKit(t, func(c *Config) { c.Behind = func(e topology.Epoch) { told.Store(uint64(e)) } })
	k.fences(k.srv.Snapshot())
	key := itoa(k.keyOn(0, 0))
	c := k.connect()
	c.want("INSERT INTO t VALUES ("+key+", 'a')", "C:INSERT 0 1 Z:I")
	if got := c.value("SELECT current_setting('shardproxy.epoch') || count(*) FROM t WHERE user_id = " + key); !strings.HasPrefix(got, "E:") && got != "11" {
		t.Errorf("the backend is stamped %s", got)
	}
	c.want("SELECT set_config('shardproxy.epoch', '9', false)", "E:42501 Z:I")
	next := k.apply(k.moveOf(0, 1))
	k.fence(0, next)
	k.fence(1, next)
	for _, sql := range []string{"INSERT INTO t VALUES (" + key + ", 'b')", "UPDATE t SET v = 'none' WHERE user_id = " + key + " AND v = 'b'"} {
		done := make(chan string, 1)
		go func() { done <- c.query(sql) }()
		waitFor(t, "the proxy asks for a later map", func() bool { return told.Load() == uint64(next.Epoch) })
		told.Store(0)
		if next.Epoch != k.srv.Snapshot().Epoch {
			k.srv.Publish(next)
		}
		if got, want := <-done, "C:"+strings.Fields(sql)[0]; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "1 Z:I") {
			t.Errorf("%s: %s", sql, got)
		}
		told.Store(uint64(next.Epoch)) // the second statement has the new map already
	}
	if got := k.rowsOf("v IN ('b', 'none')"); got != [kitShards]int{0, 1, 0} {
		t.Errorf("rows on the shards: %v", got)
	}
}

// TestFenceRefusesReads holds that a proxy which hears of nothing reads from a fenced shard no longer than a lease lasts,
// from others as ever, and says that it is behind.
func TestFenceRefusesReads(t *testing.T) {
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	moved, other := itoa(k.keyOn(0, 0)), itoa(k.keyOn(2, 0))
	c := k.connect()
	read := "SELECT v FROM t WHERE user_id = "
	c.want(read+moved, "T C:SELECT 0 Z:I")
	next := k.apply(k.moveOf(0, 1))
	k.fence(0, next)
	c.want(read+moved, "T C:SELECT 0 Z:I") // its lease lasts
	k.expire()
	c.send(&pgproto3.Query{String: read + moved})
	waitFor(t, "the proxy has found out", func() bool { return len(k.srv.Ready()) == 1 })
	k.cancel(c)
	if got := c.answer("Z"); got != "E:57014 Z:I" {
		t.Errorf("cancelled: %s", got)
	}
	c.want(read+other, "T C:SELECT 0 Z:I")
	c.send(&pgproto3.Query{String: "SELECT v FROM t"})
	got := c.answer("Z")
	for got == "HANGS" { // it waits for longer than clients are patient here
		got = c.answer("Z")
	}
	if got != "E:57P03 Z:I" {
		t.Errorf("from all shards: %s", got)
	}
	stale := 0
	for _, l := range k.srv.Leases() {
		if l.Stale {
			stale++
		}
	}
	if stale != 1 {
		t.Errorf("%d leases are stale: %+v", stale, k.srv.Leases())
	}
	k.srv.Publish(next)
	c.want(read+moved, "T C:SELECT 0 Z:I")
	c.want("SELECT v FROM t", "T C:SELECT 0 Z:I")
	if got := k.srv.Ready(); len(got) != 0 {
		t.Errorf("not ready: %v", got)
	}
}

// TestFenceOfNewTables holds that a table is fenced by the transaction that makes it, whichever way that comes.
func TestFenceOfNewTables(t *testing.T) {
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	c := k.connectAs("plain")
	if err := k.srv.reloadSchema(t.Context(), k.srv.Snapshot()); err != nil {
		t.Fatal(err)
	}
	const fenced = "SELECT c.relname FROM pg_class c JOIN pg_trigger t ON t.tgrelid = c.oid WHERE t.tgname = 'shardproxy_epoch' AND c.relname LIKE 'new%' ORDER BY 1"
	c.want("CREATE TABLE new1 (user_id int PRIMARY KEY)", "C:CREATE TABLE Z:I")
	c.wantPipe("1 2 C:CREATE TABLE Z:I", join(run("CREATE TABLE new2 (user_id int PRIMARY KEY) PARTITION BY RANGE (user_id)"))...)
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want("CREATE TABLE new3 PARTITION OF new2 FOR VALUES FROM (0) TO (1000000)", "C:CREATE TABLE Z:T")
	c.want("CREATE TABLE new4 (id int)", "N:00000 C:CREATE TABLE Z:T")
	c.want("INSERT INTO new2 VALUES ("+itoa(k.keyOn(1, 0))+")", "C:INSERT 0 1 Z:T")
	c.want("COMMIT", "C:COMMIT Z:I")
	for i := range kitShards {
		if got := k.ask(i, fenced); !slices.Equal(got, []string{"new1", "new2", "new3", "new4"}) {
			t.Errorf("fenced on shard %d: %v", i, got)
		}
	}
	c.want(on1+"INSERT INTO new2 VALUES ("+itoa(k.keyOn(1, 1))+")", "E:23514 Z:I")
}

// TestHoldWaits keeps work on one range waiting while it moves. All else goes on, stamped for the map to come.
func TestHoldWaits(t *testing.T) {
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	first := k.srv.Snapshot()
	held, free := itoa(k.keyOn(0, 0)), itoa(k.keyOn(1, 0))
	c, other, all := k.connect(), k.connect(), k.connect()
	moving := topology.Moving{ID: 1, Source: "s1", Target: "s2", Hold: first.Epoch + 2}
	for _, r := range first.Ranges() {
		if r.Shard == 0 {
			moving.Ranges = append(moving.Ranges, r)
		}
	}
	k.srv.Publish(k.apply(topology.SetMoving{Moving: moving}))
	c.send(join(run("INSERT INTO t VALUES ($1, 'moved')", held))...)
	all.send(&pgproto3.Query{String: "SELECT v FROM t"})
	waitFor(t, "two statements wait", func() bool { return k.srv.stats.held.Load() >= 2 })
	other.want("INSERT INTO t VALUES ("+free+", 'free')", "C:INSERT 0 1 Z:I")
	if got := other.value("SELECT current_setting('shardproxy.epoch') FROM r RIGHT JOIN t ON false WHERE user_id = " + free); got != "3" {
		t.Errorf("the other shards are stamped %s, want 3", got)
	}
	batch := topology.Batch{k.moveOf(0, 1), topology.SetMoving{Moving: topology.Moving{ID: 1, Source: "s1", Target: "s2", Ranges: moving.Ranges}}}
	next := k.apply(batch)
	k.fence(0, next)
	k.fence(1, next)
	k.srv.Publish(next)
	if got := c.answer("Z"); got != "1 2 C:INSERT 0 1 Z:I" {
		t.Errorf("held: %s", got)
	}
	if got := all.answer("Z"); !strings.HasSuffix(got, "Z:I") || strings.Contains(got, "E:") {
		t.Errorf("scatter: %s", got)
	}
	if got := k.rowsOf("true"); got != [kitShards]int{0, 2, 0} {
		t.Errorf("rows on the shards: %v", got)
	}
}
