package router

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// gatherer makes the Finish of a SELECT that no shard can answer a share of as it stands: joins that are not by shard keys,
// set operations, sub-queries over other rows than those beside them. It keeps the statement as it is, for one shard, and puts
// into the place of each part of it that needs sharded tables the rows of that part, which are gathered. A part is the largest
// query that is a statement by itself which shards can answer (part), or else one table, with the conditions on it alone.
type gatherer struct {
	a        *analysis
	f        *Finish
	names    map[string]bool // that stand anywhere in the statement: other columns need not be gathered
	byText   map[string]int  // the input that has a text
	averages bool            // averages of groups may be put together
	why      string          // why there is no such Finish, "" as long as there is one
	averaged bool            // some are
}

// gather makes the Finish of a statement that is none of one shard out of its parts. It is false where there is none.
func (a *analysis) gather() bool {
	if a.top == nil || a.part != nil || a.refusal != nil || len(a.t.Unknown) > 0 || a.t.Write || a.t.First || a.t.Config || a.t.Pin ||
		!a.env.StdStrings || strings.Contains(strings.ToLower(a.sql), finishMark) {
		return false
	}
	g := a.gatherer(true)
	if g.why == "" && g.averaged {
		if raw := a.gatherer(false); raw.why == "" {
			g.f.raw = raw.f
		}
	}
	if g.why != "" {
		a.cacheable = a.cacheable && len(a.lits) == 0 // the text of another may be no time
		return false
	}
	a.t.finish = g.f
	return true
}

// gatherer makes a Finish, with averages of groups or without.
func (a *analysis) gatherer(averages bool) *gatherer {
	g := &gatherer{a: a, f: &Finish{sql: a.sql}, names: map[string]bool{}, byText: map[string]int{}, averages: averages}
	g.mention(a.top)
	if !g.readable(a.top) {
		g.refuse("its rows depend on where they are stored")
	}
	g.f.tree = g.query(proto.Clone(a.top).(*pg.SelectStmt), nil, false)
	if len(g.f.sources) == 0 {
		g.refuse("its parts were not found")
	}
	if g.why != "" {
		return g
	}
	g.f.FinalParams = renumber(g.f.tree)
	var ok bool
	if g.f.final, ok = deparse(g.f.tree); !ok {
		g.refuse("its text cannot be written anew")
	}
	return g
}

// readable says that s gives the same wherever its rows are stored: it locks none, and names no column or relation of which each
// shard has its own.
func (g *gatherer) readable(s *pg.SelectStmt) bool {
	ctes := map[string]bool{}
	ok := true
	walkMessage(s.ProtoReflect(), func(n *pg.Node) {
		if c := n.GetCommonTableExpr(); c != nil {
			ctes[c.Ctename] = true
		}
	})
	walkMessage(s.ProtoReflect(), func(n *pg.Node) {
		switch v := n.GetNode().(type) {
		case *pg.Node_LockingClause, *pg.Node_RangeTableSample:
			ok = false
		case *pg.Node_ColumnRef:
			fields := v.ColumnRef.Fields
			ok = ok && !systemColumns[fields[len(fields)-1].GetString_().GetSval()]
		case *pg.Node_RangeVar:
			table, _ := g.a.table(v.RangeVar)
			ok = ok && (table != nil || v.RangeVar.Schemaname == "" && ctes[v.RangeVar.Relname])
		}
	})
	return ok
}

func (g *gatherer) refuse(why string) {
	if g.why == "" {
		g.why = why
	}
}

// mention notes all names in s.
func (g *gatherer) mention(s *pg.SelectStmt) {
	walkMessage(s.ProtoReflect(), func(n *pg.Node) {
		if name := n.GetString_(); name != nil {
			g.names[name.Sval] = true
		}
	})
}

