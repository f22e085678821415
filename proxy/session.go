package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// Session is the life of one client. Its fields belong to the goroutine that runs it, but for those
// that say otherwise.
type Session struct {
	srv      *Server
	id       uint64
	client   *wire.Stream
	startup  *wire.Startup
	user     *User
	routes   *routes
	key      wire.CancelKey
	started  time.Time
	pooling  PoolMode
	extended bool // the current statement came by the extended protocol

	scratch  router.Scratch
	env      *router.Env
	args     router.Args
	shards   []topology.ShardID // of the current statement
	spans    []router.Span
	base     *backend.Settings // what the client's startup message set: RESET goes back to it
	settings *backend.Settings
	bound    topology.ShardID // SET shardproxy.key or .shard; unbound: -1
	boundBy  string
	home     topology.ShardID // for statements that any shard can answer
	waiter   backend.Waiter
	snap     *topology.Snapshot // of the current statement
	own      *topology.Snapshot // with the schema as the open transaction has changed it, or nil

	ownRead       bool // own has been read behind the statement that has just run
	schemaChanged bool // by the open transaction, or by the statement that has just run

	lanes []*lane // backends in our hands: of the current transaction, and pinned ones
	spare []*lane
	tx    transaction

	prepared    map[string]*prepared
	unnamed     *prepared
	binding     []string          // named portals whose BindComplete the client has not been given, oldest first
	doubted     []doubt           // statements whose ParseComplete the client has not been given, oldest first
	reported    map[string]string // parameters as the client was told last; shared between sessions until one differs
	ownReports  bool              // reported is this session's alone
	application string            // application_name as the client was told last

	orphaned string                    // the shard whose pinned backend was lost: the session cannot go on as if nothing were
	late     []byte                    // notifications that came while the proxy's own statements ran: they go out at the end of the round
	renamed  struct{ from, shift int } // EXECUTE: another name has moved what is behind character from

	sequences   sequences
	filled      filledText // the current text, where numbers were put into the client's
	reading     string     // how its settings make PostgreSQL read a text: see readingOf
	foreign     bool       // client_encoding is not the server's: bytes beyond ASCII hash differently
	bindMessage wire.Bind  // the current one
	parses      uint64
	portals     map[string]*portal
	portal      portal // the unnamed one
	skip        bool   // an error: pass over all up to Sync
	through     bool   // the current statement does not wait for a hold any longer
	refusals    int    // of the current simple statement by a fence
	unanswered  int64  // clientPosition when the current simple statement was sent to its one shard
	muted       bool   // the client has been told that the statement failed: no more of its answers
	owed        *prepared

	laneMu sync.Mutex    // guards changes of lanes, and wake, against Cancel, which runs in another goroutine
	wake   chan struct{} // closed by Cancel where the session waits for a map, else nil

	state  atomic.Int32            // sessionState, for SHOW CLIENTS and for draining
	round  atomic.Uint64           // how many times the client was told to go on
	victim atomic.Uint64           // 1 + the round in which a deadlock ends with this session, 0 for none
	killed atomic.Pointer[killing] // an operator ends it: see Server.KillClient
	asked  time.Time               // when the current statement came
}

type sessionState int32

const (
	idle sessionState = iota
	active
	inTransaction // waits for the client within a transaction
)

func (s sessionState) String() string {
	return [...]string{"idle", "active", "idle in transaction"}[s]
}

const unbound topology.ShardID = -1

// serve runs until the client leaves, the connection breaks, or the server drains.
func (s *Session) serve(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.srv.stats.panics.Add(1)
			s.logger().Error("panic in a session", "panic", r, "stack", string(debug.Stack()))
			for _, l := range s.lanes {
				l.be.Broken = true
			}
			s.client.SetAppended(wire.Fatalf(wire.CodeInternalError, "internal error in session %d", s.id).Append(s.client.Append()))
			_ = s.client.Flush()
			err = errors.New("panic")
		}
		s.leaveSafely()
	}()
	for {
		if s.client.Buffered() == 0 {
			if err := s.client.Flush(); err != nil {
				return &clientError{err}
			}
			if err := s.rest(); err != nil {
				return s.goodbye(err)
			}
		}
		typ, body, err := s.client.Head()
		if err != nil {
			return s.goodbye(err)
		}
		s.state.Store(int32(active))
		if err := s.message(ctx, typ, body); err != nil {
			if err == errTerminate {
				return nil
			}
			return s.goodbye(err)
		}
	}
}

var (
	errTerminate = errors.New("the client said goodbye")
	errDrain     = errors.New("the proxy is shutting down")
)

