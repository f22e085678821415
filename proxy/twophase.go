package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
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

// The decision of a two-phase commit is a row in shardproxy.commits on the transaction's first writer. It is
// inserted by the transaction itself, so that its COMMIT is the decision. A row with aborted set is a tombstone:
// whoever recovers puts it there before he rolls back, and a late COMMIT then fails on the primary key.
const (
	gidPrefix   = "shardproxy:"
	commitTable = `CREATE SCHEMA IF NOT EXISTS shardproxy;
GRANT USAGE ON SCHEMA shardproxy TO PUBLIC;
CREATE TABLE IF NOT EXISTS shardproxy.commits (
	gid text PRIMARY KEY,
	at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	aborted boolean NOT NULL DEFAULT false,
	participants text[] NOT NULL DEFAULT '{}'); -- the shards that were prepared
GRANT SELECT, INSERT ON shardproxy.commits TO PUBLIC`
	recoverAfter = 10 * time.Second // a prepared transaction of this age has lost its proxy
	recoverEvery = 5 * time.Second
	forgetAfter  = time.Minute // decision records older than this go, once no participant is prepared any more
	forgetMost   = 1000        // at a time
)

// newGID names a distributed transaction: cluster, first shard, random. What is prepared has the name of its own
// shard behind that: shards may be databases of one server, which knows each name only once.
func (s *Server) newGID(first topology.ShardID) string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return gidPrefix + s.cfg.Cluster + ":" + s.snapshot.Load().Shards[first].Name + ":" + hex.EncodeToString(id[:])
}

func (s *Session) preparedName(l *lane, gid string) string {
	return quote(gid + ":" + s.shardName(l.shard))
}

// commitTwoPhase commits on all lanes that wrote, or on none.
func (s *Session) commitTwoPhase(ctx context.Context) error {
	var first *lane
	var others, readers []*lane
	for _, l := range s.lanes {
		switch {
		case !l.begun:
		case !l.wrote:
			readers = append(readers, l)
		case first == nil:
			first = l
		default:
			others = append(others, l)
		}
	}
	if err := s.srv.recovery.install(ctx, s.srv, first.shard); err != nil {
		_ = s.rollback()
		return err
	}
	gid := s.srv.newGID(first.shard)
	prepared, err := s.prepareLanes(others, gid)
	if err != nil {
		s.rollbackPrepared(prepared, gid)
		_ = s.rollback()
		return err
	}
	if err := s.decide(first, others, gid); err != nil {
		var unknown *wire.Error
		if errors.As(err, &unknown) && unknown.Code == wire.CodeTransactionUnknown {
			s.release(others, readers) // recovery finishes what is prepared
			s.ended(false)
			return err
		}
		s.rollbackPrepared(prepared, gid)
		_ = s.rollback()
		return err
	}
	for _, l := range others {
		l.query("COMMIT PREPARED "+s.preparedName(l, gid), queryHidden)
		_ = l.be.Flush()
	}
	for _, l := range readers {
		l.query("COMMIT", queryHidden)
		_ = l.be.Flush()
	}
	for _, l := range slices.Concat(others, readers) {
		if err := s.drain(l); err != nil {
			// It is decided: the client's COMMIT has succeeded, and recovery finishes it here.
			s.logger().Warn("commit of a prepared transaction is left to recovery", "gid", gid, "error", err)
		}
	}
	s.ended(true)
	return nil
}

// prepareLanes prepares the transaction on each lane, and gives those where it is.
func (s *Session) prepareLanes(lanes []*lane, gid string) (prepared []*lane, err error) {
	for _, l := range lanes {
		if e := s.drain(l); e != nil {
			return nil, e
		}
	}
	for _, l := range lanes {
		l.tag = ""
		l.query("PREPARE TRANSACTION "+s.preparedName(l, gid), queryHidden)
		if e := l.be.Flush(); e != nil {
			_ = s.lost(l, e) // drain finds nothing to read, and the tag is missing
		}
	}
	for _, l := range lanes {
		shard := s.shardName(l.shard)
		e := s.drain(l)
		var server *serverError
		switch {
		case e == nil && l.tag == "PREPARE TRANSACTION":
			l.begun = false
			prepared = append(prepared, l)
			continue
		case e == nil:
			e = wire.Errorf(wire.CodeFailedTransaction, "shard %s rolled the transaction back", shard)
		case errors.As(e, &server) && server.Code == wire.CodeObjectNotInPrerequisite:
			server.Hint = "A transaction over several shards needs max_prepared_transactions above 0 on each of them."
		}
		if err == nil {
			err = e
		}
	}
	return prepared, err
}

// decide commits on the first writer, with the record of the decision.
func (s *Session) decide(l *lane, others []*lane, gid string) error {
	if err := s.drain(l); err != nil {
		return err
	}
	names := make([]string, len(others))
	for i, o := range others {
		names[i] = quote(s.shardName(o.shard))
	}
	l.query("INSERT INTO shardproxy.commits (gid, participants) VALUES ("+quote(gid)+", ARRAY["+strings.Join(names, ",")+"])", queryHidden)
	if err := s.drain(l); err != nil {
		return err
	}
	return s.commitLane(l)
}

