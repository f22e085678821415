package router

import (
	"slices"

	"google.golang.org/protobuf/proto"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// gatherFrom is the FROM list of a SELECT of which each sharded table is gathered by itself.
type gatherFrom struct {
	*gatherer
	env     *cteEnv
	members []member
	every   bool // all columns of each are used
}

// member is what a column can be qualified with in FROM.
type member struct {
	name    string
	columns []string
	open    bool // it has others
}

// from puts the gathered rows into the place of the sharded tables in the FROM list of s.
func (g *gatherer) from(s *pg.SelectStmt, env *cteEnv) {
	f := &gatherFrom{gatherer: g, env: env}
	for _, n := range s.FromClause {
		f.know(n)
	}
	for _, n := range s.TargetList {
		f.every = f.every || isStar(n) && len(n.GetResTarget().GetVal().GetColumnRef().GetFields()) == 1
	}
	where := conjuncts(s.WhereClause)
	for i, n := range s.FromClause {
		s.FromClause[i] = f.item(n, where)
	}
}

// know notes the names that a member of FROM brings.
func (f *gatherFrom) know(n *pg.Node) {
	m := member{open: true}
	var alias *pg.Alias
	switch v := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		alias, m.name = v.RangeVar.Alias, v.RangeVar.Relname
		if table := f.table(v.RangeVar, f.env); table != nil {
			m.columns, m.open = tableColumns(table, alias), false
		}
	case *pg.Node_JoinExpr:
		f.know(v.JoinExpr.Larg)
		f.know(v.JoinExpr.Rarg)
		f.every = f.every || v.JoinExpr.IsNatural || v.JoinExpr.Alias != nil
		if alias = v.JoinExpr.Alias; alias == nil {
			return
		}
	case *pg.Node_RangeSubselect:
		alias = v.RangeSubselect.Alias
	case *pg.Node_RangeFunction:
		alias = v.RangeFunction.Alias
	}
	if alias != nil {
		m.name = alias.Aliasname
	}
	f.members = append(f.members, m)
}

// tableColumns are the names of a table's columns under an alias.
func tableColumns(table *topology.Table, alias *pg.Alias) []string {
	var columns []string
	for i := range table.Columns {
		columns = append(columns, table.Columns[i].Name)
	}
	copy(columns, names(alias.GetColnames()))
	return columns
}

// conjuncts are the conditions that must all be true.
func conjuncts(n *pg.Node) (list []*pg.Node) {
	if b := n.GetBoolExpr(); b != nil && b.Boolop == pg.BoolExprType_AND_EXPR {
		for _, arg := range b.Args {
			list = append(list, conjuncts(arg)...)
		}
		return list
	}
	if n != nil {
		list = append(list, n)
	}
	return list
}

// item gives what stands in the last step for a member of FROM. Rows that break one of the conditions are not needed.
func (f *gatherFrom) item(n *pg.Node, conditions []*pg.Node) *pg.Node {
	switch v := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		switch table := f.table(v.RangeVar, f.env); {
		case table == nil || table.Kind == topology.Reference:
			return n
		default:
			return f.relation(v.RangeVar, table, conditions)
		}
	case *pg.Node_JoinExpr:
		j := v.JoinExpr
		l, r := conditions, conditions
		on := conjuncts(j.Quals)
		if j.Alias != nil { // its columns have other names outside
			l, r = nil, nil
		}
		switch j.Jointype {
		case pg.JoinType_JOIN_INNER:
			l, r = slices.Concat(l, on), slices.Concat(r, on)
		case pg.JoinType_JOIN_LEFT:
			r = on
		case pg.JoinType_JOIN_RIGHT:
			l = on
		default:
			l, r = nil, nil
		}
		j.Larg, j.Rarg = f.item(j.Larg, l), f.item(j.Rarg, r)
		j.Quals = transformed(j.Quals, f.within)
		return n
	}
	return transformed(n, f.within)
}

func (f *gatherFrom) within(n *pg.Node) (*pg.Node, bool) { return f.nested(n, f.env) }

