package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// schemaKeeper lets one at a time change the snapshot.
type schemaKeeper struct {
	mu   sync.Mutex         // held while the schema is read and while the snapshot is changed; guards next
	next *topology.Snapshot // published, but not in force: the tables could not be placed by its rules yet

	pending atomic.Bool // a change by another proxy waits to be read
	missed  atomic.Bool // it could not be read: adoptLate tries again
}

// Publish makes next the topology that statements are planned with. Transactions that are open go over to it where they can.
// Where the rules for tables have changed, the schema is read again first. A map with a hold has Publish wait for what was planned before.
func (s *Server) Publish(next *topology.Snapshot) {
	ctx, cancel := context.WithTimeout(context.Background(), serviceTime)
	defer cancel()
	s.schema.mu.Lock()
	s.schema.next = next
	s.adoptLocked(ctx)
	s.schema.mu.Unlock()
	s.awaitInFlight(next, inFlightMax)
}

// adoptLocked puts the published topology in force. The caller holds schema.mu.
func (s *Server) adoptLocked(ctx context.Context) {
	next, old := s.schema.next, s.snapshot.Load()
	if next == nil {
		return
	}
	if old.Schema.Version == 0 { // learn will read it
		s.adopt(next)
		s.schema.next = nil
		return
	}
	if with := next.WithSchema(old.Schema); with.SchemaFits() {
		s.adopt(with)
		s.schema.next = nil
		return
	}
	err := s.withService(ctx, next, 0, func(c *backend.Conn) error { return s.readSchema(ctx, c, next) })
	if err != nil {
		s.cfg.Log.Error("a new topology is not in force yet: the tables cannot be read to be placed by its rules", "epoch", next.Epoch, "error", err)
		return
	}
	s.schema.next = nil
}

// SchemaChanged reads the schema again, soon: another proxy has changed it.
func (s *Server) SchemaChanged() {
	if s.schema.pending.Swap(true) {
		return // who reads next sees it
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), serviceTime)
		defer cancel()
		s.schema.mu.Lock()
		defer s.schema.mu.Unlock()
		s.schema.pending.Store(false)
		now := s.snapshot.Load()
		err := s.withService(ctx, now, 0, func(c *backend.Conn) error { return s.readSchema(ctx, c, now) })
		if err != nil {
			s.schema.missed.Store(true)
			s.cfg.Log.Warn("the schema could not be read after a change by another proxy", "error", err)
		}
	}()
}

// adoptLate tries again what Publish and SchemaChanged could not put in force.
func (s *Server) adoptLate(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		limited, cancel := context.WithTimeout(ctx, serviceTime)
		s.schema.mu.Lock()
		s.adoptLocked(limited)
		s.schema.mu.Unlock()
		cancel()
		if s.schema.missed.Swap(false) {
			s.SchemaChanged()
		}
	}
}

