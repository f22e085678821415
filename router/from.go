package router

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// sides says of which members of a scope a condition removes rows.
type sides uint8

const (
	neither sides = 0
	left    sides = 1 // the first member of an ON scope
	right   sides = 2 // the second
	all     sides = 4 // every member
)

func (s sides) has(item int) bool {
	return s == all || item == 0 && s&left != 0 || item == 1 && s&right != 0
}

// from reads one member of a FROM list. sc holds the members left of it, which only LATERAL
// sub-queries and functions see.
func (a *analysis) from(n *pg.Node, sc *scope) *item {
	switch v := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		return a.tableItem(v.RangeVar, sc)
	case *pg.Node_JoinExpr:
		return a.join(v.JoinExpr, sc)
	case *pg.Node_RangeSubselect:
		s := v.RangeSubselect
		inner := sc.parent
		if s.Lateral {
			inner = sc
		}
		rows := a.query(s.Subquery, inner, sc.ctes, &level{})
		return named(rows, s.Alias, "")
	case *pg.Node_RangeFunction:
		return a.functionItem(v.RangeFunction, sc)
	case *pg.Node_RangeTableSample:
		it := a.from(v.RangeTableSample.Relation, sc)
		a.expressions(v.RangeTableSample.Args, sc)
		a.expression(v.RangeTableSample.Repeatable, sc)
		a.alone("TABLESAMPLE takes its sample from the whole table")
		return it
	case *pg.Node_RangeTableFunc:
		a.expression(n, a.once(sc))
		return named(rowset{open: true}, v.RangeTableFunc.Alias, "")
	case *pg.Node_JsonTable:
		a.expression(n, a.once(sc))
		return named(rowset{open: true}, v.JsonTable.Alias, "")
	}
	a.refuse(&Error{Code: codeNotSupported, Message: "this kind of FROM is not supported", Hint: hintComment})
	return &item{rowset: rowset{open: true}}
}

// named makes a FROM item of rows. Without an alias it goes by name.
func named(rows rowset, alias *pg.Alias, name string) *item {
	if alias != nil {
		name = alias.Aliasname
		rows.rename(alias.Colnames)
	}
	r := &relation{name: name, aliased: true, columns: rows.columns, open: rows.open}
	return &item{rowset: rows, relations: []*relation{r}}
}

func (a *analysis) functionItem(f *pg.RangeFunction, sc *scope) *item {
	inner := a.once(sc)
	for _, n := range f.Functions {
		a.expression(n, inner)
	}
	return named(rowset{open: true}, f.Alias, "")
}

// once is a scope like sc for expressions that are evaluated once and not for each row.
func (a *analysis) once(sc *scope) *scope {
	return &scope{items: sc.items, parent: sc.parent, level: &level{}, ctes: sc.ctes}
}

// tableItem is a table, view or CTE in FROM.
func (a *analysis) tableItem(v *pg.RangeVar, sc *scope) *item {
	if !a.count() {
		return named(rowset{open: true}, v.Alias, v.Relname)
	}
	if v.Schemaname == "" {
		if c := sc.ctes.find(v.Relname); c != nil {
			return named(a.cte(c), v.Alias, v.Relname)
		}
	}
	table, known := a.table(v)
	switch {
	case table == nil:
		if !known {
			a.unknown(v)
		}
		a.alone("relation " + quoteName(v.Relname) + " is another one on each shard")
		a.diverge("relation " + quoteName(v.Relname) + " is another one on each shard")
		return named(rowset{open: true}, v.Alias, v.Relname)
	case table.Kind == topology.View:
		it := named(a.view(table), v.Alias, v.Relname)
		a.spotted(it, v)
		return it
	case table.Kind == topology.Other:
		a.elsewhere(table)
		return named(rowset{open: true}, v.Alias, v.Relname)
	}
	it, _ := a.base(table, v.Alias)
	a.spotted(it, v)
	return it
}

// elsewhere refuses a sequence or foreign table.
func (a *analysis) elsewhere(table *topology.Table) {
	a.mention(table)
	a.refuse(&Error{Code: codeNotSupported, Message: "relation " + quoteName(table.Name) + " is a sequence or foreign table, which is another one on each shard", Hint: hintComment})
}

