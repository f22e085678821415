package router

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// insertStmt reads INSERT. The new row's shard key must be a constant, or a column that is proven
// to be a key of the shard where the statement runs.
func (a *analysis) insertStmt(s *pg.InsertStmt, outer *scope, env *cteEnv, lv *level) rowset {
	env = a.with(s.WithClause, outer, env)
	it, table, ok := a.target(s.Relation)
	it.open = it.open || !ok
	sc := &scope{items: []*item{it}, parent: outer, level: lv, ctes: env}
	var rows rowset
	switch source := s.SelectStmt.GetSelectStmt(); {
	case source == nil:
		if ok {
			a.insertColumns(table, nil, 0, s.Override)
			a.undrawn = true
			a.insertRows(make([]keySource, 0, 1), 1, lv, table, it)
		}
	case plainValues(source):
		a.insertValues(s, source, outer, env, lv, table, it)
	default:
		rows = a.insertSelect(s, outer, env, lv, table, it)
	}
	a.onConflict(s, sc, table, it)
	rows.columns, rows.open = nil, false
	a.returning(s.ReturningList, sc, &rows)
	return rows
}

// plainValues says that a source of rows is VALUES and nothing around it.
func plainValues(s *pg.SelectStmt) bool {
	return len(s.ValuesLists) > 0 && s.WithClause == nil && len(s.SortClause) == 0 && s.LimitCount == nil && s.LimitOffset == nil && len(s.LockingClause) == 0
}

// insertColumns gives the index of the column that each value goes to, and notes the defaults of
// all others but the shard key. width is the number of values in a row.
func (a *analysis) insertColumns(table *topology.Table, list []*pg.Node, width int, override pg.OverridingKind) []int {
	var columns []int
	given := make([]bool, len(table.Columns))
	for _, n := range list {
		i := columnIndex(table, n.GetResTarget().GetName())
		columns = append(columns, i)
		if i < 0 {
			a.parseOnly = true // 42703 is the shard's to report
		} else {
			given[i] = true
		}
	}
	if len(list) == 0 {
		for i := range min(width, len(table.Columns)) {
			columns = append(columns, i)
			given[i] = true
		}
	}
	if len(columns) != width {
		a.parseOnly = true // 42601
	}
	for i, c := range table.Columns {
		switch {
		case table.Kind == topology.Sharded && i == table.Key && !given[i]: // the caller's to judge
		case !given[i] || c.Sequence && override == pg.OverridingKind_OVERRIDING_USER_VALUE:
			a.defaulted(table, i)
		}
	}
	return columns
}

func missingKey(table *topology.Table) *Error {
	c := table.Columns[table.Key]
	if c.Default == 0 && !c.Sequence {
		return nullKeyError(table)
	}
	return &Error{
		Code: codeNotSupported, Hint: "Give the value in the statement.",
		Message: "the default of the shard key " + quoteName(table.Name) + "." + quoteName(c.Name) + " cannot be used: the row's shard depends on it",
	}
}

// noKey is the refusal of new rows whose key is none that is known.
func noKey(table *topology.Table, columns []int) *Error {
	if slices.Contains(columns, table.Key) {
		return computedKey(table)
	}
	return missingKey(table)
}

func computedKey(table *topology.Table) *Error {
	return &Error{
		Code:    codeNotSupported,
		Message: "the value of the shard key " + quoteName(table.Name) + "." + quoteName(table.KeyColumn()) + " is not known before the statement runs",
		Hint:    "Give it as a literal or parameter, or select it from the shard key of another table.",
	}
}

// insertValues reads INSERT … VALUES.
func (a *analysis) insertValues(s *pg.InsertStmt, source *pg.SelectStmt, outer *scope, env *cteEnv, lv *level, table *topology.Table, it *item) {
	sc := &scope{parent: outer, level: lv, ctes: env}
	var columns []int
	if table != nil {
		columns = a.insertColumns(table, s.Cols, len(source.ValuesLists[0].GetList().GetItems()), s.Override)
	}
	if table != nil && lv.top && slices.ContainsFunc(table.Columns, func(c topology.Column) bool { return c.Sequence }) && !a.parseOnly {
		a.drawDefaults(s, table, columns)
	} else {
		a.undrawn = a.undrawn || !lv.top
	}
	rows := make([]keySource, 0, len(source.ValuesLists))
	for _, n := range source.ValuesLists {
		cells := n.GetList().GetItems()
		for i, c := range columns {
			switch {
			case i >= len(cells) || c < 0:
				a.parseOnly = true
			case table.Kind == topology.Sharded && c == table.Key:
				if k, ok := a.insertedKey(table, cells[i], sc, it.relations[0].key(), len(source.ValuesLists) == 1); ok {
					rows = append(rows, k)
				}
			case cells[i].GetSetToDefault() != nil:
				a.defaulted(table, c)
			default:
				a.mark(cells[i], topology.KeyTypeOf(table.Columns[c].Type), false)
			}
		}
		for i, cell := range cells {
			if i < len(columns) && table.Kind == topology.Sharded && columns[i] == table.Key {
				continue // insertedKey has read it
			}
			a.expression(cell, sc)
		}
	}
	if table != nil && (len(rows) > 0 || !slices.Contains(columns, table.Key)) {
		a.insertRows(rows, len(source.ValuesLists), lv, table, it)
	}
}

