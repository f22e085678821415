package rebalance

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"shardproxy/topology"
)

// Schedule is what a request leads to: a value that can be shown before anything is done.
type Schedule struct {
	Changes []topology.Change // of the map alone: no row moves
	Moves   []Move            // not journalled yet; in the order in which they are to begin
	Loads   []ShardLoad       // of each shard that owns or will own something
	Moved   float64           // weight of all that moves
}

// ShardLoad is the weight of what a shard owns.
type ShardLoad struct {
	Shard         string
	Before, After float64
}

// Empty says that nothing is to be done.
func (s *Schedule) Empty() bool { return len(s.Changes) == 0 && len(s.Moves) == 0 }

// String shows it to people.
func (s *Schedule) String() string {
	if s.Empty() {
		return "nothing is to be done\n"
	}
	var b strings.Builder
	for _, c := range s.Changes {
		fmt.Fprintf(&b, "%v\n", c)
	}
	for i := range s.Moves {
		m := &s.Moves[i]
		fmt.Fprintf(&b, "%v: %d ranges from %s to %s:", m.Kind, len(m.Ranges), m.Source, m.Target)
		for j, r := range m.Ranges {
			if j == 5 {
				fmt.Fprintf(&b, " and %d more", len(m.Ranges)-j)
				break
			}
			fmt.Fprintf(&b, " %v", r)
		}
		b.WriteByte('\n')
	}
	for _, l := range s.Loads {
		fmt.Fprintf(&b, "%s: %.4g before, %.4g after\n", l.Shard, l.Before, l.After)
	}
	return b.String()
}

// moveRangesMax bounds the ranges of one scheduled move: its statements name them all.
const moveRangesMax = 1024

// planner makes a schedule for one snapshot.
type planner struct {
	snap    *topology.Snapshot
	weights *Weights
	kind    Kind
	who     string
	pieces  []piece
	changes []topology.Change
}

// piece of the ring that changes its owner.
type piece struct {
	Range
	from, to topology.ShardID
}

// Planner plans for a snapshot. Nil weights make every hash weigh the same.
type Planner struct {
	Snapshot *topology.Snapshot
	Weights  *Weights
	Who      string
}

func (p Planner) begin(kind Kind) (*planner, error) {
	w := p.Weights
	if w == nil {
		var err error
		if w, err = NewWeights(nil); err != nil {
			return nil, err
		}
	}
	return &planner{snap: p.Snapshot, weights: w, kind: kind, who: p.Who}, nil
}

// target finds the shard that is to get something.
func (p *planner) target(name string) (topology.ShardID, error) {
	id, ok := p.snap.ShardByName(name)
	switch {
	case !ok:
		return -1, fmt.Errorf("there is no shard %q", name)
	case p.snap.Shards[id].State != topology.ShardActive:
		return -1, fmt.Errorf("shard %q is %v and takes no ranges", name, p.snap.Shards[id].State)
	}
	return id, nil
}

// owned gives the parts of r with their owners.
func (p *planner) owned(r Range) (parts []piece) {
	for _, k := range p.snap.Ranges() {
		own := Range{k.Start, k.End}
		if own.overlaps(r) {
			part := Range{max(own.Start, r.Start), min(own.last(), r.last()) + 1}
			parts = append(parts, piece{part, k.Shard, k.Shard})
		}
	}
	return parts
}

// give lets all of r go to a shard.
func (p *planner) give(r Range, to topology.ShardID) {
	for _, part := range p.owned(r) {
		if part.from != to {
			part.to = to
			p.pieces = append(p.pieces, part)
		}
	}
}

// schedule makes moves of the pieces: one for each pair of shards, or more if it has very many ranges.
func (p *planner) schedule() (Schedule, error) {
	s := Schedule{Changes: p.changes, Loads: p.loads()}
	slices.SortFunc(p.pieces, func(a, b piece) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), compareHash(a.Start, b.Start))
	})
	for len(p.pieces) > 0 {
		n := 1
		first := p.pieces[0]
		ranges := []Range{first.Range}
		for ; n < len(p.pieces) && p.pieces[n].from == first.from && p.pieces[n].to == first.to && len(ranges) < moveRangesMax; n++ {
			if last := &ranges[len(ranges)-1]; last.End == p.pieces[n].Start {
				last.End = p.pieces[n].End
				continue
			}
			ranges = append(ranges, p.pieces[n].Range)
		}
		m, err := NewMove(p.kind, p.snap.Shards[first.from].Name, p.snap.Shards[first.to].Name, ranges, p.who)
		if err != nil {
			return Schedule{}, err
		}
		s.Moves = append(s.Moves, m)
		for _, r := range ranges {
			s.Moved += p.weights.Of(r)
		}
		p.pieces = p.pieces[n:]
	}
	return s, nil
}

