package router

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// explain reads EXPLAIN. It runs where its statement would, on one shard: the plans of several are
// not one plan. EXPLAIN (SHARDPROXY) is answered by the proxy.
func (a *analysis) explain(s *pg.ExplainStmt) {
	t := a.t
	analyze, ours := false, false
	for _, n := range s.Options {
		switch d := n.GetDefElem(); strings.ToLower(d.GetDefname()) {
		case "analyze":
			analyze = optionOn(d)
		case "shardproxy":
			ours = optionOn(d)
		}
	}
	if ours {
		a.explainOurs(s)
		return
	}
	switch v := s.Query.GetNode().(type) {
	case *pg.Node_SelectStmt, *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
		a.rows(s.Query)
	case *pg.Node_DeclareCursorStmt:
		a.rows(v.DeclareCursorStmt.Query)
	default:
		a.refuse(&Error{Code: codeNotSupported, Message: "EXPLAIN of this kind of statement is not supported", Hint: "EXPLAIN the query itself."})
		t.Kind = Any
	}
	const hint = "Use EXPLAIN (SHARDPROXY), or add a condition that leaves one shard key."
	const why = "EXPLAIN is of one shard, the statement runs on several"
	switch {
	case t.Kind == Scatter, t.Kind == Cursor:
		a.refuse(&Error{Code: codeNotSupported, Message: why, Hint: hint})
	case t.Kind == All && !analyze:
		t.Kind = Any
	}
	a.oneShard(why)
	if t.Kind == Keyed && t.Reason != nil {
		t.Reason.Hint = hint
	}
	t.Returns = true
	if !analyze {
		t.Write, t.Pin, t.Config, t.First, t.SetConfig, t.Set = false, false, false, false, nil, SetStmt{}
	}
}

// optionOn reads the value of a boolean option, which is true without one.
func optionOn(d *pg.DefElem) bool {
	switch v := d.GetArg().GetNode().(type) {
	case nil:
		return true
	case *pg.Node_String_:
		switch strings.ToLower(v.String_.Sval) {
		case "false", "off", "0":
			return false
		}
	case *pg.Node_Integer:
		return v.Integer.Ival != 0
	case *pg.Node_Boolean:
		return v.Boolean.Boolval
	}
	return true
}

// explainOurs reads EXPLAIN (SHARDPROXY, …). The inner Template's literals are numbered as those of the
// whole text.
func (a *analysis) explainOurs(s *pg.ExplainStmt) {
	lx := lexer{sql: a.sql, std: true}
	depth := 0
	for tok := lx.next(); tok != tokEnd; tok = lx.next() {
		if tok != tokSelf {
			continue
		}
		switch a.sql[lx.start] {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth == 0 {
			break
		}
	}
	body := trim(a.sql, lx.pos, a.end())
	inner := &analysis{schema: a.schema, env: a.env, sql: a.sql, lits: a.lits, path: a.path, t: &Template{}, params: map[*pg.ParamRef]paramUse{}}
	inner.statement(s.Query)
	t := a.t
	t.Kind, t.Returns, t.Inner, t.Text = Explain, true, inner.t, a.sql[body.Start:body.End]
	t.Params, t.Unknown, t.Tables = inner.t.Params, inner.t.Unknown, inner.t.Tables
}
