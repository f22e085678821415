package proxy

import (
	"cmp"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/backend"
	"shardproxy/topology"
)

// held publishes a map that holds the keys of the first shard, which are to go to the second.
func (k *kit) held() {
	snap := k.srv.Snapshot()
	k.srv.Publish(k.apply(topology.SetMoving{Moving: topology.Moving{
		ID: 1, Source: "s1", Target: "s2", Hold: snap.Epoch + 2, Ranges: snap.Ranges()[:1],
	}}))
}

// TestHoldOfWhatIsPrepared: a transaction has tables locked by a write that it has only prepared, or had explained. A cutover waits for
// it, so it does not wait for the cutover.
func TestHoldOfWhatIsPrepared(t *testing.T) {
	describe := &pgproto3.Describe{ObjectType: 'S', Name: "w"}
	for name, prepare := range map[string]func(c *client, write string){
		"Parse":    func(c *client, write string) { c.wantPipe("1 Z:T", parse("w", write), syncM) },
		"Describe": func(c *client, write string) { c.wantPipe("1 t n Z:T", parse("w", write), describe, syncM) },
		"Bind":     func(c *client, write string) { c.wantPipe("1 2 Z:T", parse("w", write), bind("", "w"), syncM) },
		"PREPARE":  func(c *client, write string) { c.want("PREPARE w AS "+write, "C:PREPARE Z:T") },
		"EXPLAIN":  func(c *client, write string) { c.value("EXPLAIN " + write) },
	} {
		t.Run(name, func(t *testing.T) {
			k := newKit(t)
			from, to := itoa(k.keyOn(0, 0)), itoa(k.keyOn(1, 0))
			const write = "UPDATE t SET v = 'new' WHERE user_id = "
			before, within, reads := k.connect(), k.connect(), k.connect()
			before.want("INSERT INTO t VALUES ("+from+", 'old')", "C:INSERT 0 1 Z:I")
			for _, c := range []*client{before, within, reads} {
				c.want("BEGIN", "C:BEGIN Z:T")
				c.want("SELECT v FROM t WHERE user_id = "+from, "T D:old C:SELECT 1 Z:T")
			}
			prepare(before, write+from)
			k.held()
			before.want(write+from, "C:UPDATE 1 Z:T")
			before.want("COMMIT", "C:COMMIT Z:I")
			prepare(within, on1+write+to)
			within.want(write+from, "E:40001 Z:E")
			within.want("ROLLBACK", "C:ROLLBACK Z:I")
			reads.send(&pgproto3.Query{String: write + from})
			waitFor(t, "who only reads waits", func() bool { return k.srv.stats.held.Load() == 1 })
			k.cancel(reads)
			if got := reads.answer("Z"); got != "E:57014 Z:E" {
				t.Errorf("cancelled: %s", got)
			}
			reads.want("ROLLBACK", "C:ROLLBACK Z:I")
			k.atRest()
		})
	}
}

// flip publishes the map by which the keys of held have moved, fences and all.
func (k *kit) flip() {
	moving := k.srv.Snapshot().Moving()[0]
	moving.Hold = 0
	next := k.apply(topology.Batch{k.moveOf(0, 1), topology.SetMoving{Moving: moving}})
	k.fence(0, next)
	k.fence(1, next)
	k.srv.Publish(next)
}

