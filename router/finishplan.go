package router

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// lastStep is a SELECT, whose own rows are the statement's, without what it does with the rows of FROM and WHERE.
type lastStep struct {
	s      *pg.SelectStmt
	scope  *scope
	drives []*relation
	why    string

	guarded *relation // the one of drives whose place in the text is known
}

// finisher writes the two texts of a Finish.
type finisher struct {
	a      *analysis
	s      *pg.SelectStmt
	sc     *scope
	source int        // the number of the source that its rows are in Final
	pulled []*pg.Node // what the columns of Pull are, each once
	index  map[string]int
	why    string // why there is no such Finish, "" as long as there is one
}

// finishable makes the Finish of a statement whose rows of several shards are needed together. It gives what the statement
// is for several shards then: its FROM and WHERE.
func (a *analysis) finishable(rows rowset, reach []map[*node]bool) rowset {
	if a.last == nil || a.single != "" || len(a.t.Unknown) > 0 || driver(rows.drives, reach) != nil {
		return rows
	}
	root := a.guardable(reach)
	if root == nil {
		if a.last.why != "" {
			rows.why = a.last.why
		}
		return rows
	}
	var why string
	if a.t.finish, why = a.finishing(); a.t.finish == nil {
		rows.why = why
		a.cacheable = a.cacheable && len(a.lits) == 0 // another literal may be the number of another column
		return rows
	}
	rows.drives = []*relation{root}
	return rows
}

// guardable finds a table that drives FROM and WHERE and that all others follow, nil if there is none, and where the text can be
// told to leave rows of it out.
func (a *analysis) guardable(reach []map[*node]bool) *relation {
	for _, r := range a.last.drives {
		if a.last.guarded == nil && drivesAll(r, reach) && r.spot != nil {
			a.last.guarded = r
		}
	}
	return driver(a.last.drives, reach)
}

// finishing makes the Finish of the statement, or says why there is none.
func (a *analysis) finishing() (f *Finish, why string) {
	s := a.last.s
	switch {
	case a.t.Write || a.t.First || a.t.Config || a.t.Pin:
		return nil, "it does more than to read"
	case !a.env.StdStrings || strings.Contains(strings.ToLower(a.sql), finishMark):
		return nil, "its text cannot be written anew"
	case contains(s.LimitCount, isSubLink) || contains(s.LimitOffset, isSubLink):
		return nil, "LIMIT and OFFSET with a sub-query"
	case a.last.scope.level.window:
		return a.finisher().raw()
	case a.last.scope.level.aggregate || s.HavingClause != nil || len(s.GroupClause) > 0:
		if f, _ = a.finisher().groups(); f == nil {
			return a.finisher().raw()
		}
		if len(f.Inputs[0].averages) > 0 {
			f.raw, _ = a.finisher().raw()
		}
		return f, ""
	}
	return a.finisher().rows()
}

func (a *analysis) finisher() *finisher {
	b := &finisher{a: a, s: a.last.s, sc: a.last.scope, index: map[string]int{}}
	if a.part != nil {
		b.source = a.part.source
	}
	return b
}

func (b *finisher) refuse(why string) {
	if b.why == "" {
		b.why = why
	}
}

// key tells expressions apart: those that are equal give the same value for a row.
func (b *finisher) key(n *pg.Node) string {
	n = unlocated(n)
	strip := func(n *pg.Node) (*pg.Node, bool) {
		if c := n.GetColumnRef(); c != nil && len(c.Fields) == 2 && len(b.sc.items) == 1 && len(b.sc.items[0].relations) == 1 {
			c.Fields = c.Fields[1:] // there is only one table
		}
		return n, false
	}
	strip(n)
	transform(n.ProtoReflect(), strip)
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(n)
	if err != nil {
		b.refuse("an expression could not be read")
	}
	return string(text)
}

