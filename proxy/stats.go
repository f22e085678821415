package proxy

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
)

// kinds is the number of statement kinds, 0 included.
const kinds = int(router.Explain) + 1

// codesMax bounds the SQLSTATEs that are counted apart: functions can raise any.
const codesMax = 200

// Histogram counts durations in classes that double: class i holds those below 2^i microseconds.
type Histogram struct {
	Classes [32]atomic.Int64
	Nanos   atomic.Int64
}

func (h *Histogram) observe(d time.Duration) {
	h.Classes[min(bits.Len64(uint64(d/time.Microsecond)), len(h.Classes)-1)].Add(1)
	h.Nanos.Add(int64(d))
}

// Stats counts what a Server has done. All counters only grow.
type Stats struct {
	started  time.Time
	clients  atomic.Int64
	panics   atomic.Int64
	queries  atomic.Int64
	received atomic.Int64 // bytes, of sessions that have ended
	sent     atomic.Int64
	byKind   [kinds]atomic.Int64
	held     atomic.Int64 // statements that waited because their keys were held
	latency  Histogram    // from the client's message to ReadyForQuery

	transactions atomic.Int64 // rounds that left no transaction open

	mu     sync.Mutex // guards errors
	errors map[string]int64
}

func (t *Stats) planned(k router.Kind) { t.byKind[k].Add(1) }

func (t *Stats) failed(code string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.errors == nil {
		t.errors = make(map[string]int64)
	}
	if _, ok := t.errors[code]; !ok && len(t.errors) >= codesMax {
		code = "other"
	}
	t.errors[code]++
}

// Counters is a copy of a Server's counters.
type Counters struct {
	Started      time.Time
	Clients      int64            // logged in since the start
	Panics       int64            //
	Rounds       int64            // answered with ReadyForQuery
	Transactions int64            // of them: those that left no transaction open
	Received     int64            // bytes from clients
	Sent         int64            // bytes to clients
	ByKind       map[string]int64 // statements, by the plan's kind
	Errors       map[string]int64 // by SQLSTATE
	Latency      []int64          // rounds by class: see Histogram
	LatencySum   time.Duration
	Waited       time.Duration // of sessions for backends
}

// Counters gives the counters.
func (s *Server) Counters() Counters {
	t := &s.stats
	c := Counters{
		Started: t.started, Clients: t.clients.Load(), Panics: t.panics.Load(), Rounds: t.queries.Load(),
		Transactions: t.transactions.Load(), Received: t.received.Load(), Sent: t.sent.Load(),
		ByKind: make(map[string]int64, kinds), Errors: make(map[string]int64),
		Latency: make([]int64, len(t.latency.Classes)), LatencySum: time.Duration(t.latency.Nanos.Load()),
	}
	for k := 1; k < kinds; k++ {
		c.ByKind[router.Kind(k).String()] = t.byKind[k].Load()
	}
	for i := range t.latency.Classes {
		c.Latency[i] = t.latency.Classes[i].Load()
	}
	t.mu.Lock()
	for code, n := range t.errors {
		c.Errors[code] = n
	}
	t.mu.Unlock()
	for _, p := range s.pools.All() {
		c.Waited += p.Stats().Waited
	}
	return c
}

// ClientInfo is one session as SHOW CLIENTS gives it.
type ClientInfo struct {
	ID          uint32
	User        string
	Database    string
	Application string
	State       string
	Address     string
	Connected   time.Time
	TLS         bool
}

// Clients lists the sessions.
func (s *Server) Clients() []ClientInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]ClientInfo, 0, len(s.sessions))
	for _, c := range s.sessions {
		list = append(list, ClientInfo{
			ID: c.key.PID, User: c.user.Name, Database: s.cfg.Database, Application: c.startup.Params["application_name"],
			State: sessionState(c.state.Load()).String(), Address: c.client.Conn().RemoteAddr().String(),
			Connected: c.started, TLS: c.startup.TLS,
		})
	}
	return list
}

// Pools gives the state of every pool of sessions.
func (s *Server) Pools() []backend.Stats {
	var list []backend.Stats
	for _, p := range s.pools.All() {
		list = append(list, p.Stats())
	}
	return list
}

// Backends lists the connections of every pool, and those of the proxy's own work.
func (s *Server) Backends() []backend.ConnInfo {
	var list []backend.ConnInfo
	for _, p := range s.pools.All() {
		list = append(list, p.Conns()...)
	}
	for _, p := range s.service.All() {
		for _, c := range p.Conns() {
			c.Service = true
			list = append(list, c)
		}
	}
	return list
}

// CacheInfo is how full something is that the server keeps.
type CacheInfo struct {
	Name       string
	Held, Most int // Most is 0 where there is no limit
}

// Caches lists what the server keeps for sessions.
func (s *Server) Caches() []CacheInfo {
	live := s.now()
	s.mu.Lock()
	sessions := len(s.sessions)
	s.mu.Unlock()
	s.envs.mu.Lock()
	envs := len(s.envs.byID)
	s.envs.mu.Unlock()
	s.logins.mu.Lock()
	logins := len(s.logins.known)
	s.logins.mu.Unlock()
	return []CacheInfo{
		{"sessions", sessions, live.MaxClients},
		{"backends", s.pools.Open(), live.Pools.Total},
		{"service_backends", s.service.Open(), serviceAll},
		{"plan_cache", s.router.CacheSize(), s.cfg.Router.CacheEntries},
		{"prepared_statements", s.statements.Len(), s.cfg.Router.CacheEntries},
		{"settings", envs, envsMax},
		{"startups", logins, loginsMax},
	}
}

// Snapshot is the topology that new statements are planned with.
func (s *Server) Snapshot() *topology.Snapshot { return s.snapshot.Load() }

// PlanCache gives the hits and misses of the plan cache.
func (s *Server) PlanCache() (hits, misses uint64) { return s.router.CacheStats() }
