package mover

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// cleanupPages of the heap are looked through by one DELETE: 8 MB, so that its locks and its transaction are short.
	cleanupPages = 1024
	// cleanupAttempts of one batch against deadlocks with clients.
	cleanupAttempts = 5
)

// CleanupOptions of a cleanup; the zero value is at full speed.
type CleanupOptions struct {
	RowsPerSecond int64                       // 0 for no limit
	Wait          func(context.Context) error // if not nil, called before each batch; it may take its time
	Progress      func(rows int64)            // rows deleted so far
	Vacuum        bool                        // VACUUM the tables afterwards
}

// Cleanup deletes the rows of the ranges from the side that does not own them (any more): children before parents, in
// small transactions. Where the fence is installed, a row that the side owns by it stays, and ErrOwned is
// returned before anything is deleted if that is so of a border of the ranges. A stream of this move leaves these
// deletions out; streams of others know them by their ranges.
func (m *Mover) Cleanup(ctx context.Context, side Side, options CleanupOptions) error {
	conn, replica, err := m.writer(ctx, side)
	if err != nil {
		return err
	}
	defer closeWriter(conn)
	if side == Target {
		if err := m.claim(ctx, conn); err != nil {
			return err
		}
	}
	if err := m.clear(ctx, side, conn, replica, options); err != nil {
		return fmt.Errorf("cleaning up the %s: %w", side, ended(ctx, err))
	}
	return nil
}

func (m *Mover) clear(ctx context.Context, side Side, conn *pgx.Conn, replica bool, options CleanupOptions) error {
	s, err := m.readShape(ctx, conn)
	if err != nil {
		return err
	}
	if !replica {
		if err := firesNothing(s); err != nil {
			return err
		}
	}
	c := cleaner{mover: m, conn: conn, replica: replica, options: options, throttle: &throttle{perSecond: func() int64 { return options.RowsPerSecond }}}
	if c.fenced, err = m.disowned(ctx, conn); err != nil {
		return err
	}
	for _, t := range s.childrenFirst() {
		for _, l := range t.Leaves {
			if err := c.leaf(ctx, t, l); err != nil {
				return fmt.Errorf("table %s: %w", l.TableName, err)
			}
		}
	}
	if !options.Vacuum {
		return nil
	}
	return vacuum(ctx, conn, side, s)
}

// vacuum gives the room of what was deleted back to the tables: at the pace of autovacuum, and without the lock that keeps readers out
// while a file is cut off.
func vacuum(ctx context.Context, conn *pgx.Conn, side Side, s shape) error {
	if _, err := conn.Exec(ctx, "SET vacuum_cost_delay = '2ms'"); err != nil {
		return err
	}
	for _, t := range s {
		if _, err := conn.Exec(ctx, "VACUUM (TRUNCATE false) "+quoteName(t.TableName)); err != nil {
			return fmt.Errorf("VACUUM of %s on the %s: %w", t.TableName, side, err)
		}
	}
	return nil
}

// childrenFirst is an order in which rows can be deleted; circles are left as they are, for the foreign keys to decide.
func (s shape) childrenFirst() shape {
	levels, err := s.levels()
	if err != nil {
		return s
	}
	var order shape
	for _, level := range slices.Backward(levels) {
		order = append(order, level...)
	}
	return order
}

// disowned refuses to clean up a side that owns the ranges by its fence. It says whether there is a fence.
func (m *Mover) disowned(ctx context.Context, conn *pgx.Conn) (fenced bool, err error) {
	if err := conn.QueryRow(ctx, "SELECT to_regprocedure('shardproxy.owns(bigint)') IS NOT NULL").Scan(&fenced); err != nil || !fenced {
		return false, err
	}
	for _, r := range m.ranges {
		var owned bool
		if err := conn.QueryRow(ctx, "SELECT shardproxy.owns($1) OR shardproxy.owns($2)", r.Start.Signed(), (r.End - 1).Signed()).Scan(&owned); err != nil {
			return false, err
		}
		if owned {
			return false, fmt.Errorf("%w: range %v", ErrOwned, r)
		}
	}
	return true, nil
}

// cleaner deletes over one connection.
type cleaner struct {
	mover    *Mover
	conn     *pgx.Conn
	options  CleanupOptions
	throttle *throttle
	replica  bool
	fenced   bool
	rows     int64
}

func (c *cleaner) leaf(ctx context.Context, t *table, l leaf) error {
	hash := t.hashSQL("")
	where := c.mover.ranges.predicate(hash)
	if c.fenced { // beside the check of the borders: a range that this side owns in part loses nothing
		where += " AND NOT shardproxy.owns(" + hash + ")"
	}
	var pages int64
	const size = "SELECT pg_relation_size($1::oid) / current_setting('block_size')::int8"
	if err := c.conn.QueryRow(ctx, size, l.OID).Scan(&pages); err != nil {
		return err
	}
	step := int64(cleanupPages)
	if !c.replica && t.refersToItself() { // a foreign key is checked at the end of a statement: one for all rows
		step = max(pages, 1)
	}
	for from := int64(0); from < pages; from += step {
		if c.options.Wait != nil {
			if err := c.options.Wait(ctx); err != nil {
				return err
			}
		}
		sql := fmt.Sprintf("DELETE FROM %s WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)' AND %s", l.only(), from, from+step, where)
		n, err := c.delete(ctx, sql)
		if err != nil {
			return err
		}
		c.rows += n
		if c.options.Progress != nil {
			c.options.Progress(c.rows)
		}
		if err := c.throttle.wait(ctx, int(n)); err != nil {
			return err
		}
	}
	return nil
}

func (c *cleaner) delete(ctx context.Context, sql string) (n int64, err error) {
	for attempt := range cleanupAttempts {
		err = pgx.BeginFunc(ctx, c.conn, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, c.mover.markSQL()); err != nil {
				return err
			}
			tag, err := tx.Exec(ctx, sql, pgx.QueryExecModeExec)
			n = tag.RowsAffected()
			return err
		})
		if code(err) != "40P01" {
			return n, err
		}
		if err := pause(ctx, time.Duration(attempt+1)*50*time.Millisecond); err != nil {
			return 0, err
		}
	}
	return n, err
}
