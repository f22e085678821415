package rebalance

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"shardproxy/topology"
)

// Limits of the tolerance of Rebalance.
const (
	ToleranceDefault = 0.1
	toleranceMin     = 0.001
	// Once something must move it moves a little further than it must, so that rounding does not leave a shard at the edge.
	toleranceInner = 0.9
	dust           = 1e-6 // of an amount: not worth a range of its own
)

// Rebalance plans that each active shard owns its equal share by weight, give or take the tolerance (0: ToleranceDefault), and
// each draining one nothing. What is within the tolerance stays, and no more moves than has to.
func (p Planner) Rebalance(tolerance float64) (Schedule, error) {
	if tolerance == 0 {
		tolerance = ToleranceDefault
	}
	if tolerance < toleranceMin || tolerance >= 1 {
		return Schedule{}, fmt.Errorf("a tolerance of %v is not between %v and 1", tolerance, toleranceMin)
	}
	plan, err := p.begin(KindRebalance)
	if err != nil {
		return Schedule{}, err
	}
	loads, active, share, err := plan.shares()
	if err != nil {
		return Schedule{}, err
	}
	settled := true
	for i, load := range loads {
		settled = settled && within(load, active[i], share*(1-tolerance), share*(1+tolerance))
	}
	if settled && !plan.ownedByDraining(active) {
		return plan.schedule()
	}
	low, high := share*(1-tolerance*toleranceInner), share*(1+tolerance*toleranceInner)
	out, in := make([]float64, len(loads)), make([]float64, len(loads))
	sumOut, sumIn := 0.0, 0.0
	for i, load := range loads {
		switch {
		case !active[i]:
			out[i] = load
		case load > high:
			out[i] = load - high
		case load < low:
			in[i] = low - load
		}
		sumOut, sumIn = sumOut+out[i], sumIn+in[i]
	}
	if sumOut >= sumIn {
		in = fill(loads, active, sumOut)
	} else {
		out = skim(loads, active, sumIn)
	}
	emptied := make([]bool, len(active))
	for i := range active {
		emptied[i] = !active[i]
	}
	plan.transfer(out, in, emptied)
	return plan.schedule()
}

func within(load float64, active bool, low, high float64) bool {
	if !active {
		return load == 0
	}
	return low <= load && load <= high
}

// Drain plans that a shard gives away all that it owns, to the active shards that own least. No other range moves.
func (p Planner) Drain(shard string) (Schedule, error) {
	plan, err := p.begin(KindDrain)
	if err != nil {
		return Schedule{}, err
	}
	id, ok := plan.snap.ShardByName(shard)
	if !ok {
		return Schedule{}, fmt.Errorf("there is no shard %q", shard)
	}
	loads, active, _, err := plan.shares()
	if err != nil {
		return Schedule{}, err
	}
	active[id] = false
	if !slices.Contains(active, true) {
		return Schedule{}, errors.New("there is no other active shard")
	}
	out := make([]float64, len(loads))
	out[id] = loads[id]
	emptied := make([]bool, len(active))
	emptied[id] = true
	plan.transfer(out, fill(loads, active, loads[id]), emptied)
	return plan.schedule()
}

// shares gives the weight of each shard, which ones are active, and the share of each.
func (p *planner) shares() (loads []float64, active []bool, share float64, err error) {
	loads = p.shardWeights()
	active = make([]bool, len(loads))
	count, total := 0, 0.0
	for i := range loads {
		total += loads[i]
		if p.snap.Shards[i].State == topology.ShardActive {
			active[i] = true
			count++
		}
	}
	if count == 0 {
		return nil, nil, 0, errors.New("there is no active shard")
	}
	return loads, active, total / float64(count), nil
}

// ownedByDraining says that a shard that is not active owns something, if it weighs nothing.
func (p *planner) ownedByDraining(active []bool) bool {
	return slices.ContainsFunc(p.snap.Ranges(), func(k topology.KeyRange) bool { return !active[k.Shard] })
}

// fill says what each active shard gets of an amount, so that the lightest come up to one level.
func fill(loads []float64, active []bool, amount float64) []float64 {
	in := make([]float64, len(loads))
	level := bisect(amount, loads, active, func(load, level float64) float64 { return max(0, level-load) })
	for i, load := range loads {
		if active[i] {
			in[i] = max(0, level-load)
		}
	}
	return in
}

// skim says what each shard gives of an amount: those that are not active all, the heaviest of the others down to one level.
func skim(loads []float64, active []bool, amount float64) []float64 {
	out := make([]float64, len(loads))
	for i, load := range loads {
		if !active[i] {
			amount -= load
		}
	}
	level := -bisect(amount, loads, active, func(load, level float64) float64 { return max(0, load+level) })
	for i, load := range loads {
		if active[i] {
			out[i] = max(0, load-level)
		} else {
			out[i] = load
		}
	}
	return out
}

