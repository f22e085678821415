package topology

import (
	"fmt"
	"testing"
)

// TestMine holds that each piece of work is one proxy's, that all get some, and that a proxy which leaves hands over
// only its own.
func TestMine(t *testing.T) {
	const works = 3000
	tables := make([]*peerTable, 3)
	for i := range tables {
		tables[i] = newPeerTable(fmt.Sprintf("proxy-%d:7946", i), func() MapState { return MapState{} })
	}
	for _, table := range tables {
		for _, other := range tables {
			if table != other {
				table.peers[other.name] = &peerEntry{rec: gossipRecord{name: other.name}, member: true}
			}
		}
	}
	owner := func(work string, of []*peerTable) int {
		who := -1
		for i, table := range of {
			if table.mine(work) {
				if who >= 0 {
					t.Fatalf("%s is of %d and %d", work, who, i)
				}
				who = i
			}
		}
		if who < 0 {
			t.Fatalf("%s is nobody's", work)
		}
		return who
	}
	before, counts := make([]int, works), make([]int, 3)
	for i := range works {
		before[i] = owner(fmt.Sprint("s", i), tables)
		counts[before[i]]++
	}
	for i, n := range counts {
		if n < works/3-works/10 || n > works/3+works/10 {
			t.Errorf("proxy %d has %d of %d", i, n, works)
		}
	}
	tables[0].peers[tables[2].name].member = false
	tables[1].peers[tables[2].name].rec.leaving = true
	for i := range works {
		if now := owner(fmt.Sprint("s", i), tables[:2]); before[i] != 2 && now != before[i] {
			t.Fatalf("s%d went from %d to %d", i, before[i], now)
		}
	}
	if alone := newPeerTable("a", func() MapState { return MapState{} }); !alone.mine("s1") {
		t.Error("a proxy that is alone does not have all")
	}
}
