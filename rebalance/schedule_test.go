package rebalance

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"shardproxy/topology"
)

// drawTopology gives a map of some shards, at least one of them active, with ranges cut anywhere.
func drawTopology(t *rapid.T, draining bool) *topology.Snapshot {
	c := topology.Content{Cluster: "c", Epoch: 1}
	for i := range rapid.IntRange(1, 6).Draw(t, "shards") {
		s := topology.Shard{Name: fmt.Sprint("s", i), Nodes: []topology.Node{{Host: fmt.Sprint("h", i), Port: 5432, Database: "d"}}}
		if draining && i > 0 && rapid.IntRange(0, 3).Draw(t, "draining") == 0 {
			s.State = topology.ShardDraining
		}
		c.Shards = append(c.Shards, s)
	}
	borders := rapid.SliceOfN(rapid.Uint64Range(1, 1<<14-1), 0, 20).Draw(t, "borders")
	slices.Sort(borders)
	borders = slices.Compact(borders)
	start := topology.KeyHash(0)
	for i := range len(borders) + 1 {
		end := topology.KeyHash(0)
		if i < len(borders) {
			end = topology.KeyHash(borders[i]) << 50
		}
		owner := topology.ShardID(rapid.IntRange(0, len(c.Shards)-1).Draw(t, "owner"))
		c.Ranges = append(c.Ranges, topology.KeyRange{Start: start, End: end, Shard: owner})
		start = end
	}
	s, err := topology.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// drawWeights measures some of the ring, in cells that are wide enough to be cut.
func drawWeights(t *rapid.T) *Weights {
	var cells []Weight
	for i := range 16 {
		if v := rapid.IntRange(0, 100).Draw(t, "weight"); v > 50 {
			r := Range{topology.KeyHash(i) << 60, topology.KeyHash(i+1) << 60}
			cells = append(cells, Weight{r, float64(v * v)})
		}
	}
	w, err := NewWeights(cells)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// carryOut does what a schedule says to the map, and holds that its moves are as it says.
func carryOut(t *rapid.T, snap *topology.Snapshot, w *Weights, s Schedule) *topology.Snapshot {
	moved := 0.0
	for i := range s.Moves {
		m := &s.Moves[i]
		for j := range i {
			if m.Overlaps(&s.Moves[j]) {
				t.Fatalf("%v and %v overlap", m, &s.Moves[j])
			}
		}
		for _, r := range m.Ranges {
			moved += w.Of(r)
			for _, own := range snap.Ranges() {
				if r.overlaps(Range{own.Start, own.End}) && snap.Shards[own.Shard].Name != m.Source {
					t.Fatalf("%v: %s owns a part of it", m, snap.Shards[own.Shard].Name)
				}
			}
		}
	}
	changes := slices.Clone(s.Changes)
	for i := range s.Moves {
		changes = append(changes, s.Moves[i].Change())
	}
	next := snap
	for _, c := range changes {
		var err error
		if next, err = next.Apply(c); err != nil {
			t.Fatal(err)
		}
	}
	if math.Abs(moved-s.Moved) > 1e-6*(1+moved) {
		t.Fatalf("%v is moved, it says %v", moved, s.Moved)
	}
	after := (&planner{snap: next, weights: w}).shardWeights()
	for _, l := range s.Loads {
		id, _ := next.ShardByName(l.Shard)
		if math.Abs(after[id]-l.After) > 1e-6*(1+w.Of(Range{})) {
			t.Fatalf("%s has %v, it says %v", l.Shard, after[id], l.After)
		}
	}
	return next
}

func mustPlan(t *rapid.T, s Schedule, err error) Schedule {
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRebalance holds that loads are within the tolerance, no more moves than has to, and a second run plans nothing.
func TestRebalance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap, w := drawTopology(t, true), drawWeights(t)
		tolerance := rapid.Float64Range(0.01, 0.5).Draw(t, "tolerance")
		p := Planner{Snapshot: snap, Weights: w, Who: "dba"}
		plan := mustPlan2(t)(p.Rebalance(tolerance))
		next := carryOut(t, snap, w, plan)

		before := (&planner{snap: snap, weights: w}).shardWeights()
		loads, active, share, err := (&planner{snap: next, weights: w}).shares()
		if err != nil {
			t.Fatal(err)
		}
		over, under := 0.0, 0.0
		slack := 1e-9 * w.Of(Range{})
		for i, load := range loads {
			if !active[i] {
				over += before[i]
				if load != 0 {
					t.Fatalf("the draining shard %d keeps %v", i, load)
				}
				continue
			}
			if load < share*(1-tolerance)-slack || load > share*(1+tolerance)+slack {
				t.Fatalf("shard %d has %v, the share is %v", i, load, share)
			}
			over += max(0, before[i]-share*(1+tolerance*toleranceInner))
			under += max(0, share*(1-tolerance*toleranceInner)-before[i])
		}
		if least := max(over, under); plan.Moved > least*(1+1e-6)+slack*float64(len(loads)) {
			t.Fatalf("%v is moved, %v would do", plan.Moved, least)
		}
		p.Snapshot = next
		if again := mustPlan2(t)(p.Rebalance(tolerance)); !again.Empty() {
			t.Fatalf("a second run: %v", &again)
		}
	})
}

