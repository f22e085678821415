package router

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// query reads a statement with a result: SELECT, VALUES, set operations, or a data-modifying
// statement. outer is the scope around it.
func (a *analysis) query(n *pg.Node, outer *scope, env *cteEnv, lv *level) rowset {
	switch v := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		return a.selectStmt(v.SelectStmt, outer, env, lv)
	case *pg.Node_InsertStmt:
		return a.insertStmt(v.InsertStmt, outer, env, lv)
	case *pg.Node_UpdateStmt:
		return a.updateStmt(v.UpdateStmt, outer, env, lv)
	case *pg.Node_DeleteStmt:
		return a.deleteStmt(v.DeleteStmt, outer, env, lv)
	case *pg.Node_MergeStmt:
		return a.mergeStmt(v.MergeStmt, outer, env, lv)
	}
	a.refuse(&Error{Code: codeNotSupported, Message: "this kind of statement is not supported inside another", Hint: hintComment})
	return rowset{open: true}
}

func (a *analysis) selectStmt(s *pg.SelectStmt, outer *scope, env *cteEnv, lv *level) rowset {
	env = a.with(s.WithClause, outer, env)
	before := len(a.sharded)
	var rows rowset
	var sc *scope
	switch {
	case s.Op != pg.SetOperation_SETOP_NONE && s.Op != pg.SetOperation_SET_OPERATION_UNDEFINED:
		rows, sc = a.setOperation(s, outer, env, lv)
	case len(s.ValuesLists) > 0:
		rows, sc = a.values(s, outer, env, lv)
	default:
		rows, sc = a.plainSelect(s, outer, env, lv)
	}
	if s == a.top && s.Larg == nil && len(s.ValuesLists) == 0 && len(s.LockingClause) == 0 {
		a.last = &lastStep{s: s, scope: sc, drives: rows.drives, why: rows.why}
	}
	a.expressions(s.SortClause, sc)
	once := a.once(sc)
	a.expression(s.LimitOffset, once)
	a.expression(s.LimitCount, once)
	a.locking(s.LockingClause, sc)
	limited := s.LimitCount != nil || s.LimitOffset != nil
	if limited || distinctOn(s) {
		a.diverge("LIMIT and DISTINCT ON may pick other rows on each shard")
		if !lv.top && len(a.sharded) == before {
			a.alone("LIMIT and DISTINCT ON may pick other rows of a reference table on each shard")
		}
	}
	if lv.window {
		a.diverge("a window function may see the rows in another order on each shard")
	}
	if why := shape(s, lv, limited); why != "" {
		rows.drives, rows.why = nil, why
	}
	if limited || lv.window || distinctOn(s) || groupingSets(s) || len(s.LockingClause) > 0 {
		for i := range rows.columns {
			rows.columns[i].filters = false
		}
	}
	return rows
}

// shape says why a SELECT over several shards is more than its parts put one after another, "" if it is not.
func shape(s *pg.SelectStmt, lv *level, limited bool) string {
	switch {
	case lv.aggregate || s.HavingClause != nil:
		return "an aggregate needs the rows of all shards together"
	case len(s.GroupClause) > 0:
		return "GROUP BY needs the rows of all shards together"
	case lv.window:
		return "a window function needs the rows of all shards together"
	case len(s.DistinctClause) > 0:
		return "DISTINCT needs the rows of all shards together"
	case len(s.SortClause) > 0:
		return "ORDER BY needs the rows of all shards together"
	case limited:
		return "LIMIT and OFFSET count the rows of all shards together"
	}
	return ""
}

func distinctOn(s *pg.SelectStmt) bool {
	return len(s.DistinctClause) > 0 && s.DistinctClause[0].GetNode() != nil
}

func groupingSets(s *pg.SelectStmt) bool {
	for _, n := range s.GroupClause {
		if n.GetGroupingSet() != nil {
			return true
		}
	}
	return false
}

func (a *analysis) plainSelect(s *pg.SelectStmt, outer *scope, env *cteEnv, lv *level) (rowset, *scope) {
	sc := &scope{parent: outer, level: lv, ctes: env}
	var rows rowset
	a.fromList(s.FromClause, sc, &rows)
	a.condition(s.WhereClause, sc, all)
	a.targets(s.TargetList, sc, &rows)
	a.expressions(s.DistinctClause, sc)
	a.expressions(s.GroupClause, sc)
	a.expression(s.HavingClause, sc)
	a.expressions(s.WindowClause, sc)
	return rows, sc
}

// fromList reads a FROM list into sc, and what drives its cross product into rows.
func (a *analysis) fromList(list []*pg.Node, sc *scope, rows *rowset) {
	for _, n := range list {
		it := a.from(n, sc)
		sc.items = append(sc.items, it)
		rows.drives = append(rows.drives, it.drives...)
		if rows.why == "" {
			rows.why = it.why
		}
	}
}

