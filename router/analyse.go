package router

import (
	"errors"
	"fmt"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"

	"shardproxy/topology"
)

// SQLSTATEs of the router's own refusals.
const (
	codeNotSupported = "0A000"
	codeNotNull      = "23502"
	codeSyntax       = "42601"
	codeTooComplex   = "54001"
	codePrivilege    = "42501"
	codeUndefined    = "42704"
	codeSerialize    = "40001"
)

const (
	hintComment = "Name the shard with a comment: /* shardproxy: key=… */"

	maxReferences = 1_000 // of tables: views and CTEs multiply, each use counts what is in it
	maxViews      = 32    // nested in each other
)

// analysis is one statement being analysed.
type analysis struct {
	schema *topology.Schema
	env    *Env
	sql    string
	lits   []Literal
	t      *Template

	path    []string // search path: the session's, none inside a view
	foreign int      // depth in views: locations are not of sql
	uses    int      // references to tables so far

	sharded      []*relation       // every reference to a sharded table
	copies       []*topology.Table // reference tables that are written
	written      []keySet          // keys of rows to be written, besides the tables' own
	insert       keySet            // keys of the rows of a top-level INSERT … VALUES
	refusal      *Error            // the first one
	single       string            // why several shards at once would not be exact, whatever the tables
	shuffled     string            // the same, of the rows that RETURNING gives
	diverges     string            // why the statement may do something else on each shard
	firstBy      string            // the function that needs the first shard
	cursor       string            // of WHERE CURRENT OF
	unknownTable string
	parseOnly    bool // the server is certain to report an error: let it

	lockedCopies bool // a row lock on a reference table
	lockedQuery  bool // a row lock on what a sub-query in FROM reads
	cacheable    bool
	params       map[*pg.ParamRef]paramUse
	top          *pg.SelectStmt // the statement itself, where it is a SELECT
	last         *lastStep      // of top
	nullKey      *Error         // what a row without its shard key is refused with
	// constantTargets is the select list of a statement that gives one row, whatever there is.
	constantTargets []*pg.Node
	timed           bool  // a text is cast to a time
	part            *part // the statement is a part of one that is gathered, nil if it is not

	calls       map[*pg.FuncCall]bool // of sequence functions that may be replaced by a number; true: their column has a name
	nested      bool                  // currval and lastval may be replaced within values too
	drawing     Drawing
	drawRefusal *Error // the refusal that goes with drawing
	undrawn     bool   // drawing lacks something
}

// analyse makes the Template of one statement. The second result is false where it depends on
// literals that are not part of the plan cache's key.
func analyse(snap *topology.Snapshot, env *Env, sql string, lits []Literal) (*Template, bool, error) {
	if hint := findHint(sql, true); hint.Present {
		return analyseHinted(snap, env, sql, lits, hint)
	}
	tree, err := pg.Parse(sql)
	if err != nil {
		return unparsed(err), false, nil
	}
	a := newAnalysis(snap, env, sql, lits)
	switch len(tree.Stmts) {
	case 0:
		return &Template{Kind: Any}, false, nil
	case 1:
		a.statement(tree.Stmts[0].Stmt)
	default:
		a.reject(&Error{Code: codeSyntax, Message: "cannot insert multiple commands into a prepared statement"})
	}
	return a.t, a.cacheable && len(a.t.Unknown) == 0, nil
}

func newAnalysis(snap *topology.Snapshot, env *Env, sql string, lits []Literal) *analysis {
	a := &analysis{env: env, sql: sql, lits: lits, path: env.SearchPath, t: &Template{}, cacheable: true, schema: &topology.Schema{}, params: map[*pg.ParamRef]paramUse{}}
	if snap != nil && snap.Schema != nil {
		a.schema = snap.Schema
	}
	return a
}

// unparsed is the Template of a text that our grammar does not know.
func unparsed(err error) *Template {
	e := &Error{Code: codeSyntax, Message: err.Error()}
	if p := new(parser.Error); errors.As(err, &p) {
		e.Message, e.Position = p.Message, p.Cursorpos
	}
	return &Template{Kind: Syntax, Write: true, Reason: e}
}

