package proxy

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/topology"
)

// twice is a kit with one row on each shard, told by key, and copies of two of them where they do not count: on s2 that of s1,
// which is on its way there, on s1 that of s3, which has moved there and changed since.
func twice(t *testing.T) (k *kit, keys [kitShards]string, moves func()) {
	t.Helper()
	k = newKit(t)
	for i := range keys {
		keys[i] = itoa(k.keyOn(i, 0))
		k.ask(i, "INSERT INTO t VALUES ("+keys[i]+", 'new'); SELECT 1")
	}
	k.ask(1, "INSERT INTO t VALUES ("+keys[0]+", 'old'); SELECT 1")
	k.ask(0, "INSERT INTO t VALUES ("+keys[2]+", 'old'); SELECT 1")
	return k, keys, func() {
		ranges := k.srv.Snapshot().Ranges()
		for i, m := range []topology.Moving{
			{ID: 1, Source: "s1", Target: "s2", Ranges: ranges[0:1]},
			{ID: 2, Source: "s1", Target: "s3", Ranges: ranges[2:3]},
		} {
			k.srv.Publish(k.apply(topology.SetMoving{Moving: m}))
			if len(k.srv.Snapshot().Moving()) != i+1 {
				t.Fatal("the move was not published")
			}
		}
	}
}

// rowsAre compares the rows that a shard has itself.
func (k *kit) rowsAre(shard int, want ...string) {
	k.t.Helper()
	if got := strings.Join(k.ask(shard, "SELECT v FROM t ORDER BY v"), " "); got != strings.Join(want, " ") {
		k.t.Errorf("shard %d has %s, want %s", shard, got, want)
	}
}

// TestOwnedSimple runs statements on all shards while rows are on two of them.
func TestOwnedSimple(t *testing.T) {
	k, keys, moves := twice(t)
	c := k.connect()
	all := " D:" + keys[0] + ",new D:" + keys[1] + ",new D:" + keys[2] + ",new"
	list := strings.Join(keys[:], ", ")
	if got := strings.Count(c.query("SELECT * FROM t"), " D:"); got != 5 {
		t.Fatalf("%d rows without the moves in the map, want 5: the test shows nothing", got)
	}
	c.want("PREPARE p AS SELECT * FROM t WHERE v <> $1", "C:PREPARE Z:I")
	moves()
	c.want("SELECT * FROM t", "T"+all+" C:SELECT 3 Z:I")
	c.want("SELECT * FROM t WHERE user_id IN ("+list+")", "T"+all+" C:SELECT 3 Z:I")
	c.want("SELECT 1; SELECT * FROM t; SELECT 2", "T D:1 C:SELECT 1 T"+all+" C:SELECT 3 T D:2 C:SELECT 1 Z:I")
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want("SELECT * FROM t FOR UPDATE", "T"+all+" C:SELECT 3 Z:T")
	c.want("COMMIT", "C:COMMIT Z:I")
	c.want("EXECUTE p ('x' || 'y')", "T"+all+" C:SELECT 3 Z:I")
	c.want("EXECUTE p ('old')", "T"+all+" C:SELECT 3 Z:I")
	c.want("EXECUTE p (1, 2)", "E:42601 Z:I")
	c.want("COPY t TO STDOUT", "H d:"+keys[0]+"\tnew d:"+keys[1]+"\tnew d:"+keys[2]+"\tnew c C:COPY 3 Z:I")
	c.want("COPY t (v) TO STDOUT (FORMAT csv, HEADER)", "H d:v d:new d:new d:new c C:COPY 3 Z:I")
	c.want("COPY BINARY t TO STDOUT", "E:0A000 Z:I")
	c.want("UPDATE t SET v = 'newer' WHERE v = 'none' OR v <> 'none' RETURNING v", "T D:newer D:newer D:newer C:UPDATE 3 Z:I")
	k.rowsAre(0, "newer", "old")
	k.rowsAre(1, "newer", "old")
	c.want("DELETE FROM t WHERE user_id IN ("+list+")", "C:DELETE 3 Z:I")
	k.rowsAre(0, "old")
	k.rowsAre(1, "old")
	k.rowsAre(2)
	c.want("SELECT * FROM t", "T C:SELECT 0 Z:I")
	c.want("DELETE FROM t RETURNING *", "T C:DELETE 0 Z:I")
	c.want(on2+"SELECT v FROM t", "T D:old C:SELECT 1 Z:I") // whoever names a shard is shown what it has
	k.atRest()
}

// TestOwnedInTransaction begins a transaction before the map tells of the moves: it stays with the map that it has.
func TestOwnedInTransaction(t *testing.T) {
	k, keys, moves := twice(t)
	c := k.connect()
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want("SELECT v FROM t WHERE user_id = "+keys[1], "T D:new C:SELECT 1 Z:T")
	moves()
	c.want("SELECT v FROM t", "T D:new D:new D:new C:SELECT 3 Z:T")
	c.want("UPDATE t SET v = 'newer'", "C:UPDATE 3 Z:T")
	c.want("COMMIT", "C:COMMIT Z:I")
	k.rowsAre(0, "newer", "old")
	k.rowsAre(1, "newer", "old")
	k.atRest()
}

