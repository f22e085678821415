package backend

import "sync"

// resting lists the pools that may have an idle connection, so that one can be found to close without looking at all
// pools, of which there may be 100,000. It is a clock: a pool enters at the end when it gets an idle connection and is not
// listed; the one in front loses its oldest, unless it has been used since it was last in front. So the connections of
// busy nodes stay, and the lock is taken by those who enter or look for one to close, not by each transaction.
type resting struct {
	mu    sync.Mutex // taken before that of a pool
	pools []*Pool    // each at most once
}

// enter lists p, whose listed has just been set.
func (r *resting) enter(p *Pool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pools = append(r.pools, p)
}

// give takes the connection away that has been idle for long; nil where none is idle.
func (r *resting) give() *Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	for tries := 2 * len(r.pools); tries > 0 && len(r.pools) > 0; tries-- { // each may be spared once
		p := r.pools[0]
		r.pools[0] = nil
		r.pools = r.pools[1:]
		c, stays := p.surrender()
		if stays {
			r.pools = append(r.pools, p)
		}
		if c != nil {
			return c
		}
	}
	return nil
}

// surrender takes the connection away that has been idle longest, unless the pool is to be spared, and says whether it
// stays listed.
func (p *Pool) surrender() (c *Conn, stays bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.idle) > 0 && !p.used {
		c = p.idle[0]
		p.idle = append(p.idle[:0], p.idle[1:]...)
	}
	p.used = false
	p.listed = len(p.idle) > 0
	return c, p.listed
}

// evict closes an idle connection of some pool. It says whether there was one.
func (b *budget) evict() bool {
	c := b.resting.give()
	if c == nil {
		return false
	}
	c.pool.discard(c)
	return true
}

// rest keeps c for whoever comes next. It unlocks mu, which the caller holds.
func (p *Pool) rest(c *Conn) {
	p.idle = append(p.idle, c)
	enters := !p.listed // also without a limit: there may be one later
	p.listed = true
	p.mu.Unlock()
	if enters {
		p.budget.resting.enter(p)
	}
	if p.budget.starving.Load() > 0 { // somebody began to starve who may not have seen c rest
		p.budget.evict()
	}
}
