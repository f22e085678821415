package mover

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"shardproxy/topology"
)

const (
	// chunkPages of a table's heap are copied in one transaction: 64 MB, so that the target's transactions stay short and the
	// work is spread evenly over the workers.
	chunkPages = 8192
	// workersMax limits the connections of one copy to each side.
	workersMax = 64
)

// CopyOptions of a copy; the zero value is one worker at full speed.
type CopyOptions struct {
	Workers        int                         // at least 1 is taken
	BytesPerSecond func() int64                // of all workers together, asked again and again; nil or 0 for no limit
	Wait           func(context.Context) error // if not nil, called before each chunk; it may take its time
	Progress       func(CopyProgress)          // if not nil, called after each chunk, from several goroutines
}

// CopyProgress is how far a copy is.
type CopyProgress struct {
	Rows, Bytes         int64 // written to the target; bytes as COPY counts them
	Chunks, ChunksTotal int64
}

// chunk is a part of one table: pages [from, to) of a leaf, or with whole set all its rows in one statement.
type chunk struct {
	table    *table
	leaf     leaf
	from, to int64
	whole    bool
}

// Copy brings the rows of the ranges, as they are in the snapshot, to the target. It first deletes what an earlier copy
// of the move left there; rows that were there before the first are ErrNotEmpty.
func (m *Mover) Copy(ctx context.Context, snapshot *Snapshot, options CopyOptions) error {
	source, err := m.connect(ctx, Source)
	if err != nil {
		return err
	}
	defer source.Close(context.WithoutCancel(ctx))
	target, replica, err := m.writer(ctx, Target)
	if err != nil {
		return err
	}
	defer closeWriter(target)
	if err := m.claim(ctx, target); err != nil {
		return err
	}
	p, err := m.readProgress(ctx, target)
	if err != nil {
		return err
	}
	s, err := m.bothShapes(ctx, source, target)
	if err != nil {
		return err
	}
	if !replica {
		if err := firesNothing(s); err != nil {
			return err
		}
	}
	if err := m.makeRoom(ctx, target, replica, &p, s); err != nil {
		return err
	}
	if options.BytesPerSecond == nil {
		options.BytesPerSecond = func() int64 { return 0 }
	}
	c := copier{mover: m, snapshot: snapshot, options: options, throttle: &throttle{perSecond: options.BytesPerSecond}}
	if err := c.run(ctx, source, s, replica); err != nil {
		return err
	}
	if _, err := m.checkShape(ctx, source, p.shape); err != nil {
		return err
	}
	for _, t := range s { // so that the first queries after the cutover are planned well
		if _, err := target.Exec(ctx, "ANALYZE "+quoteName(t.TableName)); err != nil {
			return fmt.Errorf("ANALYZE of %s: %w", t.TableName, err)
		}
	}
	p.copied = true
	if err := m.writeProgress(ctx, target, p); err != nil {
		return fmt.Errorf("storing the progress: %w", err)
	}
	return nil
}

// makeRoom sees to it that the target has no rows of the ranges.
func (m *Mover) makeRoom(ctx context.Context, target *pgx.Conn, replica bool, p *progress, s shape) error {
	if p.started {
		p.copied = false
		if err := m.writeProgress(ctx, target, *p); err != nil {
			return fmt.Errorf("storing the progress: %w", err)
		}
		if err := m.clear(ctx, Target, target, replica, CleanupOptions{}); err != nil {
			return fmt.Errorf("clearing the target: %w", err)
		}
		return nil
	}
	for _, t := range s {
		there, err := m.anyRow(ctx, target, t)
		if err != nil {
			return err
		}
		if there {
			return ErrNotEmpty{t.TableName}
		}
	}
	p.started = true
	if err := m.writeProgress(ctx, target, *p); err != nil {
		return fmt.Errorf("storing the progress: %w", err)
	}
	return nil
}

