package proxy

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"shardproxy/backend"
	"shardproxy/topology"
	"shardproxy/wire"
)

// recovery finishes two-phase commits whose proxy has gone.
type recovery struct {
	mu        sync.Mutex // guards installed
	installed map[string]bool
}

// installTries bounds how often the table of decisions is made against others who make it too.
const installTries = 5

// install makes the table of decisions on a shard, once in the life of the process.
func (r *recovery) install(ctx context.Context, s *Server, snap *topology.Snapshot, shard topology.ShardID) error {
	ctx, cancel := context.WithTimeout(ctx, serviceTime)
	defer cancel()
	name := snap.Shards[shard].Name
	r.mu.Lock()
	done := r.installed[name]
	r.mu.Unlock()
	if done {
		return nil
	}
	err := s.withService(ctx, snap, shard, func(c *backend.Conn) error {
		// Other proxies, and who makes fences, may do the same at this moment. Who comes second is refused, in one of several ways,
		// once the first has committed; what the first has not made is made by another try.
		for try := 1; ; try++ {
			rows, err := c.Rows(ctx, "SELECT pg_catalog.to_regclass('shardproxy.commits') IS NOT NULL")
			if err == nil && len(rows) == 1 && rows[0][0] == "t" {
				return nil
			}
			_, err = c.Rows(ctx, commitTable)
			var refused *wire.Error
			if try == installTries || !errors.As(err, &refused) {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.installed == nil {
		r.installed = make(map[string]bool)
	}
	r.installed[name] = true
	return nil
}

// OnShard runs f with a connection of the proxy's own to the primary of a shard of the current map. A statement that the
// server refused gives a *wire.Error. The queries take the ctx that they are given; f must not keep query.
func (s *Server) OnShard(ctx context.Context, shard topology.ShardID, f func(query topology.Query) error) error {
	snap := s.snapshot.Load()
	if int(shard) >= len(snap.Shards) {
		return errors.New("the topology has just changed")
	}
	return s.withService(ctx, snap, shard, func(c *backend.Conn) error {
		return f(func(ctx context.Context, sql string) ([][]string, error) { return c.Rows(ctx, sql) })
	})
}

// withService runs f with a backend of the service user on a shard.
func (s *Server) withService(ctx context.Context, snap *topology.Snapshot, shard topology.ShardID, f func(*backend.Conn) error) error {
	return s.withUser(ctx, s.now().Service, snap, shard, f)
}

// withUser runs f with a backend of a user on a shard. f must use the ctx of its caller, which it does not outlive.
func (s *Server) withUser(ctx context.Context, u *User, snap *topology.Snapshot, shard topology.ShardID, f func(*backend.Conn) error) error {
	var waiter backend.Waiter
	pool := s.poolOf(u, snap, shard)
	c, err := pool.Acquire(ctx, &waiter)
	if err != nil {
		return err
	}
	defer pool.Release(c)
	return f(c)
}

// recover looks for prepared transactions whose proxy has gone, again and again, on the shards that this proxy
// has worked with.
func (s *Server) recover(ctx context.Context) {
	tick := time.NewTicker(recoverEvery)
	defer tick.Stop()
	for next := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		snap := s.snapshot.Load()
		shards := s.used(snap)
		for range min(len(shards), recoverMost) {
			if ctx.Err() != nil {
				return
			}
			shard := shards[next%len(shards)]
			next++
			limited, cancel := context.WithTimeout(ctx, serviceTime)
			err := s.recoverShard(limited, snap, shard)
			if err == nil {
				err = s.forgetDecisions(limited, snap, shard)
			}
			cancel()
			if err != nil && ctx.Err() == nil {
				s.cfg.Log.Debug("recovery of prepared transactions", "shard", snap.Shards[shard].Name, "error", err)
			}
		}
	}
}

// used gives the shards on which this proxy has a pool: one that is not used is not connected to for recovery.
func (s *Server) used(snap *topology.Snapshot) []topology.ShardID {
	pools := make(map[backend.Key]bool)
	for _, p := range s.pools.All() {
		pools[backend.Key{Address: p.Key().Address, Database: p.Key().Database}] = true
	}
	var shards []topology.ShardID
	for i := range snap.Shards {
		node := &snap.Shards[i].Nodes[0]
		if pools[backend.Key{Address: node.Address(), Database: node.Database}] {
			shards = append(shards, topology.ShardID(i))
		}
	}
	return shards
}

// recoverShard ends the old prepared transactions of one shard as their first shard has decided.
func (s *Server) recoverShard(ctx context.Context, snap *topology.Snapshot, shard topology.ShardID) error {
	prefix := gidPrefix + s.cfg.Cluster + ":"
	var gids, owners []string
	err := s.withService(ctx, snap, shard, func(c *backend.Conn) error {
		rows, err := c.Rows(ctx, "SELECT gid, owner FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()"+
			" AND pg_catalog.starts_with(gid, "+quote(prefix)+") AND prepared < pg_catalog.clock_timestamp() - "+quote(recoverAfter.String())+"::interval")
		for _, row := range rows {
			gids, owners = append(gids, row[0]), append(owners, row[1])
		}
		return err
	})
	if err != nil {
		return err
	}
	for i, prepared := range gids {
		gid, of := strings.CutSuffix(prepared, ":"+snap.Shards[shard].Name)
		name, _, ok := strings.Cut(strings.TrimPrefix(gid, prefix), ":")
		first := slices.IndexFunc(snap.Shards, func(sh topology.Shard) bool { return sh.Name == name })
		if !of || !ok || first < 0 {
			s.cfg.Log.Error("a prepared transaction names an unknown shard", "gid", prepared)
			continue
		}
		committed, err := s.outcome(ctx, snap, topology.ShardID(first), gid)
		if err != nil {
			return err
		}
		verb := "ROLLBACK PREPARED "
		if committed {
			verb = "COMMIT PREPARED "
		}
		// Only its owner, or a superuser, may end it. The owner is one of our users, unless the service user made it.
		as := s.now().Service
		if s.dialer.knows(owners[i]) {
			as = &User{ServerUser: owners[i]}
		}
		err = s.withUser(ctx, as, snap, shard, func(c *backend.Conn) error {
			_, err := c.Rows(ctx, verb+quote(prepared))
			return err
		})
		s.cfg.Log.Warn("recovered a prepared transaction", "gid", prepared, "committed", committed, "shard", snap.Shards[shard].Name, "error", err)
	}
	return nil
}

// forgetDecisions removes old decision records of a shard whose participants have all committed. Tombstones stay: a
// proxy that hangs may still want to commit. A participant that cannot be asked keeps its records.
func (s *Server) forgetDecisions(ctx context.Context, snap *topology.Snapshot, first topology.ShardID) error {
	waiting := make(map[string][]string) // participant → gids
	var all []string
	err := s.withService(ctx, snap, first, func(c *backend.Conn) error {
		rows, err := c.Rows(ctx, "SELECT pg_catalog.to_regclass('shardproxy.commits') IS NOT NULL")
		if err != nil || rows[0][0] != "t" {
			return err
		}
		rows, err = c.Rows(ctx, "SELECT gid, pg_catalog.unnest(participants) FROM (SELECT gid, participants FROM shardproxy.commits WHERE NOT aborted"+
			" AND at < pg_catalog.now() - "+quote(forgetAfter.String())+"::interval LIMIT "+strconv.Itoa(forgetMost)+") old")
		for _, row := range rows {
			waiting[row[1]] = append(waiting[row[1]], row[0])
			all = append(all, row[0])
		}
		return err
	})
	if err != nil || len(all) == 0 {
		return err
	}
	keep := make(map[string]bool)
	for name, gids := range waiting {
		shard := slices.IndexFunc(snap.Shards, func(sh topology.Shard) bool { return sh.Name == name })
		var prepared [][]string
		err := errors.New("the shard is not in the map")
		if shard >= 0 {
			err = s.withService(ctx, snap, topology.ShardID(shard), func(c *backend.Conn) (err error) {
				prepared, err = c.Rows(ctx, "SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()")
				return err
			})
		}
		for _, gid := range gids {
			if err != nil || slices.ContainsFunc(prepared, func(row []string) bool { return row[0] == gid+":"+name }) {
				keep[gid] = true
			}
		}
	}
	var gone []string
	for _, gid := range all {
		if !keep[gid] {
			gone = append(gone, quote(gid))
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return s.withService(ctx, snap, first, func(c *backend.Conn) error {
		_, err := c.Rows(ctx, "DELETE FROM shardproxy.commits WHERE gid IN ("+strings.Join(gone, ",")+")")
		return err
	})
}

// outcome says whether the transaction was committed. Where it was not, it never will be.
func (s *Server) outcome(ctx context.Context, snap *topology.Snapshot, first topology.ShardID, gid string) (committed bool, err error) {
	if err := s.recovery.install(ctx, s, snap, first); err != nil {
		return false, err
	}
	err = s.withService(ctx, snap, first, func(c *backend.Conn) error {
		if _, err := c.Rows(ctx, "INSERT INTO shardproxy.commits (gid, aborted) VALUES ("+quote(gid)+", true) ON CONFLICT DO NOTHING"); err != nil {
			return err
		}
		rows, err := c.Rows(ctx, "SELECT aborted FROM shardproxy.commits WHERE gid = "+quote(gid))
		if err == nil && len(rows) != 1 {
			err = errors.New("the decision record has gone")
		}
		if err == nil {
			committed = rows[0][0] == "f"
		}
		return err
	})
	return committed, err
}
