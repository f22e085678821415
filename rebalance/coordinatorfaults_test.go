package rebalance

import (
	"context"
	"strings"
	"testing"
	"time"

	"shardproxy/topology"
)

// loose is a runner that nobody runs, of a move whose shards do not answer.
func (c *cluster) loose(t *testing.T, m Move) *runner {
	t.Helper()
	r := newRunner(NewCoordinator(CoordinatorConfig{
		Name: "p", Cluster: "c", Catalog: c.catalog, Keeper: c.keeper, Schema: func() *topology.Schema { return c.schema },
		DSN: func(topology.Node) string { return "host=127.0.0.1 port=1 user=nobody connect_timeout=1" }, Log: c.log(),
	}), topology.Lease{}, m)
	t.Cleanup(r.cleanUp)
	return r
}

// TestMoveStreamEndsBeforeItIsTold holds that who hears of a lost stream and begins another does not take it for one that runs, and
// that a stream which never ran keeps nobody waiting.
func TestMoveStreamEndsBeforeItIsTold(t *testing.T) {
	c := newCluster(t)
	m := quarter(t)
	m.ID, m.State, m.Task, m.Seq, m.Flips = 1, Verified, TaskStreamBack, 7, 1
	r := c.loose(t, m)
	r.events = make(chan taken)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.begin(ctx, Stream{Seq: 0, Back: true})
	f := r.flow
	select {
	case <-f.over:
	case <-time.After(10 * time.Second):
		t.Fatal("the stream is not over before somebody has heard of it")
	}
	if err := f.catchUp(ctx, 1); err == nil {
		t.Error("a stream that never ran has caught up")
	}
	if e, is := (<-r.events).event.(StreamLost); !is || e.Final {
		t.Errorf("the end of the stream is %+v", e)
	}
	r.begin(ctx, Stream{Seq: 0, Back: true})
	if r.flow == f {
		t.Error("no other stream was begun")
	}
}

// TestMoveCopiesAfterAPause holds that a copy does not stand still because the one before was stopped.
func TestMoveCopiesAfterAPause(t *testing.T) {
	c := newCluster(t)
	m := quarter(t)
	m.ID, m.State, m.Task, m.Seq = 1, Copying, TaskCopy, 7
	r := c.loose(t, m)
	r.suspended.Store(true)
	r.begin(t.Context(), Copy{7})
	if r.suspended.Load() {
		t.Error("the copy of a move that is not paused stands still")
	}
}

// TestMoveWhoseShardHasGone ends, and so does one to a shard that takes no ranges.
func TestMoveWhoseShardHasGone(t *testing.T) {
	c := newCluster(t)
	defer c.coordinate("p1")()
	m := quarter(t)
	m.Target = "s9"
	id := c.add(m)
	c.await(id, Aborted)
	if _, err := c.keeper.Apply(t.Context(), topology.SetShardState{Name: "s2", State: topology.ShardDraining}, topology.Actor{User: "dba"}); err != nil {
		t.Fatal(err)
	}
	if m := c.await(c.add(quarter(t)), Aborted); m.Cutovers != 0 {
		t.Errorf("clients were kept waiting %d times", m.Cutovers)
	}
}

// TestMoveIsGivenBackToADrainingShard holds that no client is kept waiting for a flip that the map would not take.
func TestMoveIsGivenBackToADrainingShard(t *testing.T) {
	c := newCluster(t)
	m := quarter(t)
	m.ID, m.State, m.Task, m.Flips = 1, Reversing, TaskGrant, 1
	r := c.loose(t, m)
	for _, change := range []topology.Change{m.Change(), topology.SetShardState{Name: "s1", State: topology.ShardDraining}} {
		if _, err := c.keeper.Apply(t.Context(), change, topology.Actor{User: "dba"}); err != nil {
			t.Fatal(err)
		}
	}
	if done, err := r.grant(t.Context(), &m); err == nil {
		t.Errorf("epoch %d was granted", done.Epoch)
	}
}

// TestMoveIsPausedBeforeItBegan holds that such an order makes no move begin.
func TestMoveIsPausedBeforeItBegan(t *testing.T) {
	c := newCluster(t)
	id := c.add(quarter(t))
	order, err := c.catalog.AddMoveOrder(t.Context(), id, OrderPause.String(), topology.Actor{User: "dba"})
	if err != nil {
		t.Fatal(err)
	}
	stop := c.coordinate("p1")
	defer stop()
	c.answered(order)
	if m := c.await(id, Planned); m.Begun() || !m.Paused {
		t.Errorf("the move has begun: %t, it is paused: %t", m.Begun(), m.Paused)
	}
	c.order(id, OrderResume)
	c.await(id, Prepared)
	c.order(id, OrderAbort)
	c.await(id, Aborted)
	c.leftovers()
}

func (c *cluster) answered(order int64) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		answered, refusal, err := c.catalog.MoveOrderAnswer(c.t.Context(), order)
		if err != nil || refusal != "" || time.Now().After(end) {
			c.t.Fatalf("order %d: answered: %t, refused: %q, %v", order, answered, refusal, err)
		}
		if answered {
			return
		}
	}
}

