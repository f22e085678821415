package proxy

import (
	"context"
	"slices"
	"sync/atomic"

	"shardproxy/backend"
	"shardproxy/topology"
)

// lane gives the session's backend on a shard. A new one is brought to the session's settings and, in a
// transaction, into it. What that needs is sent with the next message, in the same write.
func (s *Session) lane(ctx context.Context, shard topology.ShardID) (*lane, error) {
	l, err := s.take(ctx, shard)
	if err != nil {
		return nil, err
	}
	return l, s.enter(l)
}

// claim makes sure that the session has backends on shards, and that the map by which it chose those shards has not
// changed while it waited for them: else the statement, of which nothing was sent, is to be planned again.
func (s *Session) claim(ctx context.Context, shards ...topology.ShardID) error {
	for _, shard := range shards {
		if _, err := s.take(ctx, shard); err != nil {
			return err
		}
	}
	ours, latest := s.routes.snap.Epoch, s.srv.snapshot.Load()
	if latest.Epoch != ours && s.follows(latest) {
		return &staleError{shard: s.shardName(shards[0]), ours: ours}
	}
	return s.tx.tell()
}

// take gives the session's backend on a shard, as it is.
func (s *Session) take(ctx context.Context, shard topology.ShardID) (*lane, error) {
	for _, l := range s.lanes {
		if l.shard == shard {
			return l, nil
		}
	}
	s.waiter.Inside = len(s.lanes) > 0
	be, err := s.routes.pool(s, shard).Acquire(ctx, &s.waiter)
	if err != nil {
		return nil, &noBackendError{err}
	}
	l := s.newLane()
	l.shard, l.be, l.synced = shard, be, true
	l.pinned = s.pooling == SessionPooling
	s.laneMu.Lock()
	s.lanes = append(s.lanes, l)
	s.laneMu.Unlock()
	return l, nil
}

func (s *Session) newLane() *lane {
	if n := len(s.spare); n > 0 {
		l := s.spare[n-1]
		s.spare = s.spare[:n-1]
		*l = lane{expect: l.expect[:0], parsing: l.parsing[:0]}
		return l
	}
	return &lane{}
}

// enter brings a lane to the session's settings and into its transaction, where it is not there yet. A statement must
// not run where that failed, so it waits for the answers, but for a plain BEGIN: that is sent so that the server passes
// over all that follows if it fails.
func (s *Session) enter(l *lane) error {
	if l.be.Settings != s.settings && l.synced {
		if sql := l.be.Settings.Difference(s.settings); sql != "" {
			if l.be.Settings == nil {
				l.be.Epoch = 0 // it goes with the rest
			}
			l.be.Settings = nil // unknown, until it has succeeded
			l.query(sql, queryHidden)
			if err := s.drain(l); err != nil {
				return err
			}
		}
		l.be.Settings = s.settings
	}
	if err := s.stamp(l); err != nil {
		return err
	}
	if !s.tx.open || l.begun || !l.synced {
		return nil
	}
	l.joined, l.joinedAt, l.stamped = l.be.Settings, s.tx.sequence, l.be.Epoch
	l.begun, l.identity = true, identity{}
	if len(s.tx.log) == 1 {
		l.execute(s.tx.log[0].sql)
		return nil
	}
	l.query(s.tx.prelude(), queryHidden)
	return s.drain(l)
}

// drop takes the lane out of the session and gives its backend back to the pool.
func (s *Session) drop(l *lane) {
	i := slices.Index(s.lanes, l)
	if i < 0 {
		return
	}
	s.laneMu.Lock()
	s.lanes = slices.Delete(s.lanes, i, i+1)
	s.laneMu.Unlock()
	be := l.be
	if l.pending() || !l.synced {
		be.Broken = true // what it has begun, or still answers, is not for the next session
	}
	*l = lane{be: be, shard: l.shard, expect: l.expect[:0], parsing: l.parsing[:0], synced: true}
	if len(s.spare) < 8 {
		s.spare = append(s.spare, l)
	}
	be.Pool().Release(be)
}

// settle gives back the lanes that no transaction and no pin holds.
func (s *Session) settle() {
	if s.tx.open {
		return
	}
	for i := len(s.lanes) - 1; i >= 0; i-- {
		l := s.lanes[i]
		l.wrote, l.locks, l.joined = false, false, nil
		if l.be.Status != 'I' && l.synced { // a procedure or an unknown statement left a transaction open
			s.adopt(l)
			return
		}
		l.begun = false
		if !l.pinned {
			s.drop(l)
		}
	}
}

// adopt makes the transaction that is open on the lane the session's own.
func (s *Session) adopt(l *lane) {
	s.tx.begin("BEGIN", s.settings)
	s.tx.failed = l.be.Status == 'E'
	l.begun, l.wrote, l.joined, l.stamped = true, true, s.settings, l.be.Epoch
}

// anyShard is the shard for a statement that every shard can answer: one that takes part already, or the
// session's home.
func (s *Session) anyShard() topology.ShardID {
	if s.bound != unbound {
		return s.bound
	}
	if len(s.lanes) > 0 {
		return s.lanes[0].shard
	}
	if n := len(s.routes.snap.Shards); int(s.home) >= n {
		s.home %= topology.ShardID(n)
	}
	return s.unpaused(s.home)
}

// routes are the pools of one user, by shard, for the shards of one snapshot.
type routes struct {
	snap  *topology.Snapshot
	pools []atomic.Pointer[backend.Pool] // made on first use
}

func (r *routes) pool(s *Session, shard topology.ShardID) *backend.Pool {
	if p := r.pools[shard].Load(); p != nil {
		return p
	}
	node := r.snap.Shards[shard].Nodes[0]
	p := s.srv.pools.Get(backend.Key{Address: node.Address(), Database: node.Database, User: s.user.ServerUser}, r.snap.Shards[shard].Name)
	r.pools[shard].Store(p)
	return p
}
