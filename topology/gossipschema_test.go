package topology

import (
	"testing"
	"testing/synctest"
	"time"
)

// A change of tables is known at once to those who can be reached, and to the others when the cut ends, also if it was
// not made by the peer that they hear first, and if the clock of who made it was behind.
func TestGossipSchemaNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet(t)
		list := startThree(t, n)
		a, b, c := list[0], list[1], list[2]
		count := func() [3]int { return [3]int{a.schemaNews(), b.schemaNews(), c.schemaNews()} }
		a.g.SchemaChanged()
		time.Sleep(3 * time.Second)
		if got := count(); got != [3]int{0, 1, 1} {
			t.Fatalf("after one change by a: %v calls", got)
		}
		alone := c.g.Address()
		n.cut(func(x, y string) bool { return (x == alone) != (y == alone) })
		a.g.SchemaChanged()
		time.Sleep(time.Minute)
		if got := count(); got != [3]int{0, 2, 1} {
			t.Fatalf("with c cut off: %v calls", got)
		}
		from := a.g.Address()
		n.cut(func(x, y string) bool { return x == from || y == from }) // what c hears comes from b
		b.untilStatus(t, "c", PeerAlive)
		c.until(t, "news of the change", func([]Peer) bool { return c.schemaNews() == 2 })
		n.cut(nil)
		b.untilStatus(t, "a", PeerAlive)

		// All have heard of a change by a clock that is a day ahead. One that starts now, and changes tables before it
		// has heard of that, is believed.
		a.g.peers.mu.Lock()
		a.g.peers.self.schema = uint64(time.Now().Add(24 * time.Hour).UnixMicro())
		a.g.peers.mu.Unlock()
		a.g.SchemaChanged()
		time.Sleep(time.Minute)
		before := count()
		d := startProxy(t, MapState{5, 55}, simConfig(n, "d", b.g.Address()))
		d.until(t, "members", func(peers []Peer) bool { return len(peers) == 3 })
		d.g.peers.mu.Lock()
		d.g.peers.self.schema = 0
		d.g.peers.mu.Unlock()
		d.g.SchemaChanged()
		time.Sleep(10 * time.Second)
		for i, p := range list {
			if p.schemaNews() == before[i] {
				t.Errorf("%s did not hear of the change by d", p.g.cfg.Node)
			}
		}
		if d.schemaNews() == 0 {
			t.Error("d did not hear of what was changed before it started")
		}
	})
}
