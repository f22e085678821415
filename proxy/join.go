package proxy

import (
	"context"
	"slices"
	"time"

	"shardproxy/topology"
	"shardproxy/wire"
)

// A shard that is being added stands in the map from before its reference tables get their last rows, as joining. Whoever plans
// with such a map knows where it is, and waits with what every shard must do until the shard is like the others:
//
//	BEGIN; UPDATE … (one shard) ──► runs        UPDATE plans … (all shards) ──► waits ──► active: runs there too
//
// So a transaction need not change its map for it. One that began before goes over to such a map where it can (see follows), and is
// refused by the fence of the shard that the rows are taken from where it cannot. Once it has written on all shards it stays with its
// map, and that fence waits for it.

// joinPatience is more than an addition may keep others waiting (package join); what lasts longer has been left behind.
const joinPatience = topology.HoldTime + time.Second

// errJoining is the error of a statement for all shards, one of which is joining. It is to be planned again.
var errJoining error = wire.Errorf(wire.CodeCannotConnectNow, "a shard is being added, and is not ready for what all shards must do").
	WithHint("Try again. SHOW SHARDS tells which one is joining. If it stays so, repeat shardctl shard add, or give it up by shardctl shard remove.")

// allShards gives those that must do what every shard must. Of those that join by the session's map, these are the ones that have
// joined meanwhile; it is errJoining while one has not, and one that was given up is left out.
func (s *Session) allShards() ([]topology.ShardID, error) {
	s.shards = s.shards[:0]
	for i := range s.snap.Shards {
		if shard := &s.snap.Shards[i]; shard.State == topology.ShardJoining {
			latest := s.srv.snapshot.Load()
			id, there := latest.ShardByName(shard.Name)
			same := there && latest.Shards[id].Nodes[0] == shard.Nodes[0]
			switch is := there && latest.Shards[id].State == topology.ShardJoining; {
			case !there || is && !same:
				continue
			case is:
				return nil, errJoining
			case !same: // it has joined, and has another primary since
				return nil, wire.Errorf(wire.CodeSerializationFailure, "shard %s has another primary than when the transaction began", shard.Name).
					WithHint("Run the transaction again.")
			}
		}
		s.shards = append(s.shards, topology.ShardID(i))
	}
	s.tx.everywhere = true
	return s.shards, nil
}

// leavesOut says that a map has a shard on which the transaction has not done what it has done on all others.
func (s *Session) leavesOut(next *topology.Snapshot) bool {
	return s.tx.open && s.tx.everywhere && slices.ContainsFunc(next.Shards, func(shard topology.Shard) bool {
		_, there := s.routes.snap.ShardByName(shard.Name)
		return !there
	})
}

// endOfJoin waits until no shard of the session's map is joining any more. The statement may go on in a transaction, too: its map
// knows the shard.
func (s *Session) endOfJoin(ctx context.Context) (bool, error) {
	s.srv.stats.held.Add(1)
	over := func(*topology.Snapshot) bool {
		_, err := s.allShards()
		return err != errJoining
	}
	if err := s.awaitMap(ctx, joinPatience, over, 0); err != nil {
		return false, err
	}
	if !over(nil) {
		return false, errJoining
	}
	return true, nil
}
