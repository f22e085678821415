package mover

import (
	"fmt"
	"slices"
	"strings"
)

// statement is one prepared statement of the applier.
type statement struct {
	name  string
	sql   string
	types []uint32 // of the parameters
	// Which values are its parameters, in order; those of the identity follow.
	columns  []int
	identity bool
}

// statementKey tells statements of one table apart: by kind and by which columns an update leaves out.
func statementKey(c *change) string {
	var b strings.Builder
	b.WriteByte(byte('a' + c.kind))
	if c.rekeyed {
		b.WriteByte('!')
	}
	for i := range c.values {
		if c.values[i].unchanged {
			fmt.Fprintf(&b, ",%d", i)
		}
	}
	return b.String()
}

// build writes the statement for a change. k is the table as the target has it, columns in the source's order.
func (k *tracked) build(c *change, moving ranges) statement {
	switch c.kind {
	case insertRow:
		return k.buildInsert()
	case deleteRow:
		b := builder{k: k}
		b.WriteString("DELETE FROM " + k.from() + " WHERE " + b.identified() + b.guard(moving))
		return b.done(nil, true)
	case updateOrInsert:
		return k.buildUpdateOrInsert(moving)
	}
	b := builder{k: k}
	var columns []int
	for i, col := range k.stored {
		if !c.values[i].unchanged && !col.Always && (c.rekeyed || !k.isIdentity(i)) {
			columns = append(columns, i)
		}
	}
	if len(columns) == 0 { // only whether the row is there is of interest
		b.WriteString("SELECT FROM " + k.from())
	} else {
		b.WriteString("UPDATE " + k.from() + " SET " + b.assign(columns))
	}
	always := k.changeable(c)
	checks := b.same(always)
	b.WriteString(" WHERE " + b.identified() + checks + b.guard(moving))
	return b.done(append(columns, always...), true)
}

// changeable are columns that cannot be SET, though they may have changed: where they differ, the update finds no row.
func (k *tracked) changeable(c *change) (list []int) {
	for i, col := range k.stored {
		if col.Always && !k.isIdentity(i) && !c.values[i].unchanged {
			list = append(list, i)
		}
	}
	return list
}

func (k *tracked) buildInsert() statement {
	b := builder{k: k}
	columns := k.allStored()
	b.WriteString("INSERT INTO " + quoteName(k.TableName) + " (" + b.names(columns) + ") OVERRIDING SYSTEM VALUE VALUES (" + b.parameters(columns) + ")")
	return b.done(columns, false)
}

// buildUpdateOrInsert must not be ON CONFLICT: a row of another range with the same identity has to be an error.
func (k *tracked) buildUpdateOrInsert(moving ranges) statement {
	b := builder{k: k}
	columns := k.allStored()
	parameters := b.parameters(columns)
	var set []string
	var found []string
	for n, i := range columns {
		if k.isIdentity(i) {
			found = append(found, fmt.Sprintf("%s %s $%d", quote(k.stored[i].Name), k.stored[i].equals, n+1))
		} else {
			set = append(set, fmt.Sprintf("%s = $%d", quote(k.stored[i].Name), n+1))
		}
	}
	if len(set) == 0 {
		set = append(set, fmt.Sprintf("%s = $%d", quote(k.stored[k.key].Name), k.key+1))
	}
	fmt.Fprintf(&b, "WITH found AS (UPDATE %s SET %s WHERE %s%s RETURNING 1) INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s WHERE NOT EXISTS (SELECT FROM found)",
		k.from(), strings.Join(set, ", "), strings.Join(found, " AND "), b.guard(moving), quoteName(k.TableName), b.names(columns), parameters)
	return b.done(columns, false)
}

func (k *tracked) allStored() []int {
	all := make([]int, len(k.stored))
	for i := range all {
		all[i] = i
	}
	return all
}

// builder writes SQL and numbers its parameters.
type builder struct {
	strings.Builder
	k     *tracked
	types []uint32
}

func (b *builder) parameter(column int) string {
	b.types = append(b.types, b.k.stored[column].OID)
	return fmt.Sprintf("$%d", len(b.types))
}

func (b *builder) names(columns []int) string {
	var list []string
	for _, i := range columns {
		list = append(list, quote(b.k.stored[i].Name))
	}
	return strings.Join(list, ", ")
}

func (b *builder) parameters(columns []int) string {
	var list []string
	for _, i := range columns {
		list = append(list, b.parameter(i))
	}
	return strings.Join(list, ", ")
}

func (b *builder) assign(columns []int) string {
	var list []string
	for _, i := range columns {
		list = append(list, quote(b.k.stored[i].Name)+" = "+b.parameter(i))
	}
	return strings.Join(list, ", ")
}

func (b *builder) same(columns []int) string {
	s := ""
	for _, i := range columns {
		s += " AND " + quote(b.k.stored[i].Name) + " IS NOT DISTINCT FROM " + b.parameter(i)
	}
	return s
}

// identified finds the row; its parameters come last.
func (b *builder) identified() string {
	if b.k.Whole {
		return b.oneOfEqual()
	}
	var list []string
	for _, i := range b.k.identity {
		list = append(list, quote(b.k.stored[i].Name)+" "+b.k.stored[i].equals+" "+b.parameter(i))
	}
	return strings.Join(list, " AND ")
}

// oneOfEqual finds one of the rows that are equal to the last byte: a column's type need not know of equality. The key is asked for
// by itself for the sake of an index.
func (b *builder) oneOfEqual() string {
	first := len(b.types)
	columns, from := b.k.identity, b.k.from()
	values := b.parameters(columns)
	key := fmt.Sprintf("%s OPERATOR(pg_catalog.=) $%d", quote(b.k.stored[b.k.key].Name), first+1+slices.Index(columns, b.k.key))
	return fmt.Sprintf("(tableoid, ctid) = (SELECT tableoid, ctid FROM %s WHERE %s AND pg_catalog.record_image_eq(ROW(%s), ROW(%s)) LIMIT 1)",
		from, key, b.names(columns), values)
}

// guard keeps rows of other ranges out, which may have the same identity.
func (b *builder) guard(moving ranges) string {
	if moving.all() {
		return ""
	}
	return " AND " + moving.predicate(b.k.hashSQL(""))
}

func (b *builder) done(columns []int, identity bool) statement {
	return statement{sql: b.String(), types: b.types, columns: columns, identity: identity}
}

// values gives the parameters for a change.
func (s *statement) values(c *change, into [][]byte) [][]byte {
	into = into[:0]
	for _, i := range s.columns {
		into = append(into, c.values[i].value)
	}
	if s.identity {
		into = append(into, c.identity...)
	}
	return into
}

// onTarget is k with the types and operators of the target, in the order of the source's columns.
func (k *tracked) onTarget(t *table) *tracked {
	own := *k
	own.table = t
	own.stored = nil
	for _, c := range k.stored {
		other, _ := t.column(c.Name) // the shapes were compared
		own.stored = append(own.stored, other)
	}
	return &own
}