// TestOwnedExtended binds statements that were prepared before and after the map tells of the moves.
func TestOwnedExtended(t *testing.T) {
	k, keys, moves := twice(t)
	c := k.connect()
	all := " D:" + keys[0] + ",new D:" + keys[1] + ",new D:" + keys[2] + ",new"
	list := "{" + strings.Join(keys[:], ",") + "}"
	c.wantPipe("1 1 1 Z:I", parse("scatter", "SELECT * FROM t WHERE v <> $1"), parse("keyed", "SELECT * FROM t WHERE user_id = ANY ($1)"),
		parse("write", "UPDATE t SET v = $1 WHERE v = $2 OR true"), syncM)
	if got := strings.Count(c.roundTrip(bind("", "scatter", "x"), execute("", 0), syncM), " D:"); got != 5 {
		t.Fatalf("%d rows without the moves in the map, want 5: the test shows nothing", got)
	}
	moves()
	scatter := []pgproto3.FrontendMessage{bind("", "scatter", "x"), execute("", 0)}
	c.wantPipe("2"+all+" C:SELECT 3 Z:I", join(scatter)...)
	c.wantPipe("t T 2 T"+all+" C:SELECT 3 Z:I", describeS("scatter"), bind("", "scatter", "x"), describeP(""), execute("", 0), syncM)
	c.wantPipe("2"+all+" C:SELECT 3 Z:I", bind("", "keyed", list), execute("", 0), syncM)
	c.wantPipe("1 2"+all+" C:SELECT 3 Z:I", join(run("TABLE t"))...)
	// The client's unnamed statement is still its own behind that.
	c.wantPipe("1 2 D:1 C:SELECT 1 2"+all+" C:SELECT 3 2 D:1 C:SELECT 1 Z:I",
		join(run("SELECT 1"), scatter, []pgproto3.FrontendMessage{bind("", ""), execute("", 0)})...)
	c.wantPipe("2 C:UPDATE 3 2 D:"+keys[1]+",newer C:SELECT 1 Z:I", bind("", "write", "newer", "none"), execute("", 0),
		bind("", "keyed", "{"+keys[1]+"}"), execute("", 0), syncM)
	k.rowsAre(0, "newer", "old")
	k.rowsAre(1, "newer", "old")
	for id := range int64(2) {
		k.srv.Publish(k.apply(topology.EndMoving{ID: id + 1}))
	}
	if got := strings.Count(c.roundTrip(join(scatter)...), " D:"); got != 5 {
		t.Errorf("%d rows after the moves have left the map, want the 5 that are there", got)
	}
	k.atRest()
}

// TestOwnedErrors gets errors of the shards for texts that they were sent in the place of the client's.
func TestOwnedErrors(t *testing.T) {
	k, keys, moves := twice(t)
	moves()
	c := k.connect()
	c.want("PREPARE p (text) AS SELECT * FROM t WHERE v <> $1", "C:PREPARE Z:I")
	for _, test := range []struct{ sql, message, at string }{
		{"SELECT user_id FROM t WHERE nothing = 'é' AND v = 'x'", `column "nothing" does not exist`, "nothing"},
		{"SELECT nothing, 'é' FROM t", `column "nothing" does not exist`, "nothing"},
		{"UPDATE t SET v = 'é' WHERE nothing = 1", `column "nothing" does not exist`, "nothing"},
		{"DELETE FROM t WHERE v = 'é' RETURNING nothing", `column "nothing" does not exist`, "nothing"},
		{"SELECT * FROM t WHERE v = 'é' AND v < 1", "operator does not exist: text < integer", "< 1"},
		{"COPY t (nothing) TO STDOUT", `column "nothing" does not exist`, "t (nothing"},
		{"EXECUTE p (1, 2)", `wrong number of parameters for prepared statement "p"`, ""},
		{"EXECUTE p (nothing)", `column "nothing" does not exist`, "nothing"},
		{"SELECT 1 / (user_id - " + keys[1] + ") FROM t", "division by zero", ""},
	} {
		c.send(&pgproto3.Query{String: test.sql})
		got := &pgproto3.ErrorResponse{}
		for {
			m, err := c.f.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := m.(*pgproto3.ErrorResponse); ok {
				copied := *e
				got = &copied
			}
			if _, ok := m.(*pgproto3.ReadyForQuery); ok {
				break
			}
		}
		want := 0
		if test.at != "" {
			want = len([]rune(test.sql[:strings.Index(test.sql, test.at)])) + 1
		}
		if got.Message != test.message || int(got.Position) != want {
			t.Errorf("%s: %q at %d, want %q at %d", test.sql, got.Message, got.Position, test.message, want)
		}
	}
	k.atRest()
}

// TestOwnedExplained sees EXPLAIN (SHARDPROXY) tell of rows that are left out.
func TestOwnedExplained(t *testing.T) {
	k, _, moves := twice(t)
	moves()
	const want = "Left out on s1: the rows that count on another shard (key ranges: 1) D:Left out on s2:"
	c := k.connect()
	if got := c.query("EXPLAIN (SHARDPROXY) SELECT * FROM t"); !strings.Contains(got, want) {
		t.Errorf("it does not tell of %q: %s", want, got)
	}
	if got := c.query("EXPLAIN (SHARDPROXY) INSERT INTO r VALUES (1)"); strings.Contains(got, "Left out") {
		t.Errorf("nothing is left out here: %s", got)
	}
}
