package proxy

import (
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/topology"
)

// moved gives the keys of the first shard to the second, fences and all.
func (k *kit) moved() {
	next := k.apply(k.moveOf(0, 1))
	k.fence(0, next)
	k.fence(1, next)
	k.srv.Publish(next)
}

// TestTransactionsFollow lets transactions be open while keys move. One that may go over to the new map writes where they
// are now, any other is refused; behind all of them the next transaction on the same backends is right, too.
func TestTransactionsFollow(t *testing.T) {
	type step struct{ sql, want string }
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	one, two, three := itoa(k.keyOn(0, 0)), itoa(k.keyOn(1, 0)), itoa(k.keyOn(2, 0))
	read := func(key string) step { return step{"SELECT v FROM t WHERE user_id = " + key, "T C:SELECT 0 Z:T"} }
	write := func(key, want string) step { return step{"INSERT INTO t VALUES (" + key + ", 'row')", want} }
	const done, refused = "C:INSERT 0 1 Z:T", "E:40001 Z:E"
	for _, test := range []struct {
		name          string
		begin         string
		before, after []step
		end           string
		rows          [kitShards]int
	}{
		{"reads", "BEGIN", []step{read(one), read(three)}, []step{write(three, done), write(one, done), write(two, done)}, "COMMIT", [kitShards]int{0, 2, 1}},
		{"writes elsewhere", "BEGIN", []step{write(three, done), read(one)}, []step{write(one, done), read(two)}, "COMMIT", [kitShards]int{0, 1, 1}},
		{"writes where the keys go", "BEGIN", []step{read(one)}, []step{write(one, done), write(two, done)}, "ROLLBACK", [kitShards]int{}},
		{"nothing yet", "BEGIN ISOLATION LEVEL REPEATABLE READ", nil, []step{write(one, done), read(two)}, "COMMIT", [kitShards]int{0, 1, 0}},
		{"one snapshot", "BEGIN ISOLATION LEVEL REPEATABLE READ", []step{read(one)}, []step{write(three, done), write(one, refused)}, "ROLLBACK", [kitShards]int{}},
		{
			"locks the row", "BEGIN",
			[]step{{"SELECT v FROM t WHERE user_id = " + three + " FOR UPDATE", "T C:SELECT 0 Z:T"}},
			[]step{write(one, done)},
			"COMMIT",
			[kitShards]int{0, 1, 0},
		},
		{
			"behind a savepoint", "BEGIN",
			[]step{read(one), read(two), {"SAVEPOINT a", "C:SAVEPOINT Z:T"}},
			[]step{write(two, done), {"ROLLBACK TO a", "C:ROLLBACK Z:T"}, write(one, done), {"RELEASE a", "C:RELEASE Z:T"}},
			"COMMIT",
			[kitShards]int{0, 1, 0},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			start := k.srv.Snapshot()
			c := k.connect()
			run := func(steps []step) {
				t.Helper()
				for _, s := range steps {
					c.want(s.sql, s.want)
				}
			}
			c.want(test.begin, "C:BEGIN Z:T")
			run(test.before)
			k.moved()
			run(test.after)
			c.want(test.end, "C:"+test.end+" Z:I")
			if got := k.rowsOf("true"); got != test.rows {
				t.Errorf("rows on the shards: %v, want %v", got, test.rows)
			}
			c.want("DELETE FROM t", "C:DELETE "+strconv.Itoa(test.rows[0]+test.rows[1]+test.rows[2])+" Z:I")
			for _, key := range []string{one, two, three} {
				c.want("DELETE FROM t WHERE user_id = "+key, "C:DELETE 0 Z:I")
			}
			back := k.apply(topology.MoveRange{Start: start.Ranges()[0].Start, End: start.Ranges()[0].End, Shard: "s1"})
			k.fence(1, back)
			k.fence(0, back)
			k.srv.Publish(back)
			k.atRest()
		})
	}
}

