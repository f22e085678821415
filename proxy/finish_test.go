package proxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// filled is a kit with so many rows on each shard, v from a to e.
func filled(t *testing.T, each int, change ...func(*Config)) *kit {
	t.Helper()
	k := newKit(t, change...)
	for i := range kitShards {
		var rows []string
		for n := range each {
			rows = append(rows, fmt.Sprintf("(%d, '%c')", k.keyOn(i, n), 'a'+(i+n)%5))
		}
		k.ask(i, "INSERT INTO t VALUES "+strings.Join(rows, ", ")+"; SELECT 1")
	}
	return k
}

// TestFinishSimple runs statements of the simple protocol whose last step is one shard's.
func TestFinishSimple(t *testing.T) {
	k := filled(t, 5)
	c := k.connect()
	c.want("SELECT count(*) FROM t", "T D:15 C:SELECT 1 Z:I")
	c.want("SELECT v, count(*) FROM t GROUP BY v ORDER BY v DESC LIMIT 2", "T D:e,3 D:d,3 C:SELECT 2 Z:I")
	c.want("SELECT 1; SELECT count(*) FROM t; SELECT 2", "T D:1 C:SELECT 1 T D:15 C:SELECT 1 T D:2 C:SELECT 1 Z:I")
	c.want("SELECT DISTINCT v FROM t ORDER BY v OFFSET 3", "T D:d D:e C:SELECT 2 Z:I")
	c.want("SELECT max(v) FROM t WHERE v > 'x'", "T D: C:SELECT 1 Z:I")
	c.want("SELECT v FROM t WHERE v > 'x' ORDER BY v", "T C:SELECT 0 Z:I")
	c.want("SELECT nothing, count(*) FROM t GROUP BY 1", "E:42703 Z:I")
	c.want("SELECT count(*) FROM t HAVING 1 / (count(*) - 15) > 0", "T E:22012 Z:I")
	c.want("SELECT sum(1 / (user_id - user_id)) FROM t", "T E:22012 Z:I")
	c.want("SELECT json_agg(t) FROM t WHERE v = 'none'", "T D: C:SELECT 1 Z:I")
	c.want("SELECT count(DISTINCT (user_id, v)) FROM t", "T D:15 C:SELECT 1 Z:I")
	c.want("SELECT row(v) FROM t ORDER BY v LIMIT 1", "T D:(a) C:SELECT 1 Z:I")                                         // a record has no text that reads as it
	c.want("SELECT r FROM (SELECT row(v) AS r FROM t ORDER BY v LIMIT 1) s UNION SELECT row('x'::text)", "E:0A000 Z:I") // so it is not gathered
	c.want("SELECT count(*) FROM t", "T D:15 C:SELECT 1 Z:I")
	k.atRest()
}

// TestFinishInTransaction sees what the transaction has written, and fails it on all shards.
func TestFinishInTransaction(t *testing.T) {
	k := filled(t, 5)
	c := k.connect()
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want("INSERT INTO t VALUES ("+itoa(k.keyOn(1, 7))+", 'z')", "C:INSERT 0 1 Z:T")
	c.want("SELECT count(*), max(v) FROM t", "T D:16,z C:SELECT 1 Z:T")
	c.want("SAVEPOINT s", "C:SAVEPOINT Z:T")
	c.want("SELECT 1 / (count(*) - 16) FROM t", "T E:22012 Z:E")
	c.want("SELECT count(*) FROM t", "E:25P02 Z:E")
	c.want("ROLLBACK TO s", "C:ROLLBACK Z:T")
	c.want("SELECT count(*), max(v) FROM t", "T D:16,z C:SELECT 1 Z:T")
	c.want("SELECT string_agg(v, '' ORDER BY v) FROM t", "T D:aaabbbcccdddeeez C:SELECT 1 Z:T")
	c.want("ROLLBACK", "C:ROLLBACK Z:I")
	c.want("SELECT count(*) FROM t", "T D:15 C:SELECT 1 Z:I")
	c.want("INSERT INTO t VALUES ("+itoa(k.keyOn(1, 7))+", 'z'); SELECT count(*) FROM t; SELECT 1 / (count(*) - 16) FROM t",
		"C:INSERT 0 1 T D:16 C:SELECT 1 T E:22012 Z:I")
	c.want("SELECT count(*) FROM t", "T D:15 C:SELECT 1 Z:I")
	k.atRest()
}