func mustPlan2(t *rapid.T) func(Schedule, error) Schedule {
	return func(s Schedule, err error) Schedule { return mustPlan(t, s, err) }
}

// TestDrain holds that all of the shard goes, and nothing else.
func TestDrain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap, w := drawTopology(t, true), drawWeights(t)
		name := snap.Shards[rapid.IntRange(0, len(snap.Shards)-1).Draw(t, "shard")].Name
		p := Planner{Snapshot: snap, Weights: w, Who: "dba"}
		plan, err := p.Drain(name)
		others := slices.ContainsFunc(snap.Shards, func(s topology.Shard) bool { return s.Name != name && s.State == topology.ShardActive })
		if !others {
			if err == nil {
				t.Fatalf("it goes nowhere: %v", &plan)
			}
			return
		}
		next := carryOut(t, snap, w, mustPlan(t, plan, err))
		for i := range plan.Moves {
			if plan.Moves[i].Source != name {
				t.Fatalf("%v", &plan.Moves[i])
			}
		}
		for _, r := range next.Ranges() {
			if next.Shards[r.Shard].Name == name {
				t.Fatalf("it keeps %v", r)
			}
		}
		p.Snapshot = next
		if again := mustPlan2(t)(p.Drain(name)); !again.Empty() {
			t.Fatalf("a second run: %v", &again)
		}
	})
}

// TestPlace holds that the map becomes the one of consistent hashing, and only what must be moves.
func TestPlace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap, w := drawTopology(t, true), drawWeights(t)
		const slots = 64
		p := Planner{Snapshot: snap, Weights: w, Who: "dba"}
		plan := mustPlan2(t)(p.Place(slots))
		next := carryOut(t, snap, w, plan)
		var names []string
		for _, s := range snap.Shards {
			if s.State == topology.ShardActive {
				names = append(names, s.Name)
			}
		}
		owners, err := topology.Place(names, slots, 0)
		if err != nil {
			t.Fatal(err)
		}
		for slot, cell := range topology.EqualRanges(slots) {
			for _, h := range []topology.KeyHash{cell.Start, cell.End - 1} {
				if got := next.Shards[next.Owner(h)].Name; got != names[owners[slot]] {
					t.Fatalf("slot %d is on %s, not on %s", slot, got, names[owners[slot]])
				}
			}
		}
		p.Snapshot = next
		if again := mustPlan2(t)(p.Place(slots)); !again.Empty() {
			t.Fatalf("a second run: %v", &again)
		}
	})
}

// TestSplitEvenly holds that parts weigh the same, by width or by weight, and the first stays.
func TestSplitEvenly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		snap, w := drawTopology(t, false), drawWeights(t)
		owner := snap.Ranges()[rapid.IntRange(0, len(snap.Ranges())-1).Draw(t, "range")].Shard
		to := topology.ShardID(rapid.IntRange(0, len(snap.Shards)-1).Draw(t, "to"))
		into := rapid.IntRange(2, 5).Draw(t, "into")
		p := Planner{Snapshot: snap, Weights: w, Who: "dba"}
		split := Split{Shard: snap.Shards[owner].Name, Into: into, BySize: rapid.Bool().Draw(t, "by size"), To: []string{snap.Shards[to].Name}}
		by := w
		if !split.BySize {
			by, _ = NewWeights(nil)
		}
		before := (&planner{snap: snap, weights: by}).shardWeights()
		plan, err := p.Split(split)
		if err != nil {
			if before[owner] > 0 {
				t.Fatal(err)
			}
			return
		}
		next := carryOut(t, snap, w, plan)
		after := (&planner{snap: next, weights: by}).shardWeights()
		want := before[owner] / float64(into)
		if to == owner {
			want = before[owner]
		}
		if math.Abs(after[owner]-want) > 1e-6*before[owner] {
			t.Fatalf("%v of %v stays in %d parts", after[owner], before[owner], into)
		}
	})
}

