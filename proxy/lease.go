package proxy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"shardproxy/backend"
	"shardproxy/fence"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// A shard is the judge of who may work on it: its fence holds the least epoch whose map says rightly what it owns. The
// proxy tells each backend the epoch that its session plans with, which the fence's triggers look at when something is
// written, and asks for the epoch of the fence again and again, for the sake of what is read:
//
//	session ──SET shardproxy.epoch──► backend ──triggers──► 40001 for what is written by an older map
//	   └──────lease: fence.epoch ≤ ours, asked at most topology.LeaseTime ago──► else nothing is read or written
//
// So a proxy that hears neither of the catalog nor of its peers still learns that its map is old from the very shards
// for which it is, and goes on with all others.

// catchUpTime is how long a statement waits for the map that a shard has been fenced for.
const catchUpTime = 5 * time.Second

// catchUpAgain is how often the source of maps is reminded meanwhile.
const catchUpAgain = 200 * time.Millisecond

// staleError says that a shard no longer works for the map that a statement was planned with. Nothing of it was done there.
type staleError struct {
	shard string
	fence topology.Epoch // 0: not known yet, a trigger has refused
	ours  topology.Epoch
}

func (e *staleError) Error() string {
	return fmt.Sprintf("shard %s takes no work planned with epoch %d of the topology any more: it is at epoch %d", e.shard, e.ours, e.fence)
}

// forClient words the error. A transaction that comes here keeps its map: see follows.
func (e *staleError) forClient(inTransaction bool) *wire.Error {
	if inTransaction {
		return wire.Errorf(wire.CodeSerializationFailure, "%v", e).WithHint("Key ranges have moved since the transaction began: run it again.")
	}
	return wire.Errorf(wire.CodeCannotConnectNow, "%v", e).
		WithHint("This proxy does not hear of changes of the topology, from the catalog or from its peers. Another one may.")
}

// stamp tells the lane's backend by which map the session plans, and looks whether the shard still goes by it.
func (s *Session) stamp(l *lane) error {
	pool := l.be.Pool()
	lease := pool.Lease()
	outside := !l.begun && l.synced
	if age := leaseAge(lease, time.Now()); age > topology.LeaseTime || age > topology.LeaseTime/2 && outside && pool.Renew() {
		var err error
		if lease, err = s.askFence(l, lease != nil && lease.Fenced); err != nil {
			return err
		}
	}
	if err := s.heed(l.shard, lease); err != nil {
		return err
	}
	switch epoch := s.ourStamp(); { // with the next message, in one write
	case outside && l.be.Epoch != epoch:
		l.query("SET shardproxy.epoch = "+strconv.FormatUint(uint64(epoch), 10), queryHidden)
		l.be.Epoch = epoch
	case l.begun && l.synced && l.stamped != epoch && !s.tx.failed:
		l.execute("SET LOCAL shardproxy.epoch = " + strconv.FormatUint(uint64(epoch), 10)) // a simple Query would end the client's unnamed portal
		if l.wrote {
			// A backend that has its locks already runs what is prepared by the fence of before, until it looks for a table by name.
			l.execute("SELECT FROM pg_catalog.pg_class LIMIT 0")
		}
		l.sync()
		l.stamped = epoch
	}
	return nil
}

// ourStamp is the epoch that the session's work is stamped with. What has gone past a hold must not pass for work of the map
// that ends it, also if that comes meanwhile.
func (s *Session) ourStamp() topology.Epoch {
	if s.through {
		return s.routes.snap.Epoch
	}
	return s.srv.stampOf(s.routes.snap)
}

// leaseAge is how long ago the node was asked; forever, where it was not.
func leaseAge(lease *backend.Lease, now time.Time) time.Duration {
	if lease == nil {
		return 1<<63 - 1
	}
	return now.Sub(lease.At)
}

// heed gives a *staleError where the shard is fenced for a later map than the session's.
func (s *Session) heed(shard topology.ShardID, lease *backend.Lease) error {
	if ours := s.ourStamp(); lease.Epoch > ours {
		s.srv.heard(lease.Epoch)
		return &staleError{shard: s.shardName(shard), fence: lease.Epoch, ours: ours}
	}
	return nil
}

// heedAll is heed for the shards of a statement that goes to several, as far as they were asked not long ago. The others
// are asked when it is their turn.
func (s *Session) heedAll(shards []topology.ShardID) error {
	now := time.Now()
	for _, shard := range shards {
		pool := s.routes.pools[shard].Load()
		if pool == nil {
			continue
		}
		lease := pool.Lease()
		if leaseAge(lease, now) > topology.LeaseTime {
			continue
		}
		if err := s.heed(shard, lease); err != nil {
			return err
		}
	}
	return nil
}

