package proxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/topology"
)

// settlePrepared waits until what is prepared is old enough to have lost its proxy, and lets it be recovered. Age is
// that of recoverAfter: so tests of recovery share one wait.
func (k *kit) recoverAll() {
	k.t.Helper()
	waitFor2(k.t, "recovery", func() bool {
		for i := range kitShards {
			if err := k.srv.recoverShard(k.t.Context(), k.srv.Snapshot(), topology.ShardID(i)); err != nil {
				k.t.Logf("recovery of shard %d: %v", i, err)
			}
		}
		return k.prepared() == 0
	})
}

// writers are the ways in which one statement, or one transaction, writes on all three shards: the marker v is 'w'.
func (k *kit) writers() map[string]func(c *client) string {
	a, b, d := itoa(k.keyOn(0, 5)), itoa(k.keyOn(1, 5)), itoa(k.keyOn(2, 5))
	insert := fmt.Sprintf("INSERT INTO t VALUES (%s, 'w'), (%s, 'w'), (%s, 'w')", a, b, d)
	return map[string]func(c *client) string{
		"explicit": func(c *client) string {
			got := c.query("BEGIN")
			for _, key := range []string{a, b, d} {
				got = c.query("INSERT INTO t VALUES (" + key + ", 'w')")
			}
			_ = got
			return c.query("COMMIT")
		},
		"insert": func(c *client) string { return c.query(insert) },
		"pipeline": func(c *client) string {
			return c.roundTrip(join(run(insertT, a, "w"), run(insertT, b, "w"), run(insertT, d, "w"))...)
		},
		"statements": func(c *client) string {
			return c.query(fmt.Sprintf("INSERT INTO t VALUES (%s, 'w'); INSERT INTO t VALUES (%s, 'w'); INSERT INTO t VALUES (%s, 'w')", a, b, d))
		},
		"copy": func(c *client) string {
			c.send(&pgproto3.Query{String: "COPY t FROM STDIN"})
			if got := c.answer("G", "Z"); got != "G" {
				return got
			}
			c.send(&pgproto3.CopyData{Data: []byte(a + "\tw\n" + b + "\tw\n" + d + "\tw\n")}, &pgproto3.CopyDone{})
			return c.answer("Z")
		},
	}
}

// checkOutcome: after an answer, all rows are there or none, as the answer says.
func (k *kit) checkOutcome(answer string) {
	k.t.Helper()
	rows := k.rowsOf("v = 'w'")
	all, none := rows == [3]int{1, 1, 1}, rows == [3]int{}
	switch {
	case !all && !none:
		k.t.Errorf("half a transaction stays: %v after %s", rows, answer)
	case strings.Contains(answer, "E:08007"), strings.HasSuffix(answer, "EOF"):
	case strings.Contains(answer, "E:") && !none:
		k.t.Errorf("rows after %s", answer)
	case !strings.Contains(answer, "E:") && !all:
		k.t.Errorf("no rows after %s", answer)
	}
}

func TestTwoPhaseForms(t *testing.T) {
	k := newKit(t)
	for name, write := range k.writers() {
		t.Run(name, func(t *testing.T) {
			c := k.connect()
			got := write(c)
			if strings.Contains(got, "E:") {
				t.Errorf("answer %s", got)
			}
			k.checkOutcome(got)
			if n := k.prepared(); n != 0 {
				t.Errorf("%d prepared", n)
			}
			c.want("DELETE FROM t", "C:DELETE 3 Z:I")
			k.atRest()
		})
	}
	c := k.connect()
	c.want("INSERT INTO r VALUES (1, 'x')", "C:INSERT 0 1 Z:I")
	c.want("CREATE TABLE u (user_id int PRIMARY KEY)", "C:CREATE TABLE Z:I")
	c.want("INSERT INTO u SELECT 1 WHERE false", c.query("INSERT INTO u SELECT 1 WHERE false"))
	c.want("DROP TABLE u", "C:DROP TABLE Z:I")
	if n := k.prepared(); n != 0 {
		t.Errorf("%d prepared", n)
	}
	k.atRest()
}