// targets reads a select or RETURNING list into the columns of rows.
func (a *analysis) targets(list []*pg.Node, sc *scope, rows *rowset) {
	for _, n := range list {
		t := n.GetResTarget()
		if a.star(t.GetVal(), sc, rows) {
			continue
		}
		out := output{name: t.GetName()}
		if ref, ok := sc.resolve(t.GetVal()); ok {
			out.node, out.filters = ref.node, ref.filters && ref.local
		} else if c := a.constantNode(t.GetVal()); c != nil {
			out.node = c
		}
		if out.name == "" {
			out.name = targetName(t.GetVal())
		}
		a.expression(t.GetVal(), sc)
		rows.columns = append(rows.columns, out)
	}
}

// star expands * and relation.* in a target list.
func (a *analysis) star(n *pg.Node, sc *scope, rows *rowset) bool {
	c, ok := n.GetNode().(*pg.Node_ColumnRef)
	if !ok {
		if i := n.GetAIndirection(); i != nil && i.Indirection[len(i.Indirection)-1].GetAStar() != nil {
			a.expression(i.Arg, sc)
			rows.open = true
			return true
		}
		return false
	}
	fields := c.ColumnRef.Fields
	if fields[len(fields)-1].GetAStar() == nil {
		return false
	}
	if len(fields) == 1 {
		for _, it := range sc.items {
			rows.columns = append(rows.columns, it.columns...)
			rows.open = rows.open || it.open
		}
		return true
	}
	if len(fields) == 2 {
		name := fields[0].GetString_().GetSval()
		for _, it := range sc.items {
			for _, r := range it.relations {
				if r.name == name {
					rows.columns = append(rows.columns, r.columns...)
					rows.open = rows.open || r.open
					return true
				}
			}
		}
	}
	rows.open = true // of an enclosing query, or schema.table.*
	return true
}

// constantNode makes a column of a constant: what a query gives that selects $1::bigint. Only
// where its type is certain: a bare number, a bare text, or a cast.
func (a *analysis) constantNode(n *pg.Node) *node {
	t := topology.KeyText
	if n.GetParamRef() != nil {
		return nil
	}
	if cast := n.GetTypeCast(); cast != nil {
		name, _ := typeName(cast.TypeName)
		t = keyTypeNamed(name)
	} else if c := n.GetAConst(); c == nil || c.GetSval() == nil {
		t = topology.KeyInt
	}
	s, ok := a.constant(n, t)
	if !ok || s.origin == fromNull && n.GetTypeCast() == nil {
		return nil
	}
	return &node{keyType: t, among: []keySet{{s}}}
}

// targetName is the name that PostgreSQL gives to a column without one, "" where we do not work it out.
func targetName(n *pg.Node) string {
	switch v := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		return v.ColumnRef.Fields[len(v.ColumnRef.Fields)-1].GetString_().GetSval()
	case *pg.Node_FuncCall:
		f := v.FuncCall.Funcname
		return f[len(f)-1].GetString_().GetSval()
	case *pg.Node_TypeCast:
		if name := targetName(v.TypeCast.Arg); name != "" && name != noName {
			return name
		}
		parts := v.TypeCast.TypeName.Names
		return parts[len(parts)-1].GetString_().GetSval()
	case *pg.Node_AConst:
		if v.AConst.GetBoolval() == nil {
			return noName
		}
	case *pg.Node_AExpr:
		if v.AExpr.Kind != pg.A_Expr_Kind_AEXPR_NULLIF {
			return noName
		}
		return "nullif"
	case *pg.Node_BoolExpr, *pg.Node_NullTest, *pg.Node_ParamRef, *pg.Node_BooleanTest:
		return noName
	case *pg.Node_CoalesceExpr:
		return "coalesce"
	}
	return ""
}

const noName = "?column?"

// setOperation reads UNION, INTERSECT and EXCEPT.
func (a *analysis) setOperation(s *pg.SelectStmt, outer *scope, env *cteEnv, lv *level) (rowset, *scope) {
	rows := a.selectStmt(s.Larg, outer, env, &level{}).blind()
	a.selectStmt(s.Rarg, outer, env, &level{})
	rows.why = "UNION, INTERSECT and EXCEPT need the rows of all shards together"
	if !s.All {
		rows.why = "UNION, INTERSECT and EXCEPT compare the rows of all shards"
	}
	it := &item{rowset: rows}
	return rows, &scope{items: []*item{it}, parent: outer, level: lv, ctes: env}
}

// values reads VALUES as a query. A column of constants of one type counts as a constant.
func (a *analysis) values(s *pg.SelectStmt, outer *scope, env *cteEnv, lv *level) (rowset, *scope) {
	sc := &scope{parent: outer, level: lv, ctes: env}
	var rows rowset
	for i, list := range s.ValuesLists {
		cells := list.GetList().GetItems()
		a.expressions(cells, sc)
		for j, cell := range cells {
			if i == 0 {
				rows.columns = append(rows.columns, output{name: columnNumber(j), node: a.constantNode(cell)})
				continue
			}
			if j < len(rows.columns) && rows.columns[j].node != nil {
				rows.columns[j].node = union(rows.columns[j].node, a.constantNode(cell))
			}
		}
	}
	rows.why = "VALUES gives its rows on every shard"
	return rows, sc
}

// union is a constant that is one of those of both, nil if their types differ.
func union(x, y *node) *node {
	if y == nil || y.keyType != x.keyType {
		return nil
	}
	x.among[0] = append(x.among[0], y.among[0]...)
	return x
}
