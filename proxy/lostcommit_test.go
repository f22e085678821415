package proxy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
	"shardproxy/wire"
)

// TestLostCommitIsLookedUp breaks the connection before a COMMIT has reached the shard, and behind it, of transactions of all forms.
// The client is told what happened.
func TestLostCommitIsLookedUp(t *testing.T) {
	k := newKit(t)
	n := 0
	for _, form := range []string{"simple", "extended", "prepared", "read first", "savepoint", "statements", "chain"} {
		for _, act := range []harm{cutBefore, cutAfter} {
			c := k.connect()
			key := k.keyOn(1, n)
			n++
			insert := "INSERT INTO t VALUES (" + itoa(key) + ", 'w')"
			r := k.mid[1].on("COMMIT", act)
			var got string
			switch form {
			case "statements": // its shards differ: one transaction of the proxy's own
				got = c.query(insert + "; SELECT v FROM t WHERE user_id = " + itoa(k.keyOn(2, n)))
			case "extended":
				c.query("BEGIN")
				c.wantPipe("1 2 C:INSERT 0 1 Z:T", join(run(insertT, key, "w"))...)
				got = c.query("COMMIT")
			case "prepared":
				c.query("PREPARE p AS INSERT INTO t VALUES ($1, 'w')")
				c.query("BEGIN")
				c.want("EXECUTE p ("+itoa(key)+")", "C:INSERT 0 1 Z:T")
				got = c.query("COMMIT")
			case "read first":
				c.query("BEGIN")
				c.want("SELECT v FROM t WHERE user_id = "+itoa(key), "T C:SELECT 0 Z:T")
				c.want(insert, "C:INSERT 0 1 Z:T")
				got = c.query("COMMIT")
			case "savepoint":
				c.query("BEGIN")
				c.query("SAVEPOINT a")
				c.want(insert, "C:INSERT 0 1 Z:T")
				c.query("ROLLBACK TO a")
				c.want(insert, "C:INSERT 0 1 Z:T")
				got = c.query("COMMIT")
			case "chain":
				c.query("BEGIN")
				c.want("INSERT INTO t VALUES ("+itoa(k.keyOn(1, n+100))+", 'chained')", "C:INSERT 0 1 Z:T")
				c.want("UPDATE t SET v = 'c' WHERE user_id = "+itoa(k.keyOn(1, n+100)), "C:UPDATE 1 Z:T")
				c.want("SAVEPOINT a", "C:SAVEPOINT Z:T")
				c.want(insert, "C:INSERT 0 1 Z:T")
				got = strings.Replace(c.query("COMMIT AND CHAIN"), "Z:T", "Z:I", 1)
			default:
				c.query("BEGIN")
				c.want(insert, "C:INSERT 0 1 Z:T")
				got = c.query("COMMIT")
			}
			<-r.done
			want, rows := "E:40001 Z:I", 0
			if act == cutAfter {
				want, rows = "C:COMMIT Z:I", 1
				if form == "statements" {
					want = "C:INSERT 0 1 T C:SELECT 0 Z:I"
				}
			}
			if !strings.HasSuffix(got, want) {
				t.Errorf("%s %v: %s, want %s", form, act, got, want)
			}
			if there := k.count(1, "SELECT v FROM t WHERE user_id = "+itoa(key)); there != rows {
				t.Errorf("%s %v: %d rows after %s", form, act, there, got)
			}
			if form == "chain" {
				c.query("ROLLBACK")
			}
			c.want("SELECT 1", "T D:1 C:SELECT 1 Z:I")
			c.bye()
			k.atRest()
		}
	}
}

// TestLostCommitOfSeveral is the same for the decision of a commit in two phases.
func TestLostCommitOfSeveral(t *testing.T) {
	k := newKit(t)
	k.connect().want("INSERT INTO t VALUES ("+itoa(k.keyOn(0, 9))+", 'z'), ("+itoa(k.keyOn(1, 9))+", 'z')", "C:INSERT 0 2 Z:I") // makes the table of decisions
	for n, act := range []harm{cutBefore, cutAfter} {
		c := k.connect()
		r := k.mid[0].on("COMMIT", act)
		keys := itoa(k.keyOn(0, n)) + ", 'w'), (" + itoa(k.keyOn(1, n))
		want := []string{"E:40001 Z:I", "C:INSERT 0 2 Z:I"}[n]
		c.want("INSERT INTO t VALUES ("+keys+", 'w')", want)
		<-r.done
		if rows := k.rowsOf("v = 'w'"); rows != [3]int{n, n, 0} {
			t.Errorf("rows %v after %s", rows, want)
		}
		if n := k.prepared(); n != 0 {
			t.Errorf("%d stay prepared", n)
		}
	}
}