// TestMoveOutlivesTheJournalAndATable: the journal goes on without the runner, as by a flip whose answer was lost, and a table is
// dropped; the move is taken up again under the same lease, and aborted.
func TestMoveOutlivesTheJournalAndATable(t *testing.T) {
	c := newCluster(t)
	c.fill(500)
	defer c.coordinate("p1")()
	id := c.add(quarter(t))
	for end := time.Now().Add(time.Minute); len(c.keeper.Snapshot().Moving()) == 0 || c.one(1, "SELECT epoch::text FROM shardproxy.fence") == "1"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the move is not announced")
		}
	}
	blocker := c.pg.Connect(t, c.db[0]) // it keeps the cutover from coming, and has no transaction number for a slot to wait for
	if _, err := blocker.Exec(t.Context(), "BEGIN; LOCK TABLE plans IN SHARE UPDATE EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	before := c.await(id, Streaming)
	c.pg.Exec(t, c.catalogDB, "UPDATE shardproxy.moves SET rev = rev + 5")
	for i := range c.db {
		c.pg.Exec(t, c.db[i], "DROP TABLE notes")
	}
	c.order(id, OrderAbort)
	after := c.await(id, Aborted)
	if after.Token != before.Token {
		t.Errorf("the coordinator has changed: %d, then %d", before.Token, after.Token)
	}
	if n := c.one(1, "SELECT count(*)::text FROM users WHERE NOT shardproxy.owns(hashint8extended(user_id, 8816678312871386365))"); n != "0" {
		t.Errorf("%s copied users are left", n)
	}
}

// TestCutoverWaitsForOtherMovers holds that a piece of another move's copy, whose lock the fence could not get, puts a cutover off before
// anybody is kept waiting.
func TestCutoverWaitsForOtherMovers(t *testing.T) {
	c := newCluster(t)
	c.fill(200)
	coordinator, stop := c.coordinator("p1")
	defer stop()
	id := c.add(quarter(t))
	other := c.pg.Connect(t, c.db[1])
	exec := func(sql string) {
		t.Helper()
		if _, err := other.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	until := func(what string, holds func(m *Move) bool) { t.Helper(); c.untilMove(coordinator, what, holds) }
	until("the target has its fence", func(m *Move) bool { return m.Task == TaskSettle })
	exec("SET application_name = 'shardproxy_move_c_7'; BEGIN; LOCK TABLE users IN ROW EXCLUSIVE MODE")
	until("it waits", func(m *Move) bool { return strings.Contains(m.Error, "waits for shardproxy_move_c_7 on shard s2") })
	exec("ROLLBACK")
	if m := c.await(id, Soak); m.Pause == 0 || m.PauseAll != m.Pause {
		t.Errorf("clients waited in vain: %v in all cutovers, %v in the last", m.PauseAll, m.Pause)
	}
}

// TestMoveTellsWhatItsSlotWaitsFor: PostgreSQL makes no replication slot while a transaction is open that has written, in whatever table.
func TestMoveTellsWhatItsSlotWaitsFor(t *testing.T) {
	c := newCluster(t)
	c.fill(200)
	other := c.pg.Connect(t, c.db[0])
	if _, err := other.Exec(t.Context(), "SET application_name = 'nightly'; BEGIN; SELECT pg_current_xact_id()"); err != nil {
		t.Fatal(err)
	}
	coordinator, stop := c.coordinator("p1")
	defer stop()
	id := c.add(quarter(t))
	c.untilMove(coordinator, "the transaction is named", func(m *Move) bool {
		return m.State == Prepared && len(m.Blockers) == 1 && strings.HasPrefix(m.Blockers[0], "shard s1: ") && strings.Contains(m.Blockers[0], "nightly")
	})
	if _, err := other.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	c.untilMove(coordinator, "the copy goes on, and nothing is named any more", func(m *Move) bool { return m.State > Prepared && len(m.Blockers) == 0 })
	c.await(id, Soak)
}

// untilMove waits for the only move of a coordinator.
func (c *cluster) untilMove(coordinator *Coordinator, what string, holds func(m *Move) bool) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		list := coordinator.Own()
		if len(list) == 1 && holds(&list[0].Move) {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("%s: %+v", what, list)
		}
	}
}

// TestCutoverIsGivenBackUnderALock holds that a lock which a cutover runs into, as of a VACUUM that has just begun, keeps clients waiting for
// its budget only: the ranges go back while the lock is still held.
func TestCutoverIsGivenBackUnderALock(t *testing.T) {
	c := newCluster(t)
	c.fill(200)
	coordinator, stop := c.coordinator("p1")
	defer stop()
	id := c.add(quarter(t))
	c.untilMove(coordinator, "the stream", func(m *Move) bool { return m.State == Streaming })
	// Neither who looks for blockers nor who waits for movers takes it for one, so that the cutover begins.
	other := c.pg.Connect(t, c.db[0])
	if _, err := other.Exec(t.Context(), "SET application_name = 'shardproxy_move_c_7'; BEGIN; LOCK TABLE users IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	c.untilMove(coordinator, "the cutover is given back", func(m *Move) bool { return m.Cutovers == 1 && m.State == Streaming })
	if _, err := other.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	c.await(id, Soak)
}
