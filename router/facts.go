package router

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// Facts are what the conjuncts of a condition say of shard keys. A fact is only taken from a
// condition that removes rows of the very relation it speaks of (sides), and only from operators
// that are not true for NULL: then no row that breaks it can matter to the statement, wherever
// it is stored.

// condition reads a WHERE or ON clause: its facts and all that is nested in it.
func (a *analysis) condition(n *pg.Node, sc *scope, filtered sides) {
	switch v := n.GetNode().(type) {
	case *pg.Node_BoolExpr:
		switch v.BoolExpr.Boolop {
		case pg.BoolExprType_AND_EXPR:
			for _, arg := range v.BoolExpr.Args {
				a.condition(arg, sc, filtered)
			}
			return
		case pg.BoolExprType_OR_EXPR:
			for node, set := range a.alternatives(v.BoolExpr.Args, sc, filtered) {
				node.among = append(node.among, set)
			}
		}
	case *pg.Node_AExpr:
		a.unseenOperator(v.AExpr.Name)
		if a.equality(v.AExpr, sc, filtered) {
			return
		}
	case *pg.Node_SubLink:
		if a.inQuery(v.SubLink, sc, filtered) {
			return
		}
	}
	a.expression(n, sc)
}

// equality takes the facts of a comparison, and reads what is nested in it. It returns false
// with nothing done where it is none of the forms it knows.
func (a *analysis) equality(e *pg.A_Expr, sc *scope, filtered sides) bool {
	switch {
	case a.operator(e.Name) != "=":
		return false
	case e.Kind == pg.A_Expr_Kind_AEXPR_OP:
		l, r := e.Lexpr.GetRowExpr(), e.Rexpr.GetRowExpr()
		if l == nil || r == nil || len(l.Args) != len(r.Args) {
			a.equal(e.Lexpr, e.Rexpr, sc, filtered)
			return true
		}
		for i := range l.Args {
			a.equal(l.Args[i], r.Args[i], sc, filtered)
		}
		return true
	}
	for node, set := range a.comparisonFacts(e, sc, filtered) {
		node.among = append(node.among, set)
	}
	return false
}

// equal takes the fact of l = r, and reads what is nested in both.
func (a *analysis) equal(l, r *pg.Node, sc *scope, filtered sides) {
	lc, lok := sc.resolve(l)
	rc, rok := sc.resolve(r)
	if lok && lc.node != nil {
		a.mark(r, lc.node.keyType, false)
	}
	if rok && rc.node != nil {
		a.mark(l, rc.node.keyType, false)
	}
	switch {
	case lok && rok:
		a.tie(lc, rc, filtered)
	case lok && lc.removable(filtered):
		a.equalTo(lc.node, r, sc)
		return
	case rok && rc.removable(filtered):
		a.equalTo(rc.node, l, sc)
		return
	}
	a.expression(l, sc)
	a.expression(r, sc)
}

// equalTo takes the fact that n is equal to an expression, and reads the expression.
func (a *analysis) equalTo(n *node, e *pg.Node, sc *scope) {
	if s, ok := a.constant(e, n.keyType); ok {
		n.among = append(n.among, keySet{s})
	}
	if sub := e.GetSubLink(); sub != nil && sub.SubLinkType == pg.SubLinkType_EXPR_SUBLINK {
		n.follow(a.subquery(sub, sc))
		return
	}
	a.expression(e, sc)
}

// removable says that a condition that filters these sides removes rows of c's relation by c.
func (c reference) removable(filtered sides) bool {
	return c.node != nil && c.filters && c.local && filtered.has(c.item)
}

// tie takes the fact that two columns are equal.
func (a *analysis) tie(x, y reference, filtered sides) {
	if x.node == nil || y.node == nil || x.node.keyType != y.node.keyType {
		return
	}
	if x.removable(filtered) {
		x.node.follows = append(x.node.follows, y.node)
	}
	if y.removable(filtered) {
		y.node.follows = append(y.node.follows, x.node)
	}
}

// follow takes the fact that n is equal to a value in the only column of rows.
func (n *node) follow(rows rowset) {
	if len(rows.columns) == 1 && !rows.open {
		if other := rows.columns[0].node; other != nil && other.keyType == n.keyType {
			n.follows = append(n.follows, other)
		}
	}
}