// analyseHinted is the Template of a statement whose shard a comment names. Nothing else of it
// is looked at but whether it can only read.
func analyseHinted(snap *topology.Snapshot, env *Env, sql string, lits []Literal, hint Hint) (*Template, bool, error) {
	t := &Template{Kind: Keyed, Write: true, Returns: true, Reason: differentShards()}
	keep := true
	if tree, err := pg.Parse(sql); err == nil && len(tree.Stmts) == 1 {
		a := newAnalysis(snap, &Env{SearchPath: env.SearchPath, StdStrings: true, Bound: true}, sql, lits)
		a.statement(tree.Stmts[0].Stmt)
		switch a.t.Kind {
		case Tx, Set, Show, Discard, Prepare, Execute, Deallocate, Cursor, Close, Listen, Notify, Explain, Copy:
			a = newAnalysis(snap, env, sql, lits) // it does not run on one shard: the comment says nothing
			a.statement(tree.Stmts[0].Stmt)
			return a.t, false, nil
		case Reject: // not even a shard by itself could do it
			return a.t, false, nil
		}
		for _, set := range a.t.SetConfig {
			if set.Local && set.Name == "" && !env.Bound {
				return &Template{Kind: Reject, Reason: unclearConfig()}, false, nil
			}
		}
		keep = a.cacheable
		t.Write = a.t.Write
		t.Returns, t.Params, t.Tables, t.Pin, t.Schema = a.t.Returns, a.t.Params, a.t.Tables, a.t.Pin, a.t.Schema
		t.Declare, t.Unknown, t.Copy, t.Unbound = a.t.Declare, a.t.Unknown, a.t.Copy, a.t.Unbound
		t.Block, t.Config, t.SetConfig = a.t.Block, a.t.Config, a.t.SetConfig
	}
	switch {
	case !hint.Readable():
		t.Kind = Reject
		t.Reason = &Error{
			Code: codeSyntax, Message: "the shardproxy comment cannot be read",
			Hint: "Write /* shardproxy: key=42 */, /* shardproxy: key='text' */ or /* shardproxy: shard=name */.",
		}
	case hint.Shard != "":
		t.shard = strings.Clone(hint.Shard)
	default:
		t.keys = []keySet{{{origin: fromHash, hash: hint.Hash(), wide: !hint.Portable()}}}
	}
	return t, keep && len(t.Unknown) == 0, nil
}

// statement fills the Template of a whole statement.
func (a *analysis) statement(n *pg.Node) {
	switch v := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		if into := selectInto(v.SelectStmt); into != nil {
			a.createAs(n, into)
			break
		}
		a.top = v.SelectStmt
		a.onceEach(n)
		a.rows(n)
	case *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
		a.onceEach(n)
		a.rows(n)
	default:
		a.utility(n)
	}
	a.finish()
}

// rows reads a statement that gives or changes rows, and places it.
func (a *analysis) rows(n *pg.Node) {
	a.t.Returns = n.GetSelectStmt() != nil
	if constantRow(n.GetSelectStmt()) {
		a.constantTargets = n.GetSelectStmt().TargetList
	}
	rows := a.query(n, nil, nil, &level{top: true})
	switch {
	case a.cursor != "":
		a.t.Kind, a.t.Name = Cursor, a.cursor
		if len(a.sharded) != 1 || len(a.copies) > 0 {
			a.refuse(&Error{Code: codeNotSupported, Message: "WHERE CURRENT OF is only supported with one table", Hint: hintComment})
		}
	case a.env.Bound:
		a.t.Kind = Any
	case a.insert != nil && len(a.sharded) == 1 && len(a.copies) == 0 && !a.t.First && !a.lockedCopies:
		a.t.Kind, a.t.rows = Insert, a.insert
		if a.single == "" {
			a.single = a.shuffled
		}
		if a.t.Combine = a.single == ""; !a.t.Combine {
			a.t.Reason = &Error{
				Code: codeNotSupported, Message: "the rows of this statement belong to several shards: " + a.single,
				Hint: "Insert the rows of each shard key by themselves.",
			}
		}
	default:
		a.place(rows)
	}
	a.configured()
}

// constantRow says that a SELECT gives one row, whatever there is.
func constantRow(s *pg.SelectStmt) bool {
	return s != nil && len(s.FromClause) == 0 && s.WhereClause == nil && s.HavingClause == nil && len(s.GroupClause) == 0 &&
		s.LimitCount == nil && s.LimitOffset == nil && s.Larg == nil && len(s.ValuesLists) == 0
}