// TestLostCommitIsNotGuessed: a shard that cannot be asked leaves the outcome unknown.
func TestLostCommitIsNotGuessed(t *testing.T) {
	k := newKit(t, func(c *Config) { c.Pools.Wait = 300 * time.Millisecond })
	c := k.connect()
	c.query("BEGIN")
	c.want("INSERT INTO t VALUES ("+itoa(k.keyOn(1, 0))+", 'w')", "C:INSERT 0 1 Z:T")
	k.mid[1].refuseAll(true)
	k.mid[1].on("COMMIT", cutAfter)
	c.want("COMMIT", "E:08007 Z:I")
	k.mid[1].refuseAll(false)
	k.atRest()
}

// TestLockTakesNoSnapshot: what a REPEATABLE READ transaction locks first, it sees as it is then.
func TestLockTakesNoSnapshot(t *testing.T) {
	k := newKit(t)
	key := itoa(k.keyOn(0, 0))
	c, d := k.connect(), k.connect()
	c.want("BEGIN ISOLATION LEVEL REPEATABLE READ", "C:BEGIN Z:T")
	c.want(on1+"LOCK TABLE r IN SHARE MODE", "C:LOCK TABLE Z:T")
	d.want("INSERT INTO t VALUES ("+key+", 'w')", "C:INSERT 0 1 Z:I")
	c.want("SELECT v FROM t WHERE user_id = "+key, "T D:w C:SELECT 1 Z:T")
	c.query("ROLLBACK")
}

// TestFateAfterCrash shows why an id alone does not do: a crash loses transactions that were not on disk, and gives their
// ids to others. Those that committed are not told apart then; that a transaction is lost always is.
func TestFateAfterCrash(t *testing.T) {
	pg := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}})
	pg.Exec(t, "postgres", "CREATE TABLE t (v int); CHECKPOINT")
	connect := func() *pgx.Conn { return pg.Connect(t, "postgres") }
	identityOf := func(conn *pgx.Conn) (tx identity) {
		var a, b string
		if err := conn.QueryRow(t.Context(), strings.Replace(identityQuery.SQL, "pg_current_xact_id()", "pg_current_xact_id()::text", 1)).Scan(&tx.xid, &a, &b); err != nil {
			t.Fatal(err)
		}
		tx.history = a + " " + b
		return tx
	}
	begin := func(conn *pgx.Conn) identity {
		t.Helper()
		if _, err := conn.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (1)"); err != nil {
			t.Fatal(err)
		}
		return identityOf(conn)
	}
	commit := func(conn *pgx.Conn, sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, tx identity, want fate) {
		t.Helper()
		got, err := tx.judge(answerOf(t.Context(), connect(), tx.question()))
		if got != want || err != nil {
			t.Errorf("%s: %v, %v, want %v", what, got, err, want)
		}
	}
	a, b, c := connect(), connect(), connect()
	committed, rolledBack, open := begin(a), begin(b), begin(c)
	commit(a, "COMMIT")
	commit(b, "ROLLBACK")
	check("committed", committed, fateCommitted)
	check("rolled back", rolledBack, fateAborted)
	check("open", open, fateOpen)
	commit(c, "ROLLBACK")

	if err := pg.Restart(); err != nil { // in good order: nothing is lost
		t.Fatal(err)
	}
	check("committed, after a restart", committed, fateCommitted)
	conn := connect()
	lost := begin(conn)
	commit(conn, "COMMIT") // acknowledged, not on disk: synchronous_commit is off
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := pg.Restart(); err != nil {
		t.Fatal(err)
	}
	check("lost by a crash", lost, fateAborted)
	check("committed, after a crash", committed, fateUnknown)
	conn = connect()
	for again := begin(conn); again.xid != lost.xid; again = begin(conn) {
		commit(conn, "COMMIT")
		if len(again.xid) > len(lost.xid) || again.xid > lost.xid && len(again.xid) == len(lost.xid) {
			t.Skipf("the server gave id %s after %s: nothing was lost", again.xid, lost.xid)
		}
	}
	check("lost, its id is at work again", lost, fateAborted)
	commit(conn, "COMMIT")
	check("lost, its id committed something else", lost, fateUnknown)
}

// answerOf gives the rows as text, and a refusal as backend.Conn does.
func answerOf(ctx context.Context, conn *pgx.Conn, sql string) (rows [][]string, err error) {
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	var refused *pgconn.PgError
	switch {
	case errors.As(err, &refused):
		return nil, &wire.Error{Code: refused.Code, Message: refused.Message}
	case err != nil:
		return nil, err
	}
	for _, row := range results[0].Rows {
		var texts []string
		for _, v := range row {
			texts = append(texts, string(v))
		}
		rows = append(rows, texts)
	}
	return rows, nil
}
