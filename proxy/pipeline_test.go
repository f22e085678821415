package proxy

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
)

const insertT = "INSERT INTO t VALUES ($1, $2)"

func TestPipelineOverShards(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	var all [][]pgproto3.FrontendMessage
	for i := range 9 {
		all = append(all, run(insertT, k.keyOn(i%3, i/3), "p"))
	}
	want := strings.Repeat("1 2 C:INSERT 0 1 ", 9) + "Z:I"
	c.wantPipe(want, join(all...)...)
	if got := k.rowsOf("v = 'p'"); got != [3]int{3, 3, 3} {
		t.Errorf("rows %v", got)
	}
	all = nil
	for i := range 9 {
		all = append(all, run("SELECT v FROM t WHERE user_id = $1", k.keyOn(i%3, i/3)))
	}
	c.wantPipe(strings.Repeat("1 2 D:p C:SELECT 1 ", 9)+"Z:I", join(all...)...)
	k.atRest()
	if n := k.prepared(); n != 0 {
		t.Errorf("%d prepared transactions", n)
	}
}

func TestPipelineErrorUndoesAll(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	a, b := k.keyOn(0, 0), k.keyOn(1, 0)
	c.wantPipe("1 2 C:INSERT 0 1 1 2 C:INSERT 0 1 1 2 E:23505 Z:I",
		join(run(insertT, a, "x"), run(insertT, b, "x"), run(insertT, a, "y"), run(insertT, k.keyOn(2, 0), "y"))...)
	if got := k.rowsOf("true"); got != [3]int{} {
		t.Errorf("rows %v", got)
	}
	c.wantPipe("1 2 C:INSERT 0 1 1 E:22P02 Z:I", join(run(insertT, b, "x"), run("SELECT v FROM t WHERE user_id = $1::bigint", "no number"))...)
	if got := k.rowsOf("true"); got != [3]int{} {
		t.Errorf("rows %v", got)
	}
	c.want("SELECT 1", "T D:1 C:SELECT 1 Z:I")
	k.atRest()
}

func TestPipelineReadThenWrite(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	a, b := k.keyOn(0, 0), k.keyOn(1, 0)
	const read = "SELECT v FROM t WHERE user_id = $1"
	c.wantPipe("1 2 C:SELECT 0 1 2 C:INSERT 0 1 1 2 D:x C:SELECT 1 1 2 C:SELECT 0 Z:I",
		join(run(read, a), run(insertT, b, "x"), run(read, b), run(read, a))...)
	if got := k.rowsOf("true"); got != [3]int{0, 1, 0} {
		t.Errorf("rows %v", got)
	}
	k.atRest()
}

func TestNamedPortalsWithLimits(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	a, b := k.keyOn(0, 0), k.keyOn(1, 0)
	for _, key := range []int64{a, b} {
		c.wantPipe("1 2 C:INSERT 0 1 Z:I", join(run(insertT, key, "x"))...)
	}
	c.want("BEGIN", "C:BEGIN Z:T")
	const rows = "SELECT g FROM t, generate_series(1, 3) g WHERE user_id = $1"
	c.wantPipe("1 2 2 D:1 D:2 s D:1 s Z:T", parse("s", rows), bind("pa", "s", a), bind("pb", "s", b), execute("pa", 2), execute("pb", 1), syncM)
	c.wantPipe("D:3 C:SELECT 1 D:2 s 3 T 3 Z:T", execute("pa", 2), execute("pb", 1), &pgproto3.Close{ObjectType: 'P', Name: "pa"},
		&pgproto3.Describe{ObjectType: 'P', Name: "pb"}, &pgproto3.Close{ObjectType: 'P', Name: "pb"}, syncM)
	c.wantPipe("E:34000 Z:E", execute("pb", 1), syncM)
	c.want("ROLLBACK", "C:ROLLBACK Z:I")
	k.atRest()
}

// TestFlush asks for answers without Sync.
func TestFlush(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.send(append(run(insertT, k.keyOn(0, 0), "x"), flushM)...)
	if got := c.answer("C"); got != "1 2 C:INSERT 0 1" {
		t.Errorf("got %s", got)
	}
	c.send(append(run(insertT, k.keyOn(1, 0), "x"), flushM)...)
	if got := c.answer("C"); got != "1 2 C:INSERT 0 1" {
		t.Errorf("got %s", got)
	}
	if got := k.rowsOf("true"); got != [3]int{} {
		t.Errorf("rows before Sync %v", got)
	}
	c.wantPipe("Z:I", syncM)
	if got := k.rowsOf("true"); got != [3]int{1, 1, 0} {
		t.Errorf("rows %v", got)
	}
	k.atRest()
}

// TestFlushThenGone: what was not committed must go, and its locks at once.
func TestFlushThenGone(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.send(append(run(insertT, k.keyOn(0, 0), "x"), flushM)...)
	c.answer("C")
	c.reset()
	d := k.connect()
	d.wantPipe("1 2 C:INSERT 0 1 Z:I", join(run(insertT, k.keyOn(0, 0), "y"))...)
	k.atRest()
}

func TestLargePipelineLargeResults(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	const n = 1000
	msgs := []pgproto3.FrontendMessage{parse("big", "SELECT repeat('x', 100000) || v FROM t WHERE user_id = $1")}
	var keys []int64
	for i := range 3 {
		keys = append(keys, k.keyOn(i, 0))
		c.wantPipe("1 2 C:INSERT 0 1 Z:I", join(run(insertT, keys[i], "v"))...)
	}
	for i := range n {
		msgs = append(msgs, bind("", "big", keys[i%3]), execute("", 0))
	}
	done := make(chan struct{})
	go func() { // a client must read while it writes
		defer close(done)
		c.send(append(msgs, syncM)...)
	}()
	got := c.answer("Z")
	<-done
	if n := strings.Count(got, "D:100001 bytes"); n != 1000 {
		t.Errorf("%d rows, ends with %s", n, got[max(0, len(got)-100):])
	}
	k.atRest()
}

// TestParseFailsBehindUnnamed: a backend does not have a statement whose Parse has failed, whatever was parsed before it.
func TestParseFailsBehindUnnamed(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	key := k.keyOn(0, 0)
	bad := []pgproto3.FrontendMessage{parse("bad", "SELECT missing FROM t WHERE user_id = $1"), bind("", "bad", key), execute("", 0)}
	c.wantPipe("1 2 C:SELECT 0 E:42703 Z:I", join(run("SELECT v FROM t WHERE user_id = $1", key), bad)...)
	c.wantPipe("E:42703 Z:I", join(bad)...)
	k.atRest()
}
