package backend

import (
	"context"
	"slices"
)

// Pause holds back new work for a shard, for all with "", and returns when no backend of it is in use and none is open.
// Sessions that wait for a backend go on waiting, for as long as it takes. When ctx ends first, all is as before.
func (s *Pools) Pause(ctx context.Context, shard string) error {
	p, err := s.gates.close(shard)
	if err != nil {
		return err
	}
	s.sendBack(shard)
	s.CloseIdle(shard)
	for !s.gates.shut(shard, p) {
		select {
		case <-p.news:
		case <-p.ended:
			return ErrResumed
		case <-ctx.Done():
			_ = s.gates.open(shard, p) // else somebody has just resumed
			return ctx.Err()
		}
	}
	return nil
}

// Hold is Pause that waits for nobody, and does nothing where all is held back already.
func (s *Pools) Hold(shard string) {
	if _, err := s.gates.close(shard); err == nil {
		s.sendBack(shard)
		s.CloseIdle(shard)
	}
}

// Resume ends the pause of a shard, with "" the one of all.
func (s *Pools) Resume(shard string) error { return s.gates.open(shard, nil) }

// Paused says whether work for a shard is held back, by its own pause or by that of all. It is quick where nothing is.
func (s *Pools) Paused(shard string) bool {
	if !s.gates.some.Load() {
		return false
	}
	s.gates.mu.Lock()
	defer s.gates.mu.Unlock()
	return s.gates.pauses[""] != nil || s.gates.pauses[shard] != nil
}

// Abandon gives err to those whom a pause holds back, and ends all pauses.
func (s *Pools) Abandon(err error) { s.gates.abandon(err) }

// sendBack takes those who wait for a backend of a shard that is being paused back to its gate.
func (s *Pools) sendBack(shard string) {
	out := func(queue []*Waiter) []*Waiter {
		return slices.DeleteFunc(slices.Clone(queue), func(w *Waiter) bool {
			if w.Inside || !isOf(w.pool, shard) {
				return false
			}
			w.ready <- grant{err: errHeldBack}
			return true
		})
	}
	for _, p := range s.All() {
		p.mu.Lock()
		p.waiters = out(p.waiters)
		p.mu.Unlock()
	}
	s.budget.mu.Lock()
	s.budget.queue = out(s.budget.queue)
	s.budget.starving.Store(int32(len(s.budget.queue)))
	s.budget.mu.Unlock()
}

func isOf(p *Pool, shard string) bool { return shard == "" || p.Shard() == shard }

// CloseIdle closes the idle connections to a shard, to all with "".
func (s *Pools) CloseIdle(shard string) {
	for _, p := range s.All() {
		if isOf(p, shard) {
			p.closeIdle()
		}
	}
}

func (p *Pool) closeIdle() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, c := range idle {
		p.discard(c)
	}
}

// Reconnect closes each open connection of the pools that are meant: those that are idle at once, the others when
// they are released.
func (s *Pools) Reconnect(meant func(*Pool) bool) {
	for _, p := range s.All() {
		if meant(p) {
			p.generation.Add(1)
			p.closeIdle()
		}
	}
}

// SetLimits puts other limits in force. Where there are too many connections now, they are closed as they are released.
func (s *Pools) SetLimits(limits Limits) {
	s.limits.Store(&limits)
	s.budget.setLimit(limits.Total)
	for _, p := range s.All() {
		p.mu.Lock()
		n := min(max(limits.Max-p.open, 0), len(p.waiters))
		for _, w := range p.waiters[:n] {
			w.ready <- grant{} // there is room to dial
		}
		p.waiters = p.waiters[n:]
		p.mu.Unlock()
	}
}

func (b *budget) setLimit(limit int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit.Store(int64(limit))
	b.measure()
	for len(b.queue) > 0 && b.room() {
		b.used++
		b.next().ready <- grant{}
	}
}
