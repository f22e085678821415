package topology

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func shardNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("s%d", i+1)
	}
	return names
}

// moved counts the slots whose shard differs.
func moved(aNames []string, a []int, bNames []string, b []int) (count int) {
	for slot := range a {
		if aNames[a[slot]] != bNames[b[slot]] {
			count++
		}
	}
	return count
}

// TestPlaceMovesLittle holds that a shard that joins takes about its share, and hardly anything else moves.
func TestPlaceMovesLittle(t *testing.T) {
	for _, n := range []int{1, 2, 4, 10, 11, 40, 100, 255, 256} {
		before, after := shardNames(n), shardNames(n+1)
		a, err := Place(before, SlotsDefault, 0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Place(after, SlotsDefault, 0)
		if err != nil {
			t.Fatal(err)
		}
		fair := float64(SlotsDefault) / float64(n+1)
		got := float64(moved(before, a, after, b))
		t.Logf("%d shards and one more: %.0f slots move, its share is %.0f (%.2f times)", n, got, fair, got/fair)
		if got > 2*fair || got < fair/2 {
			t.Errorf("%d shards and one more: %.0f slots move, its share is %.0f", n, got, fair)
		}
	}
}

// TestPlaceIsEven holds the bound on the load, that no shard gets nothing, and that nothing but the names counts.
func TestPlaceIsEven(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 100, 400} {
		names := shardNames(n)
		owners, err := Place(names, SlotsDefault, 0)
		if err != nil {
			t.Fatal(err)
		}
		loads := make([]int, n)
		for _, owner := range owners {
			loads[owner]++
		}
		fair := float64(SlotsDefault) / float64(n)
		low, high := float64(slices.Min(loads)), float64(slices.Max(loads))
		t.Logf("%d shards: %.0f to %.0f slots, share %.1f", n, low, high, fair)
		if high > fair*LoadDefault+1 || low < fair/4 {
			t.Errorf("%d shards: %.0f to %.0f slots, share %.1f", n, low, high, fair)
		}
		backwards := slices.Clone(names)
		slices.Reverse(backwards)
		again, err := Place(backwards, SlotsDefault, 0)
		if err != nil {
			t.Fatal(err)
		}
		if count := moved(names, owners, backwards, again); count != 0 {
			t.Errorf("%d shards in another order: %d slots differ", n, count)
		}
	}
}

// TestPlaceHasRoom tries what brings the library to its limits: few slots a shard.
func TestPlaceHasRoom(t *testing.T) {
	for n := 1; n <= 32; n++ {
		for slots := n; slots <= 3*n+2; slots += 1 + n/8 {
			if _, err := Place(shardNames(n), slots, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestPlaceRefuses(t *testing.T) {
	for _, c := range []struct {
		shards []string
		slots  int
		load   float64
		want   string
	}{
		{nil, 16, 0, "not on 0"},
		{shardNames(PlaceShardsMax + 1), SlotsMax, 0, "equal ranges have no such limit"},
		{shardNames(17), 16, 0, "at least as many slots"},
		{shardNames(2), SlotsMax + 1, 0, "at most 131072"},
		{shardNames(2), 16, 1, "load of 1"},
		{[]string{"a", "b", "a"}, 16, 0, `"a" is listed twice`},
	} {
		if _, err := Place(c.shards, c.slots, c.load); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// TestPlanRanges holds that the ranges are what Place says, and that neighbours are joined.
func TestPlanRanges(t *testing.T) {
	names := shardNames(7)
	ranges, err := PlanRanges(names, 1000)
	if err != nil {
		t.Fatal(err)
	}
	owners, err := Place(names, 1000, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSnapshot(1, make([]Shard, 7), ranges, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, cell := range EqualRanges(1000) {
		for _, h := range []KeyHash{cell.Start, cell.End - 1} {
			if got := s.Owner(h); int(got) != owners[i] {
				t.Fatalf("slot %d is on shard %d, not %d", i, got, owners[i])
			}
		}
	}
	for i := 1; i < len(ranges); i++ {
		if ranges[i].Shard == ranges[i-1].Shard {
			t.Errorf("ranges %v and %v should be one", ranges[i-1], ranges[i])
		}
	}
	if one, err := PlanRanges(names[:1], 1000); err != nil || len(one) != 1 {
		t.Errorf("one shard: %v, %v", one, err)
	}
}

func BenchmarkPlace(b *testing.B) {
	for _, n := range []int{10, 100, PlaceShardsMax} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := Place(shardNames(n), max(n, SlotsDefault), 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
