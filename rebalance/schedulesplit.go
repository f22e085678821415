package rebalance

import (
	"errors"
	"fmt"
	"strings"

	"shardproxy/topology"
)

// Split says how something is to be cut, and where the parts go.
type Split struct {
	Shard  string           // all that this shard owns, or
	Range  Range            // a range of one owner
	At     topology.KeyHash // the second part begins there; with 0 the parts are even
	Into   int              // parts; 0 is two
	BySize bool             // in parts of equal weight, not width
	To     []string         // shards for the second part and those after it, in turn; none: all stay, the map is cut only
}

// splitMax bounds the parts of one split.
const splitMax = 1024

// Split plans a split. The first part stays where it is.
func (p Planner) Split(s Split) (Schedule, error) {
	plan, err := p.begin(KindSplit)
	if err != nil {
		return Schedule{}, err
	}
	targets := make([]topology.ShardID, len(s.To))
	for i, name := range s.To {
		if targets[i], err = plan.target(name); err != nil {
			return Schedule{}, err
		}
	}
	parts, err := plan.splitParts(&s)
	if err != nil {
		return Schedule{}, err
	}
	for i, part := range parts {
		for _, r := range part {
			switch {
			case i == 0:
			case len(targets) == 0:
				plan.cutAt(r.Start)
			default:
				to := targets[(i-1)%len(targets)]
				if plan.snap.Owner(r.Start) == to {
					plan.cutAt(r.Start)
				}
				plan.give(r, to)
			}
		}
	}
	return plan.schedule()
}

// splitParts gives each part, which may have several ranges where a shard is split.
func (p *planner) splitParts(s *Split) ([][]Range, error) {
	into := max(s.Into, 2)
	whole, err := p.splitWhole(s)
	switch {
	case err != nil:
		return nil, err
	case s.Into < 0 || s.Into == 1 || into > splitMax:
		return nil, fmt.Errorf("a split makes 2 to %d parts, not %d", splitMax, s.Into)
	case s.At != 0 && (s.Into > 2 || s.BySize):
		return nil, errors.New("a border makes two parts, of whatever size")
	case len(s.To) >= into:
		return nil, fmt.Errorf("of %d parts the first stays where it is, so there is nothing for %s", into, strings.Join(s.To[into-1:], ", "))
	case s.At != 0:
		return cutAt(whole, s.At)
	}
	weights := p.weights
	if !s.BySize {
		if weights, err = NewWeights(nil); err != nil {
			return nil, err
		}
	}
	return cutEvenly(weights, whole, into)
}

// splitWhole gives what is to be split.
func (p *planner) splitWhole(s *Split) (whole []Range, err error) {
	if s.Shard != "" {
		id, ok := p.snap.ShardByName(s.Shard)
		if !ok {
			return nil, fmt.Errorf("there is no shard %q", s.Shard)
		}
		for _, k := range p.snap.Ranges() {
			if k.Shard == id {
				whole = append(whole, Range{k.Start, k.End})
			}
		}
		if len(whole) == 0 {
			return nil, fmt.Errorf("shard %q owns nothing", s.Shard)
		}
		return whole, nil
	}
	if s.Range.End <= s.Range.Start && s.Range.End != 0 {
		return nil, errors.New("the range is empty")
	}
	for _, part := range p.owned(s.Range) {
		if part.from != p.snap.Owner(s.Range.Start) {
			return nil, fmt.Errorf("the range %v has more than one owner", s.Range)
		}
	}
	return []Range{s.Range}, nil
}

// cutAt cuts a list of ranges in what lies below a border and the rest.
func cutAt(whole []Range, at topology.KeyHash) ([][]Range, error) {
	parts := make([][]Range, 2)
	for _, r := range whole {
		switch {
		case r.last() < at:
			parts[0] = append(parts[0], r)
		case r.Start >= at:
			parts[1] = append(parts[1], r)
		default:
			parts[0], parts[1] = append(parts[0], Range{r.Start, at}), append(parts[1], Range{at, r.End})
		}
	}
	if len(parts[0]) == 0 || len(parts[1]) == 0 {
		return nil, fmt.Errorf("0x%016x does not lie inside of %v", uint64(at), whole)
	}
	return parts, nil
}

// cutEvenly cuts a list of ranges in parts that weigh the same.
func cutEvenly(w *Weights, whole []Range, into int) ([][]Range, error) {
	total := 0.0
	for _, r := range whole {
		total += w.Of(r)
	}
	parts := make([][]Range, into)
	part, room := 0, total/float64(into)
	for _, r := range whole {
		for {
			weight := w.Of(r)
			if part == into-1 || weight <= room {
				parts[part] = append(parts[part], r)
				room -= weight
				break
			}
			if at := w.cut(r, room); at > r.Start {
				parts[part] = append(parts[part], Range{r.Start, at})
				r.Start = at
			}
			part, room = part+1, total/float64(into)
		}
	}
	for _, p := range parts {
		if len(p) == 0 {
			return nil, fmt.Errorf("there is not enough to make %d parts of", into)
		}
	}
	return parts, nil
}
