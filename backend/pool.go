package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"shardproxy/wire"
)

// Key names a pool.
type Key struct {
	Address  string // host:port, or the path of a Unix socket
	Database string
	User     string
}

func (k Key) String() string { return k.User + "@" + k.Address + "/" + k.Database }

// Dialer makes connections. It is an interface because tests have servers of their own.
type Dialer interface {
	Dial(ctx context.Context, key Key) (*wire.ServerConn, error)
	Cancel(ctx context.Context, key Key, cancel wire.CancelKey) error
}

// Limits of every pool. Zero durations switch a limit off.
type Limits struct {
	Min, Max   int           // connections of one pool
	Total      int           // connections of all pools together
	Wait       time.Duration // for a connection to become free
	Idle       time.Duration // a connection unused for so long is closed, down to Min
	Lifetime   time.Duration // a connection older than this is closed when it is released
	CheckAfter time.Duration // a connection idle for longer is looked at before it is used again
	Statements int           // prepared statements that one connection holds
}

// ErrCanceled says that the wait for a connection was cancelled.
var ErrCanceled = errors.New("the wait for a backend connection was cancelled")

// ErrFull says that no connection became free in time.
var ErrFull = errors.New("no backend connection became free in time")

// Pool holds the connections of one node, user and database.
type Pool struct {
	key    Key
	dialer Dialer
	limits *atomic.Pointer[Limits]
	budget *budget
	gate   atomic.Pointer[gate] // of the shard that the node belongs to

	mu      sync.Mutex // guards the fields below
	idle    []*Conn    // newest last
	open    int        // idle, in use, and being dialled
	conns   map[*Conn]struct{}
	waiters []*Waiter // oldest first
	closed  bool
	listed  bool // among those that rest: see resting
	used    bool // since it was last looked at for a connection to close

	waited     atomic.Int64 // nanoseconds that sessions have waited
	generation atomic.Int64 // connections of an earlier one are closed when they are released

	lease    atomic.Pointer[Lease]
	renewing atomic.Bool // a session asks for another lease
}

// Waiter is one session's place in the queue of a pool. It is reused; the zero value is ready.
type Waiter struct {
	Inside bool // the session holds another backend, whose transaction must be able to end while new work is held back

	ready chan grant // holds one, so that granting never blocks
	since time.Time
	pool  *Pool // that it wants a connection of
}

// grant ends a wait: a connection, or an error, or neither for "there is room to dial: try again".
type grant struct {
	c   *Conn
	err error
}

// Key of the pool.
func (p *Pool) Key() Key { return p.key }

// Shard that the pool's node belongs to.
func (p *Pool) Shard() string { return p.gate.Load().shard }

// Acquire gives a connection to the session that owns w. It dials where the pool has room, waits otherwise,
// and gives ErrFull when the wait is over. While an operator has paused the shard it waits without end, before all else.
func (p *Pool) Acquire(ctx context.Context, w *Waiter) (*Conn, error) {
	for {
		g := p.gate.Load()
		if err := g.enter(p, w); err != nil {
			return nil, err
		}
		c, err := p.acquire(ctx, w)
		if err == nil {
			c.gate = g
			return c, nil
		}
		g.leave()
		if err != errHeldBack {
			return nil, err
		}
	}
}

func (p *Pool) acquire(ctx context.Context, w *Waiter) (*Conn, error) {
	for {
		p.mu.Lock()
		if n := len(p.idle); n > 0 {
			c := p.idle[n-1]
			p.idle[n-1] = nil
			p.idle = p.idle[:n-1]
			p.used = true
			p.mu.Unlock()
			if p.usable(c) {
				return c, nil
			}
			p.discard(c)
			continue
		}
		if p.closed {
			p.mu.Unlock()
			return nil, errClosed
		}
		if p.open < p.limits.Load().Max {
			p.open++
			p.mu.Unlock()
			c, err := p.budget.take(p, w)
			if c != nil || err != nil {
				p.vacate()
				return c, err
			}
			return p.dial(ctx)
		}
		w.enlist()
		p.waiters = append(p.waiters, w)
		p.mu.Unlock()
		g := <-w.ready
		p.waited.Add(int64(time.Since(w.since)))
		if g.c != nil || g.err != nil {
			return g.c, g.err
		}
	}
}

var errClosed = errors.New("the pool is closed")

func (p *Pool) usable(c *Conn) bool {
	after := p.limits.Load().CheckAfter
	if after <= 0 {
		return true
	}
	idle := time.Since(c.since)
	return idle < after || c.quiet()
}

