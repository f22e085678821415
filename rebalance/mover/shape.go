package mover

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"shardproxy/topology"
)

// shape is what the mover must know of the moving tables of one side.
type shape []*table

// table is one moving table. Partitions belong to their root; what inherits in the old way is a table of its own.
type table struct {
	Table
	OID         uint32
	Partitioned bool
	Identity    []string // the columns by which the stream names a row
	Whole       bool     // that are all of them, as nothing is unique: of equal rows, any one is meant
	Columns     []column // in the order of the table
	Leaves      []leaf   // what holds its rows: the table itself or its partitions

	// Problem is why rows cannot be named, "" where all is well.
	Problem string `json:"-"`
	// Triggers are user triggers and rules that would fire for the mover's rows.
	Triggers []string `json:"-"`
	// References are its foreign keys to moving tables.
	References []reference `json:"-"`
}

// column is one live column.
type column struct {
	Name      string
	Type      string // as format_type spells it
	OID       uint32 // of the type
	NotNull   bool
	Generated bool // GENERATED ALWAYS AS (…) STORED
	Always    bool // GENERATED ALWAYS AS IDENTITY: cannot be SET

	equals string // the operator of its identity index, as SQL
	binary bool   // its binary form means the same on every server
}

// leaf is a table that holds rows.
type leaf struct {
	topology.TableName
	OID             uint32
	ReplicaIdentity string // pg_class.relreplident
}

// reference is a foreign key.
type reference struct {
	name       string
	parent     topology.TableName
	deferrable bool
	coLocated  bool // the shard keys are among its columns, and meet
	cascades   bool // ON UPDATE CASCADE and the like
}

// source gives what rows are read from or deleted from: ONLY, so that children by inheritance are left to themselves.
func (l leaf) only() string { return "ONLY " + quoteName(l.TableName) }

// from is the table with all its rows.
func (t *table) from() string {
	if t.Partitioned {
		return quoteName(t.TableName)
	}
	return "ONLY " + quoteName(t.TableName)
}

// stored are the columns that are written; generated ones come by themselves.
func (t *table) stored() (list []column) {
	for _, c := range t.Columns {
		if !c.Generated {
			list = append(list, c)
		}
	}
	return list
}

func (t *table) column(name string) (column, bool) {
	i := slices.IndexFunc(t.Columns, func(c column) bool { return c.Name == name })
	if i < 0 {
		return column{}, false
	}
	return t.Columns[i], true
}

// binary says whether COPY may use the binary format.
func (t *table) binary() bool {
	return !slices.ContainsFunc(t.Columns, func(c column) bool { return !c.Generated && !c.binary })
}

func (s shape) byName(n topology.TableName) *table {
	i := slices.IndexFunc(s, func(t *table) bool { return t.TableName == n })
	if i < 0 {
		return nil
	}
	return s[i]
}

// byOID finds the table whose rows the relation holds.
func (s shape) byOID(oid uint32) *table {
	for _, t := range s {
		if t.OID == oid || slices.ContainsFunc(t.Leaves, func(l leaf) bool { return l.OID == oid }) {
			return t
		}
	}
	return nil
}

// differs says in what way the table is another than t, as far as the move depends on it. A partition more does
// no harm; one less took rows away that the stream did not tell of.
func (t *table) differs(now *table) string {
	if now == nil {
		return "it is gone"
	}
	if t.OID != now.OID {
		return "it was created anew"
	}
	if what := differentColumns(t, now); what != "" {
		return what
	}
	if !slices.Equal(t.Identity, now.Identity) {
		return "its replica identity is another"
	}
	for _, l := range t.Leaves {
		i := slices.IndexFunc(now.Leaves, func(n leaf) bool { return n.OID == l.OID })
		switch {
		case i < 0:
			return fmt.Sprintf("partition %s is gone", l.TableName)
		case now.Leaves[i].ReplicaIdentity != l.ReplicaIdentity:
			return fmt.Sprintf("the replica identity of %s is another", l.TableName)
		}
	}
	return ""
}

// differentColumns names a column that a has and b has not, or the other way round, or that differs.
func differentColumns(a, b *table) string {
	for _, c := range a.Columns {
		other, ok := b.column(c.Name)
		switch {
		case !ok:
			return fmt.Sprintf("column %q is missing", c.Name)
		case c.Type != other.Type:
			return fmt.Sprintf("column %q is of type %s, was %s", c.Name, other.Type, c.Type)
		case c.Generated != other.Generated || c.Always != other.Always:
			return fmt.Sprintf("column %q is generated in another way", c.Name)
		}
	}
	for _, c := range b.Columns {
		if _, ok := a.column(c.Name); !ok {
			return fmt.Sprintf("there is a new column %q", c.Name)
		}
	}
	return ""
}

// readShape reads the tables of the spec as one side has them.
func (m *Mover) readShape(ctx context.Context, conn *pgx.Conn) (shape, error) {
	var s shape
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		r := shapeReader{tx: tx, want: m.spec.Tables}
		s, err = r.read(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the tables: %w", err)
	}
	return s, nil
}