// base is a reference to a table with rows. ok is false where its rows have no place.
func (a *analysis) base(table *topology.Table, alias *pg.Alias) (it *item, ok bool) {
	r := &relation{name: table.Name, table: table, columns: make([]output, len(table.Columns))}
	nodes := make([]node, len(table.Columns))
	for i := range table.Columns {
		c := &table.Columns[i]
		r.columns[i].name = c.Name
		if t := topology.KeyTypeOf(c.Type); t != topology.KeyNone && !c.Fuzzy {
			nodes[i] = node{relation: r, keyType: t, length: c.Length}
			r.columns[i].node, r.columns[i].filters = &nodes[i], true
		}
	}
	rows := rowset{columns: r.columns}
	if alias != nil {
		r.name, r.aliased = alias.Aliasname, true
		rows.rename(alias.Colnames)
	}
	r.columns = rows.columns
	a.mention(table)
	if table.Kind == topology.Sharded {
		if table.Problem != "" || table.Key < 0 || r.columns[table.Key].node == nil {
			a.refuse(&Error{
				Code: codeNotSupported, Message: "table " + quoteName(table.Name) + " has no usable shard key", Detail: table.Problem,
				Hint: "Name its shard key, or list it as a reference table, in the proxy's configuration.",
			})
			r.open, rows.open = true, true
			return &item{rowset: rows, relations: []*relation{r}}, false
		}
		a.sharded = append(a.sharded, r)
		rows.drives = []*relation{r}
	}
	return &item{rowset: rows, relations: []*relation{r}}, true
}

// join reads JOIN. Its two sides keep their names outside unless it has an alias.
func (a *analysis) join(j *pg.JoinExpr, sc *scope) *item {
	l := a.from(j.Larg, sc)
	r := a.from(j.Rarg, &scope{items: append(sc.items[:len(sc.items):len(sc.items)], l), parent: sc.parent, level: sc.level, ctes: sc.ctes})
	filtered := neither
	out := &item{relations: append(l.relations[:len(l.relations):len(l.relations)], r.relations...)}
	out.open = l.open || r.open
	switch j.Jointype {
	case pg.JoinType_JOIN_INNER:
		filtered = left | right
		out.drives = append(l.drives[:len(l.drives):len(l.drives)], r.drives...)
	case pg.JoinType_JOIN_LEFT:
		filtered, out.drives = right, l.drives
	case pg.JoinType_JOIN_RIGHT:
		filtered, out.drives = left, r.drives
	}
	if out.why = l.why; out.why == "" {
		out.why = r.why
	}
	if len(out.drives) == 0 && len(l.drives)+len(r.drives) > 0 {
		out.why = "the rows that an outer join keeps without a partner are on every shard"
	}
	on := sc.within(l, r)
	merged := a.using(j, on, filtered, out)
	a.condition(j.Quals, on, filtered)
	if j.Alias != nil {
		return named(out.rowset, j.Alias, "")
	}
	if j.JoinUsingAlias != nil {
		out.relations = append(out.relations, &relation{name: j.JoinUsingAlias.Aliasname, aliased: true, columns: merged})
	}
	return out
}

// using ties the columns of JOIN … USING and NATURAL JOIN, and fills the columns of out. It
// gives the merged ones.
func (a *analysis) using(j *pg.JoinExpr, on *scope, filtered sides, out *item) []output {
	l, r := &on.items[0].rowset, &on.items[1].rowset
	common := names(j.UsingClause)
	if j.IsNatural {
		if out.open {
			out.columns = nil
			return nil
		}
		for _, c := range l.columns {
			if _, v := find(r.columns, c.name); v != absent {
				common = append(common, c.name)
			}
		}
	}
	var merged []output
	drop := make(map[string]bool, len(common))
	for _, name := range common {
		drop[name] = true
		column := output{name: name}
		lc, lv := find(l.columns, name)
		rc, rv := find(r.columns, name)
		if lv == one && rv == one && !a.ownOperator("=") {
			a.tie(reference{output: lc, local: true, item: 0}, reference{output: rc, local: true, item: 1}, filtered)
			switch {
			case filtered&right != 0:
				column = lc
			case filtered == left:
				column = rc
			}
		}
		merged = append(merged, column)
	}
	out.columns = append([]output(nil), merged...)
	for _, side := range []*rowset{l, r} {
		for _, c := range side.columns {
			if !drop[c.name] {
				out.columns = append(out.columns, c)
			}
		}
	}
	return merged
}