// learn reads what a fresh backend reports, and the schema, from the first shard that answers.
func (s *Server) learn(ctx context.Context) error {
	var errs []error
	for shard := range s.snapshot.Load().Shards {
		err := s.learnFrom(ctx, topology.ShardID(shard))
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (s *Server) learnFrom(ctx context.Context, shard topology.ShardID) error {
	s.schema.mu.Lock()
	defer s.schema.mu.Unlock()
	if int(shard) >= len(s.snapshot.Load().Shards) {
		return errors.New("the topology has just changed")
	}
	var waiter backend.Waiter
	pool := s.poolOf(s.now().Service, s.snapshot.Load(), shard)
	c, err := pool.Acquire(ctx, &waiter)
	if err != nil {
		return err
	}
	defer pool.Release(c)
	rows, err := c.Rows(ctx, "SELECT pg_catalog.current_setting('search_path')")
	if err != nil {
		return err
	}
	if err := s.readSchema(ctx, c, s.snapshot.Load()); err != nil {
		return err
	}
	s.defaults.Store(&defaults{params: c.Params, searchPath: rows[0][0]})
	return nil
}

// readSchema reads the schema on c, places its tables by the rules of snap, and puts both in force. The caller holds schema.mu.
func (s *Server) readSchema(ctx context.Context, c *backend.Conn, snap *topology.Snapshot) error {
	const begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL jit = off"
	if _, err := c.Rows(ctx, begin); err != nil {
		return err
	}
	schema, err := topology.LoadSchema(ctx, func(_ context.Context, sql string) ([][]string, error) { return c.Rows(ctx, sql) }, snap.Rules)
	if _, e := c.Rows(ctx, "COMMIT"); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("read the schema: %w", err)
	}
	s.adopt(snap.WithSchema(schema))
	return nil
}

// reloadSchema reads the schema again, unless somebody has done so since the caller loaded seen.
func (s *Server) reloadSchema(ctx context.Context, seen *topology.Snapshot) error {
	s.schema.mu.Lock()
	defer s.schema.mu.Unlock()
	now := s.snapshot.Load()
	if now.Schema.Version != seen.Schema.Version {
		return nil
	}
	return s.withService(ctx, now, 0, func(c *backend.Conn) error { return s.readSchema(ctx, c, now) })
}

// unknown plans a statement that names what the schema does not hold. It may have been made behind our back, so
// it must not run anywhere before the schema has been read again. A shard is asked first, which costs less: mostly the
// name is wrong, and the shard says so.
func (s *Session) unknown(ctx context.Context, t *router.Template, sql string) (*router.Template, error) {
	sql = strings.Clone(sql)
	if t.Kind == router.All || t.Kind == router.AllBare {
		return t, nil // every shard does it, whatever it is
	}
	if err := s.parseOnly(ctx, sql); err != nil {
		return nil, err
	}
	if s.own != nil {
		if err := s.readOwnSchema(ctx); err != nil {
			return nil, err
		}
	} else if err := s.srv.reloadSchema(ctx, s.snap); err != nil {
		return nil, err
	}
	s.snap = s.topology()
	again, err := s.srv.router.Template(s.snap, s.env, sql, &s.scratch)
	if err == nil && len(again.Unknown) > 0 && analysed(sql) {
		return nil, wire.Errorf(wire.CodeFeatureNotSupported, "%s is known to the shards, but not to shardproxy", again.Unknown[0]).
			WithHint("Name the shard: /* shardproxy: key=… */ in front of the statement.")
	}
	return again, err
}

// analysed says that PostgreSQL looks up the names of a statement when it is parsed, not only when it runs.
func analysed(sql string) bool {
	verb := strings.TrimLeft(sql, " \t\r\n(")
	if i := strings.IndexFunc(verb, func(r rune) bool { return r < 'A' || r > 'z' }); i >= 0 {
		verb = verb[:i]
	}
	switch strings.ToUpper(verb) {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "TABLE":
		return true
	}
	return false
}

// poolOf gives a pool for the proxy's own work. It shares nothing with those of sessions, which may hold all of theirs
// while they wait for that work.
func (s *Server) poolOf(u *User, snap *topology.Snapshot, shard topology.ShardID) *backend.Pool {
	node := snap.Shards[shard].Nodes[0]
	return s.service.Get(backend.Key{Address: node.Address(), Database: node.Database, User: u.ServerUser}, snap.Shards[shard].Name)
}

// changedSchema notes a change of the schema: what follows in the same transaction is planned with it.
func (s *Session) changedSchema(ctx context.Context) error {
	s.schemaChanged = true
	if !s.tx.open || s.ownRead {
		return nil
	}
	return s.readOwnSchema(ctx)
}

// readOwnSchema reads the schema as the open transaction has made it, for this session alone.
func (s *Session) readOwnSchema(ctx context.Context) error {
	var l *lane
	for _, other := range s.lanes {
		if other.begun {
			l = other
			break
		}
	}
	if l == nil {
		return nil
	}
	query := func(_ context.Context, sql string) ([][]string, error) {
		l.rows = nil
		l.query(sql, queryHidden)
		err := s.drain(l)
		return l.rows, err
	}
	const mark = "shardproxy_schema"
	if _, err := query(ctx, "SAVEPOINT "+mark+"; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL jit = off"); err != nil {
		return err
	}
	schema, err := topology.LoadSchema(ctx, query, s.snap.Rules)
	if _, e := query(ctx, "ROLLBACK TO "+mark+"; RELEASE "+mark); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	s.own = s.snap.WithSchema(schema)
	return nil
}
