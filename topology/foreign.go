package topology

import (
	"cmp"
	"slices"
)

// ForeignOf is Foreign, of the moves too that a later map tells of: a transaction goes on with the map that it began with,
// and rows may have been copied since. What they count for is said by s.
func (s *Snapshot) ForeignOf(later *Snapshot, id ShardID) []KeyRange {
	own := s.Foreign(id)
	if later == nil || later.Epoch == s.Epoch || len(later.moving) == 0 {
		return own
	}
	ranges := slices.Clone(own)
	name := s.Shards[id].Name
	for i := range later.moving {
		m := &later.moving[i]
		if m.Source != name && m.Target != name {
			continue
		}
		for _, r := range m.Ranges {
			ranges = append(ranges, s.notOwned(id, r)...)
		}
	}
	return union(ranges)
}

// union puts ranges in order and makes one of those that overlap.
func union(ranges []KeyRange) []KeyRange {
	slices.SortFunc(ranges, func(a, b KeyRange) int { return cmp.Compare(a.Start, b.Start) })
	n := 0
	for _, r := range ranges {
		if n > 0 && r.Start <= ranges[n-1].End-1 {
			ranges[n-1].End = max(ranges[n-1].End-1, r.End-1) + 1
			continue
		}
		ranges[n] = r
		n++
	}
	return ranges[:n]
}