// finish turns what was found into the Template's kind.
func (a *analysis) finish() {
	t := a.t
	switch {
	case a.parseOnly && !a.env.Bound:
		t.Kind = Syntax
		if t.Reason = a.refusal; t.Reason == nil {
			t.Reason = &Error{Code: codeNotSupported, Message: "the proxy does not know what this statement writes", Hint: hintComment}
		}
	case a.refusal != nil && a.unknownTable != "":
		t.Kind, t.Reason = Syntax, a.refusal
	case a.refusal != nil:
		t.Kind, t.Reason = Reject, a.refusal
	}
	if t.Kind == 0 { // refused, but for the session being bound
		t.Kind = Any
	}
	if t.Kind == Reject || t.Kind == Syntax {
		t.keys, t.rows, t.Combine, t.anchor, t.finish = nil, nil, false, nil, nil
	}
	t.nullKey = a.nullKey
	a.drawn()
	a.markMixed()
}

// refuse notes why the statement cannot be run exactly. A session that is bound to one shard
// asked for that shard's answer, so nothing is refused there.
func (a *analysis) refuse(e *Error) {
	if !a.env.Bound {
		a.reject(e)
	}
}

// reject notes why the statement cannot be run at all.
func (a *analysis) reject(e *Error) {
	if a.refusal == nil {
		a.refusal = e
	}
	a.t.Kind, a.t.Reason = Reject, a.refusal
}

// alone notes why the statement is not exact on several shards at once.
func (a *analysis) alone(why string) {
	if a.single == "" {
		a.single = why
	}
}

// diverge notes why the statement may do something else on each shard that has the same rows.
func (a *analysis) diverge(why string) {
	if a.diverges == "" {
		a.diverges = why
	}
}

// count bounds the work and memory that one statement takes: false says to stop.
func (a *analysis) count() bool {
	if a.uses++; a.uses > maxReferences {
		a.reject(&Error{Code: codeTooComplex, Message: fmt.Sprintf("statement is too complex: more than %d references to tables", maxReferences)})
	}
	return a.uses <= maxReferences
}

// mention adds a table to Template.Tables.
func (a *analysis) mention(table *topology.Table) {
	for _, t := range a.t.Tables {
		if t == table {
			return
		}
	}
	a.t.Tables = append(a.t.Tables, table)
}

// table finds the table that v names. It is nil for relations of the system, which are known,
// and for those that the schema does not hold.
func (a *analysis) table(v *pg.RangeVar) (table *topology.Table, known bool) {
	if v.Schemaname != "" {
		if systemSchema(v.Schemaname) {
			return nil, true
		}
		table, known = a.schema.Tables[topology.TableName{Schema: v.Schemaname, Name: v.Relname}]
		return table, known
	}
	for _, schema := range a.path {
		if table, known = a.schema.Tables[topology.TableName{Schema: schema, Name: v.Relname}]; known {
			return table, true
		}
	}
	return nil, strings.HasPrefix(v.Relname, "pg_")
}

func systemSchema(name string) bool {
	return strings.HasPrefix(name, "pg_") || name == "information_schema"
}

// unknown notes a relation that the schema does not hold.
func (a *analysis) unknown(v *pg.RangeVar) {
	name := v.Relname
	if v.Schemaname != "" {
		name = v.Schemaname + "." + name
	}
	a.t.Unknown = append(a.t.Unknown, name)
	if a.unknownTable == "" {
		a.unknownTable = name
	}
}

// view reads a view as the query that it is.
func (a *analysis) view(table *topology.Table) rowset {
	a.mention(table)
	rows := rowset{open: true}
	tree, err := pg.Parse(table.Definition)
	if err != nil || len(tree.Stmts) != 1 || a.foreign == maxViews {
		a.refuse(&Error{Code: codeNotSupported, Message: "the definition of view " + quoteName(table.Name) + " cannot be analysed", Hint: hintComment})
		return rows
	}
	path, before := a.path, len(a.sharded)
	a.path = nil
	a.foreign++
	rows = a.query(tree.Stmts[0].Stmt, nil, nil, &level{})
	a.foreign--
	a.path = path
	if table.Stored && len(a.sharded) > before {
		a.refuse(&Error{
			Code:    codeNotSupported,
			Message: "materialized view " + quoteName(table.Name) + " holds the rows of one shard only", Hint: hintComment,
		})
	}
	if len(rows.columns) != len(table.Columns) || rows.open {
		return rowset{open: true, why: rows.why}
	}
	for i := range rows.columns {
		rows.columns[i].name = table.Columns[i].Name
	}
	return rows
}

func columnIndex(table *topology.Table, name string) int {
	for i := range table.Columns {
		if table.Columns[i].Name == name {
			return i
		}
	}
	return -1
}

// quoteName is a name as it stands in PostgreSQL's messages.
func quoteName(name string) string { return `"` + name + `"` }

func upper(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

func columnNumber(i int) string { return fmt.Sprintf("column%d", i+1) }
