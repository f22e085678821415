package backend

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// ErrPaused says that it is paused already.
var ErrPaused = errors.New("it is paused already")

// ErrNotPaused says that there is nothing to resume.
var ErrNotPaused = errors.New("it is not paused")

// ErrResumed ends a pause that waits for backends in use when somebody else resumes.
var ErrResumed = errors.New("it was resumed before the last connection was given back")

// errHeldBack sends a session that waits for a backend back to the gate, which has been closed meanwhile.
var errHeldBack = errors.New("the gate has been closed")

// gatePatience is how long a session that holds a backend of another shard waits at the gate of one that is being paused.
// Long enough for the transactions of that shard to end; what still holds it up then is mostly a transaction there that
// waits for a lock of this very session, and the pause would never come to its end.
const gatePatience = time.Second

// gate keeps new work away from the pools of one shard while an operator has paused it. A session is inside from the
// beginning of Acquire to the end of Release.
//
//	            pause                  nobody is inside
//	gateOpen ──────────► gateDraining ──────────────────► gateShut
//	   ▲       resume         │              resume          │
//	   └──────────────────────┴──────────────────────────────┘
//
// It can be closed twice over, with all others and by itself, and is open when neither holds. Work is new where its
// session holds no backend at all: a transaction that has begun must be able to end, or the pause would wait for it
// for ever. Nobody passes a gate that is shut.
type gate struct {
	gates  *gates
	shard  string
	closed atomic.Bool // not open, for Release to see without the lock

	mu     sync.Mutex // guards the fields below
	states [2]gateState
	inside int
	queue  []*Waiter // oldest first
}

type gateState uint8

const (
	gateOpen gateState = iota
	gateDraining
	gateShut
)

// The ways to close a gate: indices into gate.states.
const (
	withAll = iota
	byItself
)

// enter lets a session of pool p in, or makes it wait until it may.
func (g *gate) enter(p *Pool, w *Waiter) error {
	w.pool = p
	g.mu.Lock()
	if !g.closed.Load() {
		g.inside++
		g.mu.Unlock()
		return nil
	}
	w.enlist()
	if !g.holds(w, w.since) {
		g.let()
		g.mu.Unlock()
		return nil
	}
	g.queue = append(g.queue, w)
	g.mu.Unlock()
	granted := <-w.ready // who lets it in counts it
	p.waited.Add(int64(time.Since(w.since)))
	return granted.err
}

// let counts one who goes in. The caller holds mu.
func (g *gate) let() {
	g.inside++
	if g.closed.Load() {
		g.gates.passed.Add(1)
	}
}

// leave counts one out.
func (g *gate) leave() {
	g.mu.Lock()
	g.inside--
	last := g.inside == 0 && g.closed.Load()
	g.mu.Unlock()
	if last {
		g.gates.tell()
	}
}

// holds says whether w has to wait. The caller holds mu.
func (g *gate) holds(w *Waiter, now time.Time) bool {
	all, own := g.states[withAll], g.states[byItself]
	switch {
	case all == gateOpen && own == gateOpen:
		return false
	case all == gateShut || own == gateShut || !w.Inside:
		return true
	}
	return own == gateDraining && now.Sub(w.since) < gatePatience
}

// admit lets in all of the queue who need not wait any more. The caller holds mu.
func (g *gate) admit(now time.Time) {
	var held []*Waiter
	for _, w := range g.queue {
		if g.holds(w, now) {
			held = append(held, w)
			continue
		}
		g.let()
		w.ready <- grant{}
	}
	g.queue = held
}

// set changes one of the states. Who may go in then does.
func (g *gate) set(way int, state gateState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.states[way] = state
	g.closed.Store(g.states != [2]gateState{})
	g.admit(time.Now())
}

