package topology

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// checkMovingIndex compares what a snapshot says of moves with its list of them, hash by hash.
func checkMovingIndex(t *rapid.T, s *Snapshot) {
	stamp := s.Epoch
	for _, m := range s.Moving() {
		stamp = max(stamp, m.Hold)
	}
	if s.Stamp() != stamp {
		t.Fatalf("stamp %d, want %d", s.Stamp(), stamp)
	}
	anyHeld := false
	for cell := range KeyHash(16) {
		for _, h := range []KeyHash{cell << 60, cell<<60 + 1<<60 - 1} {
			held := false
			foreign := make([]bool, len(s.Shards))
			for _, m := range s.Moving() {
				if !slices.ContainsFunc(m.Ranges, func(r KeyRange) bool { return r.Start <= h && h <= r.End-1 }) {
					continue
				}
				held = held || m.Hold != 0
				for _, name := range []string{m.Source, m.Target} {
					id, _ := s.ShardByName(name)
					foreign[id] = foreign[id] || s.Owner(h) != id
				}
			}
			anyHeld = anyHeld || held
			if s.Held(h) != held {
				t.Fatalf("%016x: held %v, want %v", uint64(h), s.Held(h), held)
			}
			for id := range foreign {
				if got := inRanges(s.Foreign(ShardID(id)), h); got != foreign[id] {
					t.Fatalf("%016x on shard %s: foreign %v, want %v", uint64(h), s.Shards[id].Name, got, foreign[id])
				}
			}
		}
	}
	if s.AnyHeld() != anyHeld {
		t.Fatalf("something is held: %v, want %v", s.AnyHeld(), anyHeld)
	}
}

func TestMovingRefuses(t *testing.T) {
	s := mustNew(t, modelContent())
	good := Moving{ID: 1, Source: "a", Target: "b", Ranges: []KeyRange{{Start: 0, End: 1 << 60}}}
	s, err := s.Apply(SetMoving{good})
	if err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]Change{
		"says so already":  SetMoving{good},
		"a number above 0": SetMoving{Moving{Source: "a", Target: "b", Ranges: good.Ranges}},
		"two shards":       SetMoving{Moving{ID: 2, Source: "a", Target: "a", Ranges: good.Ranges}},
		"no shard \"x\"":   SetMoving{Moving{ID: 2, Source: "a", Target: "x", Ranges: good.Ranges}},
		"1 to 16384":       SetMoving{Moving{ID: 2, Source: "a", Target: "b"}},
		"is empty":         SetMoving{Moving{ID: 2, Source: "a", Target: "b", Ranges: []KeyRange{{Start: 5, End: 5}}}},
		"not in order":     SetMoving{Moving{ID: 2, Source: "a", Target: "b", Ranges: []KeyRange{{Start: 5, End: 7}, {Start: 6, End: 8}}}},
		"in two moves":     SetMoving{Moving{ID: 2, Source: "c", Target: "b", Ranges: []KeyRange{{Start: 7, End: 8}}}},
		"no move 2":        EndMoving{2},
	} {
		if _, err := s.Apply(change); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", change, err, want)
		}
	}
	if _, err := s.Apply(Batch{MoveRange{0, 0, "a"}, RemoveShard{"b"}}); err == nil || !strings.Contains(err.Error(), "unknown shard \"b\"") {
		t.Errorf("a shard was removed to which rows are moving: %v", err)
	}
}

// TestMovingIsKept stores moves with the map, and changes them there.
func TestMovingIsKept(t *testing.T) {
	c, _, s := filledCatalog(t, richContent())
	for _, change := range []Change{
		SetMoving{Moving{ID: 5, Source: "s10", Target: "s1", Ranges: []KeyRange{{Start: 1 << 62, End: 1 << 63}}}},
		Batch{MoveRange{1 << 62, 1 << 63, "s1"}, SetMoving{Moving{ID: 5, Source: "s10", Target: "s1", Ranges: []KeyRange{{Start: 1 << 62, End: 1 << 63}}, Hold: 90}}},
		EndMoving{3},
		EndMoving{5},
		EndMoving{1 << 40},
	} {
		next, err := c.Commit(t.Context(), s, change, dba)
		if err != nil {
			t.Fatal(err)
		}
		sameContent(t, next, loadCatalog(t, c))
		s = next
	}
}
