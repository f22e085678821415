package router

import (
	"slices"

	"google.golang.org/protobuf/proto"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// groups is the Finish of a statement with aggregates: the shards give one row for each group, with partial aggregates.
// An argument of a DISTINCT aggregate makes more groups of them.
func (b *finisher) groups() (*Finish, string) {
	g := &grouper{finisher: b, in: &Input{Gives: "groups with partial aggregates"}, by: map[string]int{}}
	final := b.last()
	for i, n := range final.GroupClause {
		if g.sets = g.sets || n.GetGroupingSet() != nil; n.GetGroupingSet() != nil {
			final.GroupClause[i] = g.set(n)
			continue
		}
		final.GroupClause[i] = g.group(n)
	}
	each := func(n *pg.Node) *pg.Node { return transformed(n, g.combined) }
	b.targets(final, each)
	final.HavingClause = each(final.HavingClause)
	b.orders(final, false, each)
	for _, i := range g.loose {
		final.GroupClause = append(final.GroupClause, pulledColumn(i))
	}
	if len(g.loose) > 0 && g.sets {
		b.refuse("grouping sets beside other columns")
	}
	if len(b.pulled) == 0 {
		b.add(exprOf("pg_catalog.count(*)"))
	}
	pull := b.pull()
	pull.GroupClause = positions(g.grouped)
	return b.texts(g.in, pull, final)
}

// grouper is the finisher of a statement with aggregates.
type grouper struct {
	*finisher
	in      *Input
	by      map[string]int // GROUP BY: which columns of Pull its expressions are
	grouped []int          // the columns by which Pull is grouped
	loose   []int          // columns that are one in a group, as PostgreSQL knows by a primary key
	sets    bool
}

// set gives the members of a grouping set as columns.
func (g *grouper) set(n *pg.Node) *pg.Node {
	n = proto.Clone(n).(*pg.Node)
	set := n.GetGroupingSet()
	for i, inner := range set.Content {
		if inner.GetGroupingSet() != nil {
			set.Content[i] = g.set(inner)
		} else {
			set.Content[i] = g.group(inner)
		}
	}
	return n
}

// group makes a member of GROUP BY a column.
func (g *grouper) group(n *pg.Node) *pg.Node {
	if i := ordinal(n); i != 0 {
		for k, t := range g.s.TargetList {
			if isStar(t) {
				break
			}
			if k == i-1 {
				n = t.GetResTarget().Val
			}
		}
	} else if t := g.groupedTarget(n); t != nil {
		n = t
	}
	if ordinal(n) != 0 || n.GetRowExpr() != nil || !g.a.settledEverywhere(n, false) {
		g.refuse("GROUP BY of such an expression")
	}
	i := g.add(n)
	g.by[g.key(n)] = i
	g.grouped = append(g.grouped, i)
	return pulledColumn(i)
}

// combined is what stands in Final for an expression of the statement.
func (g *grouper) combined(n *pg.Node) (*pg.Node, bool) {
	switch v := n.GetNode().(type) {
	case *pg.Node_String_, *pg.Node_AConst, *pg.Node_List:
		return n, false
	case *pg.Node_SubLink:
		g.refuse("a sub-query beside an aggregate")
		return n, true
	case *pg.Node_FuncCall:
		if i, ok := g.by[g.key(n)]; ok {
			return pulledColumn(i), true
		}
		if g.a.isAggregate(v.FuncCall) {
			return g.aggregate(n), true
		}
		return n, false
	case *pg.Node_ColumnRef:
		if i, ok := g.by[g.key(n)]; ok {
			return pulledColumn(i), true
		}
		if fields := v.ColumnRef.Fields; fields[len(fields)-1].GetAStar() != nil {
			g.refuse("* beside an aggregate")
			return n, true
		}
		i := g.add(n)
		if !slices.Contains(g.loose, i) {
			g.loose = append(g.loose, i)
		}
		return pulledColumn(i), true
	}
	if len(g.by) > 0 {
		if i, ok := g.by[g.key(n)]; ok {
			return pulledColumn(i), true
		}
	}
	return n, false
}

// isAggregate says that a call is one of an aggregate.
func (a *analysis) isAggregate(f *pg.FuncCall) bool {
	parts := names(f.Funcname)
	return a.schema.Functions[parts[len(parts)-1]].Aggregate || f.AggStar || f.AggDistinct || f.AggWithinGroup || f.AggFilter != nil || f.AggOrder != nil
}

// aggregate is what stands in Final for an aggregate whose parts can be put together exactly. It has the same type.
func (g *grouper) aggregate(n *pg.Node) *pg.Node {
	f := n.GetFuncCall()
	parts := names(f.Funcname)
	name := parts[len(parts)-1]
	fn := g.a.schema.Functions[name]
	if !fn.Builtin || len(parts) > 1 && parts[0] != "pg_catalog" || f.AggWithinGroup || f.AggOrder != nil || f.FuncVariadic ||
		!g.a.settledEverywhere(n, true) {
		g.refuse("aggregate " + name + " needs all rows")
		return n
	}
	if f.AggDistinct {
		return g.distinct(n, name)
	}
	switch name {
	case "count":
		return replaced(exprOf("COALESCE(pg_catalog.sum($1), 0)::pg_catalog.int8"), g.column(n))
	case "sum":
		i := g.add(n)
		return replaced(exprOf("pg_catalog.sum($1)::"+typeMark, g.source, i+1), pulledColumn(i))
	case "avg":
		sum, count := g.add(renamed(n, "sum")), g.add(renamed(n, "count"))
		g.in.averages = append(g.in.averages, sum)
		return replaced(exprOf("pg_catalog.sum($1) OPERATOR(pg_catalog./) pg_catalog.sum($2)::"+averageMark, g.source, sum+1), pulledColumn(sum), pulledColumn(count))
	case "min", "max", "bool_and", "bool_or", "every", "bit_and", "bit_or", "bit_xor":
		return replaced(exprOf("pg_catalog.%s($1)", name), g.column(n))
	}
	g.refuse("aggregate " + name + " needs all rows")
	return n
}

// renamed is a call of another function of pg_catalog with the same arguments.
func renamed(n *pg.Node, name string) *pg.Node {
	n = proto.Clone(n).(*pg.Node)
	n.GetFuncCall().Funcname = []*pg.Node{pg.MakeStrNode("pg_catalog"), pg.MakeStrNode(name)}
	return n
}

// distinct is a DISTINCT aggregate over a column by which Pull is grouped.
func (g *grouper) distinct(n *pg.Node, name string) *pg.Node {
	f := n.GetFuncCall()
	switch name {
	case "count", "sum", "avg", "min", "max":
	default:
		g.refuse("aggregate " + name + " needs all rows")
		return n
	}
	if len(f.Args) != 1 || f.AggFilter != nil || f.Args[0].GetRowExpr() != nil || !g.a.settledEverywhere(f.Args[0], false) {
		g.refuse("aggregate " + name + " needs all rows")
		return n
	}
	i := g.add(f.Args[0])
	g.grouped = append(g.grouped, i)
	n = proto.Clone(n).(*pg.Node)
	n.GetFuncCall().Args = []*pg.Node{pulledColumn(i)}
	return n
}