// rest prepares for a wait for the client: nothing is held that is not needed.
func (s *Session) rest() error {
	if s.orphaned != "" {
		return s.orphan()
	}
	s.client.Rest()
	if s.tx.open {
		s.state.Store(int32(inTransaction))
		return nil
	}
	s.state.Store(int32(idle))
	if s.srv.draining.Load() {
		return errDrain
	}
	return s.watch()
}

// orphan ends a session that has lost state which it cannot make again.
func (s *Session) orphan() error {
	return wire.Fatalf(wire.CodeAdminShutdown, "the state of this session on shard %s was lost with its connection", s.orphaned).
		WithHint("It listened, or held a lock. Connect again.")
}

// goodbye tells the client why the session ends, where that is possible.
func (s *Session) goodbye(err error) error {
	var w *wire.Error
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, errDrain), errors.Is(err, os.ErrDeadlineExceeded) && (s.srv.draining.Load() || s.killed.Load() != nil):
		w = wire.Fatalf(wire.CodeAdminShutdown, "terminating connection due to administrator command")
		err = errDrain
	case errors.As(err, &w):
		w.Severity, w.SeverityText = wire.SeverityFatal, ""
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, wire.ErrTooLong):
		w = wire.Fatalf(wire.CodeProtocolViolation, "%v", err)
	default:
		return err
	}
	s.client.SetAppended(w.Append(s.client.Append()))
	_ = s.client.Conn().SetWriteDeadline(time.Now().Add(time.Second))
	_ = s.client.Flush()
	return err
}

