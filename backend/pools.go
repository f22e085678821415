package backend

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// expelEvery is how exactly Limits.Wait is kept.
const expelEvery = 100 * time.Millisecond

// Pools holds the pools of all nodes, made on first use, under one budget.
type Pools struct {
	dialer Dialer
	limits atomic.Pointer[Limits]
	budget budget
	gates  gates

	mu    sync.Mutex // guards pools
	pools map[Key]*Pool
}

// NewPools makes no connection yet.
func NewPools(dialer Dialer, limits Limits) *Pools {
	s := &Pools{dialer: dialer, pools: make(map[Key]*Pool)}
	s.limits.Store(&limits)
	s.budget.limit.Store(int64(limits.Total))
	return s
}

// Get gives the pool of key, whose node belongs to the shard.
func (s *Pools) Get(key Key, shard string) *Pool {
	g := s.gates.of(shard)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.pools[key]
	if !ok {
		p = &Pool{key: key, dialer: s.dialer, limits: &s.limits, budget: &s.budget}
		s.pools[key] = p
	}
	if p.gate.Load() != g { // also where the node has come to another shard
		p.gate.Store(g)
	}
	return p
}

// All gives the pools that exist.
func (s *Pools) All() []*Pool {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Pool, 0, len(s.pools))
	for _, p := range s.pools {
		all = append(all, p)
	}
	return all
}

// Run sweeps the pools until ctx ends, then closes what is idle.
func (s *Pools) Run(ctx context.Context) error {
	sweep := time.NewTicker(time.Second)
	defer sweep.Stop()
	expel := time.NewTicker(expelEvery)
	defer expel.Stop()
	for {
		select {
		case <-ctx.Done():
			s.close()
			return ctx.Err()
		case now := <-expel.C:
			s.gates.sweep(now)
			wait := s.limits.Load().Wait
			if wait <= 0 {
				continue
			}
			for _, p := range s.All() {
				p.expelWaiters(now)
			}
			s.budget.expelWaiters(now.Add(-wait))
		case now := <-sweep.C:
			for _, p := range s.All() {
				p.sweep(now)
			}
		}
	}
}

func (s *Pools) close() {
	s.gates.abandon(errClosed)
	for _, p := range s.All() {
		p.mu.Lock()
		p.closed = true
		idle := p.idle
		p.idle = nil
		for _, w := range p.waiters {
			w.ready <- grant{err: errClosed}
		}
		p.waiters = nil
		p.mu.Unlock()
		for _, c := range idle {
			p.discard(c)
		}
	}
}

// budget bounds the connections of all pools together. A session that finds it used up closes an idle
// connection of some pool, and waits where there is none.
type budget struct {
	resting resting

	limit    atomic.Int64 // 0: none; changed under the lock
	over     atomic.Bool  // more are open than the limit allows: it has been lowered; changed under the lock
	starving atomic.Int32 // length of queue, to be read without the lock

	mu    sync.Mutex // guards the fields below
	used  int
	queue []*Waiter // oldest first
}

// take makes room for one connection of p, or gives one of its connections that has become free.
func (b *budget) take(p *Pool, w *Waiter) (*Conn, error) {
	for {
		b.mu.Lock()
		if b.room() {
			b.used++
			b.mu.Unlock()
			return nil, nil
		}
		b.mu.Unlock()
		if b.evict() {
			continue
		}
		b.mu.Lock()
		if b.room() {
			b.mu.Unlock()
			continue
		}
		w.enlist()
		b.queue = append(b.queue, w)
		b.starving.Store(int32(len(b.queue)))
		b.mu.Unlock()
		b.evict()      // one may have become idle before we were seen to starve
		g := <-w.ready // give has counted for us
		p.waited.Add(int64(time.Since(w.since)))
		return g.c, g.err
	}
}

// room says whether one more may be opened. mu is held.
func (b *budget) room() bool {
	limit := int(b.limit.Load())
	return limit <= 0 || b.used < limit
}

// measure notes whether too many are open. mu is held.
func (b *budget) measure() {
	limit := int(b.limit.Load())
	b.over.Store(limit > 0 && b.used > limit)
}

// heir takes the one who has starved longest off the queue, if it is for a connection of p: it gets the very one that is
// being released.
func (b *budget) heir(p *Pool) *Waiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.queue) == 0 || b.queue[0].pool != p {
		return nil
	}
	return b.next()
}

// next takes the oldest off the queue. mu is held.
func (b *budget) next() *Waiter {
	w := b.queue[0]
	b.queue = b.queue[1:]
	b.starving.Store(int32(len(b.queue)))
	return w
}

// expelWaiters gives ErrFull to those who have waited too long.
func (b *budget) expelWaiters(before time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queue = expel(b.queue, before)
	b.starving.Store(int32(len(b.queue)))
}

// give takes one connection off the budget, or hands its room to the oldest who starves.
func (b *budget) give() {
	b.mu.Lock()
	if len(b.queue) == 0 || b.over.Load() {
		b.used--
		b.measure()
		b.mu.Unlock()
		return
	}
	w := b.next()
	b.mu.Unlock()
	w.ready <- grant{}
}

// starvedBefore says whether somebody has waited for room since before t.
func (b *budget) starvedBefore(t time.Time) bool {
	if b.starving.Load() == 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue) > 0 && b.queue[0].since.Before(t)
}

// CancelWait ends the wait of w with ErrCanceled, if it waits.
func (s *Pools) CancelWait(w *Waiter) {
	out := func(queue []*Waiter) []*Waiter {
		i := slices.Index(queue, w)
		if i < 0 {
			return queue
		}
		w.ready <- grant{err: ErrCanceled}
		return slices.Delete(slices.Clone(queue), i, i+1)
	}
	for _, g := range s.gates.all() {
		g.mu.Lock()
		g.queue = out(g.queue)
		g.mu.Unlock()
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

// Open is the number of connections of all pools.
func (s *Pools) Open() int {
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	return s.budget.used
}
