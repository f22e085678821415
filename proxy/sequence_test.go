package proxy

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestSequenceIsShared lets sessions of two proxies insert rows at once, whose shard key is an identity column and whose other
// column is a serial one. No number is given twice, and each row is where its key belongs.
func TestSequenceIsShared(t *testing.T) {
	k := newKit(t)
	other := k.beside(func(*Config) {})
	k.connect().want("CREATE TABLE numbered (user_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n serial, v text)", "C:CREATE TABLE Z:I")
	const each = 25
	var wg sync.WaitGroup
	for i := range 6 {
		c := []*kit{k, other}[i%2].connect()
		wg.Go(func() {
			for j := range each {
				want := "C:INSERT 0 2 Z:I"
				var got string
				if j%2 == 0 {
					got = c.query("INSERT INTO numbered (v) VALUES ('a'), ('b')")
				} else {
					want = "1 2 " + want
					got = c.roundTrip(parse("", "INSERT INTO numbered (v) VALUES ($1), ($2)"), &pgproto3.Bind{Parameters: [][]byte{[]byte("a"), []byte("b")}}, &pgproto3.Execute{}, &pgproto3.Sync{})
				}
				if got != want {
					t.Errorf("%s, want %s", got, want)
				}
			}
		})
	}
	wg.Wait()
	keys, numbers := map[string]bool{}, map[string]bool{}
	for shard := range kitShards {
		for _, key := range k.ask(shard, "SELECT user_id FROM numbered") {
			keys[key] = true
		}
		for _, n := range k.ask(shard, "SELECT n FROM numbered") {
			numbers[n] = true
		}
		if wrong := k.ask(shard, fmt.Sprintf("SELECT user_id FROM numbered WHERE floor((hashint8extended(user_id, 8816678312871386365)::numeric + 9223372036854775808) * %d / 18446744073709551616) <> %d", kitShards, shard)); len(wrong) > 0 {
			t.Errorf("shard %d has rows of others: %v", shard, wrong)
		}
	}
	if len(keys) != 12*each || len(numbers) != 12*each {
		t.Errorf("%d keys, %d numbers, want %d", len(keys), len(numbers), 12*each)
	}
	k.atRest()
}

// TestSequenceOfSession: currval and lastval are the session's, whichever backends it gets.
func TestSequenceOfSession(t *testing.T) {
	k := newKit(t)
	c, d := k.connect(), k.connect()
	c.want("CREATE SEQUENCE s", "C:CREATE SEQUENCE Z:I")
	c.want("SELECT lastval()", "E:55000 Z:I")
	c.want("SELECT currval('s')", "E:55000 Z:I")
	c.want("SELECT nextval('s')", "T D:1 C:SELECT 1 Z:I")
	d.want("SELECT nextval('s'), lastval()", "T D:2,2 C:SELECT 1 Z:I")
	c.want("SELECT lastval()", "T D:1 C:SELECT 1 Z:I")
	d.want("SELECT setval('s', 40)", "T D:40 C:SELECT 1 Z:I")
	c.want("SELECT setval('s', 0)", "E:22003 Z:I")
	c.want("SELECT currval('public.s')", "T D:1 C:SELECT 1 Z:I")
	c.want("SELECT nextval('s')", "T D:41 C:SELECT 1 Z:I")
	c.want("DISCARD SEQUENCES", "C:DISCARD SEQUENCES Z:I")
	c.want("SELECT currval('s')", "E:55000 Z:I")
	d.want("DISCARD ALL", "C:DISCARD ALL Z:I")
	d.want("SELECT lastval()", "E:55000 Z:I")
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want("SELECT currval('s')", "E:55000 Z:E")
	c.want("SELECT nextval('s')", "E:25P02 Z:E")
	c.want("COMMIT", "C:ROLLBACK Z:I")
	c.want("SELECT nextval('s')", "T D:42 C:SELECT 1 Z:I")
	c.want("ALTER SEQUENCE s MAXVALUE 43", "C:ALTER SEQUENCE Z:I")
	c.want("SELECT nextval('s'), nextval('s')", "E:2200H Z:I")
	k.atRest()
}