// TestWritersStay: a transaction that has written where keys are about to leave, or have left, is not torn in two.
func TestWritersStay(t *testing.T) {
	k := newKit(t)
	key, first := itoa(k.keyOn(0, 0)), k.srv.Snapshot()
	c := k.connect()
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want("INSERT INTO t VALUES ("+key+", 'row')", "C:INSERT 0 1 Z:T")
	moving := topology.Moving{ID: 1, Source: "s1", Target: "s2", Hold: first.Epoch + 2, Ranges: first.Ranges()[:1]}
	k.srv.Publish(k.apply(topology.SetMoving{Moving: moving}))
	c.want("UPDATE t SET v = 'held' WHERE user_id = "+key, "C:UPDATE 1 Z:T")
	moving.Hold = 0
	k.srv.Publish(k.apply(topology.Batch{k.moveOf(0, 1), topology.SetMoving{Moving: moving}}))
	c.want("UPDATE t SET v = 'moved' WHERE user_id = "+key, "C:UPDATE 1 Z:T")
	c.want("ROLLBACK", "C:ROLLBACK Z:I")
	k.atRest()
}

// TestPortalsFollow goes on with rows that were begun before the shard got another number.
func TestPortalsFollow(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	key := itoa(k.keyOn(2, 0))
	series := "SELECT n FROM generate_series(1, 3) n LEFT JOIN t ON user_id = " + key + " AND v = 'none'"
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want("/* shardproxy: shard=s3 */ DECLARE c CURSOR FOR SELECT generate_series(1, 3)", "C:DECLARE CURSOR Z:T")
	c.want("FETCH c", "T D:1 C:FETCH 1 Z:T")
	c.wantPipe("1 2 D:1 s Z:T", &pgproto3.Parse{Query: "/* shardproxy: shard=s3 */ " + series}, &pgproto3.Bind{DestinationPortal: "p"},
		&pgproto3.Execute{Portal: "p", MaxRows: 1}, &pgproto3.Sync{})
	moves := topology.Batch{k.moveOf(1, 0), topology.RemoveShard{Name: "s2"}}
	k.srv.Publish(k.apply(moves))
	if id, _ := k.srv.Snapshot().ShardByName("s3"); id == 2 {
		t.Fatal("the shard has kept its number: the test shows nothing")
	}
	c.want("FETCH c", "T D:2 C:FETCH 1 Z:T")
	c.wantPipe("D:2 D:3 C:SELECT 2 Z:T", &pgproto3.Execute{Portal: "p"}, &pgproto3.Sync{})
	c.want("CLOSE c", "C:CLOSE CURSOR Z:T")
	c.want("COMMIT", "C:COMMIT Z:I")
	k.atRest()
}