// column makes n a column of Pull, and gives what it is called in Final.
func (b *finisher) column(n *pg.Node) *pg.Node { return pulledColumn(b.add(n)) }

func pulledColumn(i int) *pg.Node {
	return exprOf(finishRows+"."+finishColumn, i+1)
}

func (b *finisher) add(n *pg.Node) int {
	k := b.key(n)
	i, ok := b.index[k]
	if !ok {
		i = len(b.pulled)
		b.index[k] = i
		b.pulled = append(b.pulled, n)
	}
	return i
}

// pull is the query of the pulled columns over the rows of the statement.
func (b *finisher) pull() *pg.SelectStmt {
	s := proto.Clone(b.s).(*pg.SelectStmt)
	s.TargetList = make([]*pg.Node, len(b.pulled))
	for i, n := range b.pulled {
		s.TargetList[i] = pg.MakeResTargetNodeWithNameAndVal(fmt.Sprintf(finishColumn, i+1), proto.Clone(n).(*pg.Node), 0)
	}
	s.DistinctClause, s.GroupClause, s.HavingClause, s.WindowClause, s.SortClause = nil, nil, nil, nil, nil
	s.LimitCount, s.LimitOffset, s.LimitOption, s.GroupDistinct = nil, nil, pg.LimitOption_LIMIT_OPTION_DEFAULT, false
	return s
}

// last is the statement over the pulled rows.
func (b *finisher) last() *pg.SelectStmt {
	s := proto.Clone(b.s).(*pg.SelectStmt)
	s.WithClause, s.WhereClause = nil, nil
	s.FromClause = selectOf(fmt.Sprintf("SELECT FROM "+sourceMark+" AS "+finishRows, b.source)).FromClause
	return s
}

// texts writes both queries.
func (b *finisher) texts(in *Input, pull, final *pg.SelectStmt) (*Finish, string) {
	f := &Finish{Inputs: []*Input{in}, sql: b.a.sql, tree: proto.Clone(final).(*pg.SelectStmt), sources: []int{0}}
	in.Params, f.FinalParams = renumber(pull), renumber(final)
	in.pull, f.final = b.text(pull), b.text(final)
	if r := b.a.last.guarded; r == nil {
		in.moving = b.a.unguarded()
	} else {
		in.hash = r.table.KeyType.HashSQL(identifier(r.spot.name) + "." + identifier(r.spot.column))
		b.guard(pull, r.spot)
		in.owned = b.text(pull)
	}
	if b.why != "" {
		return nil, b.why
	}
	return f, ""
}

// text writes a query. It must read as the same query again.
func (b *finisher) text(s *pg.SelectStmt) string {
	sql, ok := deparse(s)
	if !ok {
		b.refuse("its text cannot be written anew")
	}
	return sql
}

// guard puts the condition on the rows that count to the table of a spot.
func (b *finisher) guard(s *pg.SelectStmt, at *spot) {
	found := false
	transform(s.ProtoReflect(), func(n *pg.Node) (*pg.Node, bool) {
		v := n.GetRangeVar()
		if v == nil || v.Location != at.v.Location || v.Relname != at.v.Relname {
			return n, false
		}
		found = true
		join := selectOf("SELECT FROM t" + joinNothing + ownedMark).FromClause[0]
		join.GetJoinExpr().Larg = n
		return join, true
	})
	if !found {
		b.refuse("its tables were not found again in its text")
	}
}