// TestSequenceOfEachRow: where a set makes more rows of one, a number would be given to several of them.
func TestSequenceOfEachRow(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.want("CREATE SEQUENCE s", "C:CREATE SEQUENCE Z:I")
	c.want("CREATE TABLE e (user_id bigint, n serial, v int)", "C:CREATE TABLE Z:I")
	c.want("SELECT nextval('s'), generate_series(1, 3)", "E:0A000 Z:I")
	c.want("INSERT INTO e (user_id, v) VALUES (1, generate_series(1, 3))", "E:0A000 Z:I")
	c.want("INSERT INTO e VALUES (1, nextval('s'), 2 * generate_series(1, 3))", "E:0A000 Z:I")
	c.want("INSERT INTO e VALUES (1, 7, generate_series(1, 3))", "C:INSERT 0 3 Z:I")
	c.want("ALTER TABLE e ADD COLUMN m int DEFAULT nextval('s')", "E:0A000 Z:I")
	c.want("ALTER TABLE e ADD COLUMN m int", "C:ALTER TABLE Z:I")
	c.want("ALTER TABLE e ALTER COLUMN m SET DEFAULT nextval('s')", "C:ALTER TABLE Z:I")
	c.want("INSERT INTO e VALUES (1, DEFAULT, 2) RETURNING n, m", "T D:1,1 C:INSERT 0 1 Z:I")
	k.atRest()
}

// TestSequenceAsksForPrivilege as PostgreSQL does: for a serial column, but not for an identity column.
func TestSequenceAsksForPrivilege(t *testing.T) {
	k := newKit(t)
	c, plain := k.connect(), k.connectAs("plain")
	c.want("CREATE TABLE a (user_id serial PRIMARY KEY, v text)", "C:CREATE TABLE Z:I")
	c.want("CREATE TABLE b (user_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)", "C:CREATE TABLE Z:I")
	c.want("GRANT INSERT ON a, b TO plain", "C:GRANT Z:I")
	plain.want("INSERT INTO a (v) VALUES ('x')", "E:42501 Z:I")
	plain.want("INSERT INTO b (v) VALUES ('x')", "C:INSERT 0 1 Z:I")
	c.want("GRANT USAGE ON SEQUENCE a_user_id_seq TO plain", "C:GRANT Z:I")
	plain.want("INSERT INTO a (v) VALUES ('x')", "C:INSERT 0 1 Z:I")
}

// TestSequenceInPipeline has the proxy's own parameters behind those of the client, which does not see them.
func TestSequenceInPipeline(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.want("CREATE TABLE p (user_id serial PRIMARY KEY, v text)", "C:CREATE TABLE Z:I")
	insert := "INSERT INTO p (v) VALUES ($1)"
	c.wantPipe("1 t n Z:I", parse("p", insert), &pgproto3.Describe{ObjectType: 'S', Name: "p"}, &pgproto3.Sync{})
	c.send(&pgproto3.Describe{ObjectType: 'S', Name: "p"}, &pgproto3.Sync{})
	for {
		m, err := c.f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := m.(*pgproto3.ParameterDescription); ok && (len(d.ParameterOIDs) != 1 || d.ParameterOIDs[0] != 25) {
			t.Errorf("parameters %v", d.ParameterOIDs)
		}
		if _, ok := m.(*pgproto3.ReadyForQuery); ok {
			break
		}
	}
	var pipe []pgproto3.FrontendMessage
	for range 3 {
		pipe = append(pipe, &pgproto3.Bind{PreparedStatement: "p", Parameters: [][]byte{[]byte("x")}}, &pgproto3.Execute{})
	}
	c.wantPipe("2 C:INSERT 0 1 2 C:INSERT 0 1 2 C:INSERT 0 1 Z:I", append(pipe, &pgproto3.Sync{})...)
	c.wantPipe("E:08P01 Z:I", &pgproto3.Bind{PreparedStatement: "p"}, &pgproto3.Sync{})
	big := strings.Repeat("x", 2*streamAbove)
	c.wantPipe("2 C:INSERT 0 1 Z:I", &pgproto3.Bind{PreparedStatement: "p", Parameters: [][]byte{[]byte(big)}}, &pgproto3.Execute{}, &pgproto3.Sync{})
	c.want("SELECT count(*), count(DISTINCT user_id), max(length(v)) FROM p", "T D:4,4,131072 C:SELECT 1 Z:I")
	k.atRest()
}

// TestSequenceWithoutItsShard tells what is wrong, and the session goes on.
func TestSequenceWithoutItsShard(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.want("CREATE TABLE w (user_id bigserial PRIMARY KEY, v text)", "C:CREATE TABLE Z:I")
	k.atRest()
	k.mid[0].refuseAll(true)
	k.mid[0].on("nextval", cutBefore)
	c.want("INSERT INTO w (v) VALUES ('x')", "E:08006 Z:I")
	k.mid[0].cut()
	waitFor(t, "no backend is left", func() bool { return c.query("INSERT INTO w (v) VALUES ('x')") == "E:57P03 Z:I" })
	k.mid[0].refuseAll(false)
	waitFor(t, "the shard is back", func() bool { return c.query("INSERT INTO w (v) VALUES ('x')") == "C:INSERT 0 1 Z:I" })
	k.atRest()
}
