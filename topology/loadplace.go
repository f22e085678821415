package topology

import "fmt"

// place places every table and gives them by name.
func (l *loader) place() map[TableName]*Table {
	tables := make(map[TableName]*Table, len(l.tables))
	for _, t := range l.tables {
		l.placeTable(t)
		tables[t.TableName] = &t.Table
	}
	for _, t := range l.tables {
		l.tellParents(t, t)
	}
	return tables
}

// tellParents marks all tables that child is a part of, from t's parents up: its triggers fire for them
// too, and the rows of a foreign table are theirs.
func (l *loader) tellParents(child, t *loadedTable) {
	for _, oid := range t.parents {
		parent := l.tables[oid]
		if parent == nil {
			continue
		}
		parent.Triggers = parent.Triggers || child.Triggers
		if child.Kind == Other {
			parent.refuse(fmt.Sprintf("foreign table %v is a part of it, whose rows are on another server", child.TableName))
		}
		l.tellParents(child, parent)
	}
}

// placeTable places t by the rules, or where its parents are: a query of a partitioned table or of
// an inheritance parent reads its children too. Inheritance has no cycles.
func (l *loader) placeTable(t *loadedTable) {
	if t.placed {
		return
	}
	t.placed = true
	var parents []*loadedTable
	for _, oid := range t.parents {
		if parent := l.tables[oid]; parent != nil {
			l.placeTable(parent)
			parents = append(parents, parent)
		}
	}
	if len(parents) == 0 {
		var err error
		t.Kind, t.Key, t.KeyType, err = l.rules.Place(t.TableName, t.Columns)
		if err != nil {
			t.Problem = err.Error()
		}
		return
	}
	t.inherit(&parents[0].Table)
	for _, parent := range parents[1:] {
		if parent.Kind != t.Kind || parent.KeyColumn() != t.KeyColumn() {
			t.refuse(fmt.Sprintf("table %v inherits from %v and %v, which are placed differently", t.TableName, t.Parent, parent.TableName))
		}
	}
	column, listed := l.rules.Explicit[t.TableName]
	if listed && column != t.KeyColumn() || l.rules.Reference[t.TableName] && t.Kind != Reference {
		t.refuse(fmt.Sprintf("the rules place table %v elsewhere than %v, of which it is a part", t.TableName, t.Parent))
	}
}

// inherit places t as parent is, whose columns t has, if in another order.
func (t *Table) inherit(parent *Table) {
	t.Parent, t.Kind, t.KeyType, t.Problem = parent.TableName, parent.Kind, parent.KeyType, parent.Problem
	if t.Kind == Sharded {
		t.Key = columnIndex(t.Columns, parent.KeyColumn())
	}
}

// refuse marks t as not to be placed.
func (t *Table) refuse(problem string) {
	t.Kind, t.KeyType, t.Problem = Sharded, KeyNone, problem
}
