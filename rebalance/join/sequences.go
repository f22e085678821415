package join

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// shardsAtATime are asked the same.
const shardsAtATime = 8

// sequence is one of the schema, with the position that is the farthest of all shards.
type sequence struct {
	name   string // quoted
	up     bool
	known  bool
	last   int64
	called bool // it has given last
}

// pass takes the position of one more shard into account.
func (s *sequence) pass(last int64, called bool) {
	switch {
	case !s.known || last != s.last && (last > s.last) == s.up:
		s.known, s.last, s.called = true, last, called
	case last == s.last:
		s.called = s.called || called
	}
}

// setSequences lets the sequences of the new shard go on behind those of all others: their rows come by moves, and keep their ids.
func (a *addition) setSequences(ctx context.Context) error {
	rows, err := a.old.query(ctx, `SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname), s.seqincrement > 0 FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
		JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname <> 'shardproxy' AND c.relpersistence <> 't' ORDER BY 1`)
	if err != nil || len(rows) == 0 {
		return err
	}
	list, parts := make([]sequence, len(rows)), make([]string, len(rows))
	for i, row := range rows {
		list[i] = sequence{name: row[0], up: row[1] == "t"}
		parts[i] = fmt.Sprintf("SELECT %d, last_value, is_called FROM %s", i, row[0])
	}
	positions := make([][][]string, len(a.others))
	g, limited := errgroup.WithContext(ctx)
	g.SetLimit(shardsAtATime)
	for i, shard := range a.others {
		g.Go(func() error {
			s, err := a.open(limited, shard.Name, shard.Nodes[0])
			if err != nil {
				return fmt.Errorf("shard %s: %w", shard.Name, err)
			}
			defer s.close()
			if positions[i], err = s.query(limited, strings.Join(parts, " UNION ALL ")); err != nil {
				return fmt.Errorf("shard %s: %w", shard.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, row := range slices.Concat(positions...) {
		i, err := strconv.Atoi(row[0])
		if err != nil {
			return err
		}
		last, err := strconv.ParseInt(row[1], 10, 64)
		if err != nil {
			return err
		}
		list[i].pass(last, row[2] == "t")
	}
	for i := range list {
		s := &list[i]
		if _, err := a.new.query(ctx, fmt.Sprintf("SELECT setval(%s, %d, %t)", literal(s.name), s.last, s.called)); err != nil {
			return fmt.Errorf("sequence %s: %w", s.name, err)
		}
	}
	return nil
}

// refreshViews fills the materialized views that are filled on the other shard, each with what the new shard has.
func (a *addition) refreshViews(ctx context.Context) error {
	const views = `SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind = 'm' AND c.relispopulated ORDER BY c.oid`
	names, err := a.old.column(ctx, views)
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := a.new.query(ctx, "REFRESH MATERIALIZED VIEW "+name); err != nil {
			return fmt.Errorf("materialized view %s: %w", name, err)
		}
	}
	return nil
}