// TestHoldOfATransaction: a transaction waits for a cutover, but for one that waits for the transaction.
func TestHoldOfATransaction(t *testing.T) {
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	held, to, free := itoa(k.keyOn(0, 0)), itoa(k.keyOn(1, 0)), itoa(k.keyOn(2, 0))
	first := k.srv.Snapshot()
	read, wrote, here, once := k.connect(), k.connect(), k.connect(), k.connect()
	for _, c := range []*client{read, wrote, here} {
		c.want("BEGIN", "C:BEGIN Z:T")
	}
	once.want("BEGIN ISOLATION LEVEL SERIALIZABLE", "C:BEGIN Z:T")
	for _, c := range []*client{read, once} {
		c.want("SELECT v FROM t WHERE user_id = "+held, "T C:SELECT 0 Z:T")
	}
	wrote.want("INSERT INTO t VALUES ("+free+", 'free')", "C:INSERT 0 1 Z:T")
	moving := topology.Moving{ID: 1, Source: "s1", Target: "s2", Hold: first.Epoch + 2, Ranges: first.Ranges()[:1]}
	k.srv.Publish(k.apply(topology.SetMoving{Moving: moving}))
	here.want("INSERT INTO t VALUES ("+to+", 'to')", "C:INSERT 0 1 Z:T")
	here.want("INSERT INTO r VALUES (1, 'of no key')", "C:INSERT 0 1 Z:T")
	here.want("UPDATE t SET v = 'held' WHERE user_id = "+held, "E:40001 Z:E")
	here.want("ROLLBACK", "C:ROLLBACK Z:I")
	once.want("SELECT v FROM t WHERE user_id = "+held, "T C:SELECT 0 Z:T") // by its own map and snapshot
	read.send(&pgproto3.Query{String: "INSERT INTO t VALUES (" + held + ", 'read')"})
	wrote.send(join(run("UPDATE t SET v = 'wrote' WHERE user_id = $1", held))...)
	waitFor(t, "both wait", func() bool { return k.srv.stats.held.Load() == 2 })
	moving.Hold = 0
	next := k.apply(topology.Batch{k.moveOf(0, 1), topology.SetMoving{Moving: moving}})
	k.fence(0, next)
	k.fence(1, next)
	k.srv.Publish(next)
	if got := read.answer("Z"); got != "C:INSERT 0 1 Z:T" {
		t.Errorf("read before: %s", got)
	}
	if got := wrote.answer("Z"); got != "1 2 C:UPDATE 0 Z:T" {
		t.Errorf("wrote before: %s", got)
	}
	once.want("UPDATE t SET v = 'once' WHERE user_id = "+held, "E:40001 Z:E")
	once.want("ROLLBACK", "C:ROLLBACK Z:I")
	read.want("COMMIT", "C:COMMIT Z:I")
	wrote.want("COMMIT", "C:COMMIT Z:I")
	if got := k.rowsOf("true"); got != [kitShards]int{0, 1, 1} {
		t.Errorf("rows on the shards: %v", got)
	}
	k.atRest()
}

// TestWritersOfTheGainer: who has written on the shard that gets the keys goes on through the whole cutover, which does not wait for it, by
// what its backend has prepared, too.
func TestWritersOfTheGainer(t *testing.T) {
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	held, to := itoa(k.keyOn(0, 0)), [2]string{itoa(k.keyOn(1, 0)), itoa(k.keyOn(1, 1))}
	first := k.srv.Snapshot()
	k.ask(1, "SET shardproxy.move = 'rows'; INSERT INTO t VALUES ("+held+", ''), ("+to[0]+", ''), ("+to[1]+", ''); RESET shardproxy.move")
	within, after := k.connect(), k.connect() // one asks for the fence when it has changed, the other need not
	do := func(c *client, key string) {
		t.Helper()
		c.wantPipe("2 C:UPDATE 1 Z:T", bind("", "u", key), execute("", 0), syncM)
	}
	for i, c := range []*client{within, after} {
		c.wantPipe("1 Z:I", parse("u", "UPDATE t SET v = v || '+' WHERE user_id = $1"), syncM)
		c.want("BEGIN", "C:BEGIN Z:T")
		for range 7 { // the plan is made once
			do(c, to[i])
		}
	}
	moving := topology.Moving{ID: 1, Source: "s1", Target: "s2", Hold: first.Epoch + 2, Ranges: first.Ranges()[:1]}
	k.srv.Publish(k.apply(topology.SetMoving{Moving: moving}))
	do(after, to[1])
	moving.Hold = 0
	next := k.apply(topology.Batch{k.moveOf(0, 1), topology.SetMoving{Moving: moving}})
	k.fence(0, next)
	k.widen(1, next)
	k.expire()
	do(within, to[0])
	k.srv.Publish(next)
	do(after, held)
	for _, c := range []*client{within, after} {
		c.want("COMMIT", "C:COMMIT Z:I")
	}
	k.atRest()
}