// TestFinishExtended binds statements, describes them before, and takes their rows in pieces.
func TestFinishExtended(t *testing.T) {
	k := filled(t, 5)
	c := k.connect()
	c.wantPipe("1 t T Z:I", parse("g", "SELECT v, count(*) + $3 FROM t WHERE v <> $1 GROUP BY v HAVING count(*) < $2 ORDER BY v LIMIT $4"), describeS("g"), syncM)
	for range 2 { // the second time the backends have the texts
		c.wantPipe("2 T D:a,4 D:c,4 C:SELECT 2 Z:I", bind("", "g", "b", "9", "1", "2"), describeP(""), execute("", 0), syncM)
	}
	c.wantPipe("2 C:SELECT 0 Z:I", bind("", "g", "b", "2", "1", "2"), execute("", 0), syncM)
	c.wantPipe("1 2 D:15 C:SELECT 1 1 2 D:1 C:SELECT 1 Z:I", join(run("SELECT count(*) FROM t")[:3], run("SELECT 1"))...)
	const sorted = "SELECT v FROM t WHERE user_id <> $1 ORDER BY v, user_id"
	c.wantPipe("1 2 D:a D:a s D:a D:b s Z:I", parse("", sorted), bind("p", "", "0"), execute("p", 2), execute("p", 2), syncM)
	c.want("BEGIN", "C:BEGIN Z:T")
	c.wantPipe("1 2 D:a D:a s Z:T", parse("", sorted), bind("p", "", "0"), execute("p", 2), syncM)
	c.want("SELECT count(*) FROM t", "T D:15 C:SELECT 1 Z:T")
	c.wantPipe("D:a D:b s 3 Z:T", execute("p", 2), &pgproto3.Close{ObjectType: 'P', Name: "p"}, syncM)
	c.wantPipe("E:34000 Z:E", execute("p", 2), syncM)
	c.want("ROLLBACK", "C:ROLLBACK Z:I")
	c.wantPipe("1 2 E:22012 Z:I", join(run("SELECT 1 / (count(*) - 15) FROM t"))...)
	c.wantPipe("1 2 E:22012 Z:I", join(run("SELECT sum(1 / (user_id - user_id)) FROM t"))...)
	c.wantPipe("1 2 D:15 C:SELECT 1 Z:I", join(run("SELECT count(*) FROM t"))...)
	c.want("PREPARE p AS SELECT count(*) FROM t", "C:PREPARE Z:I")
	c.want("EXECUTE p", "E:0A000 Z:I")
	k.atRest()
}

// TestGather runs statements whose parts are gathered: in both protocols, in a transaction, with a portal that stays.
func TestGather(t *testing.T) {
	k := filled(t, 5)
	c := k.connect()
	const joined = "SELECT a.v, count(*) FROM t a JOIN t b ON b.v = a.v AND b.user_id <> $1 GROUP BY a.v ORDER BY a.v"
	c.want("SELECT v FROM t UNION SELECT 'z' ORDER BY 1 DESC LIMIT 2", "T D:z D:e C:SELECT 2 Z:I")
	c.want("SELECT count(*) FROM t WHERE v > (SELECT min(v) FROM t)", "T D:12 C:SELECT 1 Z:I")
	c.wantPipe("1 2 D:a,9 D:b,9 s Z:I", parse("", joined), bind("p", "", "0"), execute("p", 2), syncM)
	c.wantPipe("1 2 D:1 C:SELECT 1 Z:I", join(run("SELECT count(*) FROM t WHERE user_id = $1 AND v IN (SELECT v FROM t)", itoa(k.keyOn(1, 0))))...)
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want("INSERT INTO t VALUES ("+itoa(k.keyOn(1, 7))+", 'y'), ("+itoa(k.keyOn(2, 7))+", 'y')", "C:INSERT 0 2 Z:T")
	c.wantPipe("1 2 D:a,9 s Z:T", parse("g", joined), bind("p", "g", "0"), execute("p", 1), syncM)
	c.wantPipe("D:b,9 D:c,9 D:d,9 D:e,9 D:y,4 C:SELECT 5 Z:T", execute("p", 0), syncM)
	c.want("SELECT v FROM t WHERE v = (SELECT max(v) FROM t) EXCEPT ALL SELECT 'y'", "T D:y C:SELECT 1 Z:T")
	c.want("SELECT v FROM t UNION SELECT 1 / (user_id - user_id) || '' FROM t", "T E:22012 Z:E")
	c.want("ROLLBACK", "C:ROLLBACK Z:I")
	c.want("SELECT count(*) FROM t a, t b", "T D:225 C:SELECT 1 Z:I")
	k.atRest()
}