// askFence asks the lane's shard for the epoch of its fence. An answer from a transaction that reads by an old snapshot
// holds for that transaction alone.
func (s *Session) askFence(l *lane, fenced bool) (*backend.Lease, error) {
	pool := l.be.Pool()
	defer pool.Renewed()
	at, outside := time.Now(), !l.begun && l.synced
	if l.be.Status == 'E' {
		return &backend.Lease{At: at}, nil // nothing but the end of the transaction can follow
	}
	if !fenced {
		rows, err := s.hidden(l, fence.IsInstalled)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 || rows[0][0] != "t" {
			lease := &backend.Lease{At: at}
			pool.SetLease(lease)
			return lease, nil
		}
	}
	rows, err := s.hidden(l, fence.ReadEpoch)
	var server *serverError
	if errors.As(err, &server) {
		pool.SetLease(nil)
		return nil, wire.Errorf(wire.CodeCannotConnectNow, "the fence of shard %s cannot be read: %s", s.shardName(l.shard), server.Message).
			WithHint("shardctl fence check tells what is wrong with it.")
	}
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 || len(rows[0]) != 2 {
		return nil, wire.Errorf(wire.CodeCannotConnectNow, "the fence of shard %s is empty", s.shardName(l.shard)).
			WithHint("shardctl fence install mends it.")
	}
	lease := &backend.Lease{At: at, Fenced: true, Epoch: topology.Epoch(parseUint(rows[0][0]))}
	if outside || rows[0][1] == "read committed" {
		pool.SetLease(lease)
	}
	return lease, nil
}

// fenced takes note that the fence of a shard has refused a write, as its epoch is above the one that the backend is
// stamped with. It gives a *staleError where the statement can be run again: it was all there is of its transaction, and
// has not been answered yet.
func (s *Session) fenced(l *lane, want reply) error {
	l.be.Pool().SetLease(nil) // the next statement asks
	l.be.Epoch = 0
	if want != queryReply || l.begun || s.tx.open || s.refusals > 0 || s.clientPosition() != s.unanswered {
		return nil
	}
	s.refusals++
	return &staleError{shard: s.shardName(l.shard), ours: s.ourStamp()}
}

// clientPosition is how much the client has been sent, or will be with the next write.
func (s *Session) clientPosition() int64 {
	return s.client.BytesWritten + int64(s.client.Unsent())
}

// hidden runs a statement of the proxy's own on a lane and gives its rows. What the client has begun there goes on: a simple
// Query would end its pipeline, and its unnamed portal.
func (s *Session) hidden(l *lane, sql string) ([][]string, error) {
	l.rows = nil
	if synced := l.synced; synced && !l.begun {
		l.query(sql, queryHidden)
	} else {
		l.execute(sql)
		if synced {
			l.sync()
		}
	}
	err := s.drain(l)
	rows := l.rows
	l.rows = nil
	return rows, err
}

// again says whether a statement that ended with err is to be planned and run again: its keys are held, or a shard was
// ahead of its map; nothing of it has been sent, and the map that follows is here now. Else it gives the error that is left.
func (s *Session) again(ctx context.Context, err error) (bool, error) {
	var stale *staleError
	var refused *router.Error
	switch {
	case err == nil:
		return false, nil
	case errors.As(err, &stale):
	case err == errJoining:
		return s.endOfJoin(ctx)
	case errors.As(err, &refused) && refused == router.Held:
	default:
		return false, err
	}
	if err := s.settlePipeline(); err != nil {
		return false, err
	}
	if stale == nil {
		return s.endOfHold(ctx, err)
	}
	if s.holdsMap() {
		return false, stale.forClient(true)
	}
	if stale.fence == 0 { // the shard is asked now, or the map has changed
		return true, nil
	}
	reached := func(snap *topology.Snapshot) bool { return s.srv.stampOf(snap) >= stale.fence }
	if err := s.awaitMap(ctx, catchUpTime, reached, stale.fence); err != nil {
		return false, err
	}
	if !reached(s.topology()) {
		return false, stale
	}
	return true, nil
}

// endOfHold waits for the map that ends a hold. When that does not come in time, the statement goes to the owner of before:
// if that is the owner no longer, its fence says so.
func (s *Session) endOfHold(ctx context.Context, held error) (bool, error) {
	if s.holdsMap() || s.locksWhereHeld() {
		return false, held
	}
	s.srv.stats.held.Add(1)
	epoch := s.routes.snap.Epoch
	next := func(snap *topology.Snapshot) bool { return snap.Epoch > epoch }
	if err := s.awaitMap(ctx, topology.HoldTime-s.srv.mapAge(), next, 0); err != nil {
		return false, err
	}
	s.through = !next(s.topology())
	return true, nil
}