// relation gathers the rows of a sharded table, or of a view.
func (f *gatherFrom) relation(v *pg.RangeVar, table *topology.Table, conditions []*pg.Node) *pg.Node {
	name := v.Relname
	if v.Alias != nil {
		name = v.Alias.Aliasname
	}
	s := selectOf("SELECT")
	s.TargetList = nil
	s.FromClause = []*pg.Node{{Node: &pg.Node_RangeVar{RangeVar: v}}}
	columns := tableColumns(table, v.Alias)
	for i, c := range columns {
		if f.every || f.names[c] || f.names[name] && f.wholeRows(name) || len(v.Alias.GetColnames()) > 0 || i == max(table.Key, 0) {
			s.TargetList = append(s.TargetList, pg.MakeResTargetNodeWithVal(exprOf("%s.%s", identifier(name), identifier(c)), 0))
		}
	}
	var own []*pg.Node
	for _, c := range conditions {
		if f.alone(c, name, columns) {
			own = append(own, proto.Clone(c).(*pg.Node))
		}
	}
	switch len(own) {
	case 0:
	case 1:
		s.WhereClause = own[0]
	default:
		s.WhereClause = pg.MakeBoolExprNode(pg.BoolExprType_AND_EXPR, own, 0)
	}
	alias := &pg.Alias{Aliasname: name}
	rows := f.part(s, false)
	if rows == nil && table.Kind == topology.View {
		rows = f.view(table)
		for _, c := range columns {
			alias.Colnames = append(alias.Colnames, pg.MakeStrNode(c))
		}
	}
	if rows == nil {
		f.refuse("the rows of " + quoteName(table.Name) + " cannot be gathered")
		return &pg.Node{Node: &pg.Node_RangeVar{RangeVar: v}}
	}
	sub := &pg.RangeSubselect{Subquery: &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: rows}}, Alias: alias}
	return &pg.Node{Node: &pg.Node_RangeSubselect{RangeSubselect: sub}}
}

// view is the query of a view, nil where it cannot be read.
func (f *gatherFrom) view(table *topology.Table) *pg.SelectStmt {
	tree, err := pg.Parse(table.Definition)
	if err != nil || len(tree.Stmts) != 1 || table.Stored {
		return nil
	}
	s := tree.Stmts[0].Stmt.GetSelectStmt()
	if s == nil || !f.readable(s) {
		return nil
	}
	f.mention(s)
	return f.query(s, nil, false)
}

// wholeRows says that all columns of a member are used by its name: as a value, or by name.*.
func (f *gatherFrom) wholeRows(name string) bool {
	found := false
	walkMessage(f.a.top.ProtoReflect(), func(n *pg.Node) {
		if c := n.GetColumnRef(); c != nil && c.Fields[0].GetString_().GetSval() == name {
			found = found || len(c.Fields) == 1 || c.Fields[1].GetAStar() != nil
		}
	})
	return found
}

// alone says that a condition speaks of one member of FROM only, and gives the same on every shard.
func (f *gatherFrom) alone(c *pg.Node, name string, columns []string) bool {
	some, others := false, false
	walk(c, func(n *pg.Node) {
		ref := n.GetColumnRef()
		if others = others || isSubLink(n); ref == nil {
			return
		}
		some = true
		fields := names(ref.Fields)
		switch len(ref.Fields) {
		case 1:
			others = others || len(fields) == 0 || !slices.Contains(columns, fields[0]) || f.having(fields[0]) != 1
		case 2:
			others = others || len(fields) < 2 || fields[0] != name || !slices.Contains(columns, fields[1]) || f.named(name) != 1
		default:
			others = true
		}
	})
	return some && !others && f.a.settledEverywhere(c, false)
}

// having counts the members that may have a column of a name.
func (f *gatherFrom) having(column string) (n int) {
	for _, m := range f.members {
		if m.open || m.name == column || slices.Contains(m.columns, column) {
			n++
		}
	}
	return n
}

func (f *gatherFrom) named(name string) (n int) {
	for _, m := range f.members {
		if m.name == name {
			n++
		}
	}
	return n
}
