package proxy

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/topology"
)

// joining is a shard that is being added. Nobody may connect to it.
var joining = topology.Shard{Name: "s4", State: topology.ShardJoining, Nodes: []topology.Node{{Host: "127.0.0.1", Port: 1, Database: "none"}}}

// TestBeganWithAllShards: a transaction stays with its map, if the statement that it began with has left out a new shard.
func TestBeganWithAllShards(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.wantPipe("1 2 C:UPDATE 0 1 2 C:BEGIN Z:T", append(append(run("UPDATE r SET v = v"), run("BEGIN")...), &pgproto3.Sync{})...)
	k.srv.Publish(k.apply(topology.AddShard{Shard: joining}))
	c.want("INSERT INTO r VALUES (1, 'row')", "C:INSERT 0 1 Z:T")
	c.want("ROLLBACK", "C:ROLLBACK Z:I")
	k.atRest()
}

// TestJoinedElsewhere: a shard that has joined, and has another primary since, is not left out by who knows only the one before.
func TestJoinedElsewhere(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	k.srv.Publish(k.apply(topology.AddShard{Shard: joining}))
	c.want("BEGIN ISOLATION LEVEL REPEATABLE READ", "C:BEGIN Z:T")
	c.want("SELECT v FROM t WHERE user_id = "+itoa(k.keyOn(0, 0)), "T C:SELECT 0 Z:T")
	replica := topology.Node{Host: "127.0.0.1", Port: 2, Database: "none", Role: topology.Replica}
	k.srv.Publish(k.apply(topology.Batch{
		k.moveOf(0, 1), // so that it cannot go over to this map
		topology.SetShardState{Name: "s4", State: topology.ShardActive}, topology.AddNode{Shard: "s4", Node: replica}, topology.SetPrimary{Shard: "s4", Node: replica},
	}))
	c.want("INSERT INTO r VALUES (1, 'row')", "E:40001 Z:E")
	c.want("ROLLBACK", "C:ROLLBACK Z:I")
	k.atRest()
}

// TestJoinUnderOneSnapshot: a transaction that reads by one snapshot goes on when a shard is added, or a cutover was taken back, as
// no key has another owner.
func TestJoinUnderOneSnapshot(t *testing.T) {
	for name, change := range map[string]topology.Change{"join": topology.AddShard{Shard: joining}, "burn": topology.BurnEpoch{}} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t)
			k.fences(k.srv.Snapshot())
			key := itoa(k.keyOn(0, 0))
			c := k.connect()
			c.want("BEGIN ISOLATION LEVEL REPEATABLE READ", "C:BEGIN Z:T")
			c.want("SELECT v FROM r", "T C:SELECT 0 Z:T")
			c.want("SELECT v FROM t WHERE user_id = "+key, "T C:SELECT 0 Z:T")
			next := k.apply(change)
			k.fence(0, next)
			k.srv.Publish(next)
			c.want("INSERT INTO t VALUES ("+key+", 'row')", "C:INSERT 0 1 Z:T")
			c.want("COMMIT", "C:COMMIT Z:I")
			k.atRest()
		})
	}
}
