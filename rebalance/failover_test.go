package rebalance

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/rebalance/mover"
	"shardproxy/topology"
)

// replicated is a server whose acknowledged commits a replica has.
func replicated(t *testing.T) *pgtest.Server {
	t.Helper()
	return pgtest.Start(t, pgtest.Options{Settings: map[string]string{"synchronous_commit": "on"}})
}

// standby gives a shard a replica that has all that is acknowledged from then on. It is named: for '*', the stream
// of a mover is a standby too.
func (c *cluster) standby(shard int) topology.Node {
	c.t.Helper()
	of := c.on(shard)
	replica := of.Replica(c.t, pgtest.Options{Settings: map[string]string{"synchronous_commit": "on"}})
	conn := of.Connect(c.t, "postgres")
	var name string
	c.until("the replica streams", func() bool {
		return conn.QueryRow(c.t.Context(), "SELECT application_name FROM pg_stat_replication WHERE application_name LIKE 'replica%'").Scan(&name) == nil
	})
	of.Exec(c.t, "postgres", "ALTER SYSTEM SET synchronous_standby_names = "+name)
	of.Exec(c.t, "postgres", "SELECT pg_reload_conf()")
	c.until("the replica is synchronous", func() bool {
		var state string
		row := conn.QueryRow(c.t.Context(), "SELECT sync_state FROM pg_stat_replication WHERE application_name = $1", name)
		return row.Scan(&state) == nil && state == "sync"
	})
	node := topology.Node{Host: replica.Host, Port: replica.Port, Database: c.db[shard], Role: topology.Replica}
	c.servers.Store(node.Port, replica)
	c.apply(topology.AddNode{Shard: fmt.Sprintf("s%d", shard+1), Node: node})
	return node
}

// failover kills the primary of a shard, promotes the replica, and tells the map, as an operator does.
func (c *cluster) failover(shard int, to topology.Node) {
	c.t.Helper()
	if err := c.on(shard).Kill(); err != nil {
		c.t.Fatal(err)
	}
	c.server(to).Exec(c.t, "postgres", "SELECT pg_promote()")
	c.apply(topology.SetPrimary{Shard: fmt.Sprintf("s%d", shard+1), Node: to})
}

// apply changes the map as an operator does, again where a move has changed it meanwhile.
func (c *cluster) apply(change topology.Change) {
	c.t.Helper()
	for tries := 0; ; tries++ {
		_, err := c.keeper.Apply(c.t.Context(), change, topology.Actor{User: "dba"})
		if err == nil {
			return
		}
		if tries == 20 {
			c.t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (c *cluster) until(what string, is func() bool) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("it does not come to this: %s", what)
		}
	}
}

// move gives a move as the journal has it.
func (c *cluster) move(id int64) (m Move) {
	c.t.Helper()
	records, err := c.catalog.LoadMoves(c.t.Context(), true)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, r := range records {
		if r.ID == id {
			if m, err = FromRecord(r); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	return m
}

// busy keeps a fence on a shard from getting its lock, unseen by those who look for blockers, until release is called.
func (c *cluster) busy(shard int) (release func()) {
	c.t.Helper()
	config, err := pgx.ParseConfig(c.on(shard).DSN(c.db[shard]))
	if err != nil {
		c.t.Fatal(err)
	}
	config.RuntimeParams["application_name"] = mover.NamePrefix + "test"
	conn, err := pgx.ConnectConfig(c.t.Context(), config)
	if err == nil {
		_, err = conn.Exec(c.t.Context(), "BEGIN; LOCK TABLE users IN ROW SHARE MODE")
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return sync.OnceFunc(func() { _ = conn.Close(context.Background()) })
}

// TestMoveSurvivesFailovers kills the primary of one side again and again while rows move and clients write: before the flip the copy begins
// anew, after it the ranges stay, and the way back is given up. Nothing that was acknowledged is lost, and nothing is left over.
func TestMoveSurvivesFailovers(t *testing.T) {
	for side := range Side(2) {
		t.Run(side.String(), func(t *testing.T) {
			t.Parallel()
			failovers(t, side)
		})
	}
}

func failovers(t *testing.T, side Side) {
	on := [2]*pgtest.Server{pgtest.Shared(t), pgtest.Shared(t)}
	on[side] = replicated(t)
	c := newClusterOn(t, on)
	c.fill(2000)
	shard := int(side)
	next := c.standby(shard)
	w := c.write()
	defer c.coordinate("p1")()
	id := c.add(quarter(t))
	c.await(id, Prepared)
	c.order(id, OrderPause) // the copy begins, and stands still
	c.await(id, Copying)
	again := func(then func()) {
		t.Helper()
		before := c.move(id)
		c.failover(shard, next)
		then()
		c.until("the copy begins anew", func() bool { return c.move(id).Attempt > before.Attempt })
		next = c.standby(shard)
	}
	again(func() {})

	blocker := pgtest.Shared(t).Connect(t, c.db[side.other()]) // the cutover does not come
	if _, err := blocker.Exec(t.Context(), "BEGIN; LOCK TABLE plans IN SHARE UPDATE EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	c.order(id, OrderResume)
	c.await(id, Streaming)
	again(func() {})

	c.await(id, Streaming)
	release := c.busy(0) // the cutover comes, and does not end
	defer release()
	if _, err := blocker.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	c.await(id, Hold)
	again(release)

	c.await(id, Soak)
	c.failover(shard, next)
	c.until("the way back is given up, and the fence is as it must be", func() bool {
		m := c.move(id)
		return m.State == Soak && m.ReverseLost && m.Alarmed && m.Refence == [2]bool{}
	})
	next = c.standby(shard)
	c.order(id, OrderFinish)
	c.await(id, Cleaning)
	c.failover(shard, next)
	if m := c.await(id, Cleaned); m.Primaries[side].Timeline != 6 {
		t.Errorf("primaries: %+v", m.Primaries)
	}
	w.check()
	c.leftovers()
}

// TestMoveOutlivesARestart holds that the same server is no other one after a crash.
func TestMoveOutlivesARestart(t *testing.T) {
	on := [2]*pgtest.Server{replicated(t), pgtest.Shared(t)}
	c := newClusterOn(t, on)
	c.fill(2000)
	defer c.coordinate("p1")()
	id := c.add(quarter(t))
	c.await(id, Soak)
	if err := on[0].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := on[0].Restart(); err != nil {
		t.Fatal(err)
	}
	c.order(id, OrderReverse)
	if m := c.await(id, Reversed); m.ReverseLost || m.Attempt != 1 {
		t.Errorf("the restart was taken for a failover: %+v", m)
	}
	c.leftovers()
}

// TestMoveIsVerifiedOnTheWayBack ends the coordinator as soon as the ranges are back: the next one compares both sides, from nothing but the
// journal.
func TestMoveIsVerifiedOnTheWayBack(t *testing.T) {
	c := newCluster(t)
	c.fill(2000)
	w := c.write()
	stop := c.coordinate("p1")
	id := c.add(quarter(t))
	c.await(id, Soak)
	c.order(id, OrderReverse)
	c.until("the ranges are back", func() bool { return c.move(id).Flips == 2 })
	stop()
	at := c.move(id)
	defer c.coordinate("p2")()
	m := c.await(id, Reversed)
	if m.Unverified || m.Alarmed {
		t.Errorf("it was not compared: %+v", m)
	}
	t.Logf("the first coordinator has ended in %v", &at)
	w.check()
	c.leftovers()
}
