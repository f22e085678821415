package mover

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"shardproxy/topology"
)

// shapeError says why a table cannot move.
type shapeError string

func (e shapeError) Error() string { return string(e) }

const errNoTable = shapeError("there is no such table")

// tableError says which table err is about.
type tableError struct {
	table topology.TableName
	err   error
}

func (e tableError) Error() string { return fmt.Sprintf("%s: %v", e.table, e.err) }
func (e tableError) Unwrap() error { return e.err }

// shapeReader reads catalogs; tx is in a transaction with one snapshot.
type shapeReader struct {
	tx interface {
		Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
		QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	}
	want []Table
	s    shape
}

func (r *shapeReader) read(ctx context.Context) (shape, error) {
	for _, want := range r.want {
		if err := r.table(ctx, want); err != nil {
			return nil, tableError{want.TableName, err}
		}
	}
	for _, t := range r.s {
		for _, step := range []func(context.Context, *table) error{r.columns, r.leaves, r.identity, r.triggers, r.references} {
			if err := step(ctx, t); err != nil {
				return nil, tableError{t.TableName, err}
			}
		}
	}
	return r.s, nil
}

func (r *shapeReader) table(ctx context.Context, want Table) error {
	const sql = `SELECT c.oid, c.relkind = 'p', c.relispartition, c.relkind IN ('r', 'p')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`
	t := &table{Table: want}
	var partition, rows bool
	switch err := r.tx.QueryRow(ctx, sql, want.Schema, want.Name).Scan(&t.OID, &t.Partitioned, &partition, &rows); {
	case errors.Is(err, pgx.ErrNoRows):
		return errNoTable
	case err != nil:
		return err
	case !rows:
		return shapeError("it is no table")
	case partition: // goes with its root
		return nil
	}
	r.s = append(r.s, t)
	return nil
}

// columns reads the columns. A type's binary form holds OIDs where it is made of user-defined types, which are
// others on the other side; that of an extension's type may differ by the extension's version.
func (r *shapeReader) columns(ctx context.Context, t *table) error {
	const sql = `SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid, a.attnotnull, a.attgenerated <> '', a.attidentity = 'a',
		coalesce(CASE t.typtype WHEN 'e' THEN true
			WHEN 'd' THEN b.typtype = 'e' OR b.oid < 16384 AND b.typsend <> 0 AND b.typreceive <> 0 AND b.typname !~ '^_?reg'
			ELSE t.oid < 16384 AND t.typsend <> 0 AND t.typreceive <> 0 AND t.typname !~ '^_?reg' END, false)
		FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_type b ON b.oid = t.typbasetype
		WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`
	rows, err := r.tx.Query(ctx, sql, t.OID)
	if err != nil {
		return err
	}
	t.Columns, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c column, err error) {
		return c, row.Scan(&c.Name, &c.Type, &c.OID, &c.NotNull, &c.Generated, &c.Always, &c.binary)
	})
	if err != nil {
		return err
	}
	if key, ok := t.column(t.Key); !ok || key.Generated {
		return shapeError(fmt.Sprintf("shard key %q is missing or generated", t.Key))
	}
	return nil
}

func (r *shapeReader) leaves(ctx context.Context, t *table) error {
	const sql = `SELECT n.nspname, c.relname, c.oid, c.relreplident::text, c.relkind = 'r' AND c.relpersistence = 'p' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = $1 AND NOT $2 OR $2 AND c.oid IN (SELECT relid FROM pg_partition_tree($1) WHERE isleaf) ORDER BY 1, 2`
	rows, err := r.tx.Query(ctx, sql, t.OID, t.Partitioned)
	if err != nil {
		return err
	}
	t.Leaves, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (l leaf, err error) {
		logged := false
		err = row.Scan(&l.Schema, &l.Name, &l.OID, &l.ReplicaIdentity, &logged)
		if !logged {
			t.Problem = fmt.Sprintf("%s is a foreign or unlogged table, whose changes are not in the log", l.TableName)
		}
		return l, err
	})
	return err
}