// waiting counts the sessions of p in the queue, and says since when the oldest of them waits.
func (g *gate) waiting(p *Pool) (n int, since time.Time) {
	if !g.closed.Load() {
		return 0, since
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.queue {
		if w.pool != p {
			continue
		}
		if n == 0 {
			since = w.since
		}
		n++
	}
	return n, since
}

// gates holds the gates of all shards, made on first use, and the pauses that are in force.
type gates struct {
	passed atomic.Int64 // how often a closed gate has let somebody in
	some   atomic.Bool  // some pause is in force; changed under the lock

	mu      sync.Mutex // guards the fields below; taken before a gate's own
	byShard map[string]*gate
	pauses  map[string]*pause // by shard, "" for the one of all
}

// pause is in force until ended is closed.
type pause struct {
	state gateState     // draining or shut; guarded by gates.mu
	news  chan struct{} // holds one: a gate has just become empty
	ended chan struct{}
}

// of gives the gate of a shard.
func (s *gates) of(shard string) *gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ofLocked(shard)
}

func (s *gates) ofLocked(shard string) *gate {
	g := s.byShard[shard]
	if g == nil {
		g = &gate{gates: s, shard: shard}
		if p := s.pauses[""]; p != nil {
			g.states[withAll] = p.state
			g.closed.Store(true)
		}
		if s.byShard == nil {
			s.byShard = make(map[string]*gate)
		}
		s.byShard[shard] = g
	}
	return g
}

// targets are the gates that the pause of a shard closes, and in which way. The caller holds mu.
func (s *gates) targets(shard string) (list []*gate, way int) {
	if shard != "" {
		return []*gate{s.ofLocked(shard)}, byItself
	}
	for _, g := range s.byShard {
		list = append(list, g)
	}
	return list, withAll
}

// close begins a pause.
func (s *gates) close(shard string) (*pause, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pauses[shard] != nil {
		return nil, ErrPaused
	}
	list, way := s.targets(shard)
	p := &pause{state: gateDraining, news: make(chan struct{}, 1), ended: make(chan struct{})}
	if s.pauses == nil {
		s.pauses = make(map[string]*pause)
	}
	s.pauses[shard] = p
	s.some.Store(true)
	for _, g := range list {
		g.set(way, gateDraining)
	}
	return p, nil
}

// open ends the pause of a shard. only, unless it is nil, is the pause that is meant: another one goes on.
func (s *gates) open(shard string, only *pause) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pauses[shard]
	if p == nil || only != nil && p != only {
		return ErrNotPaused
	}
	delete(s.pauses, shard)
	s.some.Store(len(s.pauses) > 0)
	close(p.ended)
	list, way := s.targets(shard)
	for _, g := range list {
		g.set(way, gateOpen)
	}
	return nil
}

// shut ends the draining of a pause that is in force, if nobody is inside any more, and says whether.
func (s *gates) shut(shard string, p *pause) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pauses[shard] != p {
		return false
	}
	list, way := s.targets(shard)
	// The gates are looked at one after the other. Between, a session that holds a backend of one may have gone into
	// another and given the first back; then it is counted in passed.
	before := s.passed.Load()
	for _, g := range list {
		g.mu.Lock()
		n := g.inside
		if n == 0 && way == byItself {
			g.states[way] = gateShut
		}
		g.mu.Unlock()
		if n > 0 {
			return false
		}
	}
	if way == withAll {
		if s.passed.Load() != before {
			return false // that session tells when it leaves
		}
		for _, g := range list {
			g.set(way, gateShut)
		}
	}
	p.state = gateShut
	return true
}

// tell lets all who wait for a gate to become empty look again.
func (s *gates) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pauses {
		select {
		case p.news <- struct{}{}:
		default: // it has not looked since the last time
		}
	}
}

// sweep lets in who has waited long enough.
func (s *gates) sweep(now time.Time) {
	for _, g := range s.all() {
		if !g.closed.Load() {
			continue
		}
		g.mu.Lock()
		g.admit(now)
		g.mu.Unlock()
	}
}

func (s *gates) all() []*gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*gate, 0, len(s.byShard))
	for _, g := range s.byShard {
		list = append(list, g)
	}
	return list
}

// abandon gives err to all who wait, and opens the gates for good.
func (s *gates) abandon(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for shard, p := range s.pauses {
		close(p.ended)
		delete(s.pauses, shard)
	}
	s.some.Store(false)
	for _, g := range s.byShard {
		g.mu.Lock()
		for _, w := range g.queue {
			w.ready <- grant{err: err}
		}
		g.queue, g.states = nil, [2]gateState{}
		g.closed.Store(false)
		g.mu.Unlock()
	}
}
