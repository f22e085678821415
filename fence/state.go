package fence

import (
	"fmt"

	"shardproxy/topology"
)

// OwnedMax is how many separate key ranges one shard may own: a ring cut in the most slots that placement knows, 131,072,
// has no more that do not touch each other. At the limit the body of owns is 2.6 MB of text, some 20 MB in each session
// that writes.
const OwnedMax = 1 << 16

// State is what a fence holds a shard to.
type State struct {
	Shard string
	Epoch topology.Epoch      // the least whose map says rightly what the shard owns
	Owned []topology.KeyRange // sorted; no two touch; the Shard of each is not set
}

// StateOf is the state that a map wants of a shard, with adjacent ranges joined.
func StateOf(snap *topology.Snapshot, shard topology.ShardID) State {
	st := State{Shard: snap.Shards[shard].Name, Epoch: snap.Epoch}
	for _, r := range snap.Ranges() {
		if r.Shard == shard {
			st.add(r)
		}
	}
	return st
}

// statesOf is StateOf for all shards, in one pass over the ranges.
func statesOf(snap *topology.Snapshot) []State {
	states := make([]State, len(snap.Shards))
	for i := range states {
		states[i] = State{Shard: snap.Shards[i].Name, Epoch: snap.Epoch}
	}
	for _, r := range snap.Ranges() {
		states[r.Shard].add(r)
	}
	return states
}

// add takes a range behind all others.
func (st *State) add(r topology.KeyRange) {
	if n := len(st.Owned); n > 0 && st.Owned[n-1].End == r.Start && r.Start != 0 {
		st.Owned[n-1].End = r.End
		return
	}
	st.Owned = append(st.Owned, topology.KeyRange{Start: r.Start, End: r.End})
}

// check refuses what the functions cannot hold.
func (st *State) check() error {
	if st.Shard == "" || st.Epoch < 1 {
		return fmt.Errorf("a fence needs the name of its shard and an epoch above 0, not %q and %d", st.Shard, st.Epoch)
	}
	if n := len(st.Owned); n > OwnedMax {
		return fmt.Errorf("shard %s owns %d separate key ranges, and a fence holds %d at most", st.Shard, n, OwnedMax)
	}
	for i, r := range st.Owned {
		if r.End <= r.Start && r.End != 0 || i > 0 && (r.Start <= st.Owned[i-1].End || st.Owned[i-1].End == 0) {
			return fmt.Errorf("the owned ranges of shard %s are not sorted, or touch, at %v", st.Shard, r)
		}
	}
	return nil
}
