package topology

import (
	"testing"

	"pgregory.net/rapid"
)

// TestForeignOf compares, hash by hash, what a map says of its own moves and of those of a later map.
func TestForeignOf(t *testing.T) {
	shards := []Shard{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	rapid.Check(t, func(t *rapid.T) {
		ranges := EqualRanges(16)
		for i := range ranges {
			ranges[i].Shard = ShardID(rapid.IntRange(0, 2).Draw(t, "owner"))
		}
		base, err := NewSnapshot(1, shards, ranges, nil)
		if err != nil {
			t.Fatal(err)
		}
		moved := func(s *Snapshot) *Snapshot {
			cells := rapid.Permutation([]KeyHash{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}).Draw(t, "cells")
			for id := range rapid.IntRange(0, 3).Draw(t, "moves") {
				pair := rapid.Permutation([]string{"a", "b", "c"}).Draw(t, "pair")
				m := Moving{ID: int64(id + 1), Source: pair[0], Target: pair[1], Ranges: []KeyRange{{Start: cells[id] << 60, End: (cells[id] + 1) << 60}}}
				if s, err = s.Apply(SetMoving{Moving: m}); err != nil {
					t.Fatal(err)
				}
			}
			return s
		}
		plan, later := moved(base), moved(base)
		if rapid.Bool().Draw(t, "another epoch") {
			later = later.WithSchema(later.Schema)
			later.Epoch += 100
		}
		for id := range shards {
			got := plan.ForeignOf(later, ShardID(id))
			for i := 1; i < len(got); i++ {
				if got[i].Start <= got[i-1].End-1 {
					t.Fatalf("%v overlap", got)
				}
			}
			for cell := range KeyHash(16) {
				h := cell<<60 + 5
				want := inRanges(plan.Foreign(ShardID(id)), h)
				for _, m := range later.Moving() {
					here := m.Source == shards[id].Name || m.Target == shards[id].Name
					want = want || later.Epoch != plan.Epoch && here && inRanges(m.Ranges, h) && plan.Owner(h) != ShardID(id)
				}
				if inRanges(got, h) != want {
					t.Fatalf("%016x on %s: foreign %v, want %v", uint64(h), shards[id].Name, !want, want)
				}
			}
		}
	})
}
