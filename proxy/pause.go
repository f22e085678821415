package proxy

import (
	"context"
	"errors"

	"shardproxy/backend"
	"shardproxy/topology"
)

// ErrNoShard says that the map has no shard of the name that was given.
var ErrNoShard = errors.New("there is no such shard")

// Pause holds back new work for a shard, for all with "": clients wait. It returns when no backend is in use and none is
// open, so that the server can be restarted. When ctx ends first, all is as before. Sessions that hold a backend past
// their transactions (session pooling, LISTEN, temporary tables, advisory locks) are waited for until they give it back.
// The proxy's own work, such as the recovery of transactions, goes on.
func (s *Server) Pause(ctx context.Context, shard string) error {
	if err := s.mustKnow(shard); err != nil {
		return err
	}
	err := s.pools.Pause(ctx, shard)
	s.service.CloseIdle(shard)
	return err
}

// Resume ends the pause of a shard, with "" the one of all.
func (s *Server) Resume(shard string) error {
	err := s.pools.Resume(shard)
	if err != nil && s.mustKnow(shard) != nil {
		return ErrNoShard
	}
	return err
}

// Paused says whether new work for a shard is held back.
func (s *Server) Paused(shard string) bool { return s.pools.Paused(shard) }

// Reconnect closes each connection to a shard, to all with "": those that are idle at once, the others when they are
// released.
func (s *Server) Reconnect(shard string) error {
	if err := s.mustKnow(shard); err != nil {
		return err
	}
	meant := func(p *backend.Pool) bool { return shard == "" || p.Shard() == shard }
	s.pools.Reconnect(meant)
	s.service.Reconnect(meant)
	return nil
}

func (s *Server) mustKnow(shard string) error {
	if _, ok := s.snapshot.Load().ShardByName(shard); shard != "" && !ok {
		return ErrNoShard
	}
	return nil
}

// unpaused gives the shard, or where an operator has paused that, the next one that is not: for what any can answer.
func (s *Session) unpaused(shard topology.ShardID) topology.ShardID {
	shards := s.routes.snap.Shards
	n := topology.ShardID(len(shards))
	for shards[shard].State == topology.ShardJoining { // not all are: somebody owns the keys
		shard = (shard + 1) % n
	}
	if !s.srv.pools.Paused(s.shardName(shard)) || s.srv.pools.Paused("") {
		return shard
	}
	for i := range n {
		if other := (shard + i) % n; !s.srv.pools.Paused(s.shardName(other)) && shards[other].State != topology.ShardJoining {
			return other
		}
	}
	return shard
}

// Kill ends all sessions and closes all of their backends, and holds back new work until Resume. It returns when they have
// gone, and says how many there were.
func (s *Server) Kill(ctx context.Context) int {
	s.pools.Hold("")
	s.service.CloseIdle("")
	s.mu.Lock()
	list := make([]*Session, 0, len(s.sessions))
	for _, c := range s.sessions {
		list = append(list, c)
	}
	s.mu.Unlock()
	s.kill(ctx, list)
	return len(list)
}

// KillClient ends one session, with its backends. It returns when it has gone; false, if there was none of that number.
func (s *Server) KillClient(ctx context.Context, id uint32) bool {
	s.mu.Lock()
	c, ok := s.sessions[id]
	s.mu.Unlock()
	if ok {
		s.kill(ctx, []*Session{c})
	}
	return ok
}