// rows is the Finish of a statement without aggregates: the shards give rows of the result.
func (b *finisher) rows() (*Finish, string) {
	f := &Input{Gives: "rows of the result"}
	pull := proto.Clone(b.s).(*pg.SelectStmt)
	final := b.last()
	final.TargetList = selectOf(fmt.Sprintf("SELECT "+targetsMark, b.source)).TargetList
	plain := len(b.s.DistinctClause) > 0 && !distinctOn(b.s)
	if plain {
		for i := range b.s.TargetList {
			b.settledTarget(i)
		}
	}
	hidden := func(n *pg.Node) *pg.Node {
		k := b.key(n)
		for i, t := range b.s.TargetList {
			if isStar(t) {
				break
			}
			if b.key(t.GetResTarget().Val) == k {
				b.settledTarget(i)
				return pulledColumn(i)
			}
		}
		if !b.a.settledEverywhere(n, true) {
			b.refuse("the order depends on what differs between shards")
		}
		i, ok := b.index[k]
		if !ok {
			i = len(b.pulled)
			b.index[k] = i
			b.pulled = append(b.pulled, n)
			pull.TargetList = append(pull.TargetList, pg.MakeResTargetNodeWithNameAndVal(fmt.Sprintf(hiddenColumn, i+1), proto.Clone(n).(*pg.Node), 0))
		}
		return exprOf(finishRows+"."+hiddenColumn, i+1)
	}
	b.orders(final, true, hidden)
	f.hidden = len(b.pulled)
	pull.LimitOffset = nil
	switch {
	case b.s.LimitCount == nil:
		pull.LimitOption = pg.LimitOption_LIMIT_OPTION_DEFAULT
		if !distinctOn(b.s) {
			pull.SortClause = nil
		}
	case b.s.LimitOffset != nil:
		pull.LimitCount = replaced(exprOf("LEAST($1::pg_catalog.int8::pg_catalog.numeric + "+
			"COALESCE($2::pg_catalog.int8::pg_catalog.numeric, 0), 9223372036854775807)::pg_catalog.int8"), b.s.LimitCount, b.s.LimitOffset)
	}
	return b.texts(f, pull, final)
}

// replaced puts nodes in the place of the parameters of n.
func replaced(n *pg.Node, nodes ...*pg.Node) *pg.Node {
	return transformed(n, func(n *pg.Node) (*pg.Node, bool) {
		if p := n.GetParamRef(); p != nil {
			return proto.Clone(nodes[p.Number-1]).(*pg.Node), true
		}
		return n, false
	})
}

// raw is the Finish of any statement: the shards give the columns that it uses of the rows of FROM and WHERE.
func (b *finisher) raw() (*Finish, string) {
	f := &Input{Gives: "columns of the rows that are read"}
	final := b.last()
	final.TargetList = nil
	for _, t := range b.s.TargetList {
		final.TargetList = append(final.TargetList, b.expanded(t)...)
	}
	each := func(n *pg.Node) *pg.Node { return transformed(n, b.rawColumn) }
	b.targets(final, each)
	for i, n := range final.GroupClause {
		final.GroupClause[i] = b.groupItem(n, each)
	}
	final.HavingClause = each(final.HavingClause)
	for i, n := range final.WindowClause {
		final.WindowClause[i] = each(n)
	}
	b.orders(final, false, each)
	if len(b.pulled) == 0 {
		b.add(exprOf("true"))
	}
	return b.texts(f, b.pull(), final)
}

func (b *finisher) rawColumn(n *pg.Node) (*pg.Node, bool) {
	switch {
	case n.GetSubLink() != nil:
		b.refuse("a sub-query beside an aggregate or a window function")
		return n, true
	case n.GetColumnRef() != nil:
		fields := n.GetColumnRef().Fields
		if fields[len(fields)-1].GetAStar() != nil {
			b.refuse("* in an expression")
		}
		return b.column(n), true
	}
	return n, false
}

// positions is a GROUP BY of targets, by their numbers from 0.
func positions(list []int) []*pg.Node {
	if len(list) == 0 {
		return nil
	}
	list = slices.Clone(list)
	slices.Sort(list)
	numbers := make([]string, 0, len(list))
	for _, i := range slices.Compact(list) {
		numbers = append(numbers, strconv.Itoa(i+1))
	}
	return selectOf("SELECT GROUP BY " + strings.Join(numbers, ", ")).GroupClause
}
