package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// ConsoleDatabase is the virtual database of the admin console.
const ConsoleDatabase = "shardproxy"

// Console serves clients of the database ConsoleDatabase, from behind their authentication on.
type Console interface {
	Serve(ctx context.Context, client *wire.Stream, startup *wire.Startup) error
	Cancel(key wire.CancelKey) // what one of its clients waits for, if it is one of its clients
}

// Connections of the proxy's own work: reading the schema, recovery, looking up users. They come on top of the budget.
const (
	serviceMax  = 4  // of one shard
	serviceAll  = 32 // of all shards together
	serviceIdle = 30 * time.Second
	serviceTime = 30 * time.Second // for one piece of work
)

// Server accepts clients and runs their sessions.
type Server struct {
	cfg        Fixed
	live       atomic.Pointer[Live]
	Console    Console // nil: there is no console
	router     *router.Router
	pools      *backend.Pools // of sessions
	service    *backend.Pools // of the proxy's own work
	dialer     *dialer
	types      sync.Map // uint32 OID → typeOf, of the types that come with PostgreSQL
	statements *backend.Statements
	auth       atomic.Pointer[wire.Authenticator]
	mockKey    []byte // of auth: the same for all
	userQuery  atomic.Pointer[userQuery]
	snapshot   atomic.Pointer[topology.Snapshot] // changed by adopt
	adopted    atomic.Pointer[time.Time]         // when the epoch of snapshot came
	news       atomic.Pointer[chan struct{}]     // closed and replaced when snapshot changes
	fenced     atomic.Uint64                     // the highest epoch that a shard was found fenced for
	defaults   atomic.Pointer[defaults]
	stats      Stats
	envs       envs
	logins     logins
	schema     schemaKeeper
	recovery   recovery
	drift      driftKeeper

	learned       chan struct{}   // closed once defaults and the schema are known
	consoles      context.Context // ends logins and the sessions of the console
	closeConsoles context.CancelFunc

	draining        atomic.Bool
	closing         atomic.Bool // no more clients are let in
	unauthenticated atomic.Int32

	mu       sync.Mutex // guards the fields below
	sessions map[uint32]*Session
	clients  map[string]int // sessions by the name of the user
	emptied  chan struct{}  // closed when the last session has gone; nil: nobody waits for that
	lastPID  uint32
	routes   map[string]*routes // by server user
	wg       sync.WaitGroup
}

// NewServer makes a Server that has connected to nothing yet: call Start.
func NewServer(cfg Config) (*Server, error) {
	r, err := router.New(cfg.Router)
	if err != nil {
		return nil, err
	}
	d := &dialer{}
	s := &Server{
		cfg: cfg.Fixed, router: r, dialer: d,
		pools: backend.NewPools(d, cfg.Pools), service: backend.NewPools(d, serviceLimits(cfg.Pools)),
		statements: backend.NewStatements(cfg.Router.CacheEntries), mockKey: make([]byte, 32),
		sessions: make(map[uint32]*Session), clients: make(map[string]int), routes: make(map[string]*routes),
	}
	_, _ = rand.Read(s.mockKey) // never fails
	s.Reload(&cfg.Live)
	s.learned = make(chan struct{})
	s.consoles, s.closeConsoles = context.WithCancel(context.Background())
	s.snapshot.Store(cfg.Topology)
	news, now := make(chan struct{}), time.Now()
	s.adopted.Store(&now)
	s.news.Store(&news)
	s.stats.started = time.Now()
	return s, nil
}

// Ready gives the reasons why the server should get no clients, none where it should.
func (s *Server) Ready() []string {
	var reasons []string
	if s.defaults.Load() == nil {
		reasons = append(reasons, "no shard has answered yet")
	}
	if s.draining.Load() || s.closing.Load() {
		reasons = append(reasons, "shutting down")
	}
	if e := s.behindFences(); e != 0 {
		reasons = append(reasons, fmt.Sprintf("a shard is fenced for epoch %d of the topology, which has not come here", e))
	}
	return reasons
}

