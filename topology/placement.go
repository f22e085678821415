package topology

import (
	"fmt"

	"github.com/buraksezer/consistent"
)

// Limits of Place.
const (
	SlotsDefault = 16_384
	SlotsMax     = 131_072
	LoadDefault  = 1.25 // of the library; a lower bound moves more slots when shards join
	// PlaceShardsMax bounds the time to a few seconds: the library sorts its whole ring for every shard.
	PlaceShardsMax = 1_024
	// placePoints is how often a shard is on the ring: shares differ by 1/√points. It is the same for any number of shards,
	// as each change of it would place all slots anew.
	placePoints = 64
)

// Place says on which shard each slot should live: an index into shards for each of the slots. It is consistent hashing with
// bounded loads (Mirrokni, Thorup and Zadimoghaddam 2016): no shard gets more than load times its share (0: LoadDefault), and
// when a shard joins or leaves, few other slots than its own change their place. The result depends on the
// names alone, not on their order.
func Place(shards []string, slots int, load float64) ([]int, error) {
	if load == 0 {
		load = LoadDefault
	}
	switch {
	case len(shards) == 0 || len(shards) > PlaceShardsMax:
		return nil, fmt.Errorf("topology: slots can be placed on 1 to %d shards, not on %d; equal ranges have no such limit", PlaceShardsMax, len(shards))
	case slots < len(shards) || slots > SlotsMax:
		return nil, fmt.Errorf("topology: there must be at least as many slots as shards and at most %d, not %d", SlotsMax, slots)
	case load < LoadDefault || load > 100:
		return nil, fmt.Errorf("topology: a load of %v is not between %v and 100", load, LoadDefault)
	}
	index := make(map[string]int, len(shards))
	members := make([]consistent.Member, len(shards))
	for i, name := range shards {
		if _, ok := index[name]; ok {
			return nil, fmt.Errorf("topology: shard %q is listed twice", name)
		}
		index[name] = i
		members[i] = placed(name)
	}
	ring := consistent.New(members, consistent.Config{
		Hasher: ringHash{}, PartitionCount: slots, Load: load,
		ReplicationFactor: placePoints,
	})
	owners := make([]int, slots)
	for slot := range owners {
		owners[slot] = index[string(ring.GetPartitionOwner(slot).(placed))]
	}
	return owners, nil
}

// placed is a shard on the ring.
type placed string

// String ends in what no number begins with: the library appends numbers to it, and s1 with 10 must not be s11 with 0.
func (p placed) String() string { return string(p) + "/" }

type ringHash struct{}

func (ringHash) Sum64(b []byte) uint64 { return spread(uint64(HashText(b))) }

// PlanRanges makes the ranges of a new keyspace by Place: slots that lie side by side on one shard are one range.
// The ShardIDs are indexes into shards.
func PlanRanges(shards []string, slots int) ([]KeyRange, error) {
	owners, err := Place(shards, slots, 0)
	if err != nil {
		return nil, err
	}
	var ranges []KeyRange
	for i, cell := range EqualRanges(slots) {
		cell.Shard = ShardID(owners[i])
		if n := len(ranges); n > 0 && ranges[n-1].Shard == cell.Shard {
			ranges[n-1].End = cell.End
			continue
		}
		ranges = append(ranges, cell)
	}
	return ranges, nil
}
