package mover

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

const (
	// samplePages of a table's heap tell how many of its rows move.
	samplePages = 1000
	// collisionBatch is how many ids are looked up at once.
	collisionBatch = 20_000
	// collisionsNamed is how many colliding ids a problem names.
	collisionsNamed = 5
)

// compare looks for differences of the two sides.
func (p *preflight) compare() {
	for name, what := range p.shape[Source].compare(p.shape[Target]) {
		p.problem(Target, name, "make the tables equal", "%s", what)
	}
	for _, t := range p.shape[Source] {
		other := p.shape[Target].byName(t.TableName)
		if other == nil {
			continue
		}
		for _, c := range t.Columns {
			if o, ok := other.column(c.Name); ok && o.NotNull && !c.NotNull {
				p.problem(Target, t.TableName, "", "column %q is NOT NULL, on the source it is not", c.Name)
			}
		}
		for _, l := range t.Leaves {
			if t.Partitioned && !slices.ContainsFunc(other.Leaves, func(o leaf) bool { return o.TableName == l.TableName }) {
				p.warn(Target, t.TableName, "create it, unless another takes its rows", "there is no partition %s", l.TableName)
			}
		}
	}
}

// references looks at foreign keys among the moving tables.
func (p *preflight) references() {
	s := p.shape[Source]
	for _, t := range s {
		for _, f := range t.References {
			if !f.coLocated {
				p.problem(Source, t.TableName, "a foreign key must have the shard keys of both tables among its columns",
					"by foreign key %q a row may refer to one that does not move with it", f.name)
			}
			if f.cascades && !p.report.Replica[Target] {
				p.warn(Target, t.TableName, "GRANT SET ON PARAMETER session_replication_role TO the mover's role",
					"foreign key %q changes rows by itself, which the stream does again, slowly", f.name)
			}
		}
	}
	if _, err := s.levels(); err != nil && !p.report.Replica[Target] {
		p.problem(Target, noTable, "GRANT SET ON PARAMETER session_replication_role TO the mover's role", "the foreign keys of the tables form a circle")
	}
}

// size estimates from a sample, because keys may be spread unevenly.
func (p *preflight) size(ctx context.Context, t *table) error {
	r := TableReport{Table: t.TableName, Binary: t.binary()}
	conn := p.conn[Source]
	for _, l := range t.Leaves {
		var bytes, heap int64
		const size = `SELECT pg_total_relation_size($1::oid), pg_relation_size($1::oid) / current_setting('block_size')::int8`
		if err := conn.QueryRow(ctx, size, l.OID).Scan(&bytes, &heap); err != nil {
			return err
		}
		r.Bytes += bytes
		if heap == 0 {
			continue
		}
		percent := min(100, 100*float64(samplePages)/float64(heap))
		sql := fmt.Sprintf("SELECT count(*), count(*) FILTER (WHERE %s) FROM %s TABLESAMPLE SYSTEM (%f)",
			p.mover.ranges.predicate(t.hashSQL("")), l.only(), percent)
		var all, moving int64
		if err := conn.QueryRow(ctx, sql).Scan(&all, &moving); err != nil {
			return err
		}
		r.Rows += int64(float64(all) * 100 / percent)
		r.MovingRows += int64(float64(moving) * 100 / percent)
		if all > 0 {
			r.MovingBytes += int64(float64(bytes) * float64(moving) / float64(all))
		}
	}
	p.report.Tables = append(p.report.Tables, r)
	return nil
}

// target looks at the rows that the target has.
func (p *preflight) target(ctx context.Context, t, other *table) error {
	there, err := p.mover.anyRow(ctx, p.conn[Target], other)
	if err != nil {
		return err
	}
	if there {
		p.problem(Target, t.TableName, "clean up what an earlier move left", "there are rows of the ranges already")
	}
	if p.options.SkipCollisions {
		return nil
	}
	indexes, err := p.indexesWithoutKey(ctx, other)
	if err != nil {
		return err
	}
	for _, index := range indexes {
		found, err := p.collisions(ctx, t, other, index)
		if err != nil {
			return fmt.Errorf("unique index %s: %w", index.name, err)
		}
		if len(found) > 0 {
			p.problem(Target, t.TableName, "give the rows other values, or add the shard key to the index",
				"rows of other ranges have the same (%s) in unique index %s: %s", strings.Join(index.expressions, ", "), index.name, strings.Join(found, ", "))
		}
	}
	return nil
}

