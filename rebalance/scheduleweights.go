package rebalance

import (
	"fmt"
	"slices"
	"sort"

	"shardproxy/topology"
)

// Weight is what a range was measured to hold: bytes, rows or load. It is taken to lie evenly in its range.
type Weight struct {
	Range
	Value float64
}

// Weights of the whole ring. Where nothing was measured, ranges weigh what they are wide.
type Weights struct {
	cells []Weight  // in order
	sums  []float64 // of the cells before each
}

const ringWidth = 1 << 64 // as a float64

// NewWeights takes measured weights, of ranges that do not overlap. None at all makes every hash weigh the same.
func NewWeights(cells []Weight) (*Weights, error) {
	if len(cells) == 0 {
		cells = []Weight{{Value: ringWidth}}
	}
	w := &Weights{cells: slices.Clone(cells), sums: make([]float64, len(cells)+1)}
	slices.SortFunc(w.cells, func(a, b Weight) int { return compareHash(a.Start, b.Start) })
	for i, c := range w.cells {
		switch {
		case c.Value < 0 || c.Value != c.Value || c.Value > 1e300:
			return nil, fmt.Errorf("range %v weighs %v", c.Range, c.Value)
		case c.End <= c.Start && c.End != 0:
			return nil, fmt.Errorf("range %v is empty", c.Range)
		case i > 0 && w.cells[i-1].overlaps(c.Range):
			return nil, fmt.Errorf("ranges %v and %v were measured both", w.cells[i-1].Range, c.Range)
		}
		w.sums[i+1] = w.sums[i] + c.Value
	}
	return w, nil
}

// width of a range; 2^64 for the whole ring.
func (r Range) width() float64 {
	if r.Start == 0 && r.End == 0 {
		return ringWidth
	}
	return float64(r.End - r.Start)
}

// below is the weight of all hashes below h.
func (w *Weights) below(h topology.KeyHash) float64 {
	i := sort.Search(len(w.cells), func(i int) bool { return w.cells[i].Start >= h }) - 1 // the last that starts below h
	if i < 0 {
		return 0
	}
	c := w.cells[i]
	if h > c.last() {
		return w.sums[i+1]
	}
	return w.sums[i] + c.Value*(Range{c.Start, h}.width()/c.width())
}

// Of gives the weight of a range.
func (w *Weights) Of(r Range) float64 {
	if r.End == 0 {
		return max(0, w.sums[len(w.cells)]-w.below(r.Start))
	}
	return max(0, w.below(r.End)-w.below(r.Start))
}

// cut gives a border in r such that what lies before it weighs so much, give or take what a float64 cannot tell; r.Start where
// there is nothing to cut off.
func (w *Weights) cut(r Range, weight float64) topology.KeyHash {
	if weight <= 0 {
		return r.Start
	}
	wanted := w.below(r.Start) + weight
	i := sort.Search(len(w.cells), func(i int) bool { return w.sums[i+1] >= wanted })
	if i == len(w.cells) {
		return r.last()
	}
	c := w.cells[i]
	at, within := c.last(), (wanted-w.sums[i])/c.Value*c.width()
	if within < c.width() {
		at = c.Start + topology.KeyHash(within)
	}
	return min(max(at, r.Start), r.last()) // the last hash stays behind the border
}
