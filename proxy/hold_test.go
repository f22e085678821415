package proxy

import (
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

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
			prepare(within, write+to)
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