// anyRow says whether a side has rows of the ranges.
func (m *Mover) anyRow(ctx context.Context, conn *pgx.Conn, t *table) (there bool, err error) {
	sql := fmt.Sprintf("SELECT EXISTS (SELECT FROM %s WHERE %s)", t.from(), m.ranges.predicate(t.hashSQL("")))
	if err := conn.QueryRow(ctx, sql).Scan(&there); err != nil {
		return false, fmt.Errorf("looking for rows in table %s: %w", t.TableName, err)
	}
	return there, nil
}

// copier is one run of Copy.
type copier struct {
	mover    *Mover
	snapshot *Snapshot
	options  CopyOptions
	throttle *throttle
	replica  bool

	rows, bytes, chunks, total atomic.Int64
}

func (c *copier) run(ctx context.Context, source *pgx.Conn, s shape, replica bool) error {
	c.replica = replica
	levels := []shape{s}
	if !replica {
		var err error
		if levels, err = s.levels(); err != nil {
			return err
		}
	}
	var work [][]chunk
	for _, level := range levels {
		list, err := c.cut(ctx, source, level)
		if err != nil {
			return err
		}
		work = append(work, list)
		c.total.Add(int64(len(list)))
	}
	for _, list := range work {
		if err := c.level(ctx, list); err != nil {
			return err
		}
	}
	return nil
}

// cut makes chunks; the largest tables' come first, so that no worker is left alone with one at the end.
func (c *copier) cut(ctx context.Context, source *pgx.Conn, s shape) (list []chunk, err error) {
	for _, t := range s {
		if !c.replica && t.refersToItself() {
			list = append(list, chunk{table: t, whole: true})
			continue
		}
		for _, l := range t.Leaves {
			var pages int64
			const size = "SELECT pg_relation_size($1::oid) / current_setting('block_size')::int8"
			if err := source.QueryRow(ctx, size, l.OID).Scan(&pages); err != nil {
				return nil, fmt.Errorf("size of %s: %w", l.TableName, err)
			}
			for from := int64(0); from == 0 || from < pages; from += chunkPages {
				list = append(list, chunk{table: t, leaf: l, from: from, to: from + chunkPages})
			}
			list[len(list)-1].to = 0 // to the end, wherever that is
		}
	}
	slices.SortStableFunc(list, func(a, b chunk) int { return int(b.from - a.from) })
	return list, nil
}

// level copies chunks that may be copied at the same time.
func (c *copier) level(ctx context.Context, list []chunk) error {
	workers := min(max(c.options.Workers, 1), workersMax, len(list))
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range workers {
		g.Go(func() error {
			return c.work(ctx, func() (chunk, bool) {
				i := next.Add(1) - 1
				if i >= int64(len(list)) {
					return chunk{}, false
				}
				return list[i], true
			})
		})
	}
	return g.Wait()
}

// refersToItself says that a foreign key of the table leads to the table.
func (t *table) refersToItself() bool {
	return slices.ContainsFunc(t.References, func(r reference) bool { return r.parent == t.TableName })
}

// levels orders tables so that foreign keys lead to earlier levels only.
func (s shape) levels() (levels []shape, err error) {
	done := map[topology.TableName]bool{}
	for len(done) < len(s) {
		var level shape
		for _, t := range s {
			ready := !slices.ContainsFunc(t.References, func(r reference) bool { return r.parent != t.TableName && !done[r.parent] })
			if ready && !done[t.TableName] {
				level = append(level, t)
			}
		}
		if len(level) == 0 {
			return nil, fmt.Errorf("the foreign keys of the tables form a circle: %w", errNeedsReplica)
		}
		for _, t := range level {
			done[t.TableName] = true
		}
		levels = append(levels, level)
	}
	return levels, nil
}

// firesNothing refuses tables whose triggers would act on rows that had that done to them on the source.
func firesNothing(s shape) error {
	for _, t := range s {
		if len(t.Triggers) > 0 {
			return fmt.Errorf("%s of table %s would fire: %w", t.Triggers[0], t.TableName, errNeedsReplica)
		}
	}
	return nil
}
