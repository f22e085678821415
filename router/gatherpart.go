package router

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// part is a query inside a statement, while it is read as a statement of its own.
type part struct {
	a       *analysis
	source  int             // its number in the last step
	outputs map[string]bool // the names that it gives to columns
	outer   bool            // it uses a column of the query around it
}

// column notes a column that is none of the part's own. Where that is not certain a shard is asked: it does not know the column then.
func (p *part) column(c *pg.ColumnRef, sc *scope) {
	fields := names(c.Fields)
	if len(fields) == 0 || p.outer {
		return
	}
	name := fields[0]
	for ; sc != nil; sc = sc.parent {
		for _, it := range sc.items {
			for _, r := range it.relations {
				if r.name == name {
					return
				}
			}
		}
		if len(c.Fields) > 1 {
			continue
		}
		if _, _, found := sc.unqualified(name); found != absent || p.outputs[name] {
			return
		}
	}
	p.outer = true
}

// part gives what stands in the last step for a query that shards can answer by themselves, nil where they cannot.
func (g *gatherer) part(s *pg.SelectStmt, operand bool) *pg.SelectStmt {
	p := g.read(s)
	if p == nil || p.outer || p.a.last == nil {
		return nil
	}
	t := p.a.t
	one := t.Kind == Keyed && len(t.keys) == 1 && !t.keys[0].many()
	if t.Kind != Scatter && t.Kind != Keyed || !one && !t.Combine {
		return nil
	}
	var f *Finish
	switch {
	case operand && typedOutside(s) || len(s.TargetList) == 0:
		if contains(s.LimitCount, isSubLink) || contains(s.LimitOffset, isSubLink) {
			return nil
		}
		f, _ = p.a.finisher().raw()
	case one:
		f, _ = p.a.finisher().whole()
	case t.finish == nil:
		f, _ = p.a.finisher().rows()
	case len(t.finish.Inputs[0].averages) > 0 && !g.averages:
		f = t.finish.raw
	default:
		f = t.finish
	}
	if f == nil {
		return nil
	}
	if in := f.Inputs[0]; one { // whose rows do not count elsewhere
		in.hash, in.owned, in.moving = "", "", nil
	}
	return g.add(f, p)
}

// read reads a query as a statement of its own, nil where it is none.
func (g *gatherer) read(s *pg.SelectStmt) *part {
	sql, ok := deparse(s)
	if !ok {
		return nil
	}
	tree, err := pg.Parse(sql)
	if err != nil {
		return nil
	}
	p := &part{source: len(g.f.sources), outputs: map[string]bool{}}
	walkMessage(s.ProtoReflect(), func(n *pg.Node) {
		if t := n.GetResTarget(); t != nil {
			p.outputs[t.Name] = true
		}
	})
	var sc Scratch
	normalise(&sc, sql, g.a.env, 0)
	p.a = newAnalysis(nil, g.a.env, sql, sc.Literals)
	p.a.schema, p.a.part = g.a.schema, p
	p.a.statement(tree.Stmts[0].Stmt)
	return p
}

// typedOutside says that the type or the collation of a column of an operand is not only its own matter: those of literals
// and of COLLATE are found together with the other operand. Then the columns have to stand in the last step as they are written.
func typedOutside(s *pg.SelectStmt) bool {
	for _, n := range s.TargetList {
		v := n.GetResTarget().GetVal()
		if c := v.GetAConst(); c != nil && (c.Isnull || c.GetSval() != nil) || contains(v, func(n *pg.Node) bool { return n.GetCollateClause() != nil }) {
			return true
		}
	}
	return false
}

// whole is the Finish of a query that runs on one shard: it gives the result.
func (b *finisher) whole() (*Finish, string) {
	final := selectOf(fmt.Sprintf("SELECT "+targetsMark+" FROM "+sourceMark+" AS "+finishRows, b.source, b.source))
	return b.texts(&Input{Gives: "rows of one shard"}, proto.Clone(b.s).(*pg.SelectStmt), final)
}
