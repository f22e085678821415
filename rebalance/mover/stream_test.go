package mover

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"shardproxy/topology"
)

func table1(schema, name, key string, kt topology.KeyType) Table {
	return Table{TableName: topology.TableName{Schema: schema, Name: name}, Key: key, KeyType: kt}
}

const notesSchema = `CREATE TABLE notes (id int PRIMARY KEY, user_id int NOT NULL, body text, n int);
ALTER TABLE notes ALTER body SET STORAGE EXTERNAL;`

func notes() Table { return table1("public", "notes", "user_id", topology.KeyInt) }

func TestCopyAndStream(t *testing.T) {
	w := newWorld(t, plainRole, notesSchema, notes())
	w.fence(Target) // its triggers fire for this role, and let the mover pass
	if _, err := w.server[Target].Connect(t, w.db[Target]).Exec(t.Context(), "INSERT INTO notes VALUES (1, 1)"); pgCode(err) != "23514" {
		t.Fatalf("the fence does not refuse a client: %v", err)
	}
	w.exec(Source, "INSERT INTO notes SELECT i, i % 100, repeat(i::text, 2000), i FROM generate_series(1, 1000) i")
	w.copy(CopyOptions{Workers: 2})
	w.same()
	s := start(t, w.m, StreamOptions{})
	for _, sql := range []string{
		"INSERT INTO notes SELECT i, i % 100, 'x', i FROM generate_series(1001, 1200) i",
		"UPDATE notes SET n = n + 1 WHERE id % 3 = 0",             // leaves body unchanged
		"UPDATE notes SET user_id = user_id + 1 WHERE id % 7 = 0", // across the border, also with an unchanged body
		"UPDATE notes SET id = id + 100000 WHERE id % 11 = 0",     // another primary key
		"UPDATE notes SET id = id + 200000, user_id = user_id + 1 WHERE id % 13 = 0",
		"DELETE FROM notes WHERE id % 5 = 0",
		"BEGIN; DELETE FROM notes; ROLLBACK",
		"BEGIN; INSERT INTO notes VALUES (-1, 1); SAVEPOINT a; INSERT INTO notes SELECT -i, i FROM generate_series(2, 50) i; ROLLBACK TO a; UPDATE notes SET n = 7 WHERE id = -1; COMMIT",
		"UPDATE notes SET body = NULL WHERE id % 17 = 0",
	} {
		w.exec(Source, sql)
		s.catchUp()
		if diff := w.difference(); diff != "" {
			t.Fatalf("after %s:\n%s", sql, diff)
		}
	}
	if st := s.Status(); st.Missed == 0 || st.Skipped == 0 || st.Changes == 0 {
		t.Errorf("the test does not test what it should: %+v", st)
	}
}

func TestHugeTransaction(t *testing.T) {
	w := newWorld(t, plainRole, notesSchema, notes())
	w.copy(CopyOptions{})
	s := start(t, w.m, StreamOptions{})
	w.exec(Source, "INSERT INTO notes SELECT i, i, 'some text', i FROM generate_series(1, 100000) i")
	s.catchUp()
	w.exec(Source, "UPDATE notes SET n = n + 1")
	s.catchUp()
	w.same()
	if st := s.Status(); st.Transactions > 10 {
		t.Errorf("a source transaction was cut: %d transactions on the target", st.Transactions)
	}
}

func TestTruncateEndsTheMove(t *testing.T) {
	for _, sql := range []string{"TRUNCATE notes", "TRUNCATE notes_1"} {
		t.Run(sql, func(t *testing.T) {
			w := newWorld(t, plainRole, `CREATE TABLE notes (id int, user_id int NOT NULL, PRIMARY KEY (id)) PARTITION BY RANGE (id);
				CREATE TABLE notes_1 PARTITION OF notes FOR VALUES FROM (1) TO (100); CREATE TABLE notes_2 PARTITION OF notes DEFAULT`, notes())
			w.exec(Source, "INSERT INTO notes SELECT i, i FROM generate_series(1, 200) i")
			w.copy(CopyOptions{})
			w.same()
			s := start(t, w.m, StreamOptions{})
			w.exec(Source, sql)
			<-s.done
			var truncated ErrTruncated
			if !errors.As(s.err, &truncated) || truncated.Table != notes().TableName {
				t.Errorf("the stream ended with %v", s.err)
			}
		})
	}
}

