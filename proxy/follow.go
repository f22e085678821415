package proxy

import (
	"slices"
	"time"

	"shardproxy/topology"
)

// Between two of its statements a transaction goes over to a later map where that makes no difference to it:
//
//   - each of its statements sees what has been committed by then, so that nothing which it has read binds it to a shard, and
//   - the shards on which it has written, or locked rows, own all that they did, and
//   - no cutover waits for it to end on one of its shards, and
//   - what it has done on all shards is on all of that map.
//
// Where no key has another owner, as when a shard is added, the first makes no difference.
//
// Any other stays with its map. What it does where key ranges have moved meanwhile is refused with 40001, and it is to run again.

// holdsMap says that the session must stay with its map where keys have other owners by the next: a pipeline is under way, or a
// transaction that reads by one snapshot from its beginning to its end. It may ask a shard which of the two kinds a transaction is.
func (s *Session) holdsMap() bool {
	begun, busy := s.underWay()
	return busy || begun != nil && !s.readsCommitted(begun)
}

// underWay gives a lane of the open transaction, if there is one. busy says that it, or a pipeline, can go over to no other map.
func (s *Session) underWay() (begun *lane, busy bool) {
	for _, l := range s.lanes {
		if l.pending() || !l.synced {
			return nil, true
		}
		if l.begun {
			begun = l
		}
	}
	return begun, begun != nil && (s.tx.failed || s.own != nil)
}

// settlePipeline makes a transaction of what the client's pipeline has done so far, so that it may go over to a later map as a
// transaction may.
func (s *Session) settlePipeline() error {
	err := s.drainAll()
	if err == nil {
		err = s.holdPipeline()
	}
	if err != nil {
		return err
	}
	for _, l := range s.lanes {
		l.sync()
	}
	return s.drainAll()
}

// readsCommitted says whether the transaction is READ COMMITTED, which may be so by settings that only its server knows.
func (s *Session) readsCommitted(l *lane) bool {
	if s.tx.isolation == "" {
		rows, err := s.hidden(l, "SHOW transaction_isolation")
		if err != nil || len(rows) != 1 {
			s.tx.untold = err
			return false
		}
		s.tx.isolation = rows[0][0]
	}
	return s.tx.isolation == "read committed"
}

// follows says whether the session may go over to a map.
func (s *Session) follows(next *topology.Snapshot) bool {
	begun, busy := s.underWay()
	if busy || s.leavesOut(next) || begun != nil && !s.readsCommitted(begun) && (next.AnyHeld() || !next.SameOwners(s.routes.snap)) {
		return false
	}
	return !slices.ContainsFunc(s.lanes, func(l *lane) bool {
		if !l.begun {
			return false
		}
		name := s.shardName(l.shard)
		_, there := next.ShardByName(name)
		return !there || l.wrote && !s.routes.snap.Keeps(l.shard, next) || next.Loses(name) && s.locks(l)
	})
}

// locksWhereHeld says that a cutover waits for the transaction to end: it must not wait for the cutover.
func (s *Session) locksWhereHeld() bool {
	return slices.ContainsFunc(s.lanes, func(l *lane) bool {
		return l.begun && s.routes.snap.Loses(s.shardName(l.shard)) && s.locks(l)
	})
}

// locks says whether the fence of a shard would wait for what the transaction has done there: it has written, or locked tables as
// Parse, Describe and EXPLAIN of a write do, which only the shard knows.
func (s *Session) locks(l *lane) bool {
	if !l.wrote && !l.locks {
		rows, err := s.hidden(l, locksSQL)
		if err != nil {
			s.tx.untold = err
		}
		l.locks = err != nil || len(rows) > 0
	}
	return l.wrote || l.locks
}

// locksSQL gives a row where the transaction has a lock that the fence's is not compatible with. It is safe for every setting.
const locksSQL = "SELECT mode FROM pg_catalog.pg_locks WHERE pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()" +
	" AND locktype OPERATOR(pg_catalog.=) 'relation' AND mode OPERATOR(pg_catalog.<>) 'AccessShareLock' LIMIT 1"

const (
	// inFlightMax bounds how long a map with a hold waits for what was planned before it came. A statement that takes longer has its
	// locks by then, for which the fence waits, or only reads, which it does not refuse.
	inFlightMax   = 50 * time.Millisecond
	inFlightAgain = 200 * time.Microsecond
)

// awaitInFlight waits until what was planned before the map in force, and sent to a shard that is about to lose or to get held
// keys, has been answered, or the time is over: the fence would refuse what comes behind it. While a shard is joining, that may be
// any of those from which its rows are taken.
func (s *Server) awaitInFlight(snap *topology.Snapshot, most time.Duration) {
	joining := slices.ContainsFunc(snap.Shards, func(shard topology.Shard) bool { return shard.State == topology.ShardJoining })
	if !joining && !snap.AnyHeld() {
		return
	}
	type work struct {
		session *Session
		round   uint64
	}
	var left []work
	s.mu.Lock()
	for _, c := range s.sessions {
		if round := c.round.Load(); c.worksOn(snap, joining) {
			left = append(left, work{c, round})
		}
	}
	s.mu.Unlock()
	for end := time.Now().Add(most); len(left) > 0 && time.Now().Before(end); time.Sleep(inFlightAgain) {
		left = slices.DeleteFunc(left, func(w work) bool {
			return w.session.round.Load() != w.round || sessionState(w.session.state.Load()) != active
		})
	}
}

// worksOn says whether the session is at work with a shard in a cutover, or with any. It is called from another goroutine.
func (s *Session) worksOn(snap *topology.Snapshot, anyOne bool) bool {
	if sessionState(s.state.Load()) != active {
		return false
	}
	s.laneMu.Lock()
	defer s.laneMu.Unlock()
	return slices.ContainsFunc(s.lanes, func(l *lane) bool { return anyOne || snap.InCutover(l.be.Pool().Shard()) })
}