func (s *Session) rollbackPrepared(lanes []*lane, gid string) {
	for _, l := range lanes {
		l.query("ROLLBACK PREPARED "+s.preparedName(l, gid), queryHidden)
		if err := s.drain(l); err != nil {
			s.logger().Warn("rollback of a prepared transaction is left to recovery", "gid", gid, "error", err)
		}
	}
}

// release closes lanes whose part of the transaction is not known.
func (s *Session) release(groups ...[]*lane) {
	for _, l := range slices.Concat(groups...) {
		if slices.Contains(s.lanes, l) {
			l.be.Broken = l.be.Broken || l.be.Status != 'I'
			s.drop(l)
		}
	}
}

// recovery finishes two-phase commits whose proxy has gone.
type recovery struct {
	mu        sync.Mutex // guards installed
	installed map[string]bool
}

// install makes the table of decisions on a shard, once in the life of the process.
func (r *recovery) install(ctx context.Context, s *Server, shard topology.ShardID) error {
	snap := s.snapshot.Load()
	name := snap.Shards[shard].Name
	r.mu.Lock()
	done := r.installed[name]
	r.mu.Unlock()
	if done {
		return nil
	}
	err := s.withService(ctx, snap, shard, func(c *backend.Conn) error {
		if rows, err := c.Rows("SELECT pg_catalog.to_regclass('shardproxy.commits') IS NOT NULL"); err == nil && len(rows) == 1 && rows[0][0] == "t" {
			return nil
		}
		_, err := c.Rows(commitTable)
		var raced *wire.Error
		if errors.As(err, &raced) && (raced.Code == wire.CodeUniqueViolation || strings.HasPrefix(raced.Code, "42P0")) {
			return nil // another proxy has just made it
		}
		return err
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

// withService runs f with a backend of the service user on a shard.
func (s *Server) withService(ctx context.Context, snap *topology.Snapshot, shard topology.ShardID, f func(*backend.Conn) error) error {
	var waiter backend.Waiter
	pool := s.poolOf(s.cfg.Service, snap, shard)
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
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		snap := s.snapshot.Load()
		for shard := range snap.Shards {
			if ctx.Err() != nil {
				return
			}
			if !s.used(snap, topology.ShardID(shard)) {
				continue
			}
			err := s.recoverShard(ctx, snap, topology.ShardID(shard))
			if err == nil {
				err = s.forgetDecisions(ctx, snap, topology.ShardID(shard))
			}
			if err != nil && ctx.Err() == nil {
				s.cfg.Log.Debug("recovery of prepared transactions", "shard", snap.Shards[shard].Name, "error", err)
			}
		}
	}
}

// used says whether this proxy has a pool on the shard: an unused shard is not connected to for this.
func (s *Server) used(snap *topology.Snapshot, shard topology.ShardID) bool {
	node := snap.Shards[shard].Nodes[0]
	return slices.ContainsFunc(s.pools.All(), func(p *backend.Pool) bool {
		return p.Key().Address == node.Address() && p.Key().Database == node.Database
	})
}

// recoverShard ends the old prepared transactions of one shard as their first shard has decided.
func (s *Server) recoverShard(ctx context.Context, snap *topology.Snapshot, shard topology.ShardID) error {
	prefix := gidPrefix + s.cfg.Cluster + ":"
	var gids []string
	err := s.withService(ctx, snap, shard, func(c *backend.Conn) error {
		rows, err := c.Rows("SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()" +
			" AND pg_catalog.starts_with(gid, " + quote(prefix) + ") AND prepared < pg_catalog.clock_timestamp() - " + quote(recoverAfter.String()) + "::interval")
		for _, row := range rows {
			gids = append(gids, row[0])
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, prepared := range gids {
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
		err = s.withService(ctx, snap, shard, func(c *backend.Conn) error {
			_, err := c.Rows(verb + quote(prepared))
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
		rows, err := c.Rows("SELECT pg_catalog.to_regclass('shardproxy.commits') IS NOT NULL")
		if err != nil || rows[0][0] != "t" {
			return err
		}
		rows, err = c.Rows("SELECT gid, pg_catalog.unnest(participants) FROM (SELECT gid, participants FROM shardproxy.commits WHERE NOT aborted" +
			" AND at < pg_catalog.now() - " + quote(forgetAfter.String()) + "::interval LIMIT " + strconv.Itoa(forgetMost) + ") old")
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
				prepared, err = c.Rows("SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()")
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
		_, err := c.Rows("DELETE FROM shardproxy.commits WHERE gid IN (" + strings.Join(gone, ",") + ")")
		return err
	})
}

// outcome says whether the transaction was committed. Where it was not, it never will be.
func (s *Server) outcome(ctx context.Context, snap *topology.Snapshot, first topology.ShardID, gid string) (committed bool, err error) {
	if err := s.recovery.install(ctx, s, first); err != nil {
		return false, err
	}
	err = s.withService(ctx, snap, first, func(c *backend.Conn) error {
		if _, err := c.Rows("INSERT INTO shardproxy.commits (gid, aborted) VALUES (" + quote(gid) + ", true) ON CONFLICT DO NOTHING"); err != nil {
			return err
		}
		rows, err := c.Rows("SELECT aborted FROM shardproxy.commits WHERE gid = " + quote(gid))
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
