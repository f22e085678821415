package topology

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// linearOwner is Owner as it is defined.
func linearOwner(ranges []KeyRange, h KeyHash) ShardID {
	for _, r := range ranges {
		if r.Start <= h && (h < r.End || r.End == 0) {
			return r.Shard
		}
	}
	return -1
}

// TestOwnerAgreesWithScan draws maps with borders that crowd together or lie far apart.
func TestOwnerAgreesWithScan(t *testing.T) {
	border := rapid.OneOf(
		rapid.Uint64(),
		rapid.Custom(func(t *rapid.T) uint64 { return 1 << rapid.IntRange(0, 63).Draw(t, "bit") }),
		rapid.Custom(func(t *rapid.T) uint64 { return rapid.Uint64Range(1<<63-20, 1<<63+20).Draw(t, "near the middle") }),
		rapid.Custom(func(t *rapid.T) uint64 { return ^rapid.Uint64Range(0, 20).Draw(t, "near the end") }),
	)
	rapid.Check(t, func(t *rapid.T) {
		borders := append(rapid.SliceOfN(border, 0, 200).Draw(t, "borders"), 0)
		slices.Sort(borders)
		borders = slices.Compact(borders)
		ranges := make([]KeyRange, len(borders))
		for i := range ranges {
			ranges[i] = KeyRange{Start: KeyHash(borders[i]), Shard: ShardID(i * 7 % 5)}
			if i > 0 {
				ranges[i-1].End = ranges[i].Start
			}
		}
		snap, err := NewSnapshot(1, make([]Shard, 5), ranges, nil)
		if err != nil {
			t.Fatal(err)
		}
		probes := append(rapid.SliceOfN(border, 1, 50).Draw(t, "hashes"), 0, ^uint64(0))
		for _, b := range borders {
			probes = append(probes, b, b-1, b+1)
		}
		for _, p := range probes {
			if got, want := snap.Owner(KeyHash(p)), linearOwner(ranges, KeyHash(p)); got != want {
				t.Fatalf("Owner(%016x) = %d, want %d in %v", p, got, want, ranges)
			}
		}
	})
}

// TestEqualRanges holds that they cover the ring, are of equal size, and own their own borders.
func TestEqualRanges(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7, 10, 63, 64, 65, 100, 255, 1000, 4096, 9999, 10_000, 65_537, 99_999, 100_000} {
		ranges := EqualRanges(n)
		snap, err := NewSnapshot(1, make([]Shard, n), ranges, nil)
		if err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		low, high := ^uint64(0), uint64(0)
		for i, r := range ranges {
			size := uint64(r.End-r.Start) - 1 // of the whole ring too it fits
			low, high = min(low, size), max(high, size)
			if snap.Owner(r.Start) != ShardID(i) || snap.Owner(r.End-1) != ShardID(i) {
				t.Fatalf("%d: range %d %v does not own its borders", n, i, r)
			}
		}
		if high-low > 1 {
			t.Errorf("%d: sizes from %d to %d", n, low, high)
		}
	}
	if got := EqualRanges(4)[1]; got != (KeyRange{Start: 1 << 62, End: 1 << 63, Shard: 1}) {
		t.Errorf("the second quarter of the ring is %v", got)
	}
	if len(EqualRanges(0)) != 0 {
		t.Error("no shards own something")
	}
}

