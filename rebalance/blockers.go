package rebalance

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"shardproxy/rebalance/mover"
	"shardproxy/topology"
)

// lookForBlockers looks for tables that are new, and names the transactions that hold a lock on the tables for longer than clients should wait.
func (r *runner) lookForBlockers(ctx context.Context) error {
	if err := r.sameTables(ctx); err != nil {
		return err
	}
	var names []string
	for _, s := range r.sides {
		found, err := s.blockers(ctx)
		if err != nil {
			return err
		}
		for _, name := range found {
			names = append(names, "shard "+s.name+": "+name)
		}
	}
	if len(names) > 0 {
		return blockedError(names)
	}
	return nil
}

// blockers names those of one shard. Of sessions of other roles it is not told since when they run, unless by pg_read_all_stats: those count whose
// transaction is still there half a second later.
func (s *side) blockers(ctx context.Context) (names []string, err error) {
	before := make(map[string]bool)
	for first := true; ; first = false {
		rows, err := s.query(ctx, blockersSQL)
		if err != nil {
			return nil, err
		}
		names = names[:0]
		for _, row := range rows {
			name, transaction, old := row[0], row[1], row[2] == "true"
			if old || before[transaction] {
				names = append(names, name)
			}
			before[transaction] = before[transaction] || first && !old
		}
		if !first || len(names) == len(rows) {
			return names, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(longTransaction):
		}
	}
}

// forgoDropped gives up what has streamed so far if a table was dropped meanwhile.
func (r *runner) forgoDropped(ctx context.Context, m *Move) error {
	for at := range r.sides {
		left, err := r.stillThere(ctx, Side(at))
		if err != nil {
			return err
		}
		if left == nil || len(left.Spec().Tables) < len(r.there.Spec().Tables) {
			r.send(ctx, StreamLost{Guard: m.Guard(0), Err: "a table was dropped on shard " + r.sides[at].name, Final: true})
		}
	}
	return nil
}

// sameTables says whether the owner has sharded tables that do not move with the others, as they are younger than the move.
func (r *runner) sameTables(ctx context.Context) error {
	moving := make(map[topology.TableName]bool)
	for _, t := range r.there.Spec().Tables {
		moving[t.TableName] = true
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range r.sides {
		g.Go(func() error {
			rows, err := s.query(ctx, shardedSQL)
			for _, row := range rows {
				if name := (topology.TableName{Schema: row[0], Name: row[1]}); !moving[name] {
					return mover.ErrSchemaChanged{Table: name, What: "it is new"}
				}
			}
			return err
		})
	}
	return g.Wait()
}

// shardedSQL lists the sharded tables that have a fence, without their partitions.
const shardedSQL = `
SELECT DISTINCT n.nspname, c.relname FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE t.tgname IN ('shardproxy_owner_insert', 'shardproxy_owner_parts_insert') AND NOT c.relispartition`

// longTransaction is how long one must run to be named; also in blockersSQL.
const longTransaction = 500 * time.Millisecond

// blockersSQL names who holds a lock on a fenced table that the fence's own would wait for, for half a second and more, with the transaction
// and whether its age is known. What movers do
// in pieces rests while a move is cut over; but a VACUUM goes on.
const blockersSQL = `
SELECT pg_catalog.concat_ws(', ', coalesce('pid ' || l.pid, 'prepared transaction ' || p.gid), 'user ' || coalesce(a.usename, p.owner), nullif(a.application_name, ''), a.state,
       (extract(epoch FROM pg_catalog.clock_timestamp() - coalesce(a.xact_start, p.prepared))::numeric(10, 1) || ' s old'),
       l.mode || ' on ' || c.oid::pg_catalog.regclass) || coalesce(': ' || nullif(pg_catalog.left(a.query, 100), ''), ''),
       l.virtualtransaction, (l.pid IS NULL OR a.xact_start IS NOT NULL)::text
FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
LEFT JOIN pg_catalog.pg_locks x ON l.pid IS NULL AND x.pid IS NULL AND x.virtualtransaction = l.virtualtransaction AND x.locktype = 'transactionid'
LEFT JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid
WHERE l.locktype = 'relation' AND l.granted AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
AND l.mode NOT IN ('AccessShareLock') AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
AND EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'shardproxy_epoch')
AND (l.pid IS NOT NULL AND a.xact_start IS NULL OR coalesce(a.xact_start, p.prepared) < pg_catalog.clock_timestamp() - interval '500 ms')
AND (coalesce(a.application_name, '') NOT LIKE 'shardproxy_move_%' OR a.query LIKE 'VACUUM%')`

// moversSQL names what movers do that holds a lock on fenced tables, and is no short transaction of a stream.
const moversSQL = `
SELECT a.application_name FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.mode IN ('RowExclusiveLock', 'ShareUpdateExclusiveLock') AND a.datname = pg_catalog.current_database()
AND a.application_name LIKE 'shardproxy_move_%' AND a.xact_start < pg_catalog.clock_timestamp() - interval '100 ms'
AND EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = l.relation AND t.tgname = 'shardproxy_epoch')`

// moversRest waits until the copies and deletions of other moves have come to the end of their pieces. Those that follow wait for us.
func (r *runner) moversRest(ctx context.Context) error {
	for deadline := time.Now().Add(HoldBudget); ; {
		var busy string
		for _, s := range r.sides {
			rows, err := s.query(ctx, moversSQL)
			if err != nil {
				return err
			}
			if len(rows) > 0 {
				busy = rows[0][0] + " on shard " + s.name
			}
		}
		if busy == "" {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the cutover waits for %s", busy)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(cutoverPause):
		}
	}
}