// TestHoldCancelled ends a statement that waits for a cutover.
func TestHoldCancelled(t *testing.T) {
	k := newKit(t)
	held, snap := itoa(k.keyOn(0, 0)), k.srv.Snapshot()
	k.srv.Publish(k.apply(topology.SetMoving{Moving: topology.Moving{ID: 1, Source: "s1", Target: "s2", Hold: 3, Ranges: snap.Ranges()[:1]}}))
	c := k.connect()
	c.send(&pgproto3.Query{String: "INSERT INTO t VALUES (" + held + ", 'held')"})
	waitFor(t, "it waits", func() bool { return k.srv.stats.held.Load() == 1 })
	k.cancel(c)
	if got := c.answer("Z"); got != "E:57014 Z:I" {
		t.Errorf("cancelled: %s", got)
	}
}

// TestHoldAwaitsWhatRuns: a map with a hold, or with a shard that joins, is in force for all only when what was planned before has been
// answered.
func TestHoldAwaitsWhatRuns(t *testing.T) {
	for name, change := range map[string]func(snap *topology.Snapshot) topology.Change{
		"hold": func(snap *topology.Snapshot) topology.Change {
			return topology.SetMoving{Moving: topology.Moving{ID: 1, Source: "s1", Target: "s2", Hold: snap.Epoch + 2, Ranges: snap.Ranges()[:1]}}
		},
		"join": func(*topology.Snapshot) topology.Change { return topology.AddShard{Shard: joining} },
	} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t)
			c, other := k.connect(), k.connect()
			key := itoa(k.keyOn(0, 0))
			c.want("INSERT INTO t VALUES ("+key+", 'row')", "C:INSERT 0 1 Z:I")
			other.want("BEGIN", "C:BEGIN Z:T")
			other.want("SELECT v FROM t WHERE user_id = "+key+" FOR UPDATE", "T D:row C:SELECT 1 Z:T")
			c.send(join(run("UPDATE t SET v = 'last' WHERE user_id = $1", key))...)
			waitFor(t, "it waits for the row", func() bool { return k.count(0, "SELECT 'x' FROM pg_locks WHERE NOT granted") == 1 })
			next := k.apply(change(k.srv.Snapshot()))
			k.srv.Publish(next) // which gives up before long
			over := make(chan struct{})
			go func() {
				defer close(over)
				k.srv.awaitInFlight(next, patience)
			}()
			select {
			case <-over:
				t.Error("nothing was waited for")
			case <-time.After(100 * time.Millisecond):
			}
			other.want("COMMIT", "C:COMMIT Z:I")
			<-over
			if got := c.answer("Z"); got != "1 2 C:UPDATE 1 Z:I" {
				t.Errorf("%s", got)
			}
		})
	}
}

// TestHoldRunsOut: a cutover that is taken back may last longer than a hold, and its old owner owns nothing until its end.
func TestHoldRunsOut(t *testing.T) {
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	held, snap := itoa(k.keyOn(0, 0)), k.srv.Snapshot()
	k.fence(0, k.apply(k.moveOf(0, 1)))
	moving := topology.Moving{ID: 1, Source: "s1", Target: "s2", Hold: snap.Epoch + 2, Ranges: snap.Ranges()[:1]}
	k.srv.Publish(k.apply(topology.SetMoving{Moving: moving}))
	k.srv.Publish(k.apply(topology.BurnEpoch{}))
	long := time.Now().Add(-topology.HoldTime)
	k.srv.adopted.Store(&long)
	c := k.connect()
	c.want("INSERT INTO t VALUES ("+held+", 'held')", "E:40001 Z:I")
	c.wantPipe("1 2 E:40001 Z:I", join(run("INSERT INTO t VALUES ($1, 'held')", held))...)
	c.want("SELECT v FROM t WHERE user_id = "+held, "T C:SELECT 0 Z:I")
	c.want(on1+"INSERT INTO t VALUES ("+itoa(k.keyOn(1, 0))+", 'foreign')", "E:23514 Z:I")
	k.atRest()
}