// insertRows takes the keys of count new rows. None at all are those of rows without a key.
func (a *analysis) insertRows(rows keySet, count int, lv *level, table *topology.Table, it *item) {
	if table.Kind != topology.Sharded {
		return
	}
	if len(rows) == 0 && !failsByDefault(table) {
		a.refuseDraw(missingKey(table))
		return
	}
	if len(rows) == 0 {
		for range count {
			rows = append(rows, noValue(table))
		}
	}
	if len(rows) != count {
		return // refused
	}
	key := it.relations[0].key()
	key.among = append(key.among, rows)
	if lv.top {
		a.insert = rows
	}
}

// noValue is the key of a row that fails by default.
func noValue(table *topology.Table) keySource {
	return keySource{origin: fromNull, keyType: table.KeyType, null: nullFails}
}

// insertedKey reads the value that a new row has as its shard key. Where the row is the only one,
// it may be a sub-query that selects a key.
func (a *analysis) insertedKey(table *topology.Table, n *pg.Node, sc *scope, key *node, only bool) (keySource, bool) {
	if n.GetSetToDefault() != nil {
		if failsByDefault(table) {
			return noValue(table), true
		}
		a.refuseDraw(missingKey(table))
		return keySource{}, false
	}
	if sub := n.GetSubLink(); sub != nil && sub.SubLinkType == pg.SubLinkType_EXPR_SUBLINK && only {
		rows := a.subquery(sub, sc)
		if len(rows.columns) != 1 || rows.open || !a.storedFrom(table, key, rows.columns[0].node) {
			a.refuse(computedKey(table))
		}
		return keySource{}, false
	}
	a.expression(n, sc)
	a.mark(n, table.KeyType, false)
	s, ok := a.constant(n, table.KeyType)
	if !ok {
		a.refuse(computedKey(table))
		return keySource{}, false
	}
	return a.stored(table, s), true
}

// insertSelect reads INSERT … SELECT.
func (a *analysis) insertSelect(s *pg.InsertStmt, outer *scope, env *cteEnv, lv *level, table *topology.Table, it *item) rowset {
	rows := a.query(s.SelectStmt, outer, env, &level{top: lv.top})
	if table == nil {
		return rows
	}
	width := len(rows.columns)
	if rows.open {
		width = max(len(s.Cols), 0)
		if width == 0 {
			width = len(table.Columns)
		}
	}
	columns := a.insertColumns(table, s.Cols, width, s.Override)
	a.undrawn = true
	if a.conflictNothing(s) {
		a.diverge("ON CONFLICT DO NOTHING may keep another of several rows on each shard")
	}
	if table.Kind != topology.Sharded {
		return rows
	}
	for i, c := range columns {
		if c == table.Key && !rows.open && i < len(rows.columns) && a.storedFrom(table, it.relations[0].key(), rows.columns[i].node) {
			return rows
		}
	}
	a.refuse(noKey(table, columns))
	return rows
}

func (a *analysis) conflictNothing(s *pg.InsertStmt) bool {
	return s.OnConflictClause != nil && s.OnConflictClause.Action == pg.OnConflictAction_ONCONFLICT_NOTHING
}

// onConflict reads ON CONFLICT. Rows that it keeps from being inserted give no row to RETURNING.
func (a *analysis) onConflict(s *pg.InsertStmt, sc *scope, table *topology.Table, it *item) {
	if len(s.ReturningList) > 0 && table != nil && table.Triggers {
		a.shuffled = "RETURNING of several shards may lack the rows that a trigger suppressed"
	}
	c := s.OnConflictClause
	if c == nil {
		return
	}
	if len(s.ReturningList) > 0 {
		a.shuffled = "RETURNING of several shards may lack rows that ON CONFLICT kept out"
	}
	for _, e := range c.Infer.GetIndexElems() {
		a.expression(e.GetIndexElem().GetExpr(), sc)
	}
	a.expression(c.Infer.GetWhereClause(), sc)
	if c.Action != pg.OnConflictAction_ONCONFLICT_UPDATE {
		return
	}
	excluded := &relation{name: "excluded", aliased: true, open: table == nil}
	inner := sc.within(it, &item{relations: []*relation{excluded}})
	list := c.TargetList
	if table != nil {
		for _, column := range table.Columns {
			excluded.columns = append(excluded.columns, output{name: column.Name})
		}
		list = nil
		for _, n := range c.TargetList {
			if t := n.GetResTarget(); table.Kind == topology.Sharded && t.Name == table.KeyColumn() {
				ref, ok := inner.resolve(t.Val)
				if !excludedKey(t, c.Infer, table) && !(ok && ref.node == it.relations[0].key()) {
					a.refuse(changedKey(table))
				}
				a.expression(t.Val, inner)
				continue
			}
			list = append(list, n)
		}
	}
	a.assignments(list, inner, table != nil, table, it)
	a.expression(c.WhereClause, inner)
}

// excludedKey says that a SET of ON CONFLICT is key = EXCLUDED.key, and that two keys had to be equal
// to conflict: then the row that is there has the same. (A text may conflict under another
// collation than the column's.)
func excludedKey(t *pg.ResTarget, infer *pg.InferClause, table *topology.Table) bool {
	key, fields := table.KeyColumn(), t.GetVal().GetColumnRef().GetFields()
	if table.KeyType == topology.KeyText || len(fields) != 2 ||
		fields[0].GetString_().GetSval() != "excluded" || fields[1].GetString_().GetSval() != key {
		return false
	}
	for _, e := range infer.GetIndexElems() {
		if e.GetIndexElem().GetName() == key {
			return true
		}
	}
	return false
}