func (p *Pool) dial(ctx context.Context) (*Conn, error) {
	generation := p.generation.Load()
	sc, err := p.dialer.Dial(ctx, p.key)
	if err != nil {
		p.budget.give()
		p.vacate()
		return nil, fmt.Errorf("connect to %v: %w", p.key, err)
	}
	c := &Conn{
		Stream: wire.NewStream(sc.Conn), Key: sc.Key, Params: sc.Params, Status: 'I',
		Settings: NoSettings, pool: p, born: time.Now(), generation: generation,
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns == nil {
		p.conns = make(map[*Conn]struct{})
	}
	p.conns[c] = struct{}{}
	return c, nil
}

// Release gives c back. The caller does not use it any more.
func (p *Pool) Release(c *Conn) {
	g := c.gate
	p.release(c, g)
	g.leave()
}

func (p *Pool) release(c *Conn, g *gate) {
	c.cancelMu.Lock()   // a cancel that is under way must not hit the next user
	c.cancelMu.Unlock() //nolint:staticcheck // the lock is the wait
	limits := p.limits.Load()
	if c.Broken || c.Err() != nil || c.Status != 'I' || c.Buffered() > 0 || c.Unsent() > 0 || c.outdated() ||
		(limits.Lifetime > 0 && time.Since(c.born) > limits.Lifetime) {
		p.discard(c)
		return
	}
	c.Rest()
	p.mu.Lock()
	if p.closed || p.open > limits.Max {
		p.mu.Unlock()
		p.discard(c)
		return
	}
	if len(p.waiters) > 0 && !p.budget.starvedBefore(p.waiters[0].since) {
		w := p.waiters[0]
		p.waiters = p.waiters[1:]
		p.mu.Unlock()
		w.ready <- grant{c: c}
		return
	}
	if p.budget.starving.Load() > 0 {
		p.mu.Unlock()
		if w := p.budget.heir(p); w != nil {
			w.ready <- grant{c: c}
			return
		}
		p.discard(c)
		return
	}
	if p.budget.over.Load() || g.closed.Load() || c.outdated() {
		p.mu.Unlock()
		p.discard(c)
		return
	}
	if limits.CheckAfter > 0 || limits.Idle > 0 {
		c.since = time.Now()
	}
	p.rest(c)
}

// discard closes c, which is not in idle, and makes its room free.
func (p *Pool) discard(c *Conn) {
	c.close()
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	p.budget.give()
	p.vacate()
}

// vacate takes one off open and lets the oldest waiter try to dial.
func (p *Pool) vacate() {
	p.mu.Lock()
	p.open--
	var w *Waiter
	if len(p.waiters) > 0 && p.open < p.limits.Load().Max {
		w = p.waiters[0]
		p.waiters = p.waiters[1:]
	}
	p.mu.Unlock()
	if w != nil {
		w.ready <- grant{}
	}
}

// enlist makes w ready to wait. It waits without a timer: the sweeper expels who has waited too long.
func (w *Waiter) enlist() {
	if w.ready == nil {
		w.ready = make(chan grant, 1)
	}
	w.since = time.Now()
}

// expel ends the wait of those in queue who came before the given time, and gives the rest of the queue.
func expel(queue []*Waiter, before time.Time) []*Waiter {
	for len(queue) > 0 && queue[0].since.Before(before) {
		queue[0].ready <- grant{err: ErrFull}
		queue = queue[1:]
	}
	return queue
}

// expelWaiters gives ErrFull to those who have waited too long.
func (p *Pool) expelWaiters(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiters = expel(p.waiters, now.Add(-p.limits.Load().Wait))
}

// sweep closes idle connections that are dead, too old, or idle too long.
func (p *Pool) sweep(now time.Time) {
	limits := p.limits.Load()
	p.mu.Lock()
	var gone []*Conn
	keep := p.idle[:0]
	for _, c := range p.idle {
		old := limits.Lifetime > 0 && now.Sub(c.born) > limits.Lifetime
		unused := limits.Idle > 0 && now.Sub(c.since) > limits.Idle && p.open-len(gone) > limits.Min
		if old || unused || !c.quiet() {
			gone = append(gone, c)
			continue
		}
		keep = append(keep, c)
	}
	clear(p.idle[len(keep):])
	p.idle = keep
	p.mu.Unlock()
	for _, c := range gone {
		p.discard(c)
	}
}

// ConnInfo is one connection as SHOW SERVERS gives it.
type ConnInfo struct {
	Key    Key
	PID    uint32 // of the server process
	Active bool   // in a session's hands
	Born   time.Time
	TLS    bool

	Outdated bool // closed as soon as it is released: see Pools.Reconnect
	Service  bool // of the proxy's own work: see proxy.Server.Backends
}

// Conns lists the pool's connections.
func (p *Pool) Conns() []ConnInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]ConnInfo, 0, len(p.conns))
	for c := range p.conns {
		_, plain := c.Conn().(syscall.Conn)
		list = append(list, ConnInfo{Key: p.key, PID: c.Key.PID, Active: !slices.Contains(p.idle, c), Born: c.born, TLS: !plain, Outdated: c.outdated()})
	}
	return list
}

// Stats of a pool at one moment.
type Stats struct {
	Key                 Key
	Idle, Used, Waiting int
	LongestWait         time.Duration // of those who wait now
	Waited              time.Duration // by all sessions since the start
}

// Stats counts the pool's connections, and the sessions that wait for one, be it at the gate of a paused shard.
func (p *Pool) Stats() Stats {
	held, since := p.gate.Load().waiting(p)
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{
		Key: p.key, Idle: len(p.idle), Used: p.open - len(p.idle), Waiting: held + len(p.waiters),
		Waited: time.Duration(p.waited.Load()),
	}
	if n := len(p.waiters); n > 0 && (held == 0 || p.waiters[0].since.Before(since)) {
		since = p.waiters[0].since
	}
	if s.Waiting > 0 {
		s.LongestWait = time.Since(since)
	}
	return s
}
