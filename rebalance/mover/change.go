package mover

import "fmt"

// changeKind says what is to be done on the target.
type changeKind uint8

const (
	insertRow changeKind = iota
	// updateRow finds one row. If it does not, the row is inserted anew (replace.go): it came into the range, or this is a
	// change that the target's own foreign keys have already made.
	updateRow
	// updateOrInsert is for a row that may have come into the range: the stream does not tell its old key.
	updateOrInsert
	// updateIfThere is for a row whose key did not change and is not known.
	updateIfThere
	deleteRow // if it is there
	commitAt  // the end of a source transaction with changes
	position  // there is nothing more before lsn
)

// change is one step for the applier. Values are in PostgreSQL's text form.
type change struct {
	kind     changeKind
	lsn      LSN      // commitAt, position: where; others: the commit record of their transaction
	xid      uint32   // the transaction on the source
	table    *tracked // none for commitAt and position
	values   []datum  // the new row, in the order of table.stored
	identity [][]byte // which row to update or delete
	rekeyed  bool     // identity is not that of values
	size     int      // in bytes, with what holds it
}

// changeOverhead is about what a change needs beside its values.
const changeOverhead = 160

// membership of a row in the moving ranges.
type membership uint8

const (
	unknown membership = iota
	inside
	outside
)

// tracked is a table as the stream sees it.
type tracked struct {
	*table
	index    int // among the tables of the move
	stored   []column
	key      int   // index into stored
	identity []int // indexes into stored
}

func newTracked(t *table, index int) (*tracked, error) {
	k := &tracked{table: t, index: index, stored: t.stored(), key: -1}
	for i, c := range k.stored {
		if c.Name == t.Key {
			k.key = i
		}
	}
	for _, name := range t.Identity {
		i := indexOf(k.stored, name)
		if i < 0 {
			return nil, ErrSchemaChanged{t.TableName, fmt.Sprintf("its identity column %q is generated", name)}
		}
		k.identity = append(k.identity, i)
	}
	if k.key < 0 || len(k.identity) == 0 {
		return nil, ErrSchemaChanged{t.TableName, "it has lost its shard key or its identity"}
	}
	return k, nil
}

func indexOf(columns []column, name string) int {
	for i, c := range columns {
		if c.Name == name {
			return i
		}
	}
	return -1
}

// relation is a table or partition as a Relation message describes it: order holds, for each of the table's stored
// columns, its place in the relation's tuples.
type relation struct {
	*tracked
	order   []int
	keyKnew bool // the old key is in a tuple of kind K
}

// relate maps a Relation message to the table; its columns must be those of when the move was prepared.
func (k *tracked) relate(m relationMessage) (*relation, error) {
	r := &relation{tracked: k}
	if len(m.columns) != len(k.stored) {
		return nil, ErrSchemaChanged{k.TableName, fmt.Sprintf("%s has %d columns, %d were expected", m.name, len(m.columns), len(k.stored))}
	}
	for _, want := range k.stored {
		found := -1
		for i, c := range m.columns {
			if c.name == want.Name && c.typeOID == want.OID {
				found = i
				r.keyKnew = r.keyKnew || want.Name == k.Key && c.identity
			}
		}
		if found < 0 {
			return nil, ErrSchemaChanged{k.TableName, fmt.Sprintf("%s has no column %q of type %s", m.name, want.Name, want.Type)}
		}
		r.order = append(r.order, found)
	}
	return r, nil
}

// row brings a tuple into the order of the table, and copies its values: the message's buffer is used again.
func (r *relation) row(tuple []datum) (row []datum, size int, err error) {
	if len(tuple) != len(r.order) {
		return nil, 0, fmt.Errorf("pgoutput: a row of %s has %d columns", r.TableName, len(tuple))
	}
	for i := range tuple {
		size += len(tuple[i].value)
	}
	buffer := make([]byte, 0, size)
	row = make([]datum, len(tuple))
	for i, from := range r.order {
		d := tuple[from]
		if d.value != nil {
			buffer = append(buffer, d.value...)
			d.value = buffer[len(buffer)-len(d.value) : len(buffer) : len(buffer)]
		}
		row[i] = d
	}
	return row, size + 32*len(row), nil
}

// where says on which side of the border a key lies. d is nil where the stream does not tell.
func (r *relation) where(moving ranges, d *datum) (membership, error) {
	if d == nil || d.unchanged {
		return unknown, nil
	}
	if d.value == nil {
		return outside, nil // the database lets no range own it
	}
	h, err := r.hash(d.value)
	switch {
	case err != nil:
		return unknown, fmt.Errorf("key of table %s: %w", r.TableName, err)
	case moving.contain(h):
		return inside, nil
	}
	return outside, nil
}

// keyOf finds the key in a tuple as it came, nil if it is not told.
func (r *relation) keyOf(tuple []datum, kind byte) *datum {
	if kind == 0 || kind == 'K' && !r.keyKnew {
		return nil
	}
	if at := r.order[r.key]; at < len(tuple) {
		return &tuple[at]
	}
	return nil
}

