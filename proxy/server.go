package proxy

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
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
}

// Server accepts clients and runs their sessions.
type Server struct {
	cfg        Config
	Console    Console // nil: there is no console
	router     *router.Router
	pools      *backend.Pools
	dialer     *dialer
	statements *backend.Statements
	auth       *wire.Authenticator
	snapshot   atomic.Pointer[topology.Snapshot]
	defaults   atomic.Pointer[defaults]
	stats      Stats
	envs       envs
	logins     logins
	schema     schemaKeeper
	recovery   recovery

	consoles      context.Context // ends the sessions of the console
	closeConsoles context.CancelFunc

	draining        atomic.Bool
	unauthenticated atomic.Int32

	mu       sync.Mutex // guards the fields below
	sessions map[uint32]*Session
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
	snap, err := topology.NewSnapshot(1, cfg.Shards, cfg.Ranges, nil)
	if err != nil {
		return nil, err
	}
	d := &dialer{tls: cfg.ServerTLS, timeout: cfg.ConnectTimeout}
	s := &Server{
		cfg: cfg, router: r, dialer: d, pools: backend.NewPools(d, cfg.Pools),
		statements: backend.NewStatements(cfg.Router.CacheEntries), auth: wire.NewAuthenticator(cfg.Auth),
		sessions: make(map[uint32]*Session), routes: make(map[string]*routes),
	}
	s.consoles, s.closeConsoles = context.WithCancel(context.Background())
	s.snapshot.Store(snap)
	s.stats.started = time.Now()
	d.remember(cfg.Service)
	for _, u := range cfg.Users {
		d.remember(u)
	}
	return s, nil
}

// SetLookup sets where users are looked for that the configuration does not name. Call it before Serve.
func (s *Server) SetLookup(l Lookup) { s.cfg.Lookup = l }

// Ready gives the reasons why the server should get no clients, none where it should.
func (s *Server) Ready() []string {
	var reasons []string
	if s.defaults.Load() == nil {
		reasons = append(reasons, "no shard has answered yet")
	}
	if s.draining.Load() {
		reasons = append(reasons, "shutting down")
	}
	return reasons
}