// TestTwoPhaseFailures breaks a connection at each step of a commit over three shards.
func TestTwoPhaseFailures(t *testing.T) {
	k := newKit(t)
	k.connect().want("INSERT INTO t VALUES ("+itoa(k.keyOn(0, 9))+", 'z'), ("+itoa(k.keyOn(1, 9))+", 'z')", "C:INSERT 0 2 Z:I") // makes the table of decisions
	steps := []struct {
		shard int
		text  string
		act   harm
	}{
		{1, "PREPARE TRANSACTION", cutBefore},
		{1, "PREPARE TRANSACTION", cutAfter},
		{0, "shardproxy.commits", cutBefore},
		{0, "shardproxy.commits", cutAfter},
		{0, "COMMIT", cutBefore},
		{0, "COMMIT", cutAfter},
		{2, "COMMIT PREPARED", cutBefore},
		{2, "COMMIT PREPARED", cutAfter},
	}
	type open struct{ where, answer string }
	var answers []open
	n := 20
	for _, step := range steps {
		for _, form := range []string{"explicit", "insert", "pipeline"} {
			a, b, d := itoa(k.keyOn(0, n)), itoa(k.keyOn(1, n)), itoa(k.keyOn(2, n))
			n++
			c := k.connect()
			var got string
			r := k.mid[step.shard].on(step.text, step.act)
			switch form {
			case "explicit":
				c.query("BEGIN")
				for _, key := range []string{a, b, d} {
					c.query("INSERT INTO t VALUES (" + key + ", 'w')")
				}
				got = c.query("COMMIT")
			case "insert":
				got = c.query(fmt.Sprintf("INSERT INTO t VALUES (%s, 'w'), (%s, 'w'), (%s, 'w')", a, b, d))
			case "pipeline":
				got = c.roundTrip(join(run(insertT, a, "w"), run(insertT, b, "w"), run(insertT, d, "w"))...)
			}
			select {
			case <-r.done:
			default:
				waitFor(t, "the harm is done", func() bool {
					select {
					case <-r.done:
						return true
					default:
						return false
					}
				})
			}
			t.Logf("%s %v %v: %s", form, step.text, step.act, got)
			if !strings.HasSuffix(got, "Z:I") {
				t.Errorf("%s, %s: %s", form, step.text, got)
			}
			answers = append(answers, open{fmt.Sprintf("user_id IN (%s, %s, %s)", a, b, d), got})
			c.want("SELECT 1", "T D:1 C:SELECT 1 Z:I")
			c.bye()
		}
	}
	k.atRest()
	k.recoverAll()
	for _, o := range answers {
		rows := k.rowsOf(o.where)
		all, none := rows == [3]int{1, 1, 1}, rows == [3]int{}
		failed := strings.Contains(o.answer, "E:")
		if !all && !none || failed && !strings.Contains(o.answer, "E:08007") && !none || !failed && !all {
			t.Errorf("rows %v after %s", rows, o.answer)
		}
	}
}

func TestDeferredConstraintRefusesCommit(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.want("ALTER TABLE t ADD CONSTRAINT same UNIQUE (user_id, v) DEFERRABLE INITIALLY DEFERRED", "C:ALTER TABLE Z:I")
	c.want("ALTER TABLE t DROP CONSTRAINT t_pkey", "C:ALTER TABLE Z:I")
	for bad := range 3 {
		c.want("BEGIN", "C:BEGIN Z:T")
		for i := range 3 {
			c.want("INSERT INTO t VALUES ("+itoa(k.keyOn(i, 0))+", 'w')", "C:INSERT 0 1 Z:T")
		}
		c.want("INSERT INTO t VALUES ("+itoa(k.keyOn(bad, 0))+", 'w')", "C:INSERT 0 1 Z:T")
		c.want("COMMIT", "E:23505 Z:I")
		k.checkOutcome("E:23505")
		if n := k.prepared(); n != 0 {
			t.Errorf("%d prepared", n)
		}
	}
	k.atRest()
}

