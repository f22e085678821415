package topology

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Apply gives the snapshot of the next epoch, which shares with s what the change left alone. It checks what the
// change touches; all else was checked when s was made. The schema is kept: see SchemaFits.
func (s *Snapshot) Apply(c Change) (*Snapshot, error) {
	if c == nil {
		return nil, errors.New("there is no change to apply")
	}
	next := *s
	d := &draft{Snapshot: &next}
	if err := c.apply(d); err != nil {
		if _, batch := c.(Batch); batch { // it has said which of them it was
			return nil, err
		}
		return nil, fmt.Errorf("%v: %w", c, err)
	}
	next.Epoch++
	var err error
	switch {
	case d.ownRanges:
		err = next.index()
	case d.ownMoving, d.ownShards:
		err = next.indexMoving()
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", c, err)
	}
	return &next, nil
}

// draft is a snapshot in the making. What it shares with its base is copied before it is written to. While changes are
// applied ranges, names and sum are right; starts, owners and radix are made at the end.
type draft struct {
	*Snapshot
	ownShards, ownNames, ownRanges, ownRules, ownMoving bool

	buf []byte // of shardSum
}

// mutableShards gives the list of shards to write to. The nodes of a shard are still shared.
func (d *draft) mutableShards() []Shard {
	if !d.ownShards {
		d.ownShards, d.Shards = true, slices.Clone(d.Shards)
	}
	return d.Shards
}

func (d *draft) mutableNames() []ShardID {
	if !d.ownNames {
		d.ownNames, d.names = true, slices.Clone(d.names)
	}
	return d.names
}

func (d *draft) mutableMoving() []Moving {
	if !d.ownMoving {
		d.ownMoving, d.moving = true, slices.Clone(d.moving)
	}
	return d.moving
}

// mutableRanges leaves room, so that a few splits do not copy the list again.
func (d *draft) mutableRanges() []KeyRange {
	if !d.ownRanges {
		d.ownRanges, d.ranges = true, append(make([]KeyRange, 0, len(d.ranges)+8), d.ranges...)
	}
	return d.ranges
}

func (d *draft) mutableRules() *KeyRules {
	if !d.ownRules {
		d.ownRules = true
		d.Rules.Explicit, d.Rules.Reference = maps.Clone(d.Rules.Explicit), maps.Clone(d.Rules.Reference)
		if d.Rules.Explicit == nil {
			d.Rules.Explicit = map[TableName]string{}
		}
		if d.Rules.Reference == nil {
			d.Rules.Reference = map[TableName]bool{}
		}
	}
	return &d.Rules
}

// shard finds a shard by name.
func (d *draft) shard(name string) (ShardID, error) {
	id, ok := d.ShardByName(name)
	if !ok {
		return -1, fmt.Errorf("there is no shard %q", name)
	}
	return id, nil
}

// setShard replaces a shard by one of the same name.
func (d *draft) setShard(id ShardID, s Shard) {
	d.sum += d.shardSum(&s) - d.shardSum(&d.Shards[id])
	d.mutableShards()[id] = s
}

func (d *draft) shardSum(s *Shard) (sum uint64) {
	sum, d.buf = shardSum(s, d.buf)
	return sum
}

func (d *draft) rangeSum(r KeyRange) uint64 {
	return rangeSum(r, uint64(HashText(d.Shards[r.Shard].Name)))
}

// rangeAt gives the index of the range that h lies in.
func (d *draft) rangeAt(h KeyHash) int {
	i, found := slices.BinarySearchFunc(d.ranges, h, func(r KeyRange, h KeyHash) int {
		switch {
		case r.Start < h:
			return -1
		case r.Start > h:
			return 1
		}
		return 0
	})
	if found {
		return i
	}
	return i - 1
}

// splice puts with in the place of ranges[from:to].
func (d *draft) splice(from, to int, with ...KeyRange) error {
	if len(d.ranges)-(to-from)+len(with) > RangesMax {
		return fmt.Errorf("there would be more than %d ranges; merge some first", RangesMax)
	}
	for _, r := range d.ranges[from:to] {
		d.sum -= d.rangeSum(r)
	}
	for _, r := range with {
		d.sum += d.rangeSum(r)
	}
	d.ranges = slices.Replace(d.mutableRanges(), from, to, with...)
	return nil
}

func (c MoveRange) apply(d *draft) error {
	id, err := d.shard(c.Shard)
	if err != nil {
		return err
	}
	if d.Shards[id].State != ShardActive {
		return fmt.Errorf("shard %q is %v and takes no ranges", c.Shard, d.Shards[id].State)
	}
	if c.End <= c.Start && c.End != 0 {
		return errors.New("the range is empty")
	}
	moved := KeyRange{Start: c.Start, End: c.End, Shard: id}
	from, last := d.rangeAt(c.Start), d.rangeAt(c.End-1)
	if !slices.ContainsFunc(d.ranges[from:last+1], func(r KeyRange) bool { return r.Shard != id }) {
		return fmt.Errorf("shard %q owns all of it already", c.Shard)
	}
	with := make([]KeyRange, 0, 3)
	switch first := d.ranges[from]; {
	case first.Shard == id:
		moved.Start = first.Start
	case first.Start < c.Start:
		with = append(with, KeyRange{Start: first.Start, End: c.Start, Shard: first.Shard})
	case from > 0 && d.ranges[from-1].Shard == id:
		from--
		moved.Start = d.ranges[from].Start
	}
	end := d.ranges[last]
	var rest []KeyRange
	switch {
	case end.Shard == id:
		moved.End = end.End
	case end.End != c.End:
		rest = []KeyRange{{Start: c.End, End: end.End, Shard: end.Shard}}
	case last+1 < len(d.ranges) && d.ranges[last+1].Shard == id:
		last++
		moved.End = d.ranges[last].End
	}
	return d.splice(from, last+1, append(append(with, moved), rest...)...)
}

func (c SplitRange) apply(d *draft) error {
	i := d.rangeAt(c.At)
	r := d.ranges[i]
	if r.Start == c.At {
		return errors.New("a range begins there already")
	}
	return d.splice(i, i+1, KeyRange{Start: r.Start, End: c.At, Shard: r.Shard}, KeyRange{Start: c.At, End: r.End, Shard: r.Shard})
}

func (c MergeRange) apply(d *draft) error {
	i := d.rangeAt(c.At)
	r := d.ranges[i]
	if r.Start != c.At || i == 0 {
		return errors.New("no two ranges meet there")
	}
	before := d.ranges[i-1]
	if before.Shard != r.Shard {
		return fmt.Errorf("the range before belongs to shard %q, the one after to %q", d.Shards[before.Shard].Name, d.Shards[r.Shard].Name)
	}
	return d.splice(i-1, i+1, KeyRange{Start: before.Start, End: r.End, Shard: r.Shard})
}

func (c Batch) apply(d *draft) error {
	if len(c) == 0 || len(c) > BatchMax {
		return fmt.Errorf("a batch has 1 to %d changes, not %d", BatchMax, len(c))
	}
	for i, change := range c {
		if _, nested := change.(Batch); nested || change == nil {
			return fmt.Errorf("change %d of the batch is a batch itself, or nothing", i+1)
		}
		if err := change.apply(d); err != nil {
			return fmt.Errorf("change %d of %d, %v: %w", i+1, len(c), change, err)
		}
	}
	return nil
}