// changes turns a row message into what the target must do: none, one, or two steps.
func (r *relation) changes(m rowMessage, moving ranges, at LSN) (list []change, err error) {
	oldKey, newKey := r.keyOf(m.old, m.oldKind), r.keyOf(m.new, 'N')
	switch m.kind {
	case 'I':
		is, err := r.where(moving, newKey)
		if is != inside {
			return nil, err
		}
		return r.insert(m.new, at)
	case 'D':
		was, err := r.where(moving, oldKey)
		if was == outside || err != nil {
			return nil, err
		}
		return r.delete(m.old, at)
	}
	if newKey != nil && newKey.unchanged && oldKey != nil && !oldKey.unchanged {
		newKey = oldKey
	}
	if oldKey == nil && r.keyKnew {
		oldKey = newKey // the identity did not change, and the key is part of it
	}
	was, err := r.where(moving, oldKey)
	if err != nil {
		return nil, err
	}
	is, err := r.where(moving, newKey)
	if err != nil {
		return nil, err
	}
	switch {
	case is == outside && was == outside:
		return nil, nil
	case is == outside:
		if m.oldKind == 0 {
			return r.delete(m.new, at)
		}
		return r.delete(m.old, at)
	}
	return r.update(m, was, is, at)
}

func (r *relation) insert(tuple []datum, at LSN) ([]change, error) {
	row, size, err := r.row(tuple)
	return []change{{kind: insertRow, lsn: at, table: r.tracked, values: row, size: size + changeOverhead}}, err
}

func (r *relation) delete(tuple []datum, at LSN) ([]change, error) {
	row, size, err := r.row(tuple)
	if err != nil {
		return nil, err
	}
	return []change{{kind: deleteRow, lsn: at, table: r.tracked, identity: r.identityOf(row), size: size + changeOverhead}}, nil
}

// update is of a row that is, or may be, inside.
func (r *relation) update(m rowMessage, was, is membership, at LSN) ([]change, error) {
	row, size, err := r.row(m.new)
	if err != nil {
		return nil, err
	}
	c := change{kind: updateRow, lsn: at, table: r.tracked, values: row, size: size + changeOverhead}
	var old []datum
	if m.oldKind != 0 {
		if old, size, err = r.row(m.old); err != nil {
			return nil, err
		}
		c.size += size
		r.complete(row, old, m.oldKind)
	}
	c.identity = r.identityOf(row)
	if old != nil {
		c.identity = r.identityOf(old)
		c.rekeyed = !r.sameIdentity(row, old)
	}
	missing := hasUnchanged(row)
	switch {
	case was == outside && !missing:
		c.kind = insertRow
	case is == unknown:
		c.kind = updateIfThere
	case was == unknown && !missing && !c.rekeyed && !r.alwaysOutsideIdentity():
		c.kind = updateOrInsert
	}
	if c.kind != insertRow && c.rekeyed && r.alwaysInIdentity() {
		return r.replace(c)
	}
	return []change{c}, nil
}

// replace is an update by delete and insert, for a column that cannot be SET.
func (r *relation) replace(c change) ([]change, error) {
	gone := change{kind: deleteRow, lsn: c.lsn, table: c.table, identity: c.identity, size: c.size}
	c.identity, c.rekeyed = r.identityOf(c.values), false
	if !hasUnchanged(c.values) {
		c.kind = insertRow
	}
	return []change{gone, c}, nil
}

// complete fills values that were left out of the new row from the old one, where the old one has them.
func (r *relation) complete(row, old []datum, kind byte) {
	for i := range row {
		if row[i].unchanged && !old[i].unchanged && (kind == 'O' || r.isIdentity(i)) {
			row[i] = old[i]
		}
	}
}

func (k *tracked) isIdentity(column int) bool {
	for _, i := range k.identity {
		if i == column {
			return true
		}
	}
	return false
}

func (k *tracked) identityOf(row []datum) [][]byte {
	id := make([][]byte, len(k.identity))
	for n, i := range k.identity {
		id[n] = row[i].value
	}
	return id
}

func (k *tracked) sameIdentity(a, b []datum) bool {
	for _, i := range k.identity {
		if (a[i].value == nil) != (b[i].value == nil) || string(a[i].value) != string(b[i].value) {
			return false
		}
	}
	return true
}

func (k *tracked) alwaysInIdentity() bool {
	for _, i := range k.identity {
		if k.stored[i].Always {
			return true
		}
	}
	return false
}

// alwaysOutsideIdentity is true where an update could only be made by delete and insert, if that column changed.
func (k *tracked) alwaysOutsideIdentity() bool {
	for i, c := range k.stored {
		if c.Always && !k.isIdentity(i) {
			return true
		}
	}
	return false
}

func hasUnchanged(row []datum) bool {
	for i := range row {
		if row[i].unchanged {
			return true
		}
	}
	return false
}

// trackAll prepares the tables for the stream.
func trackAll(s shape) ([]*tracked, error) {
	var list []*tracked
	for i, t := range s {
		k, err := newTracked(t, i)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return list, nil
}
