package admin

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/doctor"
	"shardproxy/proxy"
	"shardproxy/topology"
	"shardproxy/wire"
)

// Role says what a user may do in the console. A role includes those below it.
type Role uint8

const (
	RoleNone  Role = iota // may not enter
	RoleStats             // may look
	RoleAdmin             // may also change something
)

func (r Role) String() string { return [...]string{"none", "stats", "admin"}[r] }

const (
	sessionsMax  = 100             // default of Config.MaxSessions: people and monitors, not applications
	statsPeriod  = time.Minute     // PgBouncer's stats_period
	farewellTime = 5 * time.Second // for a client to take the last message when the console closes
	consolePID   = uint32(1) << 30 // first number of a session; proxy counts its own from 1
	database     = proxy.ConsoleDatabase
	timeLayout   = "2006-01-02 15:04:05 MST"
)

// Config of a Console.
type Config struct {
	Version                string // of shardproxy
	AdminUsers, StatsUsers []string
	MaxSessions            int                                                            // of the console at a time; 0: 100
	Control                Control                                                        // of the work of the proxy
	Process                Process                                                        // that the console runs in
	Operator               Operator                                                       // changes the topology; nil: it comes from the configuration file and cannot be changed
	Joiner                 Joiner                                                         // adds shards; nil likewise
	Mover                  Mover                                                          // moves key ranges; nil: there is no catalog
	Peers                  func() []topology.Peer                                         // the other proxies; nil: there is no gossip
	Gossip                 Gossip                                                         // the way to them; nil: there is none
	Fences                 Fences                                                         // of the shards; nil: the proxy has nothing to do with them
	Doctor                 func(ctx context.Context, deep bool) ([]doctor.Finding, error) // see doctor.Doctor; nil: there is none
	Log                    *slog.Logger
}

// Console is the virtual database "shardproxy". It implements proxy.Console.
type Console struct {
	cfg   Config
	src   Source
	roles atomic.Pointer[map[string]Role]
	verbs []verb
	rates atomic.Pointer[rates] // of the last whole period; nil before

	mu       sync.Mutex // guards the fields below
	sessions map[uint32]*session
	lastID   uint32
}

// NewConsole makes a Console that shows src.
func NewConsole(cfg Config, src Source) *Console {
	c := &Console{cfg: cfg, src: src, verbs: verbs(), sessions: make(map[uint32]*session)}
	c.SetRoles(cfg.AdminUsers, cfg.StatsUsers)
	if c.cfg.MaxSessions == 0 {
		c.cfg.MaxSessions = sessionsMax
	}
	return c
}

// SetRoles says who may use the console from now on, also in sessions that are there already.
func (c *Console) SetRoles(admins, stats []string) {
	roles := make(map[string]Role, len(admins)+len(stats))
	for _, u := range stats {
		roles[u] = RoleStats
	}
	for _, u := range admins {
		roles[u] = RoleAdmin
	}
	c.roles.Store(&roles)
}

func (c *Console) role(user string) Role { return (*c.roles.Load())[user] }

// Run takes the samples that the averages of SHOW STATS are made from, until ctx ends. Without it they
// are averages since the start of the proxy.
func (c *Console) Run(ctx context.Context) error {
	tick := time.NewTicker(statsPeriod)
	defer tick.Stop()
	last, at := c.src.Counters(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			counters := c.src.Counters()
			c.rates.Store(ratesOf(last, counters, now.Sub(at)))
			last, at = counters, now
		}
	}
}

// Serve runs the session of a client that is authenticated and has been sent AuthenticationOk. It returns when
// the client leaves, or when ctx ends, which the client is told with 57P01. It does not close the connection.
func (c *Console) Serve(ctx context.Context, client *wire.Stream, startup *wire.Startup) (err error) {
	s, refusal := c.admit(client, startup)
	if refusal != nil {
		return tell(client, refusal)
	}
	defer c.leave(s)
	stop := context.AfterFunc(ctx, func() {
		_ = client.Conn().SetReadDeadline(time.Unix(1, 0)) // wakes a blocked read; a write may still end
		_ = client.Conn().SetWriteDeadline(time.Now().Add(farewellTime))
	})
	defer stop()
	defer func() {
		if r := recover(); r != nil {
			c.cfg.Log.Error("panic in the admin console", "session", s.id, "panic", r, "stack", string(debug.Stack()))
			err = tell(client, wire.Fatalf(wire.CodeInternalError, "internal error in console session %d", s.id))
		}
	}()
	return s.run(ctx)
}

// tell sends e, behind whatever waits to be sent, and returns it.
func tell(client *wire.Stream, e *wire.Error) error {
	client.SetAppended(e.Append(client.Append()))
	_ = client.Flush() // the session ends in any case
	return e
}

// admit registers a session if its user may enter.
func (c *Console) admit(client *wire.Stream, startup *wire.Startup) (*session, *wire.Error) {
	if c.role(startup.User()) == RoleNone {
		return nil, wire.Fatalf(wire.CodeInsufficientPrivilege, "permission denied for database \"%s\"", database).
			WithDetail("User \"%s\" is neither an admin nor a stats user of the console.", startup.User()).
			WithHint("An administrator of the proxy can list the user under [admin] as users or stats_users.")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sessions) >= c.cfg.MaxSessions {
		return nil, wire.Fatalf(wire.CodeTooManyConnections, "too many connections to the console").
			WithHint("It takes %d at a time.", c.cfg.MaxSessions)
	}
	for {
		c.lastID = (c.lastID + 1) % consolePID
		if _, taken := c.sessions[consolePID+c.lastID]; !taken {
			break
		}
	}
	s := newSession(c, client, startup, consolePID+c.lastID)
	c.sessions[s.id] = s
	return s, nil
}

func (c *Console) leave(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, s.id)
}

// clients lists those of the proxy and those of the console, by number.
func (c *Console) clients() []proxy.ClientInfo {
	list := c.src.Clients()
	c.mu.Lock()
	for _, s := range c.sessions {
		list = append(list, s.info())
	}
	c.mu.Unlock()
	slices.SortFunc(list, func(a, b proxy.ClientInfo) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// parameter is a setting as SHOW tells it, and where reported is set, as every client is told at login.
type parameter struct {
	name, value string
	reported    bool
}

// parameters are the settings that drivers ask for. They cannot be changed: SET is accepted and has no effect.
func (c *Console) parameters() []parameter {
	return []parameter{
		{"server_version", c.serverVersion(), true},
		{"server_encoding", "UTF8", true},
		{"client_encoding", "UTF8", true},
		{"standard_conforming_strings", "on", true},
		{"DateStyle", "ISO, MDY", true},
		{"IntervalStyle", "postgres", true},
		{"integer_datetimes", "on", true},
		{"TimeZone", "UTC", true},
		{"server_version_num", "150000", false},
		{"transaction_isolation", "read committed", false},
		{"default_transaction_read_only", "off", false},
		{"transaction_read_only", "off", false},
		{"search_path", "", false},
	}
}

func (c *Console) serverVersion() string { return fmt.Sprintf("15.0 (shardproxy %s)", c.cfg.Version) }

// cancelSecret is for BackendKeyData.
func cancelSecret() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b) // never fails
	return string(b)
}