// TestFinishAgain runs a statement that shards have described before: it asks each of them once, and one a second time. A table that has
// changed meanwhile is noticed.
func TestFinishAgain(t *testing.T) {
	k := filled(t, 5)
	c := k.connect()
	const few = 3 // Parse, Bind and Execute of the rows; those of the last step; Sync
	for _, sql := range []string{
		"SELECT v, count(*), avg(user_id) FROM t WHERE v <> $1 GROUP BY v ORDER BY v LIMIT 1",
		"SELECT v, 3::bigint, 1.5 FROM t WHERE v <> $1 UNION SELECT v, user_id, 2.5 FROM t WHERE v = (SELECT max(v) FROM t) ORDER BY 1 LIMIT 1",
	} {
		c.wantPipe("1 Z:I", parse("p", sql), syncM)
		var asked, first int64
		var got string
		for i := range 3 {
			before := k.mid[0].asked.Load()
			answer := c.roundTrip(bind("", "p", "b"), execute("", 0), syncM)
			if asked = k.mid[0].asked.Load() - before; i == 0 {
				first, got = asked, answer
			}
			if answer != got || !strings.HasPrefix(got, "2 D:a,3,") {
				t.Errorf("%s: %s, then %s", sql, got, answer)
			}
		}
		if asked > few || first <= few {
			t.Errorf("%s: asked a shard %d times at first and %d times at last, want more than %d and no more than that", sql, first, asked, few)
		}
		c.wantPipe("3 Z:I", &pgproto3.Close{ObjectType: 'S', Name: "p"}, syncM)
	}
	const sums = "SELECT sum(user_id) > 0, count(*) FROM t"
	c.want(sums, "T D:t,15 C:SELECT 1 Z:I")
	for i := range kitShards {
		k.ask(i, "ALTER TABLE t RENAME user_id TO other; SELECT 1")
	}
	c.want(sums, "T E:42703 Z:I") // known columns, so the client was told of them
	c.want(sums, "E:42703 Z:I")
	for i := range kitShards {
		k.ask(i, "ALTER TABLE t RENAME other TO user_id; SELECT 1")
	}
	c.want(sums, "T D:t,15 C:SELECT 1 Z:I")
	k.atRest()
}

// TestFinishLimits collects no more rows than it may, stops the shards then, and leaves a session that goes on.
func TestFinishLimits(t *testing.T) {
	k := filled(t, 20, func(c *Config) { c.FinishRows = 30 })
	c := k.connect()
	const all, few = "SELECT v FROM t ORDER BY v", "SELECT v FROM t ORDER BY v LIMIT 1"
	c.want(all, "T E:53200 Z:I")
	c.want(few, "T D:a C:SELECT 1 Z:I")
	c.wantPipe("1 2 E:53200 Z:I", join(run(all))...)
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want(few, "T D:a C:SELECT 1 Z:T")
	c.want(all, "T E:53200 Z:E")
	c.want("ROLLBACK", "C:ROLLBACK Z:I")
	c.want("SELECT v FROM t WHERE v < 'c' UNION SELECT v FROM t WHERE v > 'b'", "T E:53200 Z:I") // 24 rows and 36
	c.want(few, "T D:a C:SELECT 1 Z:I")
	k.atRest()
	k = filled(t, 20, func(c *Config) { c.FinishBytes = 64 << 10 })
	c = k.connect()
	c.want("SELECT repeat(v, 1000) FROM t ORDER BY 1 LIMIT 20", "T"+strings.Repeat(" D:1000 bytes", 20)+" C:SELECT 20 Z:I")
	c.want("SELECT repeat(v, 5000) FROM t ORDER BY 1", "T E:53200 Z:I")
	c.want(few, "T D:a C:SELECT 1 Z:I")
	k.atRest()
}

