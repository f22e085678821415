package router

import (
	"google.golang.org/protobuf/proto"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// targets gives the targets of s what each makes of them, and the names that they have without it.
func (b *finisher) targets(s *pg.SelectStmt, each func(*pg.Node) *pg.Node) {
	for i, n := range s.TargetList {
		t := n.GetResTarget()
		name := t.Name
		if name == "" {
			if name = targetName(t.Val); name == noName {
				name = ""
			}
		}
		s.TargetList[i] = pg.MakeResTargetNodeWithNameAndVal(name, each(t.Val), 0)
	}
}

// groupItem gives a member of GROUP BY what each makes of it.
func (b *finisher) groupItem(n *pg.Node, each func(*pg.Node) *pg.Node) *pg.Node {
	if set := n.GetGroupingSet(); set != nil {
		n = proto.Clone(n).(*pg.Node)
		set = n.GetGroupingSet()
		for i, inner := range set.Content {
			set.Content[i] = b.groupItem(inner, each)
		}
		return n
	}
	if ordinal(n) != 0 || b.groupedTarget(n) != nil {
		return n
	}
	return each(n)
}

// groupedTarget is the target whose alias a member of GROUP BY is. A column of FROM comes first.
func (b *finisher) groupedTarget(n *pg.Node) *pg.Node {
	name := bareName(n)
	if name == "" {
		return nil
	}
	var found *pg.Node
	for _, t := range b.s.TargetList {
		if t.GetResTarget().GetName() == name {
			found = t.GetResTarget().Val
		}
	}
	_, _, v := b.sc.unqualified(name)
	if found != nil && v == unclear {
		b.refuse("it is not clear whether " + quoteName(name) + " in GROUP BY is a column")
	}
	if v == one {
		return nil
	}
	return found
}

// orders gives ORDER BY and DISTINCT ON of s what each makes of their expressions. Numbers and names of targets stay; where the
// targets are listed as the first columns of Pull, names become columns.
func (b *finisher) orders(s *pg.SelectStmt, listed bool, each func(*pg.Node) *pg.Node) {
	item := func(n *pg.Node) *pg.Node {
		if i := ordinal(n); i != 0 {
			b.settledTarget(i - 1)
			return n
		}
		name := bareName(n)
		if name == "" {
			return each(n)
		}
		switch i, shown := b.output(name); {
		case !shown:
			return each(n)
		case listed && i >= 0: // another column of the result may have its name
			return pulledColumn(i)
		}
		return n
	}
	for i, n := range s.SortClause {
		by := proto.Clone(n).(*pg.Node)
		by.GetSortBy().Node = item(by.GetSortBy().Node)
		s.SortClause[i] = by
	}
	if distinctOn(s) {
		for i, n := range s.DistinctClause {
			s.DistinctClause[i] = item(n)
		}
	}
}

// output says whether name is that of a column of the result, and which target it is, -1 where * stands before it.
func (b *finisher) output(name string) (target int, shown bool) {
	unsure, star := false, false
	for i, n := range b.s.TargetList {
		t := n.GetResTarget()
		as := t.Name
		switch {
		case isStar(n):
			star = true
			rows := rowset{}
			b.a.star(t.Val, b.sc, &rows)
			unsure = unsure || rows.open
			for _, c := range rows.columns {
				if unsure = unsure || c.name == ""; c.name == name {
					return -1, true
				}
			}
			continue
		case as == "":
			as = targetName(t.Val)
		}
		if unsure = unsure || as == ""; as == name {
			b.settledTarget(i)
			if star {
				i = -1
			}
			return i, true
		}
	}
	if unsure {
		b.refuse("it is not clear whether " + quoteName(name) + " in ORDER BY is a column of the result")
	}
	return 0, false
}

// expanded is a target, or the columns that * stands for.
func (b *finisher) expanded(n *pg.Node) []*pg.Node {
	if !isStar(n) {
		return []*pg.Node{n}
	}
	var list []*pg.Node
	fields := names(n.GetResTarget().Val.GetColumnRef().GetFields())
	for _, it := range b.sc.items {
		for _, r := range it.relations {
			if len(fields) > 1 && r.name != fields[0] {
				continue
			}
			if it.open || r.open || len(it.relations) > 1 && len(fields) < 2 || len(fields) > 2 || n.GetResTarget().Val.GetColumnRef() == nil {
				b.refuse("the columns of * are not known")
				return nil
			}
			for _, c := range r.columns {
				list = append(list, pg.MakeResTargetNodeWithVal(exprOf("%s.%s", identifier(r.name), identifier(c.name)), 0))
			}
		}
	}
	if len(list) == 0 {
		b.refuse("the columns of * are not known")
	}
	return list
}

// settledTarget refuses a target by which rows are compared, if it differs between shards.
func (b *finisher) settledTarget(i int) {
	if i >= 0 && i < len(b.s.TargetList) && !b.a.settledEverywhere(b.s.TargetList[i], true) {
		b.refuse("the order depends on what differs between shards")
	}
}

// settledEverywhere says that an expression gives the same for the same row, on whatever shard it is evaluated, and at
// whatever time of the statement. Chance is none of that, but no worse on several shards than on one.
func (a *analysis) settledEverywhere(n *pg.Node, chance bool) bool {
	return !contains(n, func(n *pg.Node) bool {
		switch v := n.GetNode().(type) {
		case *pg.Node_FuncCall:
			parts := names(v.FuncCall.Funcname)
			name := parts[len(parts)-1]
			fn, ok := a.schema.Functions[name]
			switch {
			case !ok:
				return v.FuncCall.Funcformat != pg.CoercionForm_COERCE_SQL_SYNTAX && !castFunctions[name]
			case name == "random", name == "gen_random_uuid":
				return !chance
			}
			return fn.Volatility != topology.Immutable && (!settled[name] || name == "age" && len(v.FuncCall.Args) == 1)
		case *pg.Node_SqlvalueFunction:
			return currentTime(v.SqlvalueFunction)
		case *pg.Node_AConst:
			return movingTime(v.AConst.GetSval().GetSval())
		}
		return false
	})
}
