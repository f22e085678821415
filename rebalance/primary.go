package rebalance

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// A failover is noticed by looking: before each effect on a shard outside of a cutover, which so is before the hold too, and every few
// seconds beside the tasks, by a connection of its own to the node that the map calls the primary at that moment.

const (
	// watchEvery is how often both primaries are looked at while nothing else does.
	watchEvery = 5 * time.Second
	watchTime  = 5 * time.Second // that one look may take
)

// primarySQL tells a server and its timeline: that of the log, as the control file has the new one only after a checkpoint.
const primarySQL = `SELECT system_identifier, CASE WHEN pg_catalog.pg_is_in_recovery() THEN '' ELSE
	pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) END FROM pg_catalog.pg_control_system()`

// primary says which server s leads to. It is an error where that is a replica. A connection that has broken meanwhile is made anew.
func (s *side) primary(ctx context.Context) (p Primary, err error) {
	reused := s.conn != nil
	rows, err := s.query(ctx, primarySQL)
	if err != nil && reused && s.conn.IsClosed() {
		rows, err = s.query(ctx, primarySQL)
	}
	if err != nil {
		return p, err
	}
	if len(rows) != 1 || len(rows[0]) != 2 {
		return p, fmt.Errorf("shard %s: the server does not say who it is", s.name)
	}
	if rows[0][1] == "" {
		return p, fmt.Errorf("shard %s: the server at %s:%d is a replica", s.name, s.config.Host, s.config.Port)
	}
	timeline, err := strconv.ParseUint(rows[0][1], 16, 32)
	if err == nil {
		p.Timeline = uint32(timeline)
		p.System, err = strconv.ParseUint(rows[0][0], 10, 64)
	}
	if err != nil {
		return p, fmt.Errorf("shard %s: the server does not say who it is: %w", s.name, err)
	}
	return p, nil
}

// look sees to it that a side is still the server that the move knows. If not, the move is told, and the effect is not for that server.
func (r *runner) look(ctx context.Context, m *Move, at Side) error {
	known := m.Primaries[at]
	found, err := r.on(at).primary(ctx)
	if err != nil || found == known {
		return err
	}
	r.send(ctx, Looked{at, found})
	if known == (Primary{}) {
		return nil
	}
	return fmt.Errorf("shard %s: the server at %s:%d is another than before", r.on(at).name, r.on(at).config.Host, r.on(at).config.Port)
}

// watch looks at both sides until ctx ends.
func (r *runner) watch(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchEvery):
		}
		for at := range Side(2) {
			if err := r.glance(ctx, at); err != nil {
				r.log.Debug("a shard of a move cannot be looked at", "side", at, "error", err)
			}
		}
	}
}

// glance looks at a side by a new connection: one that is open would lead to the server that it was made to.
func (r *runner) glance(ctx context.Context, at Side) error {
	known := r.status.Load().Move.Primaries[at]
	snap := r.c.cfg.Keeper.Snapshot()
	id, ok := snap.ShardByName(r.of.Shard(at))
	if !ok || known == (Primary{}) { // the first look is the preflight's
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, watchTime)
	defer cancel()
	s, err := r.newSide(r.of.Shard(at), snap.Shards[id].Nodes[0])
	if err != nil {
		return err
	}
	defer s.close()
	found, err := s.primary(ctx)
	if err == nil && found != known {
		r.send(ctx, Looked{at, found})
	}
	return err
}