// leaveSafely is leave, whatever happens in it: one session must not end the process.
func (s *Session) leaveSafely() {
	defer func() {
		if r := recover(); r != nil {
			s.srv.stats.panics.Add(1)
			s.logger().Error("panic at the end of a session", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	s.leave()
}

// leave gives back what the session holds. A backend whose state is not plain is closed.
func (s *Session) leave() {
	for len(s.lanes) > 0 {
		l := s.lanes[0]
		if l.pending() || l.begun || !l.synced {
			l.be.Broken = true
			if l.pending() {
				s.srv.cancelAbandoned(l.be)
			}
		}
		if l.pinned {
			if s.tidy(l) != nil {
				l.be.Broken = true
			}
		}
		s.drop(l)
	}
}

// tidy brings a backend that was pinned back to what a fresh one is.
func (s *Session) tidy(l *lane) error {
	if l.be.Broken {
		return errSent
	}
	l.silent = true
	l.query("DISCARD ALL", queryHidden)
	if err := s.drain(l); err != nil {
		return err
	}
	l.be.ForgetAll()
	l.be.Settings, l.be.Epoch = backend.NoSettings, 0
	return nil
}

// message handles one message of the client. An error ends the session.
func (s *Session) message(ctx context.Context, typ byte, body int) error {
	if body > s.srv.now().MessageBytes {
		return wire.Fatalf(wire.CodeProgramLimitExceeded, "message of %d bytes is above the limit of %d", body, s.srv.now().MessageBytes)
	}
	if s.skip && (typ == 'Q' || typ == 'F') { // PostgreSQL passes over all up to Sync
		return s.passOver()
	}
	switch typ {
	case 'Q':
		return s.simple(ctx, body)
	case 'P', 'B', 'D', 'E', 'C', 'H', 'S':
		return s.extend(ctx, typ, body)
	case 'X':
		return errTerminate
	case 'd', 'c', 'f': // left over from a COPY that failed
		return s.passOver()
	case 'F':
		if err := s.passOver(); err != nil {
			return err
		}
		s.sendError(wire.Errorf(wire.CodeFeatureNotSupported, "function calls by the fast-path protocol are not supported").
			WithHint("Call the function with SELECT."))
		s.tx.fail()
		if err := s.undoPipeline(); err != nil {
			return err
		}
		s.ready(ctx)
		return nil
	}
	return wire.Fatalf(wire.CodeProtocolViolation, "invalid frontend message type %d", typ)
}

// next takes the client's next message whole. An error ends the session: it is a *clientError.
func (s *Session) next(limit int) ([]byte, error) {
	m, err := s.client.Next(limit)
	if err != nil {
		return nil, &clientError{err}
	}
	return m, nil
}

// peek shows up to n bytes of the client's next message. An error ends the session.
func (s *Session) peek(n int) ([]byte, error) {
	m, err := s.client.Peek(n)
	if err != nil {
		return nil, &clientError{err}
	}
	return m, nil
}

// passOver takes the next message without looking at it. An error ends the session.
func (s *Session) passOver() error {
	s.client.Skip(5)
	return s.passRest()
}

// passRest takes the rest of a message that was begun. An error ends the session.
func (s *Session) passRest() error {
	for {
		p, err := s.client.Chunk()
		if err != nil {
			return &clientError{err}
		}
		if p == nil {
			return nil
		}
	}
}

// ready ends a round: what is not needed past it is given back, and the client may go on.
func (s *Session) ready(ctx context.Context) {
	s.settle()
	t := &s.srv.stats
	if !s.tx.open {
		t.transactions.Add(1)
		if s.schemaChanged {
			s.schemaChanged, s.own = false, nil
			if err := s.srv.reloadSchema(ctx, s.srv.snapshot.Load()); err != nil {
				s.logger().Warn("the schema could not be read after a change", "error", err)
			}
			if tell := s.srv.cfg.SchemaChanged; tell != nil {
				tell()
			}
		}
	}
	if len(s.late) > 0 {
		s.client.Write(s.late)
		s.late = s.late[:0]
	}
	s.through = false
	s.round.Add(1)
	t.queries.Add(1)
	if !s.asked.IsZero() {
		t.latency.observe(time.Since(s.asked))
		s.asked = time.Time{}
	}
	s.client.SetAppended(wire.AppendReadyForQuery(s.client.Append(), s.tx.status()))
}

// topology is the snapshot that the session plans with now.
func (s *Session) topology() *topology.Snapshot {
	latest := s.srv.snapshot.Load()
	if latest.Epoch != s.routes.snap.Epoch {
		if s.rebase() {
			latest = s.srv.snapshot.Load()
		}
		if latest.Epoch != s.routes.snap.Epoch {
			latest = s.routes.snap.WithSchema(latest.Schema)
		}
	}
	if s.own != nil {
		return s.own
	}
	return latest
}

// rebase goes over to the newest map, where nothing holds the session to an older one. ShardIDs are those of one map, so
// what is kept is found again by its shard's name.
func (s *Session) rebase() bool {
	routes := s.srv.routesFor(s.user)
	if !s.follows(routes.snap) {
		return false
	}
	old, now := s.routes.snap, routes.snap
	s.routes = routes
	s.through = false                       // which was for a hold of the old map
	for name, shard := range s.tx.cursors { // those WITH HOLD
		id, ok := now.ShardByName(old.Shards[shard].Name)
		if !ok {
			delete(s.tx.cursors, name)
			continue
		}
		s.tx.cursors[name] = id
	}
	s.portal.rename(old, now)
	for _, at := range s.portals {
		at.rename(old, now)
	}
	for _, l := range slices.Clone(s.lanes) {
		name := old.Shards[l.shard].Name
		id, ok := now.ShardByName(name)
		if !ok {
			s.orphaned = name
			l.be.Broken = true
			s.drop(l)
			continue
		}
		s.laneMu.Lock()
		l.shard = id
		s.laneMu.Unlock()
		l.stamped = 0 // also for the same epoch: see stamp
	}
	if s.bound == unbound {
		return true
	}
	kind, of, _ := strings.Cut(s.boundBy, " ")
	if kind == "key" {
		s.bound = now.Owner(router.Hint{Present: true, Key: of}.Hash())
		return true
	}
	id, ok := now.ShardByName(of)
	if !ok {
		s.orphaned = of
		return true
	}
	s.bound = id
	return true
}

// report tells the client of a failed statement and notes it in the transaction. What is not a failed
// statement is returned: it ends the session.
func (s *Session) report(err error) error {
	if err == nil {
		return nil
	}
	if s.orphaned != "" {
		return s.orphan()
	}
	if s.killed.Load() != nil {
		return s.killedBy(err)
	}
	if e := s.explain(err); e != nil {
		s.sendError(e)
	} else if err != errSent {
		return err
	}
	s.tx.fail()
	return nil
}

// explain words an error for the client, nil where it has been told already or is no statement's fault.
func (s *Session) explain(err error) *wire.Error {
	var (
		refused *router.Error
		ours    *wire.Error
		lost    *laneError
		server  *serverError
		client  *clientError
		stale   *staleError
	)
	switch {
	case err == errSent:
		return nil
	case errors.As(err, &client):
		return nil
	case errors.As(err, &stale):
		return stale.forClient(s.tx.open)
	case errors.As(err, &lost):
		e := wire.Errorf(wire.CodeConnectionFailure, "%v", lost)
		if errors.As(lost.err, &ours) && ours.Code != "" && ours.Code[:2] == "57" {
			e.Code = ours.Code
		}
		return e.WithHint("Whether the statement took effect is not known.")
	case errors.As(err, &server):
		e := wire.Error(*server)
		return &e
	case errors.As(err, &ours):
		e := *ours
		e.Severity, e.SeverityText = wire.SeverityError, ""
		return &e
	case errors.As(err, &refused):
		return refusal(refused)
	case errors.Is(err, backend.ErrCanceled):
		e := wire.Errorf(wire.CodeQueryCanceled, "canceling statement due to user request")
		if s.breaksDeadlock() { // while it waited for a backend, with locks on other shards
			s.becomeDeadlock(e)
		}
		return e
	case errors.Is(err, backend.ErrFull):
		return wire.Errorf(wire.CodeTooManyConnections, "no backend connection became free within %v", s.srv.now().Pools.Wait).
			WithHint("Raise pool.size_max or pool.max_backends, or make transactions shorter.")
	}
	var (
		n    net.Error
		none *noBackendError
	)
	if errors.As(err, &n) || errors.As(err, &none) && !errors.Is(err, context.Canceled) {
		return wire.Errorf(wire.CodeCannotConnectNow, "%v", err).WithHint("The shard's server does not answer. Try again later.")
	}
	return nil
}

func (s *Session) sendError(e *wire.Error) {
	s.srv.stats.failed(e.Code)
	s.client.SetAppended(e.Append(s.client.Append()))
}

func (s *Session) notice(severity, code, message string) {
	e := &wire.Error{Severity: severity, Code: code, Message: message}
	s.client.SetAppended(e.AppendNotice(s.client.Append()))
}

// complete answers a statement that the proxy ran itself.
func (s *Session) complete(tag string) {
	s.client.SetAppended(wire.AppendCommandComplete(s.client.Append(), tag))
}

func (s *Session) shardName(id topology.ShardID) string { return s.routes.snap.Shards[id].Name }

// logger is made when it is needed: an idle session holds none.
func (s *Session) logger() *slog.Logger {
	return s.srv.cfg.Log.With("session", s.id, "user", s.user.Name, "client", s.client.Conn().RemoteAddr().String())
}

// template plans a statement with the newest snapshot.
func (s *Session) template(ctx context.Context, sql string) (*router.Template, error) {
	s.snap = s.topology()
	t, err := s.srv.router.Template(s.snap, s.env, sql, &s.scratch)
	if err == nil && t.Config {
		err = ownSettings(t.SetConfig)
	}
	if err == nil && (t.Kind != router.Tx || t.Tx.Verb != router.Rollback) {
		err = s.tx.tell()
	}
	if err != nil || len(t.Unknown) == 0 || s.bound != unbound || s.tx.failed {
		return t, err
	}
	return s.unknown(ctx, t, sql)
}

// ownSettings refuses calls of set_config that would tell a shard what only the proxy may tell it.
func ownSettings(calls []router.SetStmt) error {
	for _, set := range calls {
		if strings.HasPrefix(strings.ToLower(set.Name), "shardproxy.") {
			return wire.Errorf(wire.CodeInsufficientPrivilege, "permission denied to set parameter \"%s\"", set.Name).
				WithHint("SET shardproxy.key and SET shardproxy.shard bind the session to a shard.")
		}
	}
	return nil
}

// Cancel asks the shards that work for the session to stop. It is called from another goroutine.
func (s *Session) Cancel(ctx context.Context) {
	s.laneMu.Lock()
	var busy []*backend.Conn
	for _, l := range s.lanes {
		busy = append(busy, l.be)
	}
	if s.wake != nil {
		close(s.wake)
		s.wake = nil
	}
	s.laneMu.Unlock()
	s.srv.pools.CancelWait(&s.waiter)
	var wg sync.WaitGroup
	for _, be := range busy {
		wg.Go(func() {
			be.LockCancel() // not under laneMu: it waits for a cancel that is on its way already
			defer be.UnlockCancel()
			if !s.has(be) {
				return
			}
			if err := be.Cancel(ctx); err != nil {
				s.logger().Warn("cancel failed", "error", err)
			}
		})
	}
	wg.Wait()
}

// has says whether a backend is in the session's hands. It is called from another goroutine.
func (s *Session) has(be *backend.Conn) bool {
	s.laneMu.Lock()
	defer s.laneMu.Unlock()
	return slices.ContainsFunc(s.lanes, func(l *lane) bool { return l.be == be })
}