// TestFinishSettings refuses what would not be read again as it was written.
func TestFinishSettings(t *testing.T) {
	k := filled(t, 1)
	c := k.connect()
	for _, set := range []string{"extra_float_digits = 0", "extra_float_digits = -3", "datestyle = 'German'"} {
		c.want("SET "+set, "C:SET Z:I")
		c.want("SELECT count(*) FROM t", "E:0A000 Z:I")
		c.want("RESET ALL", "C:RESET Z:I")
	}
	c.want("SET datestyle = 'ISO, DMY'", "C:SET Z:I")
	c.want("SELECT max('2024-02-01 00:00:00+00'::timestamptz) = '2024-02-01 00:00:00+00' FROM t", "T D:t C:SELECT 1 Z:I")
	k.atRest()
}

// TestFinishOwnTypes has an enum whose OID is another one on each shard.
func TestFinishOwnTypes(t *testing.T) {
	k := newKit(t)
	for i := range kitShards {
		k.ask(i, strings.Repeat("CREATE TYPE filler AS ENUM ('x'); DROP TYPE filler; ", i)+"CREATE TYPE mood AS ENUM ('sad', 'ok', 'glad'); SELECT 1")
	}
	c := k.connect()
	c.want("CREATE TABLE m (user_id bigint PRIMARY KEY, mood mood, l text COLLATE \"und-x-icu\")", "C:CREATE TABLE Z:I")
	for i, mood := range []string{"glad", "sad", "ok"} {
		c.want(fmt.Sprintf("INSERT INTO m VALUES (%d, '%s', '%s')", k.keyOn(i, 0), mood, []string{"a", "B", "c"}[i]), "C:INSERT 0 1 Z:I")
	}
	c.want("SELECT mood, l FROM m ORDER BY mood", "T D:sad,B D:ok,c D:glad,a C:SELECT 3 Z:I")
	c.want("SELECT l FROM m ORDER BY l", "T D:a D:B D:c C:SELECT 3 Z:I")
	c.want("SELECT min(mood), max(mood), min(l) FROM m", "T D:sad,glad,a C:SELECT 1 Z:I")
	c.wantPipe("1 2 D:ok,1 D:glad,1 C:SELECT 2 Z:I", join(run("SELECT mood, count(*) FROM m WHERE mood > $1 GROUP BY mood ORDER BY 1", "sad"))...)
	c.wantPipe("1 2 D:glad C:SELECT 1 Z:I", join(run("SELECT max(mood) FROM m HAVING max(mood) > $1", "ok"))...)
	k.atRest()
}

// TestFinishMoves leaves out the rows that count elsewhere.
func TestFinishMoves(t *testing.T) {
	k, keys, moves := twice(t)
	c := k.connect()
	if got := c.query("SELECT count(*) FROM t"); got != "T D:5 C:SELECT 1 Z:I" {
		t.Fatalf("%s without the moves in the map, want 5: the test shows nothing", got)
	}
	c.wantPipe("1 Z:I", parse("p", "SELECT v, count(*) FROM t WHERE v <> $1 GROUP BY v"), syncM)
	moves()
	c.want("SELECT count(*), min(v) FROM t", "T D:3,new C:SELECT 1 Z:I")
	c.want("SELECT v FROM t ORDER BY v DESC, user_id LIMIT 4", "T D:new D:new D:new C:SELECT 3 Z:I")
	c.want("SELECT string_agg(v, ',' ORDER BY v) FROM t x WHERE user_id IN ("+strings.Join(keys[:], ", ")+")", "T D:new,new,new C:SELECT 1 Z:I")
	c.wantPipe("2 D:new,3 C:SELECT 1 Z:I", bind("", "p", "x"), execute("", 0), syncM)
	c.want("SELECT count(*) FROM t a JOIN t b USING (user_id)", "T D:3 C:SELECT 1 Z:I")
	c.want("SELECT count(*) FROM t a JOIN t b USING (v)", "T D:9 C:SELECT 1 Z:I") // gathered
	c.want("SELECT v FROM t UNION ALL SELECT max(v) FROM t WHERE v <> (SELECT min(v) || 'er' FROM t)", "T D:new D:new D:new D:new C:SELECT 4 Z:I")
	k.atRest()
}
