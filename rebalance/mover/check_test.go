package mover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"shardproxy/topology"
)

func TestVerifyNamesPlantedDifferences(t *testing.T) {
	w := newWorld(t, plainRole, `CREATE TABLE notes (id int, part int, user_id int NOT NULL, body text, PRIMARY KEY (part, id)); CREATE TABLE hot (id int PRIMARY KEY, user_id int)`,
		notes(), table1("public", "hot", "user_id", topology.KeyInt))
	// Many rows of one key: the parts are cut by primary key.
	w.exec(Source, `INSERT INTO notes SELECT i, 1, i, i::text FROM generate_series(1, 2000) i; INSERT INTO hot SELECT i, 1 FROM generate_series(1, 20000) i`)
	w.spec.Ranges = []topology.KeyRange{{}}
	w.m = w.mover()
	w.copy(CopyOptions{})
	frozen, err := w.m.Freezer(t.Context(), Target)
	if err == nil {
		err = frozen.Freeze(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	check := func(frozen *Frozen, limit int) []TableCheck {
		t.Helper()
		checks, err := w.m.Verify(t.Context(), VerifyOptions{Frozen: [2]*Frozen{Target: frozen}, Max: limit})
		if err != nil {
			t.Fatal(err)
		}
		return checks
	}
	if c := check(nil, 0); c[0].Rows != [2]int64{2000, 2000} || c[0].Differences != nil || c[1].Rows != [2]int64{20000, 20000} || c[1].Differences != nil {
		t.Errorf("equal tables: %+v", c)
	}
	w.exec(Target, `UPDATE notes SET body = 'x' WHERE id = 77; DELETE FROM notes WHERE id = 78; INSERT INTO notes VALUES (79, 2, 79); UPDATE hot SET user_id = 2 WHERE id = 12345; DELETE FROM hot WHERE id > 19000`)
	c := check(nil, 0)
	var got []string
	for _, d := range c[0].Differences {
		got = append(got, d.String())
	}
	want := []string{"(1, 77) of key 77 differs", "(1, 78) of key 78 is missing on the target", "(2, 79) of key 79 is on the target only"}
	if !slices.Equal(got, want) || c[0].More {
		t.Errorf("notes: %q", got)
	}
	if len(c[1].Differences) != differencesMax || !c[1].More || c[1].Rows != [2]int64{20000, 19000} {
		t.Errorf("hot: %+v", c[1])
	}
	w.exec(Target, "INSERT INTO hot SELECT i, 1 FROM generate_series(19001, 20000) i")
	if c := check(nil, 0); len(c[1].Differences) != 1 || c[1].Differences[0].Identity[0] != "12345" || c[1].More {
		t.Errorf("hot: %+v", c[1])
	}
	if c := check(frozen, 0); c[0].Differences != nil || c[1].Differences != nil {
		t.Errorf("the frozen target: %+v", c)
	}
}

// TestVerifyCountsTwins: of rows of which nothing is unique, there must be equally many.
func TestVerifyCountsTwins(t *testing.T) {
	w := newWorld(t, plainRole, "CREATE TABLE twins (user_id int, body text); ALTER TABLE twins REPLICA IDENTITY FULL", table1("public", "twins", "user_id", topology.KeyInt))
	w.spec.Ranges = []topology.KeyRange{{}}
	w.m = w.mover()
	w.exec(Source, "INSERT INTO twins VALUES (1, 'a'), (1, 'a'), (1, 'a'), (1, ''), (1, NULL), (1, NULL)")
	w.copy(CopyOptions{})
	for _, test := range []struct{ change, want string }{
		{"SELECT", "[]"},
		{"DELETE FROM twins WHERE ctid = (SELECT min(ctid) FROM twins WHERE body = 'a')", "[(a, 1) of key 1 differs]"},
		{"INSERT INTO twins VALUES (1, 'a'); UPDATE twins SET body = NULL WHERE body = ''", "[(, 1) of key 1 differs (, 1) of key 1 is missing on the target]"},
	} {
		w.exec(Target, test.change)
		checks, err := w.m.Verify(t.Context(), VerifyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(checks[0].Differences); got != test.want {
			t.Errorf("%s: %s, want %s", test.change, got, test.want)
		}
	}
}

func TestCleanupTakesOnlyWhatIsNotOwned(t *testing.T) {
	w := newZoo(t)
	ws := w.write(Source, newSeed(t), 2, 200, 0)
	ws.await(t, 800)
	ws.stop(t)
	before := w.outside(Source)
	w.fence(Source)
	w.exec(Source, strings.ReplaceAll(`CREATE OR REPLACE FUNCTION shardproxy.owns(hash bigint) RETURNS boolean LANGUAGE plpgsql STABLE STRICT AS 'BEGIN RETURN true; END'`, "\n", ""))
	if err := w.m.Cleanup(t.Context(), Source, CleanupOptions{}); !errors.Is(err, ErrOwned) {
		t.Fatalf("of an owner: %v", err)
	}
	w.exec(Source, `CREATE OR REPLACE FUNCTION shardproxy.owns(hash bigint) RETURNS boolean LANGUAGE plpgsql STABLE STRICT AS 'BEGIN RETURN false; END'`)
	deleted := int64(0)
	for range 2 {
		if err := w.m.Cleanup(t.Context(), Source, CleanupOptions{Vacuum: true, Progress: func(n int64) { deleted = max(deleted, n) }}); err != nil {
			t.Fatal(err)
		}
	}
	if deleted == 0 {
		t.Error("nothing was deleted")
	}
	for _, table := range w.spec.Tables {
		if n := w.one(Source, fmt.Sprintf("SELECT count(*) FROM %s WHERE %s", quoteName(table.TableName), w.inside(table))); n != "0" {
			t.Errorf("%s rows are left in %s", n, table.TableName)
		}
	}
	if w.outside(Source) != before {
		t.Error("rows of other ranges have changed")
	}
}

func TestCopyNeedsRoom(t *testing.T) {
	w := newWorld(t, plainRole, notesSchema, notes())
	w.exec(Source, "INSERT INTO notes SELECT i, i FROM generate_series(1, 100) i")
	w.exec(Target, "INSERT INTO notes SELECT i, i FROM generate_series(1, 100) i")
	snapshot, err := w.m.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	var full ErrNotEmpty
	if err := w.m.Copy(t.Context(), snapshot, CopyOptions{}); !errors.As(err, &full) {
		t.Errorf("Copy says %v", err)
	}
	if n := w.one(Target, "SELECT count(*) FROM notes"); n != "100" {
		t.Errorf("rows that nobody copied were deleted: %s are left", n)
	}
}

func TestCopyCanBeDoneAgain(t *testing.T) {
	w := newWorld(t, plainRole, notesSchema, notes())
	w.exec(Source, "INSERT INTO notes SELECT i, i, repeat('x', 3000) FROM generate_series(1, 1000) i")
	for range 3 {
		w.copy(CopyOptions{Workers: 2, BytesPerSecond: func() int64 { return 100 << 20 }})
		w.same()
		w.exec(Source, "UPDATE notes SET n = coalesce(n, 0) + 1; DELETE FROM notes WHERE id % 10 = 0 AND n = 1")
	}
	if err := w.m.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, side := range []Side{Source, Target} {
		conn := w.server[side].Connect(t, w.db[side])
		left, err := Leftovers(t.Context(), conn)
		if err != nil || len(left) > 0 {
			t.Errorf("left on the %s: %+v, %v", side, left, err)
		}
	}
}

func TestLeftovers(t *testing.T) {
	w := newWorld(t, plainRole, notesSchema, notes())
	w.copy(CopyOptions{})
	for side, want := range map[Side]int{Source: 2, Target: 1} {
		conn := w.server[side].Connect(t, w.db[side])
		left, err := Leftovers(t.Context(), conn)
		if err != nil || len(left) != want {
			t.Fatalf("on the %s: %+v, %v", side, left, err)
		}
		for _, l := range left {
			if l.Name != w.m.Name() {
				t.Errorf("%+v is not of the move", l)
			}
			if err := l.Remove(t.Context(), conn); err != nil {
				t.Error(err)
			}
		}
		if left, err := Leftovers(t.Context(), conn); err != nil || len(left) != 0 {
			t.Errorf("still on the %s: %+v, %v", side, left, err)
		}
	}
}

// TestForeignKeysWithoutReplica copies and streams where foreign keys are checked and act.
func TestForeignKeysWithoutReplica(t *testing.T) {
	w := newWorld(t, plainRole, `CREATE TABLE a (k int PRIMARY KEY, n int);
CREATE TABLE b (k int REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE, id int, parent int, PRIMARY KEY (k, id), FOREIGN KEY (k, parent) REFERENCES b DEFERRABLE);
CREATE TABLE c (k int, b int, id int PRIMARY KEY, FOREIGN KEY (k, b) REFERENCES b ON DELETE SET NULL (b));`,
		table1("public", "c", "k", topology.KeyInt), table1("public", "b", "k", topology.KeyInt), table1("public", "a", "k", topology.KeyInt))
	w.exec(Source, `INSERT INTO a SELECT i FROM generate_series(1, 100) i; INSERT INTO b SELECT k, i, 9 - i FROM a, generate_series(0, 9) i; `+
		`INSERT INTO c SELECT k, id, k * 100 + id FROM b`)
	w.copy(CopyOptions{Workers: 2})
	w.same()
	s := start(t, w.m, StreamOptions{})
	for _, sql := range []string{
		"INSERT INTO a SELECT i FROM generate_series(101, 200) i; INSERT INTO b SELECT k, 0, 0 FROM a WHERE k > 100",
		"DELETE FROM a WHERE k % 5 = 0 AND k > 100",
		"DELETE FROM c WHERE k % 3 = 0; DELETE FROM b WHERE k % 3 = 0",
		"DELETE FROM b WHERE k = 101; UPDATE a SET k = k + 1000 WHERE k > 100",
	} {
		w.exec(Source, sql)
		s.catchUp()
		if diff := w.difference(); diff != "" {
			t.Fatalf("after %s:\n%s", sql, diff)
		}
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if err := w.m.Cleanup(t.Context(), Source, CleanupOptions{}); err != nil {
		t.Error(err)
	}
}

func TestTriggersNeedReplica(t *testing.T) {
	w := newWorld(t, plainRole, notesSchema+`CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION f()`, notes())
	snapshot, err := w.m.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Close()
	if err := w.m.Copy(t.Context(), snapshot, CopyOptions{}); !errors.Is(err, errNeedsReplica) {
		t.Errorf("Copy says %v", err)
	}
}

// TestKeyTypes moves tables with text and uuid keys, and many ranges at once.
func TestKeyTypes(t *testing.T) {
	w := newWorld(t, plainRole, `CREATE TABLE texts (k varchar(50) PRIMARY KEY, n int); CREATE TABLE uuids (id int PRIMARY KEY, k uuid NOT NULL, n int)`,
		table1("public", "texts", "k", topology.KeyText), table1("public", "uuids", "k", topology.KeyUUID))
	w.spec.Ranges = []topology.KeyRange{{Start: 0xf000000000000000, End: 0}}
	for i := range topology.KeyHash(20) {
		w.spec.Ranges = append(w.spec.Ranges, topology.KeyRange{Start: (i*2 + 1) << 57, End: (i*2 + 2) << 57})
	}
	w.m = w.mover()
	insert := func(from, to int) string {
		return fmt.Sprintf("INSERT INTO texts SELECT i || 'ä日', i FROM generate_series(%d, %d) i; INSERT INTO uuids SELECT i, md5(i::text)::uuid, i FROM generate_series(%d, %d) i", from, to, from, to)
	}
	w.exec(Source, insert(1, 1000))
	w.copy(CopyOptions{})
	w.same()
	if w.one(Target, "SELECT count(*) > 50 FROM texts") != "t" || w.one(Target, "SELECT count(*) > 50 FROM uuids") != "t" {
		t.Fatal("too few rows move")
	}
	s := start(t, w.m, StreamOptions{})
	w.exec(Source, insert(1001, 2000)+"; UPDATE uuids SET k = md5(k::text)::uuid WHERE id % 2 = 0; UPDATE texts SET k = k || n WHERE n % 2 = 0; UPDATE texts SET n = -n; DELETE FROM uuids WHERE id % 5 = 0; DELETE FROM texts WHERE n % 5 = 0")
	s.catchUp()
	w.same()
}

// TestTwoMovesFromOneSource runs two moves of disjoint ranges at once.
func TestTwoMovesFromOneSource(t *testing.T) {
	w := newZoo(t)
	other := *w
	other.db[Target] = w.server[Target].CreateDatabase(t)
	w.server[Target].Exec(t, "postgres", fmt.Sprintf("ALTER DATABASE %s OWNER TO %s", other.db[Target], replicaRole))
	schema := strings.ReplaceAll(strings.ReplaceAll(zooSchema, "{target:", "--"), "{source:", "--") // lines of their own
	schema = strings.ReplaceAll(schema, "CREATE TABLE projects", `ALTER TABLE "Odd ""Schema"."us'ers" ADD "serial no" int GENERATED ALWAYS AS IDENTITY; CREATE TABLE projects`)
	schema = strings.ReplaceAll(schema, `CREATE TABLE full_identity`, "CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2020-07-01') TO ('2021-01-01'); CREATE TABLE full_identity")
	w.server[Target].Exec(t, other.db[Target], "SET ROLE "+replicaRole+"; "+schema+"ALTER TABLE twins DROP junk")
	other.spec.ID += 1_000_000
	other.spec.Ranges = []topology.KeyRange{{Start: 0xa000000000000000, End: 0xf000000000000000}}
	other.spec.Target = other.config(Target, replicaRole)
	other.m = other.mover()
	t.Cleanup(func() { _ = other.m.Drop(context.Background()) })
	ws := w.write(Source, newSeed(t), 3, 200, 0)
	ws.await(t, 500)
	w.copy(CopyOptions{})
	a := start(t, w.m, StreamOptions{})
	other.copy(CopyOptions{Workers: 2})
	b := start(t, other.m, StreamOptions{})
	ws.await(t, 800)
	ws.stop(t)
	a.catchUp()
	b.catchUp()
	w.same()
	other.same()
}

// TestStopAt ends the stream at the position of a snapshot of the source, and verifies against that.
func TestStopAt(t *testing.T) {
	w := newWorld(t, plainRole, "CREATE TABLE notes (id int PRIMARY KEY, user_id int NOT NULL, n int)", notes())
	w.copy(CopyOptions{})
	write := func(from int) {
		w.exec(Source, fmt.Sprintf("INSERT INTO notes SELECT i, i, 0 FROM generate_series(%d, %d) i", from, from+499))
		w.exec(Source, "UPDATE notes SET n = n + 1 WHERE id % 2 = 0")
		w.exec(Source, "UPDATE notes SET user_id = user_id + 1 WHERE id % 3 = 0; DELETE FROM notes WHERE id % 50 = 0")
	}
	write(1)
	// The slot of another mover gives a snapshot and its exact position.
	spec := w.spec
	spec.ID += 2_000_000
	probe, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := probe.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = probe.Drop(context.Background()) }()
	defer snapshot.Close()
	write(501)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 { // the second time there is nothing to do
		if err := w.m.NewStream(StreamOptions{StopAt: snapshot.LSN}).Run(ctx); err != nil {
			t.Fatal(err)
		}
		checks, err := w.m.Verify(t.Context(), VerifyOptions{Frozen: [2]*Frozen{Source: snapshot.Frozen()}})
		if err != nil {
			t.Fatal(err)
		}
		if c := checks[0]; len(c.Differences) > 0 || c.Rows[Source] == 0 {
			t.Errorf("%+v", c)
		}
	}
	s := start(t, w.m, StreamOptions{})
	s.catchUp()
	w.same()
}