// identity finds the index by which the stream names rows: the primary key, or the one chosen by REPLICA IDENTITY
// USING INDEX. With REPLICA IDENTITY FULL the old row is there as a whole: the primary key is taken from it, or all of it where there is none.
func (r *shapeReader) identity(ctx context.Context, t *table) error {
	const sql = `SELECT a.attname, 'OPERATOR(' || quote_ident(n.nspname) || '.' || o.oprname || ')'
		FROM pg_class c
		JOIN pg_index i ON i.indrelid = c.oid AND CASE c.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
		CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) WITH ORDINALITY k(attnum, class, n)
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
		JOIN pg_opclass oc ON oc.oid = k.class
		JOIN pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
			AND ao.amopstrategy = 3 AND ao.amopmethod = oc.opcmethod
		JOIN pg_operator o ON o.oid = ao.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
		WHERE c.oid = $1 AND k.n <= i.indnkeyatts AND i.indisvalid AND i.indimmediate ORDER BY k.n`
	rows, err := r.tx.Query(ctx, sql, t.OID)
	if err != nil {
		return err
	}
	var name, equals string
	_, err = pgx.ForEachRow(rows, []any{&name, &equals}, func() error {
		t.Identity = append(t.Identity, name)
		for i := range t.Columns {
			if t.Columns[i].Name == name {
				t.Columns[i].equals = equals
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	switch {
	case t.Problem != "":
		return nil
	case len(t.Identity) == 0:
		for _, l := range t.Leaves {
			if l.ReplicaIdentity != "f" {
				t.Problem = "it has neither a primary key nor a replica identity index: add one, or ALTER TABLE " + quoteName(l.TableName) + " REPLICA IDENTITY FULL"
			}
		}
		t.Whole = true
		for _, c := range t.stored() {
			t.Identity = append(t.Identity, c.Name)
		}
		slices.Sort(t.Identity) // each side has an order of its own
		return nil
	}
	for _, l := range t.Leaves {
		if l.ReplicaIdentity == "n" || t.Partitioned && l.ReplicaIdentity == "i" {
			t.Problem = fmt.Sprintf("the replica identity of %s does not name its rows by the primary key", l.TableName)
		}
	}
	return nil
}

// triggers finds what would fire for the mover's rows if the session is no replica: all but the fence's, which know the
// mover, and PostgreSQL's own.
func (r *shapeReader) triggers(ctx context.Context, t *table) error {
	const sql = `SELECT 'trigger ' || g.tgname FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid JOIN pg_namespace n ON n.oid = p.pronamespace
			WHERE g.tgrelid = ANY($1) AND NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND n.nspname <> 'shardproxy'
		UNION SELECT 'rule ' || w.rulename FROM pg_rewrite w WHERE w.ev_class = ANY($1) AND w.ev_enabled IN ('O', 'A') ORDER BY 1`
	oids := []uint32{t.OID}
	for _, l := range t.Leaves {
		oids = append(oids, l.OID)
	}
	rows, err := r.tx.Query(ctx, sql, oids)
	if err != nil {
		return err
	}
	t.Triggers, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return err
}

func (r *shapeReader) references(ctx context.Context, t *table) error {
	const sql = `SELECT f.conname, f.confrelid, f.condeferrable, f.confupdtype IN ('c', 'n', 'd'),
		(SELECT array_agg(a.attname ORDER BY k.n) FROM unnest(f.conkey) WITH ORDINALITY k(num, n) JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.num)::text[],
		(SELECT array_agg(a.attname ORDER BY k.n) FROM unnest(f.confkey) WITH ORDINALITY k(num, n) JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.num)::text[]
		FROM pg_constraint f WHERE f.conrelid = $1 AND f.contype = 'f' AND f.conparentid = 0 ORDER BY 1`
	rows, err := r.tx.Query(ctx, sql, t.OID)
	if err != nil {
		return err
	}
	var f reference
	var parent uint32
	var child, referenced []string
	_, err = pgx.ForEachRow(rows, []any{&f.name, &parent, &f.deferrable, &f.cascades, &child, &referenced}, func() error {
		p := r.s.byRoot(parent)
		if p == nil {
			return nil // a reference table, or one that the spec forgot: the foreign key itself tells
		}
		f.parent = p.TableName
		i := slices.Index(child, t.Key)
		f.coLocated = i >= 0 && referenced[i] == p.Key
		t.References = append(t.References, f)
		return nil
	})
	return err
}

func (s shape) byRoot(oid uint32) *table {
	i := slices.IndexFunc(s, func(t *table) bool { return t.OID == oid })
	if i < 0 {
		return nil
	}
	return s[i]
}

// compare gives, per table, in what the target's differs from the source's.
func (s shape) compare(target shape) map[topology.TableName]string {
	different := map[topology.TableName]string{}
	for _, t := range s {
		other := target.byName(t.TableName)
		var what string
		switch {
		case other == nil:
			what = "it is not there"
		case t.Partitioned != other.Partitioned:
			what = "only one of the two is partitioned"
		case !slices.Equal(t.Identity, other.Identity):
			what = fmt.Sprintf("its primary key is (%v), on the source (%v)", other.Identity, t.Identity)
		default:
			what = differentColumns(t, other)
		}
		if what != "" {
			different[t.TableName] = what
		}
	}
	return different
}
