package rebalance

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"shardproxy/topology"
)

const (
	// weighParallel shards are weighed at a time.
	weighParallel = 8
	// weighPages of a table are read: some 8 MB, wherever they lie.
	weighPages = 1000
	// weighCells are what the ranges of one shard are cut into at least, so that a heavy part of a range shows.
	weighCells = 256
)

// OnNode asks a node of the map.
type OnNode func(ctx context.Context, node topology.Node, run func(topology.Query) error) error

// Weigh measures what the ring holds: the bytes of the sharded tables with their indexes, spread by a sample of the key hashes. It is
// nil where there is nothing yet.
func Weigh(ctx context.Context, snap *topology.Snapshot, ask OnNode) (*Weights, error) {
	owned := make([][]Range, len(snap.Shards))
	for _, k := range snap.Ranges() {
		owned[k.Shard] = append(owned[k.Shard], Range{k.Start, k.End})
	}
	found := make([][]Weight, len(snap.Shards))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(weighParallel)
	for i := range snap.Shards {
		if len(owned[i]) == 0 {
			continue
		}
		g.Go(func() error {
			s := &scale{tables: weighed(snap.Schema), cells: cellsOf(owned[i]), foreign: snap.Foreign(topology.ShardID(i))}
			err := ask(ctx, snap.Shards[i].Nodes[0], func(query topology.Query) error { return s.weigh(ctx, query) })
			if err != nil {
				return fmt.Errorf("weighing shard %s: %w", snap.Shards[i].Name, err)
			}
			found[i] = s.cells
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := slices.Concat(found...)
	if !slices.ContainsFunc(all, func(w Weight) bool { return w.Value > 0 }) {
		return nil, nil
	}
	return NewWeights(all)
}

// weighed are the tables that are sharded, without those that others have as their parts.
func weighed(s *topology.Schema) (tables []*topology.Table) {
	for _, t := range s.Tables {
		if t.Kind == topology.Sharded && t.KeyType != topology.KeyNone && t.Parent.Name == "" {
			tables = append(tables, t)
		}
	}
	return tables
}

// cellsOf cuts each range into equal parts.
func cellsOf(ranges []Range) (cells []Weight) {
	each := max(1, weighCells/len(ranges))
	for _, r := range ranges {
		step := max(1, uint64(r.last()-r.Start)/uint64(each)+1)
		for start := r.Start; ; {
			if left := uint64(r.last() - start); left < step {
				cells = append(cells, Weight{Range: Range{start, r.End}})
				break
			}
			end := start + topology.KeyHash(step)
			cells = append(cells, Weight{Range: Range{start, end}})
			start = end
		}
	}
	return cells
}

// scale weighs the cells of one shard.
type scale struct {
	tables  []*topology.Table
	cells   []Weight            // in order
	foreign []topology.KeyRange // see Snapshot.Foreign
}

func (s *scale) weigh(ctx context.Context, query topology.Query) error {
	for _, t := range s.tables {
		if err := s.table(ctx, query, t); err != nil {
			return fmt.Errorf("table %v: %w", t, err)
		}
	}
	return nil
}

// table adds what one table weighs.
func (s *scale) table(ctx context.Context, query topology.Query, t *topology.Table) error {
	name := quote(t.Schema) + "." + quote(t.Name)
	sizes, err := query(ctx, `WITH RECURSIVE tree AS (SELECT `+literal(name)+`::pg_catalog.regclass::pg_catalog.oid AS id
		UNION ALL SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree ON i.inhparent = tree.id)
		SELECT coalesce(sum(pg_catalog.pg_total_relation_size(id)), 0), coalesce(sum(pg_catalog.pg_relation_size(id)), 0) / 8192 FROM tree`)
	if err != nil {
		return err
	}
	bytes, err := strconv.ParseFloat(sizes[0][0], 64)
	if err != nil {
		return err
	}
	pages, err := strconv.ParseFloat(sizes[0][1], 64)
	if err != nil || pages == 0 {
		return err
	}
	percent := min(100, 100*weighPages/pages)
	hash := t.KeyType.HashSQL(quote(t.KeyColumn()))
	counts := " IS NOT NULL"
	if len(s.foreign) > 0 {
		counts += " AND NOT " + string(topology.AppendInRanges(nil, hash, s.foreign))
	}
	rows, err := query(ctx, fmt.Sprintf(`SELECT pg_catalog.width_bucket(%s, '{%s}'::bigint[]), count(*) FROM %s TABLESAMPLE SYSTEM (%f) WHERE %s GROUP BY 1`,
		hash, s.borders(), name, percent, hash+counts))
	if err != nil {
		return err
	}
	return s.add(bytes, rows)
}

// borders are the starts of the cells, as the server has them.
func (s *scale) borders() string {
	var b strings.Builder
	for i, c := range s.cells {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(c.Start.Signed(), 10))
	}
	return b.String()
}

// add spreads bytes over the cells by the rows that were seen in each.
func (s *scale) add(bytes float64, rows [][]string) error {
	seen, counts := 0.0, make([]float64, len(s.cells))
	for _, row := range rows {
		bucket, err := strconv.Atoi(row[0])
		if err != nil {
			return err
		}
		n, err := strconv.ParseFloat(row[1], 64)
		if err != nil {
			return err
		}
		if bucket > 0 {
			counts[bucket-1] += n
			seen += n
		}
	}
	for i, n := range counts {
		if seen > 0 {
			s.cells[i].Value += bytes * n / seen
		}
	}
	return nil
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func literal(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