// loads before and after the pieces have moved.
func (p *planner) loads() (list []ShardLoad) {
	loads := make([]ShardLoad, len(p.snap.Shards))
	for i, before := range p.shardWeights() {
		loads[i] = ShardLoad{p.snap.Shards[i].Name, before, before}
	}
	for _, part := range p.pieces {
		weight := p.weights.Of(part.Range)
		loads[part.from].After -= weight
		loads[part.to].After += weight
	}
	for _, l := range loads {
		l.After = max(l.After, 0)
		if l.Before > 0 || l.After > 0 {
			list = append(list, l)
		}
	}
	return list
}

// shardWeights is what each shard owns.
func (p *planner) shardWeights() []float64 {
	weights := make([]float64, len(p.snap.Shards))
	for _, k := range p.snap.Ranges() {
		weights[k.Shard] += p.weights.Of(Range{k.Start, k.End})
	}
	return weights
}

// Move plans a range's way to a shard, whoever owns parts of it.
func (p Planner) Move(r Range, to string) (Schedule, error) { return p.move(KindMove, r, to) }

// Isolate gives one key hash a range of its own, on a shard of its choice.
func (p Planner) Isolate(h topology.KeyHash, to string) (Schedule, error) {
	r := Range{h, h + 1}
	plan, err := p.begin(KindIsolate)
	if err != nil {
		return Schedule{}, err
	}
	id, err := plan.target(to)
	if err != nil {
		return Schedule{}, err
	}
	if plan.snap.Owner(h) == id { // it stays, but can be watched and counted by itself
		plan.cutAt(r.Start)
		plan.cutAt(r.End)
	}
	plan.give(r, id)
	return plan.schedule()
}

// cutAt cuts the map at h, if nothing begins there yet.
func (p *planner) cutAt(h topology.KeyHash) {
	_, found := slices.BinarySearchFunc(p.snap.Ranges(), h, func(r topology.KeyRange, h topology.KeyHash) int { return compareHash(r.Start, h) })
	if !found && h != 0 {
		p.changes = append(p.changes, topology.SplitRange{At: h})
	}
}

func (p Planner) move(kind Kind, r Range, to string) (Schedule, error) {
	plan, err := p.begin(kind)
	if err != nil {
		return Schedule{}, err
	}
	if r.End <= r.Start && r.End != 0 {
		return Schedule{}, errors.New("the range is empty")
	}
	id, err := plan.target(to)
	if err != nil {
		return Schedule{}, err
	}
	plan.give(r, id)
	return plan.schedule()
}

// Merge plans that the two ranges which meet at a hash become one. If they have two owners, the lighter one moves first.
func (p Planner) Merge(at topology.KeyHash) (Schedule, error) {
	plan, err := p.begin(KindMerge)
	if err != nil {
		return Schedule{}, err
	}
	ranges := plan.snap.Ranges()
	i, found := slices.BinarySearchFunc(ranges, at, func(r topology.KeyRange, h topology.KeyHash) int { return compareHash(r.Start, h) })
	if !found || i == 0 {
		return Schedule{}, fmt.Errorf("no two ranges meet at %016x", uint64(at))
	}
	a, b := ranges[i-1], ranges[i]
	if a.Shard == b.Shard {
		plan.changes = append(plan.changes, topology.MergeRange{At: at})
		return plan.schedule()
	}
	light, to := Range{a.Start, a.End}, b.Shard
	if other := (Range{b.Start, b.End}); plan.weights.Of(other) < plan.weights.Of(light) {
		light, to = other, a.Shard
	}
	if _, err := plan.target(plan.snap.Shards[to].Name); err != nil {
		return Schedule{}, err
	}
	plan.give(light, to)
	return plan.schedule()
}
