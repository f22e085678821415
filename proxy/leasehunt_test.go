package proxy

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/topology"
)

// TestFenceDoesNotRepeatProcedures: what a procedure has committed before a fence refused the rest is not done again.
func TestFenceDoesNotRepeatProcedures(t *testing.T) {
	k := newKit(t)
	for i := range kitShards {
		k.ask(i, "CREATE TABLE log (n int); CREATE PROCEDURE p(key bigint) LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (1); COMMIT; INSERT INTO t VALUES (key, 'p'); END $$; SELECT 1")
	}
	k.fences(k.srv.Snapshot())
	k.ask(0, "DROP TRIGGER IF EXISTS shardproxy_epoch ON log; SELECT 1")
	key := itoa(k.keyOn(0, 0))
	c := k.connect()
	c.want(on1+"SELECT 1", "T D:1 C:SELECT 1 Z:I")
	next := k.apply(k.moveOf(0, 1))
	k.fence(0, next)
	k.fence(1, next)
	k.ask(0, "DROP TRIGGER IF EXISTS shardproxy_epoch ON log; SELECT 1")
	c.want("/* shardproxy: key="+key+" */ CALL p("+key+")", "E:40001 Z:I")
	if n := k.count(0, "SELECT n FROM log"); n != 1 {
		t.Errorf("the procedure ran %d times", n)
	}
}

// TestFenceInCopyOut: rows that the client has been given are not given again when a later shard is found to be fenced.
func TestFenceInCopyOut(t *testing.T) {
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	c := k.connect()
	for i := range kitShards {
		c.want("INSERT INTO t VALUES ("+itoa(k.keyOn(i, 0))+", 'row')", "C:INSERT 0 1 Z:I")
	}
	next := k.apply(k.moveOf(1, 2))
	k.fence(1, next)
	k.expire()
	c.send(&pgproto3.Query{String: "COPY t TO STDOUT"})
	waitFor(t, "the proxy has found out", func() bool { return len(k.srv.Ready()) == 1 })
	k.srv.Publish(next)
	if got := c.answer("Z"); strings.Count(got, "H") != 1 || !strings.HasSuffix(got, "E:40001 Z:I") {
		t.Errorf("COPY: %s", got)
	}
}

// TestFenceInPipeline: a pipeline that goes on for long asks again whether its shard still works for its map, and goes over to the next.
func TestFenceInPipeline(t *testing.T) {
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	key := itoa(k.keyOn(0, 0))
	c := k.connect()
	read := run("SELECT v FROM t WHERE user_id = $1", key)
	c.send(append(read, &pgproto3.Flush{})...)
	if got := c.answer("C"); got != "1 2 C:SELECT 0" {
		t.Fatalf("first: %s", got)
	}
	next := k.apply(k.moveOf(0, 1))
	k.fence(0, next)
	k.expire()
	c.send(join(read, run("SELECT current_database() FROM r RIGHT JOIN t ON false WHERE user_id = $1", key))...)
	waitFor(t, "the proxy has found out", func() bool { return len(k.srv.Ready()) == 1 })
	k.fence(1, next)
	k.ask(1, "SET shardproxy.epoch = 2; INSERT INTO t VALUES ("+key+", 'moved')")
	k.srv.Publish(next)
	if got := c.answer("Z"); got != "1 2 D:moved C:SELECT 1 1 2 D:shard_2 C:SELECT 1 Z:I" {
		t.Errorf("second: %s", got)
	}
}

// TestLeaseKeepsPortals: that the fence is asked for does not end an unnamed portal.
func TestLeaseKeepsPortals(t *testing.T) {
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	c := k.connect()
	c.want("BEGIN", "C:BEGIN Z:T")
	c.wantPipe("1 2 D:1 s Z:T", &pgproto3.Parse{Query: on1 + "SELECT generate_series(1, 2)"}, &pgproto3.Bind{}, &pgproto3.Execute{MaxRows: 1}, &pgproto3.Sync{})
	k.expire()
	c.wantPipe("D:2 C:SELECT 1 Z:T", &pgproto3.Execute{}, &pgproto3.Sync{})
	c.want("COMMIT", "C:COMMIT Z:I")
}