// TestHoldOfAPipeline: a statement waits for a cutover also behind others of its pipeline, if the cutover does not wait for those.
func TestHoldOfAPipeline(t *testing.T) {
	k := newKit(t)
	k.fences(k.srv.Snapshot())
	from, to, free := itoa(k.keyOn(0, 0)), itoa(k.keyOn(1, 0)), itoa(k.keyOn(2, 0))
	const read, series = "SELECT v FROM t WHERE user_id = $1", "SELECT generate_series(1, 3) FROM r RIGHT JOIN (SELECT) s ON true"
	k.held()
	c := k.connect()
	c.wantPipe("1 2 C:INSERT 0 1 E:40001 Z:I", join(run("INSERT INTO r VALUES (7, 'lost')"), run(insertT, from, "lost"))...)
	portal := []pgproto3.FrontendMessage{parse("s", series), bind("p", "s"), execute("p", 1)}
	waits := []struct {
		pipe []pgproto3.FrontendMessage
		want string
		c    *client
	}{
		{pipe: join(run(insertT, free, "free"), run(insertT, from, "moved"), run(read, free)), want: "1 2 C:INSERT 0 1 1 2 C:INSERT 0 1 1 2 D:free C:SELECT 1 Z:I"},
		{pipe: join(run(read, to), run(insertT, to, "other")), want: "1 2 C:SELECT 0 1 2 C:INSERT 0 1 Z:I"},
		{pipe: join(run(insertT, itoa(k.keyOn(2, 1)), "free"), run("SELECT v FROM t WHERE v = 'none'")), want: "1 2 C:INSERT 0 1 1 2 C:SELECT 0 Z:I"},
		{pipe: join(portal, run(read, itoa(k.keyOn(0, 1))), []pgproto3.FrontendMessage{execute("p", 0)}), want: "1 2 D:1 s 1 2 C:SELECT 0 D:2 D:3 C:SELECT 2 Z:I"},
		{pipe: join(run("BEGIN"), run(read, free), run(read, itoa(k.keyOn(0, 1))), run("COMMIT")), want: "1 2 C:BEGIN 1 2 C:SELECT 0 1 2 C:SELECT 0 1 2 C:COMMIT Z:I"},
	}
	n := k.srv.stats.held.Load()
	for i := range waits {
		w := &waits[i]
		w.c = k.connect()
		w.c.send(w.pipe...)
		if i != 1 { // the key that it writes is not held
			n++
		}
		waitFor(t, "it waits", func() bool { return k.srv.stats.held.Load() == n })
	}
	k.flip()
	for _, w := range waits {
		if got := w.c.answer("Z"); got != w.want {
			t.Errorf("%s\nwant: %s", got, w.want)
		}
	}
	if got := k.rowsOf("true"); got != [kitShards]int{0, 2, 2} {
		t.Errorf("rows on the shards: %v", got)
	}
	k.atRest()
}

// TestHoldOfASchemaChange holds that what changes tables of all shards waits for a cutover as writes of its keys do, and is then done everywhere.
func TestHoldOfASchemaChange(t *testing.T) {
	for sql, tag := range map[string]string{
		"ALTER TABLE t ADD COLUMN n int": "ALTER TABLE", "CREATE INDEX ON t (v)": "CREATE INDEX", "TRUNCATE t": "TRUNCATE TABLE", "DROP TABLE t": "DROP TABLE",
	} {
		t.Run(tag, func(t *testing.T) {
			k := newKit(t)
			k.fences(k.srv.Snapshot())
			k.held()
			c := k.connect()
			c.send(&pgproto3.Query{String: sql})
			waitFor(t, "it waits", func() bool { return k.srv.stats.held.Load() == 1 })
			k.flip()
			if got := c.answer("Z"); got != "C:"+tag+" Z:I" {
				t.Errorf("%s", got)
			}
			k.atRest()
		})
	}
}

// TestScatterIsPlannedAnew: a statement for several shards that has waited for a backend goes by the map that came meanwhile.
func TestScatterIsPlannedAnew(t *testing.T) {
	for _, sql := range []string{"UPDATE t SET v = 'new'", "SELECT v FROM t", "SELECT count(*) FROM t", "UPDATE r SET v = 'new'"} {
		t.Run(sql, func(t *testing.T) {
			k := newKit(t, func(c *Config) { c.Pools.Max = 1 })
			k.fences(k.srv.Snapshot())
			holder, waits := k.connect(), k.connect()
			holder.want("BEGIN", "C:BEGIN Z:T")
			holder.want("SELECT v FROM t WHERE user_id = "+itoa(k.keyOn(2, 0)), "T C:SELECT 0 Z:T")
			waits.send(&pgproto3.Query{String: sql})
			waitFor(t, "it waits for a backend", func() bool {
				return slices.ContainsFunc(k.srv.Pools(), func(p backend.Stats) bool { return p.Waiting == 1 })
			})
			k.moved()
			moved := itoa(k.keyOn(1, 0))
			k.ask(1, "SET shardproxy.epoch = 2; INSERT INTO t VALUES ("+moved+", 'row'); INSERT INTO r VALUES (1, 'row')")
			for _, i := range []int{0, 2} {
				k.ask(i, "SET shardproxy.epoch = 2; INSERT INTO r VALUES (1, 'row')")
			}
			holder.want("ROLLBACK", "C:ROLLBACK Z:I")
			want := map[string]string{"SELECT v FROM t": "T D:row C:SELECT 1 Z:I", "SELECT count(*) FROM t": "T D:1 C:SELECT 1 Z:I"}[sql]
			if got := waits.answer("Z"); got != cmp.Or(want, "C:UPDATE 1 Z:I") {
				t.Errorf("%s", got)
			}
			k.atRest()
		})
	}
}
