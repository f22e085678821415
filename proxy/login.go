package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/backend"
	"shardproxy/topology"
	"shardproxy/wire"
)

// admit brings a connection to the point where its session may run. nil: there is nothing more to do.
func (s *Server) admit(ctx context.Context, conn net.Conn) *Session {
	log := s.cfg.Log.With("client", conn.RemoteAddr().String())
	if n := s.unauthenticated.Add(1); int(n) > s.now().MaxUnauthenticated {
		s.unauthenticated.Add(-1)
		_, _ = conn.Write(wire.Fatalf(wire.CodeTooManyConnections, "too many connections that are not logged in yet").Append(nil))
		return nil
	}
	accepted, user, err := s.authenticate(s.consoles, conn)
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
	live := s.now()
	accepted, err := wire.Accept(ctx, conn, &live.Accept)
	if err != nil {
		return nil, nil, err
	}
	conn = accepted.Conn
	if accepted.Cancel != nil {
		s.cancel(ctx, *accepted.Cancel)
		return nil, nil, nil
	}
	startup := accepted.Startup
	if startup.Database() != ConsoleDatabase && !s.started(ctx) {
		return nil, nil, s.refuse(conn, wire.Fatalf(wire.CodeCannotConnectNow, "the database system is starting up").
			WithDetail("No shard has answered yet."))
	}
	method, ok := live.Access.Match(startup, conn.RemoteAddr())
	if !ok {
		return nil, nil, s.refuse(conn, wire.RejectionError(startup, conn.RemoteAddr()))
	}
	user, known, err := s.lookup(ctx, live, startup.User())
	if err != nil {
		s.cfg.Log.Error("auth query failed", "error", err)
		return nil, nil, s.refuse(conn, wire.Fatalf(wire.CodeCannotConnectNow, "cannot look up the user now"))
	}
	if err := s.auth.Load().Authenticate(ctx, conn, startup, method, user.secret(), known); err != nil {
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

// startPatience is how long a client that comes before the first shard has answered waits.
const startPatience = 3 * time.Second

// started waits for the server to be able to serve.
func (s *Server) started(ctx context.Context) bool {
	if s.defaults.Load() != nil {
		return true
	}
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	select {
	case <-s.learned:
		return true
	case <-ctx.Done():
	case <-patience.C:
	}
	return false
}

func (u *User) secret() wire.Secret {
	if u == nil {
		return ""
	}
	return u.Secret
}

func (s *Server) lookup(ctx context.Context, live *Live, name string) (*User, bool, error) {
	if u, ok := live.Users[name]; ok {
		return u, true, nil
	}
	q := s.userQuery.Load()
	if q == nil {
		return nil, false, nil
	}
	u, ok, err := q.find(ctx, s, name)
	if ok {
		s.dialer.found(u)
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
		c.leave()
		s.forget(c)
		if c.killed.Load() != nil {
			return nil, errShuttingDown()
		}
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
	if s.draining.Load() || s.closing.Load() {
		return wire.Fatalf(wire.CodeCannotConnectNow, "the database system is shutting down")
	}
	if len(s.sessions) >= min(s.now().MaxClients, sessionsMax) {
		return wire.Fatalf(wire.CodeTooManyConnections, "sorry, too many clients already")
	}
	if most := c.user.MaxConnections; most > 0 && s.clients[c.user.Name] >= most {
		return wire.Fatalf(wire.CodeTooManyConnections, "too many connections for role \"%s\"", c.user.Name)
	}
	c.key = wire.CancelKey{PID: s.nextPID(), Secret: string(secret)}
	c.id = uint64(s.lastPID)
	s.sessions[c.key.PID] = c
	s.clients[c.user.Name]++
	s.stats.clients.Add(1)
	return nil
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
		if e := c.explain(err); e != nil {
			return nil, e
		}
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
		value, err := c.current(l, name)
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
