package proxy

import (
	"slices"

	"shardproxy/topology"
	"shardproxy/wire"
)

// affords refuses what would need more backends at the same time than there may be: it would hold all there are, and keep
// everybody waiting, until it is given up.
func (s *Session) affords(shards []topology.ShardID) error {
	most := s.srv.now().Pools.Total
	if most <= 0 {
		return nil
	}
	needs := len(s.lanes)
	for _, shard := range shards {
		if !slices.ContainsFunc(s.lanes, func(l *lane) bool { return l.shard == shard }) {
			needs++
		}
	}
	if needs <= most {
		return nil
	}
	return wire.Errorf(wire.CodeTooManyConnections, "this needs connections to %d shards at the same time, and the proxy may have %d in all", needs, most).
		WithHint("Raise pool.max_backends, or work on fewer shards in one transaction.")
}

// readsAtOnce is how many shards of a read work for one statement at the same time: a part of what there may be, so that a
// few such reads do not wait for each other with what they hold.
func (s *Session) readsAtOnce() int {
	most := s.srv.now().Pools.Total
	if most <= 0 {
		return fanOut
	}
	return max(1, min(fanOut, most/4))
}