// bisect finds the level at which the parts of the active shards, which grow with it, come to the amount.
func bisect(amount float64, loads []float64, active []bool, part func(load, level float64) float64) float64 {
	span := amount
	for _, load := range loads {
		span += load
	}
	low, high := -span, span
	for range 100 {
		mid := (low + high) / 2
		sum := 0.0
		for i, load := range loads {
			if active[i] {
				sum += part(load, mid)
			}
		}
		if sum < amount {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

// transfer makes pieces of what goes out here and in there. Whole ranges go where they fit; at most one is cut for each pair of shards.
// Shards that are to be emptied give what is left too.
func (p *planner) transfer(out, in []float64, emptied []bool) {
	owned := make([][]Range, len(out))
	for _, k := range p.snap.Ranges() {
		owned[k.Shard] = append(owned[k.Shard], Range{k.Start, k.End})
	}
	receivers := make([]int, 0, len(in))
	for i := range in {
		if in[i] > 0 {
			receivers = append(receivers, i)
		}
	}
	slices.SortStableFunc(receivers, func(a, b int) int { return cmp.Compare(in[b], in[a]) })
	for from := range out {
		rest := owned[from]
		slices.SortStableFunc(rest, func(a, b Range) int { return cmp.Compare(p.weights.Of(b), p.weights.Of(a)) })
		for _, to := range receivers {
			amount := min(out[from], in[to])
			if to == from || amount <= 0 {
				continue
			}
			stays, sent := p.take(rest, from, to, amount)
			rest = stays
			out[from] -= sent
			in[to] -= sent
		}
		if emptied[from] { // what rounding has left, and what cannot be cut
			p.giveRest(rest, from, in)
		}
	}
}

// take moves ranges that weigh at most amount, and gives those that stay.
func (p *planner) take(ranges []Range, from, to int, amount float64) (rest []Range, sent float64) {
	for _, r := range ranges {
		if weight := p.weights.Of(r); weight > 0 && weight <= amount-sent {
			p.pieces = append(p.pieces, piece{r, topology.ShardID(from), topology.ShardID(to)})
			sent += weight
			continue
		}
		rest = append(rest, r)
	}
	if amount-sent < amount*dust {
		return rest, sent
	}
	for i, r := range rest {
		at := p.weights.cut(r, amount-sent)
		part := Range{r.Start, at}
		if at == r.Start || p.weights.Of(part) <= 0 {
			continue
		}
		p.pieces = append(p.pieces, piece{part, topology.ShardID(from), topology.ShardID(to)})
		rest[i].Start = at
		return rest, sent + p.weights.Of(part)
	}
	return rest, sent
}

// giveRest moves all that is left of a shard to the active ones where the most is still wanted.
func (p *planner) giveRest(rest []Range, from int, in []float64) {
	for _, r := range rest {
		to := -1
		for i := range in {
			if p.snap.Shards[i].State == topology.ShardActive && i != from && (to < 0 || in[i] > in[to]) {
				to = i
			}
		}
		p.pieces = append(p.pieces, piece{r, topology.ShardID(from), topology.ShardID(to)})
		in[to] -= p.weights.Of(r)
	}
}

// Place plans the map that consistent hashing with bounded loads wants (topology.Place) on so many slots (0: topology.SlotsDefault):
// the same for the same active shards, whatever was before. What was cut or moved by hand is lost.
func (p Planner) Place(slots int) (Schedule, error) {
	plan, err := p.begin(KindRebalance)
	if err != nil {
		return Schedule{}, err
	}
	var names []string
	var ids []topology.ShardID
	for i, s := range plan.snap.Shards {
		if s.State == topology.ShardActive {
			names, ids = append(names, s.Name), append(ids, topology.ShardID(i))
		}
	}
	if slots == 0 {
		slots = topology.SlotsDefault
	}
	owners, err := topology.Place(names, slots, 0)
	if err != nil {
		return Schedule{}, err
	}
	ranges, i := plan.snap.Ranges(), 0
	for slot, cell := range topology.EqualRanges(slots) {
		to := ids[owners[slot]]
		r := Range{cell.Start, cell.End}
		for ; ; i++ {
			own := Range{ranges[i].Start, ranges[i].End}
			if ranges[i].Shard != to {
				part := Range{max(own.Start, r.Start), min(own.last(), r.last()) + 1}
				plan.pieces = append(plan.pieces, piece{part, ranges[i].Shard, to})
			}
			if own.last() > r.last() {
				break
			}
			if own.last() == r.last() {
				i++
				break
			}
		}
	}
	return plan.schedule()
}