// startSnapshot owns a: [0,4) and [8,c), b: [4,8) and [c,-), in hexadecimal digits from the left; c owns nothing, d is drained.
func startSnapshot(t *testing.T) *topology.Snapshot {
	t.Helper()
	c := topology.Content{Cluster: "c", Epoch: 1}
	for _, name := range []string{"a", "b", "c", "d"} {
		c.Shards = append(c.Shards, topology.Shard{Name: name, Nodes: []topology.Node{{Host: name, Port: 5432, Database: "d"}}})
	}
	c.Shards[3].State = topology.ShardDraining
	for i := range 4 {
		c.Ranges = append(c.Ranges, topology.KeyRange{Start: topology.KeyHash(i) << 62, End: topology.KeyHash(i+1) << 62, Shard: topology.ShardID(i % 2)})
	}
	s, err := topology.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestScheduleTexts holds what people are shown, and what is refused.
func TestScheduleTexts(t *testing.T) {
	snap := startSnapshot(t)
	heavy, err := NewWeights([]Weight{{Range{0, 1 << 61}, 30}, {Range{1 << 61, 1 << 62}, 10}, {Range{1 << 62, 0}, 60}})
	if err != nil {
		t.Fatal(err)
	}
	p, weighed := Planner{Snapshot: snap, Who: "dba"}, Planner{Snapshot: snap, Weights: heavy, Who: "dba"}
	first := Range{0, 1 << 62}
	for _, test := range []struct {
		name string
		plan func() (Schedule, error)
		want string // some of the text, or of the error
	}{
		{"split at", func() (Schedule, error) { return p.Split(Split{Range: first, At: 1 << 60, To: []string{"c"}}) }, "split: 1 ranges from a to c: [1000000000000000,4000000000000000)"},
		{"split in the middle", func() (Schedule, error) { return p.Split(Split{Range: first, To: []string{"c"}}) }, "[2000000000000000,4000000000000000)"},
		{"split by size", func() (Schedule, error) { return weighed.Split(Split{Range: first, BySize: true, To: []string{"c"}}) }, "[155555555555"},
		{"split in three", func() (Schedule, error) { return p.Split(Split{Range: first, Into: 3, To: []string{"c", "b"}}) }, "from a to b: [2aaaaaaaaaa"},
		{"split and stay", func() (Schedule, error) { return p.Split(Split{Range: first, Into: 4}) }, "split at 1000000000000000\nsplit at 2000000000000000\nsplit at 3000000000000000\na: "},
		{"split a shard", func() (Schedule, error) { return p.Split(Split{Shard: "a", To: []string{"c"}}) }, "split: 1 ranges from a to c: [8000000000000000,c000000000000000)"},
		{"split: one part", func() (Schedule, error) { return p.Split(Split{Range: first, Into: 1}) }, "2 to 1024 parts, not 1"},
		{"split: nowhere", func() (Schedule, error) { return p.Split(Split{Range: first, To: []string{"x"}}) }, `no shard "x"`},
		{"split: drained", func() (Schedule, error) { return p.Split(Split{Range: first, To: []string{"d"}}) }, "is draining"},
		{"split: outside", func() (Schedule, error) { return p.Split(Split{Range: first, At: 1 << 63}) }, "does not lie inside"},
		{"split: two owners", func() (Schedule, error) { return p.Split(Split{Range: Range{0, 0}}) }, "more than one owner"},
		{"split a shard at a border", func() (Schedule, error) { return p.Split(Split{Shard: "a", At: 1 << 62, To: []string{"c"}}) }, "split: 1 ranges from a to c: [8000000000000000,c000000000000000)"},
		{"split a shard within a range", func() (Schedule, error) { return p.Split(Split{Shard: "a", At: 1 << 60, To: []string{"c"}}) }, "split: 2 ranges from a to c: [1000000000000000,4000000000000000) [8000000000000000,c000000000000000)"},
		{"split: border elsewhere", func() (Schedule, error) { return p.Split(Split{Shard: "a", At: 3 << 62}) }, "0xc000000000000000 does not lie inside of"},
		{"split: border and parts", func() (Schedule, error) { return p.Split(Split{Range: first, At: 1, Into: 3}) }, "a border makes two parts"},
		{"split: more shards than parts", func() (Schedule, error) { return p.Split(Split{Range: first, To: []string{"b", "c"}}) }, "of 2 parts the first stays where it is, so there is nothing for c"},
		{"split: owns nothing", func() (Schedule, error) { return p.Split(Split{Shard: "c"}) }, "owns nothing"},
		{"split: one hash", func() (Schedule, error) { return p.Split(Split{Range: Range{5, 6}}) }, "not enough to make 2 parts"},
		{"move", func() (Schedule, error) { return p.Move(Range{0, 1 << 63}, "b") }, "move: 1 ranges from a to b: [0000000000000000,4000000000000000)\n"},
		{"move of two", func() (Schedule, error) { return p.Move(Range{0, 0}, "c") }, "move: 2 ranges from b to c: [4000000000000000,8000000000000000) [c000000000000000,0000000000000000)"},
		{"move: there already", func() (Schedule, error) { return p.Move(first, "a") }, "nothing is to be done"},
		{"move: empty", func() (Schedule, error) { return p.Move(Range{5, 5}, "a") }, "is empty"},
		{"isolate", func() (Schedule, error) { return p.Isolate(7, "c") }, "isolate: 1 ranges from a to c: [0000000000000007,0000000000000008)"},
		{"isolate where it is", func() (Schedule, error) { return p.Isolate(7, "a") }, "split at 0000000000000007\nsplit at 0000000000000008"},
		{"merge", func() (Schedule, error) { return weighed.Merge(1 << 62) }, "merge: 1 ranges from b to a: [4000000000000000,8000000000000000)"},
		{"merge the other way", func() (Schedule, error) { return p.Merge(1 << 63) }, "merge: 1 ranges from b to a: [4000000000000000,8000000000000000)"},
		{"merge: no border", func() (Schedule, error) { return p.Merge(5) }, "no two ranges meet"},
		{"drain", func() (Schedule, error) { return p.Drain("a") }, "drain: 2 ranges from a to c"},
		{"drain: unknown", func() (Schedule, error) { return p.Drain("x") }, `no shard "x"`},
		{"rebalance", func() (Schedule, error) { return p.Rebalance(0) }, "rebalance: 1 ranges from b to c"},
		{"rebalance: tolerance", func() (Schedule, error) { return p.Rebalance(2) }, "is not between"},
		{"place: slots", func() (Schedule, error) { return p.Place(1) }, "at least as many slots as shards"},
	} {
		plan, err := test.plan()
		got := plan.String()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("%s: %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestWeightsRefuse(t *testing.T) {
	for name, cells := range map[string][]Weight{
		"negative":  {{Range{0, 1}, -1}},
		"no number": {{Range{0, 1}, math.NaN()}},
		"endless":   {{Range{0, 1}, math.Inf(1)}},
		"empty":     {{Range{1, 1}, 1}},
		"twice":     {{Range{0, 0}, 1}, {Range{5, 6}, 1}},
	} {
		if _, err := NewWeights(cells); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

// TestStartable holds that limits are kept and used up, and that hot keys go first.
func TestStartable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var moves []Move
		for i := range rapid.IntRange(0, 12).Draw(t, "moves") {
			from := rapid.IntRange(0, 3).Draw(t, "from")
			m := Move{ID: MoveID(i + 1), Source: fmt.Sprint(from), Target: fmt.Sprint((from + rapid.IntRange(1, 3).Draw(t, "to")) % 4)}
			if rapid.Bool().Draw(t, "begun") {
				m.Token, m.State = 1, State(rapid.IntRange(0, int(statesMax)-1).Draw(t, "state"))
			}
			m.Kind = Kind(rapid.IntRange(0, int(kindsMax)-1).Draw(t, "kind"))
			moves = append(moves, m)
		}
		l := Limits{rapid.IntRange(1, 3).Draw(t, "per shard"), rapid.IntRange(1, 6).Draw(t, "per cluster")}
		ids := Startable(moves, l)
		busy, count := map[string]int{}, 0
		started := func(m *Move) bool { return slices.Contains(ids, m.ID) }
		for i := range moves {
			m := &moves[i]
			if m.Begun() && started(m) {
				t.Fatalf("%v has begun already", m)
			}
			if m.Begun() && m.State.Works() || started(m) {
				busy[m.Source]++
				busy[m.Target]++
				count++
			}
		}
		fits := func(m *Move) bool {
			return count < l.PerCluster && busy[m.Source] < l.PerShard && busy[m.Target] < l.PerShard
		}
		for i := range moves {
			m := &moves[i]
			if started(m) && (count > l.PerCluster || busy[m.Source] > l.PerShard || busy[m.Target] > l.PerShard) {
				t.Fatalf("%v is too much", m)
			}
			if !m.Begun() && !started(m) && fits(m) {
				t.Fatalf("%v could begin", m)
			}
		}
	})
	moves := []Move{{ID: 1, Source: "a", Target: "b"}, {ID: 2, Source: "a", Target: "b", Kind: KindIsolate}, {ID: 3, Source: "c", Target: "d", Paused: true}}
	if ids := Startable(moves, Limits{1, 9}); !slices.Equal(ids, []MoveID{2}) {
		t.Errorf("%v", ids)
	}
}