// TestIsolationIsAskedAgain: a transaction may get another isolation level after its shard was asked for it.
func TestIsolationIsAskedAgain(t *testing.T) {
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	key := itoa(k.keyOn(0, 0))
	c, other := k.connect(), k.connect()
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want("SET LOCAL work_mem = '1MB'", "C:SET Z:T")
	k.srv.Publish(k.apply(topology.BurnEpoch{}))
	c.want("SET LOCAL work_mem = '2MB'", "C:SET Z:T")
	c.want("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "C:SET Z:T")
	c.want("SELECT v FROM t WHERE user_id = "+key, "T C:SELECT 0 Z:T")
	k.moved()
	other.want("INSERT INTO t VALUES ("+key+", 'row')", "C:INSERT 0 1 Z:I")
	c.want("SELECT v FROM t WHERE user_id = "+key, "T C:SELECT 0 Z:T")
	c.want("ROLLBACK", "C:ROLLBACK Z:I")
	k.atRest()
}

// TestCursorsStay: the cursor of a session that is bound to a key is where it was opened, when the key has moved.
func TestCursorsStay(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.want("SET shardproxy.key = '"+itoa(k.keyOn(0, 0))+"'", "C:SET Z:I")
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want("DECLARE c CURSOR FOR SELECT generate_series(1, 4)", "C:DECLARE CURSOR Z:T")
	c.want("FETCH c", "T D:1 C:FETCH 1 Z:T")
	k.srv.Publish(k.apply(k.moveOf(0, 1)))
	c.want("FETCH c", "T D:2 C:FETCH 1 Z:T")
	c.wantPipe("1 2 D:3 C:FETCH 1 Z:T", join(run("FETCH c"))...)
	c.want("SELECT current_database()", "T D:shard_2 C:SELECT 1 Z:T")
	c.want("FETCH c", "T D:4 C:FETCH 1 Z:T")
	c.want("CLOSE c", "C:CLOSE CURSOR Z:T")
	c.want("COMMIT", "C:COMMIT Z:I")
	k.atRest()
}

// TestUnnamedPortalStays: the stamp of a later map does not end the portal that the client reads from.
func TestUnnamedPortalStays(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.want("BEGIN", "C:BEGIN Z:T")
	c.wantPipe("1 2 D:1 s Z:T", parse("", "SELECT generate_series(1, 3)"), bind("", ""), execute("", 1), &pgproto3.Sync{})
	k.srv.Publish(k.apply(k.moveOf(0, 1)))
	c.wantPipe("1 Z:T", parse("other", "SELECT 1"), &pgproto3.Sync{})
	c.wantPipe("D:2 D:3 C:SELECT 2 Z:T", execute("", 0), &pgproto3.Sync{})
	c.want("COMMIT", "C:COMMIT Z:I")
	k.atRest()
}

// TestLossIsToldOnce: a transaction whose shard is lost gets that error also where the map has changed since, as with a failover. It
// must not find out by a COMMIT that rolls back.
func TestLossIsToldOnce(t *testing.T) {
	k := newKit(t)
	key := itoa(k.keyOn(0, 0))
	const lost = "E:08006 Z:E"
	for name, step := range map[string]func(c *client){
		"COMMIT":   func(c *client) { c.want("COMMIT", lost) },
		"ROLLBACK": func(*client) {},
		"write":    func(c *client) { c.want("INSERT INTO t VALUES ("+key+", 'again')", lost) },
		"prepared": func(c *client) { c.wantPipe(lost, join(run("COMMIT"))...) },
	} {
		t.Run(name, func(t *testing.T) {
			c := k.connect()
			c.want("BEGIN", "C:BEGIN Z:T")
			c.want("INSERT INTO t VALUES ("+key+", 'row')", "C:INSERT 0 1 Z:T")
			k.mid[0].cut()
			k.srv.Publish(k.apply(topology.BurnEpoch{}))
			step(c)
			c.want("ROLLBACK", "C:ROLLBACK Z:I")
			if got := k.rowsOf("true"); got != [kitShards]int{} {
				t.Errorf("rows: %v", got)
			}
			k.atRest()
		})
	}
}