// uniqueIndex is one that does not keep rows of different keys apart.
type uniqueIndex struct {
	name        string
	expressions []string // as SQL
	types       []string
	where       string
	nulls       bool // NULLs are equal
}

func (p *preflight) indexesWithoutKey(ctx context.Context, t *table) (list []uniqueIndex, err error) {
	var version int
	conn := p.conn[Target]
	if err := conn.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return nil, err
	}
	nulls := "false"
	if version >= 150000 {
		nulls = "i.indnullsnotdistinct"
	}
	sql := `SELECT c.relname, array(SELECT pg_get_indexdef(i.indexrelid, n, true) FROM generate_series(1, i.indnkeyatts) n)::text[],
		array(SELECT format_type(a.atttypid, -1) FROM pg_attribute a WHERE a.attrelid = i.indexrelid AND a.attnum <= i.indnkeyatts ORDER BY a.attnum)::text[],
		coalesce(pg_get_expr(i.indpred, i.indrelid), 'true'), ` + nulls + `
		FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		WHERE i.indrelid = $1 AND i.indisunique AND NOT EXISTS (SELECT FROM unnest(i.indkey[0:i.indnkeyatts - 1]) k(num) JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num WHERE a.attname = $2)
		ORDER BY 1`
	rows, err := conn.Query(ctx, sql, t.OID, t.Key)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (u uniqueIndex, err error) {
		return u, row.Scan(&u.name, &u.expressions, &u.types, &u.where, &u.nulls)
	})
}

// collisions looks up, in batches, the values of all rows that move among the target's rows.
func (p *preflight) collisions(ctx context.Context, t, other *table, index uniqueIndex) (found []string, err error) {
	text := make([]string, len(index.expressions))
	for i, e := range index.expressions {
		text[i] = "(" + e + ")::text"
	}
	sql := fmt.Sprintf("DECLARE moving NO SCROLL CURSOR FOR SELECT ARRAY[%s]::text[] FROM %s WHERE %s AND (%s)",
		strings.Join(text, ", "), t.from(), p.mover.ranges.predicate(t.hashSQL("")), index.where)
	err = pgx.BeginFunc(ctx, p.conn[Source], func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sql, pgx.QueryExecModeExec); err != nil {
			return err
		}
		for len(found) < collisionsNamed {
			rows, err := tx.Query(ctx, fmt.Sprintf("FETCH %d FROM moving", collisionBatch))
			if err != nil {
				return err
			}
			batch, err := pgx.CollectRows(rows, pgx.RowTo[[]*string])
			if err != nil || len(batch) == 0 {
				return err
			}
			some, err := p.lookUp(ctx, other, index, batch)
			if err != nil {
				return err
			}
			found = append(found, some...)
		}
		return nil
	})
	return found[:min(len(found), collisionsNamed)], err
}

func (p *preflight) lookUp(ctx context.Context, t *table, index uniqueIndex, batch [][]*string) ([]string, error) {
	columns := make([]any, len(index.expressions))
	var arrays, conditions []string
	for i, e := range index.expressions {
		values := make([]*string, len(batch))
		for n, row := range batch {
			values[n] = row[i]
		}
		columns[i] = values
		arrays = append(arrays, fmt.Sprintf("$%d::text[]", i+1))
		equals := "="
		if index.nulls {
			equals = "IS NOT DISTINCT FROM"
		}
		conditions = append(conditions, fmt.Sprintf("(%s) %s v%d::%s", e, equals, i, index.types[i]))
	}
	names := make([]string, len(columns))
	for i := range names {
		names[i] = fmt.Sprintf("v%d", i)
	}
	sql := fmt.Sprintf("SELECT concat_ws(' ', %s) FROM unnest(%s) ids(%s) JOIN %s x ON %s WHERE (%s) AND NOT %s LIMIT %d",
		strings.Join(names, ", "), strings.Join(arrays, ", "), strings.Join(names, ", "), t.from(), strings.Join(conditions, " AND "),
		index.where, p.mover.ranges.predicate(t.hashSQL("x")), collisionsNamed)
	rows, err := p.conn[Target].Query(ctx, sql, columns...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