func TestNewSnapshotRefuses(t *testing.T) {
	two := []Shard{{Name: "a"}, {Name: "b"}}
	for _, test := range []struct {
		name   string
		shards []Shard
		ranges []KeyRange
		want   string
	}{
		{"no shards", nil, []KeyRange{{}}, "at least one"},
		{"no ranges", two, nil, "at least one"},
		{"late start", two, []KeyRange{{Start: 1}}, "range 0"},
		{"early end", two, []KeyRange{{End: 9}}, "the last range ends"},
		{"gap", two, []KeyRange{{End: 8}, {Start: 9}}, "range 1"},
		{"overlap", two, []KeyRange{{End: 8}, {Start: 7}}, "range 1"},
		{"order", two, []KeyRange{{Start: 8}, {End: 8}}, "range 0"},
		{"empty range", two, []KeyRange{{End: 8}, {Start: 8, End: 8}, {Start: 8}}, "range 1"},
		{"backwards", two, []KeyRange{{End: 8}, {Start: 8, End: 4}, {Start: 4}}, "range 1"},
		{"ring ends twice", two, []KeyRange{{}, {}}, "range 0"},
		{"more after the end", two, []KeyRange{{End: 8}, {Start: 8}, {}}, "range 1"},
		{"unknown shard", two, []KeyRange{{Shard: 2}}, "unknown shard"},
		{"negative shard", two, []KeyRange{{Shard: -1}}, "unknown shard"},
	} {
		if _, err := NewSnapshot(1, test.shards, test.ranges, nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// TestSnapshotIsImmutable holds that what the caller does to its lists later changes nothing.
func TestSnapshotIsImmutable(t *testing.T) {
	shards, ranges := []Shard{{Name: "a"}, {Name: "b"}}, EqualRanges(2)
	snap, err := NewSnapshot(7, shards, ranges, nil)
	if err != nil {
		t.Fatal(err)
	}
	shards[0].Name, ranges[0].Shard = "x", 1
	if snap.Shards[0].Name != "a" || snap.Ranges()[0].Shard != 0 || snap.Owner(0) != 0 {
		t.Error("the snapshot changed")
	}
	schema := &Schema{Version: NextSchemaVersion()}
	other := snap.WithSchema(schema)
	if other.Schema != schema || snap.Schema == schema || other.Epoch != 7 || other.Owner(^KeyHash(0)) != 1 {
		t.Errorf("WithSchema gave %+v", other)
	}
	if snap.Schema == nil {
		t.Error("a snapshot without a schema has none at all")
	}
}

func TestOwnerAllocatesNothing(t *testing.T) {
	snap, err := NewSnapshot(1, make([]Shard, 100_000), EqualRanges(100_000), nil)
	if err != nil {
		t.Fatal(err)
	}
	h := KeyHash(1)
	if n := testing.AllocsPerRun(1000, func() { h = h*2862933555777941757 + KeyHash(snap.Owner(h)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestStrings(t *testing.T) {
	got := fmt.Sprintln(KeyRange{Start: 1 << 60, End: 0}, Primary, Replica, KeyInt, KeyText, KeyUUID, KeyNone, Sharded, Reference, View,
		TableName{"s", "t"}, Node{Host: "h", Port: 5}.Address()+" "+Node{Host: "::1", Port: 5}.Address())
	want := "[1000000000000000,0000000000000000) primary replica int text uuid none sharded reference view s.t h:5 [::1]:5\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestKeeps compares with the owners of single keys.
func TestKeeps(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	shards := []Shard{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	cut := func() *Snapshot {
		var ranges []KeyRange
		for start := uint64(0); start < 8; {
			end := min(8, start+1+r.Uint64N(4))
			ranges = append(ranges, KeyRange{Start: KeyHash(start << 61), End: KeyHash(end << 61), Shard: ShardID(r.IntN(3))})
			start = end
		}
		s, err := NewSnapshot(1, shards, ranges, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	kept := 0
	for range 20_000 {
		s, next := cut(), cut()
		for id := range ShardID(3) {
			want := true
			for h := range KeyHash(8) {
				want = want && (s.Owner(h<<61) != id || next.Owner(h<<61) == id)
			}
			if got := s.Keeps(id, next); got != want {
				t.Fatalf("shard %d of %v in %v: %v", id, s.Ranges(), next.Ranges(), got)
			}
			if want {
				kept++
			}
		}
	}
	if kept < 1000 {
		t.Errorf("only %d shards kept their keys: the test shows nothing", kept)
	}
	one, err := NewSnapshot(2, shards[1:2], EqualRanges(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := NewSnapshot(1, shards, EqualRanges(3), nil)
	if err != nil {
		t.Fatal(err)
	}
	if all.Keeps(0, one) || !all.Keeps(1, one) {
		t.Error("a shard is to be found by its name")
	}
}

func TestSameOwners(t *testing.T) {
	shards := []Shard{{Name: "a"}, {Name: "b"}}
	cut := []KeyRange{{Start: 0, End: 1 << 63, Shard: 0}, {Start: 1 << 63, Shard: 1}}
	of := func(shards []Shard, ranges ...KeyRange) *Snapshot {
		s, err := NewSnapshot(1, shards, ranges, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	base := of(shards, cut...)
	for name, test := range map[string]struct {
		other *Snapshot
		want  bool
	}{
		"other numbers": {of([]Shard{{Name: "b"}, {Name: "c"}, {Name: "a"}}, KeyRange{0, 1 << 63, 2}, KeyRange{1 << 63, 0, 0}), true},
		"other owner":   {of(shards, KeyRange{0, 1 << 63, 1}, KeyRange{1 << 63, 0, 0}), false},
		"other border":  {of(shards, KeyRange{0, 1 << 62, 0}, KeyRange{1 << 62, 0, 1}), false},
		"fewer":         {of(shards, KeyRange{Shard: 0}), false},
	} {
		if got := base.SameOwners(test.other); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