// COMMIT answers COMMIT, but the others stay prepared, with their locks, for ever. PREPARE TRANSACTION under SET LOCAL
// ROLE (PostgREST) belongs to that role; afterwards the login user may not finish it, nor may a service user that is no superuser.
// Fix: twophase.go:prepareLanes sends "SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL ROLE none; PREPARE TRANSACTION …" (as separate
// Query messages); docs: the service user must be a superuser or the very user.
func TestTwoPhaseUnderLocalRole(t *testing.T) {
	k := newKit(t)
	c := k.connectAs("plain")
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want("SET LOCAL ROLE lent", "C:SET Z:T")
	for i := range 3 {
		c.want("INSERT INTO t VALUES ("+itoa(k.keyOn(i, 5))+", 'w')", "C:INSERT 0 1 Z:T")
	}
	c.want("COMMIT", "C:COMMIT Z:I")
	if n := k.prepared(); n != 0 {
		t.Errorf("%d transactions stay prepared, with their locks", n)
	}
	k.checkOutcome("C:COMMIT")
}

// PostgreSQL does not PREPARE what has executed LISTEN or NOTIFY, which are on the first shard: such a transaction never
// commits where another shard was written first. Fix: commitTwoPhase chooses for first (which is not prepared) the lane of shard 0
// if it has notified or listened (a flag beside lane.wrote).
func TestNotifyInWriteOverShards(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.want("BEGIN", "C:BEGIN Z:T")
	for i := 2; i >= 0; i-- {
		c.want("INSERT INTO t VALUES ("+itoa(k.keyOn(i, 5))+", 'w')", "C:INSERT 0 1 Z:T")
	}
	c.want("NOTIFY news", "C:NOTIFY Z:T")
	got := c.query("COMMIT")
	if got != "C:COMMIT Z:I" {
		t.Errorf("COMMIT: %s", got)
	}
	k.checkOutcome(got)
}

// recovery.install (and reloadSchema) acquire a backend of the same pool (the service user is the first user by default)
// while the session holds its own. Where all backends are in transactions that commit over shards for the first time, all of them wait for
// each other until 53300; under load from the start no commit ever installs the table. Fix: install at Start and when a shard's first
// pool is made, before lanes are taken; or a pool (key) of its own for the service, outside size_max.
//
// TestManyFirstCommits: every backend of the pool is in a transaction when the table of decisions is made.
func TestManyFirstCommits(t *testing.T) {
	k := newKit(t, func(c *Config) { c.Pools.Max = 2; c.Pools.Wait = 2e9 })
	a, b := k.connect(), k.connect()
	for n, c := range []*client{a, b} {
		c.want("BEGIN", "C:BEGIN Z:T")
		for i := range 3 {
			c.want("INSERT INTO t VALUES ("+itoa(k.keyOn(i, n))+", 'x')", "C:INSERT 0 1 Z:T")
		}
	}
	a.want("COMMIT", "C:COMMIT Z:I")
	b.want("COMMIT", "C:COMMIT Z:I")
	k.atRest()
}

// simple looks at hasUnsynced, which a promoted (implicit) transaction does not count as: the lanes' answers are not
// drained, the transaction stays open behind ReadyForQuery 'I', holds its locks, and is rolled back when the client leaves.
// Fix: simple.go:simple starts with drainAll, and ends with endImplicit (rollback after an error) when tx.open && tx.implicit.
func TestPipelineWithoutSyncThenQuery(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	msgs := join(run(insertT, k.keyOn(0, 5), "w"), run(insertT, k.keyOn(1, 5), "w"), run(insertT, k.keyOn(2, 5), "w"))
	c.send(msgs[:len(msgs)-1]...)
	c.want("SELECT 1", "1 2 C:INSERT 0 1 1 2 C:INSERT 0 1 1 2 C:INSERT 0 1 T D:1 C:SELECT 1 Z:I")
	k.checkOutcome("C:INSERT 0 1") // ReadyForQuery has said that no transaction is open
	k.atRest()
}

// simple commits what a pipeline did before its query has run. PostgreSQL has one transaction. Fix: let the lanes
// unsynced (a Query ends the implicit transaction on its shard), or promote.
func TestPipelineWithoutSyncFailsWithItsQuery(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.send(run(insertT, k.keyOn(0, 5), "w")...)
	c.want("SELECT 1/0", "1 2 C:INSERT 0 1 E:22012 Z:I")
	if got := k.rowsOf("true"); got != [3]int{} {
		t.Errorf("PostgreSQL has one transaction up to the end of the query; rows %v", got)
	}
	k.atRest()
}