// Start learns from a shard what a fresh backend reports, and reads the schema. It waits for a shard to answer
// as long as ctx lets it.
func (s *Server) Start(ctx context.Context) error {
	for {
		err := s.learn(ctx)
		if err == nil {
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
	wg.Go(func() { s.recover(ctx) })
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

// Shutdown lets sessions end their transactions and then ends them. When ctx ends it cuts off the rest.
// The listeners must have been closed.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.closeConsoles()
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
			s.mu.Lock()
			left := len(s.sessions)
			for _, c := range s.sessions {
				_ = c.client.Conn().Close()
				c.laneMu.Lock()
				for _, l := range c.lanes {
					_ = l.be.Stream.Conn().Close()
				}
				c.laneMu.Unlock()
			}
			s.mu.Unlock()
			<-done
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

// admit brings a connection to the point where its session may run. nil: there is nothing more to do.
func (s *Server) admit(ctx context.Context, conn net.Conn) *Session {
	log := s.cfg.Log.With("client", conn.RemoteAddr().String())
	if n := s.unauthenticated.Add(1); int(n) > s.cfg.MaxUnauthenticated {
		s.unauthenticated.Add(-1)
		_, _ = conn.Write(wire.Fatalf(wire.CodeTooManyConnections, "too many connections that are not logged in yet").Append(nil))
		return nil
	}
	accepted, user, err := s.authenticate(ctx, conn)
	s.unauthenticated.Add(-1)
	if err != nil {
		if err != io.EOF {
			log.Info("login failed", "error", err)
		}
		return nil
	}
	if user == nil { // a cancel request: done
		return nil
	}
	if accepted.Startup.Database() == ConsoleDatabase && s.Console != nil {
		if err := s.Console.Serve(s.consoles, wire.NewStream(accepted.Conn), accepted.Startup); err != nil {
			log.Debug("console session ended", "error", err)
		}
		return nil
	}
	session, err := s.newSession(ctx, accepted.Conn, accepted.Startup, user)
	if err != nil {
		var e *wire.Error
		if !errors.As(err, &e) {
			e = wire.Errorf(wire.CodeCannotConnectNow, "%v", err)
		}
		e.Severity, e.SeverityText = wire.SeverityFatal, ""
		log.Info("login failed", "error", s.refuse(accepted.Conn, e))
		return nil
	}
	return session
}

// refuse tells a client that is not logged in why not.
func (s *Server) refuse(conn net.Conn, e *wire.Error) error {
	_, _ = conn.Write(e.Append(nil))
	s.stats.failed(e.Code)
	return e
}

// authenticate finds out who the client is. A client that only wants to cancel has no user.
func (s *Server) authenticate(ctx context.Context, conn net.Conn) (*wire.Accepted, *User, error) {
	accepted, err := wire.Accept(ctx, conn, &s.cfg.Accept)
	if err != nil {
		return nil, nil, err
	}
	conn = accepted.Conn
	if accepted.Cancel != nil {
		s.cancel(ctx, *accepted.Cancel)
		return nil, nil, nil
	}
	startup := accepted.Startup
	method, ok := s.cfg.Access.Match(startup, conn.RemoteAddr())
	if !ok {
		return nil, nil, s.refuse(conn, wire.RejectionError(startup, conn.RemoteAddr()))
	}
	user, known, err := s.lookup(ctx, startup.User())
	if err != nil {
		s.cfg.Log.Error("auth query failed", "error", err)
		return nil, nil, s.refuse(conn, wire.Fatalf(wire.CodeCannotConnectNow, "cannot look up the user now"))
	}
	if err := s.auth.Authenticate(ctx, conn, startup, method, user.secret(), known); err != nil {
		return nil, nil, err
	}
	if !known {
		return nil, nil, s.refuse(conn, wire.Fatalf(wire.CodeInvalidAuthorization, "role \"%s\" does not exist", startup.User()))
	}
	if db := startup.Database(); db != s.cfg.Database && (db != ConsoleDatabase || s.Console == nil) {
		return nil, nil, s.refuse(conn, wire.Fatalf(wire.CodeInvalidCatalogName, "database \"%s\" does not exist", startup.Database()).
			WithHint("The databases are %s and %s.", s.cfg.Database, ConsoleDatabase))
	}
	return accepted, user, nil
}

func (u *User) secret() wire.Secret {
	if u == nil {
		return ""
	}
	return u.Secret
}

func (s *Server) lookup(ctx context.Context, name string) (*User, bool, error) {
	if u, ok := s.cfg.Users[name]; ok {
		return u, true, nil
	}
	if s.cfg.Lookup == nil {
		return nil, false, nil
	}
	u, ok, err := s.cfg.Lookup(ctx, name)
	if ok {
		s.dialer.remember(u)
	}
	return u, ok, err
}

// newSession registers the session and greets the client.
func (s *Server) newSession(ctx context.Context, conn net.Conn, startup *wire.Startup, user *User) (*Session, error) {
	base, err := startupSettings(startup.Params)
	if err != nil {
		return nil, err
	}
	c := &Session{
		srv: s, client: wire.NewStream(conn), startup: startup, user: user, bound: unbound, started: time.Now(),
		pooling: user.Pooling, base: backend.NoSettings,
	}
	if err := s.enroll(c); err != nil {
		return nil, err
	}
	c.routes = s.routesFor(user)
	c.home = topology.ShardID(c.id % uint64(len(c.routes.snap.Shards)))
	c.use(backend.NoSettings)
	if err := s.logins.settle(ctx, c, base); err != nil {
		s.forget(c)
		return nil, err
	}
	out := c.client.Append()
	for _, name := range reportable {
		if value, ok := c.knows(name); ok {
			out = wire.AppendParameterStatus(out, name, value)
		}
	}
	out = append(out, 'K', 0, 0, 0, byte(8+len(c.key.Secret)))
	if len(c.key.Secret) > 200 {
		panic("the cancel key does not fit its message")
	}
	out = append(out, byte(c.key.PID>>24), byte(c.key.PID>>16), byte(c.key.PID>>8), byte(c.key.PID))
	out = append(out, c.key.Secret...)
	c.client.SetAppended(wire.AppendReadyForQuery(out, 'I'))
	return c, nil
}

// enroll gives the session its number and cancel key, and counts it.
func (s *Server) enroll(c *Session) error {
	secret := make([]byte, 4)
	if c.startup.Minor >= 2 {
		secret = make([]byte, 32)
	}
	_, _ = rand.Read(secret) // never fails
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sessions) >= s.cfg.MaxClients || s.draining.Load() {
		return wire.Fatalf(wire.CodeTooManyConnections, "sorry, too many clients already")
	}
	if n := c.user.connections.Add(1); c.user.MaxConnections > 0 && int(n) > c.user.MaxConnections {
		c.user.connections.Add(-1)
		return wire.Fatalf(wire.CodeTooManyConnections, "too many connections for role \"%s\"", c.user.Name)
	}
	for {
		s.lastPID++
		if _, taken := s.sessions[s.lastPID]; s.lastPID != 0 && !taken {
			break
		}
	}
	c.key = wire.CancelKey{PID: s.lastPID, Secret: string(secret)}
	c.id = uint64(s.lastPID)
	s.sessions[s.lastPID] = c
	s.stats.clients.Add(1)
	return nil
}

func (s *Server) forget(c *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.sessions[c.key.PID]; ok {
		delete(s.sessions, c.key.PID)
		c.user.connections.Add(-1)
	}
	s.stats.received.Add(c.client.BytesRead)
	s.stats.sent.Add(c.client.BytesWritten)
}

// cancel passes a CancelRequest on to the shards that work for the session.
func (s *Server) cancel(ctx context.Context, key wire.CancelKey) {
	s.mu.Lock()
	c, ok := s.sessions[key.PID]
	s.mu.Unlock()
	if !ok || subtle.ConstantTimeCompare([]byte(c.key.Secret), []byte(key.Secret)) != 1 {
		return
	}
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	c.Cancel(ctx)
}

// cancelAbandoned stops what a client that has gone left running.
func (s *Server) cancelAbandoned(be *backend.Conn) {
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	_ = be.Cancel(ctx)
}

// routesFor gives the user's pools for the current shards.
func (s *Server) routesFor(u *User) *routes {
	snap := s.snapshot.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.routes[u.ServerUser]
	if !ok || &r.snap.Shards[0] != &snap.Shards[0] {
		r = &routes{snap: snap, pools: make([]atomic.Pointer[backend.Pool], len(snap.Shards))}
		s.routes[u.ServerUser] = r
	}
	return r
}

// dialer connects to nodes with the passwords of the users.
type dialer struct {
	tls     *wire.ClientTLS
	timeout time.Duration

	passwords sync.Map // server user → password
	caches    sync.Map // backend.Key → *wire.SCRAMCache
}

func (d *dialer) remember(u *User) { d.passwords.Store(u.ServerUser, u.ServerPassword) }

func (d *dialer) config(key backend.Key) *wire.ConnectConfig {
	cfg := &wire.ConnectConfig{
		Network: "tcp", Address: key.Address, User: key.User, Database: key.Database, TLS: d.tls, Timeout: d.timeout,
		Params: map[string]string{"application_name": "shardproxy"},
	}
	if key.Address[0] == '/' {
		cfg.Network = "unix"
	}
	if p, ok := d.passwords.Load(key.User); ok {
		cfg.Password = p.(string)
	}
	cache, _ := d.caches.LoadOrStore(key, &wire.SCRAMCache{})
	cfg.SCRAM = cache.(*wire.SCRAMCache)
	return cfg
}

// Dial connects to a node.
func (d *dialer) Dial(ctx context.Context, key backend.Key) (*wire.ServerConn, error) {
	return wire.Connect(ctx, d.config(key))
}

// Cancel asks a node to cancel what one of our connections runs.
func (d *dialer) Cancel(ctx context.Context, key backend.Key, cancel wire.CancelKey) error {
	return wire.SendCancel(ctx, d.config(key), cancel)
}

// logins remembers how startup messages were understood, so that a login needs a shard only for new ones.
type logins struct {
	mu    sync.Mutex // guards known
	known map[string]*login
}

// login is the settings of a startup message as a shard understood them, without application_name.
type login struct {
	settings *backend.Settings
	reports  map[string]string

	named atomic.Pointer[backend.Settings] // the settings with the application_name that came last: mostly it is one
}

func (l *login) withName(name string) *backend.Settings {
	if s := l.named.Load(); s != nil {
		if v, _ := s.Get("application_name"); v == name {
			return s
		}
	}
	s := l.settings.With("application_name", name)
	l.named.Store(s)
	return s
}

const loginsMax = 10_000

// settle makes the settings of the startup message the session's own.
func (g *logins) settle(ctx context.Context, c *Session, base *backend.Settings) error {
	name, named := base.Get("application_name")
	checked := base.Without("application_name") // any text will do, and many differ
	key := c.user.ServerUser
	for _, e := range checked.All() {
		key += "\x00" + e.Name + "\x00" + e.Value
	}
	g.mu.Lock()
	l := g.known[key]
	g.mu.Unlock()
	if l == nil {
		var err error
		if l, err = ask(ctx, c, checked); err != nil {
			return err
		}
		g.mu.Lock()
		if g.known == nil || len(g.known) >= loginsMax {
			g.known = make(map[string]*login)
		}
		g.known[key] = l
		g.mu.Unlock()
	}
	if named {
		name = cleanASCII(name)
	}
	c.reported, c.application = l.reports, name
	c.base = l.withName(name)
	c.use(c.base)
	return nil
}

// ask lets a shard check the settings and say what they become.
func ask(ctx context.Context, c *Session, settings *backend.Settings) (*login, error) {
	params := c.srv.defaults.Load().params
	reports := make(map[string]string, len(reportable))
	for _, name := range reportable {
		if v, ok := params[name]; ok {
			reports[name] = v
		}
	}
	if len(settings.All()) == 0 {
		return &login{settings: settings, reports: reports}, nil
	}
	c.use(settings)
	l, err := c.lane(ctx, c.anyShard())
	if err != nil {
		return nil, err
	}
	l.silent = true // the client is told all of it at once
	defer func() { c.settle() }()
	if err := c.drain(l); err != nil {
		l.be.Broken = true
		if e := c.explain(err); e != nil {
			return nil, e
		}
		return nil, err
	}
	names := slices.Clone(reportable)
	for _, e := range settings.All() {
		names = append(names, e.Name)
	}
	for _, name := range names {
		value, err := c.current(name)
		if err != nil {
			return nil, err
		}
		if _, ok := reports[name]; ok {
			reports[name] = value
		}
		if _, ok := settings.Get(name); ok {
			settings = settings.With(name, value)
		}
	}
	l.be.Settings = settings
	c.use(settings)
	return &login{settings: settings, reports: reports}, nil
}

// cleanASCII does to application_name what PostgreSQL does.
func cleanASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < 32 || c > 126 {
			b[i] = '?'
		}
	}
	return string(b)
}

func quote(s string) string { return backend.Literal(s) }

func parseUint(s string) uint64 {
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}