// heldKeys gives router.Held where a statement for all keys must wait.
func (s *Session) heldKeys() error {
	if s.snap.AnyHeld() && !s.through {
		return router.Held
	}
	return nil
}

// heldBound gives router.Held where the key that the session is bound to is held.
func (s *Session) heldBound() error {
	if kind, key, _ := strings.Cut(s.boundBy, " "); kind == "key" && s.snap.AnyHeld() && !s.through &&
		s.snap.Held(router.Hint{Present: true, Key: key}.Hash()) {
		return router.Held
	}
	return nil
}

// awaitMap waits until the proxy goes by a map that will do, or the time for that is up. It reminds the source of maps of
// the epoch, where there is one to be reminded of. The error is that the client does not want to wait.
func (s *Session) awaitMap(ctx context.Context, most time.Duration, will func(*topology.Snapshot) bool, epoch topology.Epoch) error {
	canceled := s.interruptible()
	defer s.uninterruptible()
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	remind := time.NewTicker(catchUpAgain)
	defer remind.Stop()
	for {
		published := s.srv.published()
		if will(s.srv.snapshot.Load()) {
			return nil
		}
		select {
		case <-published:
		case <-remind.C:
			if epoch != 0 {
				s.srv.heard(epoch)
			}
		case <-canceled:
			return backend.ErrCanceled
		case <-ctx.Done():
			return nil
		}
	}
}

// interruptible gives a channel that Cancel closes, until uninterruptible is called.
func (s *Session) interruptible() <-chan struct{} {
	s.laneMu.Lock()
	defer s.laneMu.Unlock()
	s.wake = make(chan struct{})
	return s.wake
}

func (s *Session) uninterruptible() {
	s.laneMu.Lock()
	defer s.laneMu.Unlock()
	s.wake = nil
}

// heard notes that a shard is fenced for epoch. Where that is later than our map, news has not come through.
func (s *Server) heard(epoch topology.Epoch) {
	for {
		known := s.fenced.Load()
		if uint64(epoch) <= known || s.fenced.CompareAndSwap(known, uint64(epoch)) {
			break
		}
	}
	if behind := s.cfg.Behind; behind != nil && epoch > s.stampOf(s.snapshot.Load()) {
		behind(epoch)
	}
}

// behindFences is the epoch that a shard is fenced for and that our map has not reached, 0 for none.
func (s *Server) behindFences() topology.Epoch {
	if e := topology.Epoch(s.fenced.Load()); e > s.stampOf(s.snapshot.Load()) {
		return e
	}
	return 0
}

// published is closed when the next snapshot is in force.
func (s *Server) published() <-chan struct{} { return *s.news.Load() }

// adopt puts a snapshot in force.
func (s *Server) adopt(snap *topology.Snapshot) {
	if snap.Epoch != s.snapshot.Load().Epoch {
		now := time.Now()
		s.adopted.Store(&now)
	}
	s.snapshot.Store(snap)
	next := make(chan struct{})
	close(*s.news.Swap(&next))
}

// stampOf is the epoch that work planned with a map is stamped with. Once a hold has lasted for too long, and work goes past
// it, that is no longer the one of the map to come: what has moved by that is not to be read where it was.
func (s *Server) stampOf(snap *topology.Snapshot) topology.Epoch {
	if snap.AnyHeld() && snap.Epoch == s.snapshot.Load().Epoch && s.mapAge() >= topology.HoldTime {
		return snap.Epoch
	}
	return snap.Stamp()
}

// mapAge is how long the map in force has been it.
func (s *Server) mapAge() time.Duration { return time.Since(*s.adopted.Load()) }

// LeaseInfo is what one pool knows of the fence of its node.
type LeaseInfo struct {
	Key       backend.Key
	Fenced    bool
	Fence     topology.Epoch
	Confirmed time.Time // when the node was asked; zero for never
	Stale     bool      // the fence is for a later map than ours
}

// Leases lists the pools of sessions with what they know of fences.
func (s *Server) Leases() []LeaseInfo {
	ours := s.stampOf(s.snapshot.Load())
	var list []LeaseInfo
	for _, p := range s.pools.All() {
		info := LeaseInfo{Key: p.Key()}
		if lease := p.Lease(); lease != nil {
			info.Fenced, info.Fence, info.Confirmed, info.Stale = lease.Fenced, lease.Epoch, lease.At, lease.Epoch > ours
		}
		list = append(list, info)
	}
	return list
}
