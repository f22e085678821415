package proxy

import (
	"context"
	"fmt"
	"sync"
	"time"

	"shardproxy/backend"
	"shardproxy/topology"
)

// unknownEvery bounds how often a statement that names something unknown makes the schema be read again.
const unknownEvery = time.Second

// schemaKeeper reads the schema, one reader at a time.
type schemaKeeper struct {
	mu   sync.Mutex // held while the schema is read; guards read
	read time.Time
}

// learn reads from the first shard what a fresh backend reports, and the schema.
func (s *Server) learn(ctx context.Context) error {
	snap := s.snapshot.Load()
	var waiter backend.Waiter
	pool := s.poolOf(s.cfg.Service, snap, 0)
	c, err := pool.Acquire(ctx, &waiter)
	if err != nil {
		return err
	}
	defer pool.Release(c)
	rows, err := c.Rows("SELECT pg_catalog.current_setting('search_path')")
	if err != nil {
		return err
	}
	s.defaults.Store(&defaults{params: c.Params, searchPath: rows[0][0]})
	return s.readSchema(ctx, c)
}

// readSchema reads the schema on c and publishes it.
func (s *Server) readSchema(ctx context.Context, c *backend.Conn) error {
	const begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL jit = off"
	if _, err := c.Rows(begin); err != nil {
		return err
	}
	schema, err := topology.LoadSchema(ctx, func(_ context.Context, sql string) ([][]string, error) { return c.Rows(sql) }, s.cfg.Rules)
	if _, e := c.Rows("COMMIT"); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("read the schema: %w", err)
	}
	for {
		old := s.snapshot.Load()
		if s.snapshot.CompareAndSwap(old, old.WithSchema(schema)) {
			return nil
		}
	}
}

// reloadSchema reads the schema again.
func (s *Server) reloadSchema(ctx context.Context) error {
	s.schema.mu.Lock()
	defer s.schema.mu.Unlock()
	return s.reloadLocked(ctx)
}

func (s *Server) reloadLocked(ctx context.Context) error {
	var waiter backend.Waiter
	pool := s.poolOf(s.cfg.Service, s.snapshot.Load(), 0)
	c, err := pool.Acquire(ctx, &waiter)
	if err != nil {
		return err
	}
	defer pool.Release(c)
	s.schema.read = time.Now()
	return s.readSchema(ctx, c)
}

// schemaMayHaveChanged reads the schema again where something is unknown in seen, unless that was just done.
// It says whether there is a newer snapshot now.
func (s *Server) schemaMayHaveChanged(ctx context.Context, seen *topology.Snapshot) bool {
	s.schema.mu.Lock()
	defer s.schema.mu.Unlock()
	if s.snapshot.Load() == seen && time.Since(s.schema.read) > unknownEvery {
		if err := s.reloadLocked(ctx); err != nil {
			s.cfg.Log.Warn("the schema could not be read again", "error", err)
		}
	}
	return s.snapshot.Load() != seen
}

func (s *Server) poolOf(u *User, snap *topology.Snapshot, shard topology.ShardID) *backend.Pool {
	node := snap.Shards[shard].Nodes[0]
	return s.pools.Get(backend.Key{Address: node.Address(), Database: node.Database, User: u.ServerUser})
}

// changedSchema notes a change of the schema: what follows in the same transaction is planned with it.
func (s *Session) changedSchema(ctx context.Context) error {
	s.schemaChanged = true
	if !s.tx.open {
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
	schema, err := topology.LoadSchema(ctx, query, s.srv.cfg.Rules)
	if _, e := query(ctx, "ROLLBACK TO "+mark+"; RELEASE "+mark); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	s.own = s.srv.snapshot.Load().WithSchema(schema)
	return nil
}