func TestSchemaChangeEndsTheMove(t *testing.T) {
	for _, c := range []struct{ ddl, then string }{
		{"ALTER TABLE notes ADD COLUMN more int", "INSERT INTO notes VALUES (1, 1), (2, 2), (3, 3), (4, 4)"},
		{"ALTER TABLE notes ALTER n TYPE bigint", "INSERT INTO notes VALUES (1, 1), (2, 2), (3, 3), (4, 4)"},
		{"ALTER TABLE notes RENAME n TO m", ""},
		{"ALTER TABLE notes ADD COLUMN more int DEFAULT 5", ""},
		{"DROP TABLE notes", ""},
	} {
		t.Run(c.ddl, func(t *testing.T) {
			w := newWorld(t, plainRole, notesSchema, notes())
			w.copy(CopyOptions{})
			s := start(t, w.m, StreamOptions{})
			s.catchUp()
			w.exec(Source, c.ddl)
			var changed ErrSchemaChanged
			if c.then != "" {
				w.exec(Source, c.then)
				<-s.done
				if !errors.As(s.err, &changed) {
					t.Errorf("the stream ended with %v", s.err)
				}
				return
			}
			lsn, err := w.m.SourceLSN(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.CatchUp(t.Context(), lsn); !errors.As(err, &changed) {
				t.Errorf("CatchUp says %v", err)
			}
		})
	}
}

func TestPartitionDroppedEndsTheMove(t *testing.T) {
	w := newWorld(t, plainRole, `CREATE TABLE notes (id int, user_id int NOT NULL, PRIMARY KEY (id)) PARTITION BY RANGE (id);
		CREATE TABLE notes_1 PARTITION OF notes FOR VALUES FROM (1) TO (100); CREATE TABLE notes_2 PARTITION OF notes FOR VALUES FROM (100) TO (200)`, notes())
	w.exec(Source, "INSERT INTO notes SELECT i, i FROM generate_series(1, 199) i")
	w.copy(CopyOptions{})
	s := start(t, w.m, StreamOptions{})
	for _, side := range []Side{Target, Source} {
		w.exec(side, "CREATE TABLE notes_3 PARTITION OF notes FOR VALUES FROM (200) TO (300)")
	}
	w.exec(Source, "INSERT INTO notes SELECT i, i FROM generate_series(200, 299) i; UPDATE notes SET id = 299 - id + 200 WHERE id IN (250, 270) AND false")
	s.catchUp() // one partition more does no harm
	w.same()
	w.exec(Source, "DROP TABLE notes_1")
	lsn, err := w.m.SourceLSN(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var changed ErrSchemaChanged
	if err := s.CatchUp(t.Context(), lsn); !errors.As(err, &changed) {
		t.Errorf("CatchUp says %v", err)
	}
}

func TestSlotThatIsLostOrAhead(t *testing.T) {
	w := newWorld(t, plainRole, notesSchema, notes())
	if err := w.m.NewStream(StreamOptions{}).Run(t.Context()); !errors.Is(err, ErrNotPrepared) {
		t.Errorf("before Prepare: %v", err)
	}
	snapshot, err := w.m.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	snapshot.Close()
	if err := w.m.NewStream(StreamOptions{}).Run(t.Context()); !errors.Is(err, ErrNotPrepared) {
		t.Errorf("before Copy: %v", err)
	}
	w.copy(CopyOptions{})
	old := w.one(Target, "SELECT lsn FROM shardproxy.progress WHERE name = "+literal(w.m.Name()))
	s := start(t, w.m, StreamOptions{})
	w.exec(Source, "INSERT INTO notes SELECT i, i FROM generate_series(1, 50) i")
	s.catchUp()
	confirmed := fmt.Sprintf("SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND confirmed_flush_lsn > '%s'", literal(w.m.Name()), old)
	for len(w.rows(Source, confirmed)) == 0 {
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	w.exec(Target, fmt.Sprintf("UPDATE shardproxy.progress SET lsn = '%s'", old))
	if err := w.m.NewStream(StreamOptions{}).Run(t.Context()); !errors.Is(err, ErrSlotAhead) {
		t.Errorf("with the target behind: %v", err)
	}
	w.exec(Source, fmt.Sprintf("SELECT pg_drop_replication_slot(%s)", literal(w.m.Name())))
	if err := w.m.NewStream(StreamOptions{}).Run(t.Context()); !errors.Is(err, ErrSlotLost) {
		t.Errorf("without a slot: %v", err)
	}
}

// TestMemoryIsBounded streams a transaction of 100 MB and looks at the heap meanwhile.
func TestMemoryIsBounded(t *testing.T) {
	w := newWorld(t, plainRole, notesSchema, notes())
	w.copy(CopyOptions{})
	w.exec(Source, "INSERT INTO notes SELECT i, i, repeat('x', 1000), i FROM generate_series(1, 100000) i")
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan uint64)
	go func() {
		var largest uint64
		for ctx.Err() == nil {
			var now runtime.MemStats
			runtime.GC() // what is left is in use
			runtime.ReadMemStats(&now)
			largest = max(largest, now.HeapAlloc)
			_ = pause(ctx, 10*time.Millisecond)
		}
		done <- largest
	}()
	s := start(t, w.m, StreamOptions{})
	s.catchUp()
	cancel()
	largest := <-done
	t.Logf("%d KB more heap", (int64(largest)-int64(before.HeapAlloc))>>10)
	if limit := before.HeapAlloc + 4*queueBytes; largest > limit {
		t.Errorf("%d MB of heap were in use for 100 MB of rows", largest>>20)
	}
	w.same()
}

// TestPrimaryKeyTakenByAnotherRow: while the stream stands still, a row comes into the ranges with a TOAST value that the
// stream leaves out, gets another primary key, and another row takes its old one.
func TestPrimaryKeyTakenByAnotherRow(t *testing.T) {
	w := newWorld(t, plainRole, notesSchema, notes())
	var inside, outside []int64
	for k := int64(1); len(inside) < 2 || len(outside) < 2; k++ {
		if w.m.ranges.contain(topology.HashInt(k)) {
			inside = append(inside, k)
		} else {
			outside = append(outside, k)
		}
	}
	w.exec(Source, fmt.Sprintf("INSERT INTO notes VALUES (1, %d, repeat('a', 5000)), (2, %d, repeat('b', 5000)), (9, %d, repeat('c', 5000))", outside[0], outside[1], outside[0]))
	w.copy(CopyOptions{})
	w.exec(Source, fmt.Sprintf("UPDATE notes SET user_id = %d WHERE id = 1", inside[0]))
	w.exec(Source, "UPDATE notes SET id = 3 WHERE id = 1")
	w.exec(Source, fmt.Sprintf("UPDATE notes SET user_id = %d, id = 1 WHERE id = 2", inside[1]))
	// In a savepoint the version's writer is not the transaction that the stream names.
	w.exec(Source, fmt.Sprintf("BEGIN; SAVEPOINT s; UPDATE notes SET user_id = %d WHERE id = 9; COMMIT", inside[0]))
	s := start(t, w.m, StreamOptions{})
	s.catchUp()
	w.same()
	if got := s.Status().Doubtful; got != 1 {
		t.Errorf("%d rows are doubtful, want that of the savepoint", got)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = start(t, w.m, StreamOptions{}) // it is still known
	w.exec(Source, "UPDATE notes SET n = 5 WHERE id = 9")
	s.catchUp()
	w.same()
	if got := s.Status().Doubtful; got != 0 {
		t.Errorf("%d rows are doubtful after their last change", got)
	}
}