// query gives what stands in the last step for a query. operand says that it is one of a set operation.
func (g *gatherer) query(s *pg.SelectStmt, env *cteEnv, operand bool) *pg.SelectStmt {
	if g.why != "" || !g.sharded(s) {
		return s
	}
	if !readsCTE(s, env) && g.a.settledEverywhere(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: s}}, false) {
		if part := g.part(s, operand); part != nil {
			return part
		}
	}
	env = g.with(s.WithClause, env)
	if s.Larg != nil {
		s.Larg, s.Rarg = g.query(s.Larg, env, true), g.query(s.Rarg, env, true)
	}
	if len(s.FromClause) > 0 {
		g.from(s, env)
	}
	g.inside(s, env)
	return s
}

// with gives the queries of WITH what stands for them, and knows their names on top of env.
func (g *gatherer) with(w *pg.WithClause, env *cteEnv) *cteEnv {
	if w == nil {
		return env
	}
	within := make([]*cteEnv, len(w.Ctes))
	for i, n := range w.Ctes {
		within[i] = env
		env = &cteEnv{parent: env, cte: &cte{expr: n.GetCommonTableExpr()}}
	}
	for i, n := range w.Ctes {
		if w.Recursive {
			within[i] = env
		}
		of := n.GetCommonTableExpr().Ctequery.GetSelectStmt()
		if of == nil {
			g.refuse("a data-modifying WITH runs once")
			continue
		}
		n.GetCommonTableExpr().Ctequery = &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: g.query(of, within[i], false)}}
	}
	return env
}

// inside goes into the sub-queries of all clauses of a SELECT but FROM and WITH.
func (g *gatherer) inside(s *pg.SelectStmt, env *cteEnv) {
	with, from, larg, rarg := s.WithClause, s.FromClause, s.Larg, s.Rarg
	s.WithClause, s.FromClause, s.Larg, s.Rarg = nil, nil, nil, nil
	transform(s.ProtoReflect(), func(n *pg.Node) (*pg.Node, bool) { return g.nested(n, env) })
	s.WithClause, s.FromClause, s.Larg, s.Rarg = with, from, larg, rarg
}

// nested gives what stands for a query that is nested in an expression or in FROM.
func (g *gatherer) nested(n *pg.Node, env *cteEnv) (*pg.Node, bool) {
	s := n.GetSelectStmt()
	if s == nil {
		return n, false
	}
	return &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: g.query(s, env, false)}}, true
}

// table finds the table or view that v names, nil where it names a CTE or nothing that is known.
func (g *gatherer) table(v *pg.RangeVar, env *cteEnv) *topology.Table {
	if v.Schemaname == "" && env.find(v.Relname) != nil {
		return nil
	}
	table, _ := g.a.table(v)
	return table
}

// sharded says that a query reads a sharded table, or a view, which may.
func (g *gatherer) sharded(s *pg.SelectStmt) bool {
	found := false
	walkMessage(s.ProtoReflect(), func(n *pg.Node) {
		if v := n.GetRangeVar(); v != nil {
			table, _ := g.a.table(v) // a CTE of its own name is none: then there is a part too many
			found = found || table != nil && (table.Kind == topology.Sharded || table.Kind == topology.View)
		}
	})
	return found
}

// readsCTE says that s may refer to a query of env.
func readsCTE(s *pg.SelectStmt, env *cteEnv) bool {
	found := false
	walkMessage(s.ProtoReflect(), func(n *pg.Node) {
		v := n.GetRangeVar()
		found = found || v != nil && v.Schemaname == "" && env.find(v.Relname) != nil
	})
	return found
}

// add makes f's only input one of the gathered Finish, and gives what stands in the last step for its rows. The number of its source
// is that of part.
func (g *gatherer) add(f *Finish, p *part) *pg.SelectStmt {
	in := f.Inputs[0]
	key := in.pull + "\x00" + string(rune(in.hidden))
	for _, n := range in.Params {
		key += "," + string(rune(n))
	}
	i, known := g.byText[key]
	if !known {
		i = len(g.f.Inputs)
		in.t, in.sql, in.literals = p.a.t, p.a.sql, slices.Clone(p.a.lits)
		g.f.Inputs = append(g.f.Inputs, in)
		g.byText[key] = i
	}
	g.f.sources = append(g.f.sources, i)
	g.averaged = g.averaged || len(in.averages) > 0
	return f.tree
}