// TestHoldPassedInPipeline: an INSERT over several shards that has waited long enough for a hold runs.
func TestHoldPassedInPipeline(t *testing.T) {
	k := newKit(t)
	snap := k.srv.Snapshot()
	k.srv.Publish(k.apply(topology.SetMoving{Moving: topology.Moving{ID: 1, Source: "s1", Target: "s2", Hold: 3, Ranges: snap.Ranges()[:1]}}))
	past := time.Now().Add(-topology.HoldTime)
	k.srv.adopted.Store(&past)
	c := k.connect()
	c.wantPipe("1 2 C:INSERT 0 2 Z:I", join(run("INSERT INTO t VALUES ($1, 'a'), ($2, 'b')", itoa(k.keyOn(0, 0)), itoa(k.keyOn(1, 0))))...)
	if got := c.value("SELECT current_setting('shardproxy.epoch') FROM r RIGHT JOIN t ON false WHERE user_id = " + itoa(k.keyOn(0, 0))); got != "2" {
		t.Errorf("past the hold the backend is stamped %s", got)
	}
}

// TestCursorAfterRenumbering: what is left of a cursor is not taken for that of another shard when they have other numbers.
func TestCursorAfterRenumbering(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want(on3+"SELECT 1", "T D:1 C:SELECT 1 Z:T")
	c.want("DECLARE c CURSOR FOR SELECT generate_series(1, 2)", "C:DECLARE CURSOR Z:T")
	c.want("COMMIT", "C:COMMIT Z:I")
	k.srv.Publish(k.apply(topology.Batch{k.moveOf(1, 0), topology.RemoveShard{Name: "s2"}}))
	c.want("FETCH c", "E:34000 Z:I")
}

// TestClientsCannotPassFences holds that no way of SET reaches the settings that fences go by.
func TestClientsCannotPassFences(t *testing.T) {
	k := newKit(t)
	for _, name := range []string{"options", "shardproxy.move", "ShardProxy.Epoch"} {
		value := "9"
		if name == "options" {
			value = "-c shardproxy.epoch=9"
		}
		c, greeting := k.dial("app", name, value)
		if !strings.HasPrefix(greeting, "R E:42501") {
			t.Errorf("%s: %s", name, greeting)
		}
		c.bye()
	}
	c := k.connect()
	for _, sql := range []string{`SET "SHARDPROXY"."MOVE" = 'x'`, `SET LOCAL ShardProxy.Epoch = 9`, `SELECT set_config('SHARDPROXY.move', 'x', false)`} {
		if got := c.query(sql); !strings.HasPrefix(got, "E:42") {
			t.Errorf("%s: %s", sql, got)
		}
	}
}

// TestHoldOfALargeBind: one that is passed on while it comes in waits for the end of a hold, too.
func TestHoldOfALargeBind(t *testing.T) {
	k := newKit(t)
	first := k.srv.Snapshot()
	k.srv.Publish(k.apply(topology.SetMoving{Moving: topology.Moving{ID: 1, Source: "s1", Target: "s2", Hold: first.Epoch + 2, Ranges: first.Ranges()[:1]}}))
	c := k.connect()
	c.send(join(run("INSERT INTO t VALUES ($1, $2)", itoa(k.keyOn(0, 0)), strings.Repeat("x", 2*streamAbove)))...)
	waitFor(t, "it waits", func() bool { return k.srv.stats.held.Load() == 1 })
	k.srv.Publish(k.apply(topology.Batch{k.moveOf(0, 1), topology.EndMoving{ID: 1}}))
	if got := c.answer("Z"); got != "1 2 C:INSERT 0 1 Z:I" {
		t.Errorf("held: %s", got)
	}
	if got := k.rowsOf("true"); got != [kitShards]int{0, 1, 0} {
		t.Errorf("rows on the shards: %v", got)
	}
}

// TestFencedScatterInPipeline: a read of all shards that finds one of them fenced waits for the map in a pipeline, too.
func TestFencedScatterInPipeline(t *testing.T) {
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	c := k.connect()
	next := k.apply(k.moveOf(0, 1))
	k.fence(0, next)
	c.want("SELECT 1 FROM r", "T C:SELECT 0 Z:I")
	key := itoa(k.keyOn(0, 0))
	c.send(&pgproto3.Query{String: "SELECT v FROM t WHERE user_id = " + key}) // asks, where the lease is not known
	waitFor(t, "the proxy has found out", func() bool { return len(k.srv.Ready()) == 1 })
	k.cancel(c)
	_ = c.answer("Z")
	c.send(join(run("SELECT v FROM t"))...)
	waitFor(t, "it waits", func() bool { return k.waits() == 1 })
	k.srv.Publish(next)
	if got := c.answer("Z"); got != "1 2 C:SELECT 0 Z:I" {
		t.Errorf("scatter: %s", got)
	}
}

// waits counts the sessions that wait for a map.
func (k *kit) waits() (n int) {
	k.srv.cutOff(func(s *Session) {
		s.laneMu.Lock()
		defer s.laneMu.Unlock()
		if s.wake != nil {
			n++
		}
	})
	return n
}
