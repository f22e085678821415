package proxy

import (
	"context"
	"sync"
	"time"

	"shardproxy/backend"
	"shardproxy/wire"
)

// killing is the end of a session by an operator.
type killing struct {
	gone chan struct{} // closed when the session is registered no longer
}

// kill ends sessions and waits until they have gone: their clients have farewellTime to take the message, and as much again
// is given to those that wait for a node which does not answer.
func (s *Server) kill(ctx context.Context, list []*Session) {
	var ending []*killing
	var sessions []*Session
	s.mu.Lock()
	for _, c := range list {
		if _, there := s.sessions[c.key.PID]; !there {
			continue
		}
		k := &killing{gone: make(chan struct{})}
		if !c.killed.CompareAndSwap(nil, k) {
			k = c.killed.Load() // somebody else kills it too
		}
		ending, sessions = append(ending, k), append(sessions, c)
	}
	s.mu.Unlock()
	for _, last := range []bool{false, true} {
		var busy []*backend.Conn
		for i, c := range sessions {
			if last && ending[i].over() {
				continue
			}
			busy = append(busy, c.interrupt()...)
			if last {
				_ = c.client.Conn().Close()
			}
		}
		s.cancelAll(ctx, busy)
		if awaitAll(ctx, ending) {
			return
		}
	}
}

func (k *killing) over() bool {
	select {
	case <-k.gone:
		return true
	default:
		return false
	}
}

// awaitAll waits up to farewellTime, and says whether all have gone.
func awaitAll(ctx context.Context, list []*killing) bool {
	ctx, cancel := context.WithTimeout(ctx, farewellTime)
	defer cancel()
	for _, k := range list {
		select {
		case <-k.gone:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// interrupt wakes a session wherever it waits, and takes away its backends. It gives those that may run something for it.
func (s *Session) interrupt() (busy []*backend.Conn) {
	_ = s.client.Conn().SetReadDeadline(time.Unix(1, 0))
	_ = s.client.Conn().SetWriteDeadline(time.Now().Add(farewellTime))
	s.laneMu.Lock()
	for _, l := range s.lanes {
		_ = l.be.Stream.Conn().Close()
		if sessionState(s.state.Load()) == active {
			busy = append(busy, l.be)
		}
	}
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
	s.laneMu.Unlock()
	s.srv.pools.CancelWait(&s.waiter)
	return busy
}

// cancelAll stops what backends run whose connections have been closed: PostgreSQL itself sees that only when it next
// sends something.
func (s *Server) cancelAll(ctx context.Context, busy []*backend.Conn) {
	ctx, stop := context.WithTimeout(ctx, farewellTime)
	defer stop()
	var wg sync.WaitGroup
	turn := make(chan struct{}, fanOut)
	for _, be := range busy {
		turn <- struct{}{}
		wg.Go(func() {
			_ = be.Cancel(ctx) // the node may be what does not answer
			<-turn
		})
	}
	wg.Wait()
}

// AwaitClients lets no more clients in, and waits until all have left by themselves, or until ctx ends. The listeners must
// have been closed.
func (s *Server) AwaitClients(ctx context.Context) {
	s.mu.Lock()
	s.closing.Store(true)
	if len(s.sessions) == 0 {
		s.mu.Unlock()
		return
	}
	if s.emptied == nil {
		s.emptied = make(chan struct{})
	}
	emptied := s.emptied
	s.mu.Unlock()
	select {
	case <-emptied:
	case <-ctx.Done():
	}
}

func errShuttingDown() *wire.Error {
	return wire.Fatalf(wire.CodeAdminShutdown, "terminating connection due to administrator command")
}

// killedBy is what the client of a killed session is told, who would have got err.
func (s *Session) killedBy(err error) error {
	e := errShuttingDown()
	if cause := s.explain(err); cause != nil {
		e.Detail, e.Hint = cause.Message, cause.Hint // such as that the outcome of COMMIT is not known
	}
	return e
}