// inQuery takes the facts of key IN (SELECT …), which is key = ANY (SELECT …) too: the key has a
// value of the query, and of the query only the rows with the key's value matter.
func (a *analysis) inQuery(s *pg.SubLink, sc *scope, filtered sides) bool {
	if s.SubLinkType != pg.SubLinkType_ANY_SUBLINK || a.ownOperator("=") || len(s.OperName) > 0 && a.operator(s.OperName) != "=" {
		return false
	}
	keys := []*pg.Node{s.Testexpr}
	if row := s.Testexpr.GetRowExpr(); row != nil {
		keys = row.Args
	}
	rows := a.subquery(s, sc)
	for i, k := range keys {
		c, ok := sc.resolve(k)
		if !ok || c.node == nil || rows.open || len(rows.columns) != len(keys) {
			continue
		}
		if c.removable(filtered) {
			c.node.follow(rowset{columns: rows.columns[i : i+1]})
		}
		if out := rows.columns[i]; out.filters && out.node.keyType == c.node.keyType {
			out.node.follows = append(out.node.follows, c.node)
		}
	}
	return true
}

// alternatives are the facts that hold under every arm of an OR: the keys that each arm limits
// to constants, with the constants of all arms.
func (a *analysis) alternatives(arms []*pg.Node, sc *scope, filtered sides) map[*node]keySet {
	var facts map[*node]keySet
	for i, arm := range arms {
		here := a.constantFacts(arm, sc, filtered)
		if i == 0 {
			facts = here
			continue
		}
		for n, set := range facts {
			if more, ok := here[n]; ok {
				facts[n] = append(set[:len(set):len(set)], more...)
			} else {
				delete(facts, n)
			}
		}
	}
	return facts
}

// constantFacts are the keys that a condition limits to constants. It only takes facts: what is
// nested in the condition is read elsewhere.
func (a *analysis) constantFacts(n *pg.Node, sc *scope, filtered sides) map[*node]keySet {
	switch v := n.GetNode().(type) {
	case *pg.Node_AExpr:
		return a.comparisonFacts(v.AExpr, sc, filtered)
	case *pg.Node_BoolExpr:
		switch v.BoolExpr.Boolop {
		case pg.BoolExprType_OR_EXPR:
			return a.alternatives(v.BoolExpr.Args, sc, filtered)
		case pg.BoolExprType_AND_EXPR:
			facts := map[*node]keySet{}
			for _, arg := range v.BoolExpr.Args {
				for n, set := range a.constantFacts(arg, sc, filtered) {
					if old, ok := facts[n]; !ok || len(set) < len(old) {
						facts[n] = set
					}
				}
			}
			return facts
		}
	}
	return nil
}

// comparisonFacts are the keys that a comparison limits to constants: key = c, key IN (c, …),
// key = ANY (array), and rows of those.
func (a *analysis) comparisonFacts(e *pg.A_Expr, sc *scope, filtered sides) map[*node]keySet {
	if a.operator(e.Name) != "=" {
		return nil
	}
	facts := map[*node]keySet{}
	note := func(l, r *pg.Node, read func(*pg.Node, topology.KeyType) (keySet, bool)) {
		if c, ok := sc.resolve(l); ok && c.removable(filtered) {
			if set, ok := read(r, c.node.keyType); ok {
				facts[c.node] = set
				a.mark(r, c.node.keyType, e.Kind == pg.A_Expr_Kind_AEXPR_OP_ANY)
			}
		}
	}
	single := func(n *pg.Node, t topology.KeyType) (keySet, bool) {
		s, ok := a.constant(n, t)
		return keySet{s}, ok
	}
	switch e.Kind {
	case pg.A_Expr_Kind_AEXPR_OP:
		l, r := []*pg.Node{e.Lexpr}, []*pg.Node{e.Rexpr}
		if lr, rr := e.Lexpr.GetRowExpr(), e.Rexpr.GetRowExpr(); lr != nil && rr != nil && len(lr.Args) == len(rr.Args) {
			l, r = lr.Args, rr.Args
		}
		for i := range l {
			note(l[i], r[i], single)
			note(r[i], l[i], single)
		}
	case pg.A_Expr_Kind_AEXPR_OP_ANY:
		note(e.Lexpr, e.Rexpr, a.constants)
	case pg.A_Expr_Kind_AEXPR_IN:
		list := e.Rexpr.GetList().GetItems()
		row := e.Lexpr.GetRowExpr()
		if row == nil {
			note(e.Lexpr, e.Rexpr, func(_ *pg.Node, t topology.KeyType) (keySet, bool) { return a.constantList(list, t) })
			break
		}
		for i, key := range row.Args {
			column := make([]*pg.Node, 0, len(list))
			for _, r := range list {
				if args := r.GetRowExpr().GetArgs(); len(args) == len(row.Args) {
					column = append(column, args[i])
				}
			}
			if len(column) == len(list) {
				note(key, &pg.Node{Node: &pg.Node_List{List: &pg.List{Items: column}}}, func(_ *pg.Node, t topology.KeyType) (keySet, bool) { return a.constantList(column, t) })
			}
		}
	}
	return facts
}
