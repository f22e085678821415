package topology

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrNeedsMoves says that two maps give keys to different shards, so that rows would have to move from one to the other.
type ErrNeedsMoves struct {
	Parts int // of the ring
	First string
}

func (e ErrNeedsMoves) Error() string {
	return fmt.Sprintf("keys would change their shard, and no rows are moved by this: %s, and %d parts of the ring in all", e.First, e.Parts)
}

// ChangesTo gives the changes after which s is as want, but for the epoch and for moves under way; none where it is already.
// With ranges false, the ranges of want say nothing. ErrNeedsMoves: a key would belong to another shard than now.
func (s *Snapshot) ChangesTo(want *Snapshot, ranges bool) (Batch, error) {
	if s.Cluster != want.Cluster {
		return nil, ErrExists{s.Cluster}
	}
	if ranges {
		if err := s.sameOwners(want); err != nil {
			return nil, err
		}
	}
	batch := s.shardChanges(want)
	if ranges {
		batch = append(batch, s.borderChanges(want)...)
	}
	batch = append(batch, ruleChanges(&s.Rules, &want.Rules)...)
	switch {
	case len(batch) == 0:
		return nil, nil
	case len(batch) > BatchMax:
		return nil, fmt.Errorf("%d changes are more than the %d that can be made at a time; make them in several steps", len(batch), BatchMax)
	}
	next, err := s.Apply(batch)
	if err != nil {
		return nil, err
	}
	return batch, next.isLike(want, ranges)
}

// sameOwners checks that each key has the same owner in both maps.
func (s *Snapshot) sameOwners(want *Snapshot) error {
	var moves ErrNeedsMoves
	i, j := 0, 0
	for i < len(s.ranges) && j < len(want.ranges) {
		a, b := s.ranges[i], want.ranges[j]
		if here, there := s.Shards[a.Shard].Name, want.Shards[b.Shard].Name; here != there {
			if moves.Parts == 0 {
				moves.First = fmt.Sprintf("those from %s on from shard %s to shard %s", hexHash(max(a.Start, b.Start)), here, there)
			}
			moves.Parts++
		}
		if a.End-1 <= b.End-1 { // 0 is the end of the ring
			i++
		}
		if b.End-1 <= a.End-1 {
			j++
		}
	}
	if moves.Parts > 0 {
		return moves
	}
	return nil
}

// shardChanges are those of shards and nodes. What goes does so first, as its nodes may be needed elsewhere.
func (s *Snapshot) shardChanges(want *Snapshot) (batch Batch) {
	for _, old := range s.Shards {
		if _, stays := want.ShardByName(old.Name); !stays {
			batch = append(batch, RemoveShard{old.Name})
		}
	}
	var added, promoted, removed, states Batch
	for i := range want.Shards {
		shard := &want.Shards[i]
		id, there := s.ShardByName(shard.Name)
		if !there {
			added = append(added, AddShard{*shard})
			continue
		}
		old := &s.Shards[id]
		for _, n := range old.Nodes {
			switch gone := !slices.ContainsFunc(shard.Nodes, n.same); {
			case gone && n.Role == Primary:
				removed = append(removed, RemoveNode{shard.Name, n})
			case gone:
				batch = append(batch, RemoveNode{shard.Name, n})
			}
		}
		for _, n := range shard.Nodes {
			if !slices.ContainsFunc(old.Nodes, n.same) {
				replica := n
				replica.Role = Replica
				added = append(added, AddNode{shard.Name, replica})
			}
		}
		if !shard.Nodes[0].same(old.Nodes[0]) {
			promoted = append(promoted, SetPrimary{shard.Name, shard.Nodes[0]})
		}
		if shard.State != old.State {
			states = append(states, SetShardState{shard.Name, shard.State})
		}
	}
	return slices.Concat(batch, added, promoted, removed, states)
}

// borderChanges cut and join ranges.
func (s *Snapshot) borderChanges(want *Snapshot) (batch Batch) {
	i, j := 1, 1 // the first range begins at 0 in both
	for i < len(s.ranges) || j < len(want.ranges) {
		switch {
		case j == len(want.ranges) || i < len(s.ranges) && s.ranges[i].Start < want.ranges[j].Start:
			batch = append(batch, MergeRange{s.ranges[i].Start})
			i++
		case i == len(s.ranges) || want.ranges[j].Start < s.ranges[i].Start:
			batch = append(batch, SplitRange{want.ranges[j].Start})
			j++
		default:
			i++
			j++
		}
	}
	return batch
}

// ruleChanges are those of single tables, or all rules at once where a general one differs.
func ruleChanges(have, want *KeyRules) (batch Batch) {
	if !slices.Equal(have.Columns, want.Columns) || !maps.Equal(have.Named, want.Named) || have.RefuseUnlisted != want.RefuseUnlisted {
		return Batch{SetRules{*want}}
	}
	tables := map[TableName]bool{}
	for _, r := range []*KeyRules{have, want} {
		for t := range r.Explicit {
			tables[t] = true
		}
		for t := range r.Reference {
			tables[t] = true
		}
	}
	for _, t := range slices.SortedFunc(maps.Keys(tables), compareTables) {
		to := SetTable{Table: t, Column: want.Explicit[t]}
		to.Reference = to.Column == "" && want.Reference[t]
		if to.Column != have.Explicit[t] || want.Reference[t] != have.Reference[t] {
			batch = append(batch, to)
		}
	}
	return batch
}

// isLike holds that nothing was overlooked.
func (s *Snapshot) isLike(want *Snapshot, ranges bool) error {
	var sums [2]uint64
	for i, side := range []*Snapshot{s, want} {
		c := side.Content()
		c.Epoch, c.Moving = s.Epoch, nil
		if !ranges {
			c.Ranges = []KeyRange{{Shard: side.names[0]}}
		}
		alone, err := newSnapshot(c)
		if err != nil {
			return err
		}
		sums[i] = alone.sum
	}
	if sums[0] != sums[1] {
		return errors.New("the changes do not lead to the topology that is wanted; this is a fault of this program")
	}
	return nil
}