// Start learns from a shard what a fresh backend reports, and reads the schema. It waits for a shard to answer
// as long as ctx lets it.
func (s *Server) Start(ctx context.Context) error {
	for {
		err := s.learn(ctx)
		if err == nil {
			close(s.learned)
			return nil
		}
		s.cfg.Log.Warn("no shard answers yet", "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("reading the schema: %w", err)
		case <-time.After(time.Second):
		}
	}
}

// Run does what must be done in the background until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.pools.Run(ctx) })
	wg.Go(func() { _ = s.service.Run(ctx) })
	wg.Go(func() { s.recover(ctx) })
	wg.Go(func() { s.adoptLate(ctx) })
	wg.Go(func() { s.watchDrift(ctx) })
	wg.Go(func() { s.breakDeadlocks(ctx) })
	wg.Wait()
	return ctx.Err()
}

// Serve accepts clients until the listener is closed.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	for pause := time.Duration(0); ; {
		conn, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Log.Warn("accept failed", "error", err, "pause", pause)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		s.wg.Go(func() {
			session := s.admit(ctx, conn)
			if session == nil {
				_ = conn.Close()
				return
			}
			s.wg.Go(func() { s.converse(ctx, session, conn) }) // on a stack that no login has grown
		})
	}
}

// farewellTime is for clients to be told that they are cut off.
const farewellTime = time.Second

// cutOff does something to all sessions, and says how many there are.
func (s *Server) cutOff(how func(*Session)) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sessions {
		how(c)
	}
	return len(s.sessions)
}

// Shutdown lets sessions end their transactions and then ends them. When ctx ends it cuts off the rest.
// The listeners must have been closed.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.closeConsoles()
	s.pools.Abandon(errShuttingDown()) // nobody could resume
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s.mu.Lock()
		for _, c := range s.sessions {
			if sessionState(c.state.Load()) == idle {
				_ = c.client.Conn().SetReadDeadline(time.Unix(1, 0))
			}
		}
		s.mu.Unlock()
		select {
		case <-done:
			return nil
		case <-tick.C:
		case <-ctx.Done():
			var busy []*backend.Conn
			left := s.cutOff(func(c *Session) { busy = append(busy, c.interrupt()...) })
			s.cancelAll(context.WithoutCancel(ctx), busy)
			select {
			case <-done:
			case <-time.After(farewellTime):
				s.cutOff(func(c *Session) { _ = c.client.Conn().Close() })
				<-done
			}
			return fmt.Errorf("%d sessions did not end in time", left)
		}
	}
}

// converse runs a session to its end. Its frame is small: it stays on the stack of an idle session.
func (s *Server) converse(ctx context.Context, session *Session, conn net.Conn) {
	defer conn.Close()
	defer s.forget(session)
	if err := session.serve(ctx); err != nil && !errors.Is(err, errDrain) {
		session.logger().Debug("session ended", "error", err)
	}
}

func (s *Server) forget(c *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.sessions[c.key.PID]; ok {
		delete(s.sessions, c.key.PID)
		if s.clients[c.user.Name]--; s.clients[c.user.Name] == 0 {
			delete(s.clients, c.user.Name)
		}
		if k := c.killed.Load(); k != nil {
			close(k.gone)
		}
		if len(s.sessions) == 0 && s.emptied != nil {
			close(s.emptied)
			s.emptied = nil
		}
	}
	s.stats.received.Add(c.client.BytesRead)
	s.stats.sent.Add(c.client.BytesWritten)
}

// routesFor gives the user's pools for the current shards.
func (s *Server) routesFor(u *User) *routes {
	snap := s.snapshot.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.routes[u.ServerUser]
	if ok && r.snap.Epoch == snap.Epoch {
		return r
	}
	next := &routes{snap: snap}
	if ok && &r.snap.Shards[0] == &snap.Shards[0] {
		next.pools = r.pools
	} else {
		next.pools = make([]atomic.Pointer[backend.Pool], len(snap.Shards))
	}
	s.routes[u.ServerUser] = next
	r = next
	return r
}

func quote(s string) string { return backend.Literal(s) }

func parseUint(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}
