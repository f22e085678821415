package router

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// spot is where a reference to a sharded table, or to a view that shows the key of one, stands in the statement's own text.
type spot struct {
	v      *pg.RangeVar
	target bool   // of UPDATE or DELETE
	name   string // by which its columns are qualified
	column string // the shard key
}

// spotted notes where the tables that drive a FROM item stand, if the key of their rows can be named there. Within a view
// they do not stand in the statement's text, but the reference to the view does.
func (a *analysis) spotted(it *item, v *pg.RangeVar) {
	if a.foreign > 0 {
		return
	}
	shown := it.relations[0]
	for _, r := range it.drives {
		if r.table == nil || r.table.Kind != topology.Sharded {
			continue
		}
		for _, c := range shown.columns {
			if _, found := find(shown.columns, c.name); c.node == r.key() && c.name != "" && found == one {
				r.spot = &spot{v: v, name: shown.name, column: c.name}
				break
			}
		}
	}
}

// anchor finds the place where the statement can be told to leave rows out: it is that of a table that drives it and that
// all others follow, as place has proven.
func (a *analysis) anchor(drives []*relation, reach []map[*node]bool) *anchor {
	for _, r := range drives {
		if drivesAll(r, reach) && r.spot != nil {
			if found := a.anchorAt(r.spot, r.table); found != nil {
				return found
			}
		}
	}
	return &anchor{refusal: a.unguarded()}
}

// unguarded is the refusal of a statement that cannot be told to leave rows out.
func (a *analysis) unguarded() *Error {
	return &Error{
		Code: codeNotSupported, Message: "rows of this statement are on two shards, and its views do not show their shard key",
		Detail: "Rows of " + quoteName(a.sharded[0].table.Name) + " are being moved.",
		Hint:   "Rows of this table are being moved; try again when the move has ended, or let the view show the shard key.",
	}
}

const joinNothing = ` JOIN (SELECT) AS "shardproxy_elsewhere" ON `

// anchorAt makes the anchor of a spot. In FROM the table becomes a join with a row of no columns, which has the condition:
// so every name, type and whole row means what it meant, and PostgreSQL's planner makes a filter of the scan of it.
func (a *analysis) anchorAt(s *spot, table *topology.Table) *anchor {
	t := tokens{lexer: lexer{sql: a.sql, std: true}, number: -1}
	key := identifier(s.name) + "." + identifier(s.column)
	found := &anchor{std: a.env.StdStrings}
	if s.target {
		if s.v.Alias == nil { // FROM may have a table of the same name from another schema
			key = identifier(table.Schema) + "." + key
		}
		t.condition(found)
	} else {
		found.before, found.after, found.tail = "(", joinNothing, ")"
		if !t.item(s.v, found) {
			return nil
		}
	}
	found.hash = table.KeyType.HashSQL(key)
	return found
}

// tokens counts the tokens of a text.
type tokens struct {
	lexer
	number int32 // of the current token
	kind   token
}

func (t *tokens) advance() {
	t.kind = t.next()
	t.number++
}

// is says that the current token is a keyword, in any case.
func (t *tokens) is(w string) bool {
	return t.kind == tokWord && len(w) == t.pos-t.start && strings.EqualFold(t.sql[t.start:t.pos], w)
}

func (t *tokens) self(c byte) bool { return t.kind == tokSelf && t.sql[t.start] == c }

// item sets the anchor's tokens to those of a table in FROM: its name, with ONLY before it and its alias behind it. It is
// false where they are not found.
func (t *tokens) item(v *pg.RangeVar, found *anchor) bool {
	only, table, bracket := int32(-1), int32(-1), false
	for t.advance(); t.start < int(v.Location) && t.kind != tokEnd; t.advance() {
		switch {
		case t.is("only"):
			only, bracket = t.number, false
		case t.is("table"):
			table = t.number
		case t.self('('):
			bracket = true
		}
	}
	if t.start != int(v.Location) || t.kind == tokEnd {
		return false
	}
	found.first = t.number
	if !v.Inh {
		found.first = only
	}
	if table >= 0 && table == found.first-1 { // TABLE t is a query by itself
		found.first, found.cut, found.before = table, cutFirst, "SELECT * FROM ("
	}
	t.name(found)
	for t.kind == tokPoint {
		t.advance()
		t.name(found)
	}
	if !v.Inh && bracket || t.kind == tokOperator && t.sql[t.start:t.pos] == "*" {
		t.take(found)
	}
	if v.Alias == nil {
		return true
	}
	if t.is("as") {
		t.advance()
	}
	t.name(found)
	if len(v.Alias.Colnames) > 0 {
		for !t.self(')') && t.kind != tokEnd {
			t.advance()
		}
		t.take(found)
	}
	return true
}

// take makes the current token the last of the anchor.
func (t *tokens) take(found *anchor) {
	found.last = t.number
	t.advance()
}

// name takes an identifier.
func (t *tokens) name(found *anchor) {
	unicode := t.kind == tokUQuoted
	t.take(found)
	if unicode && t.is("uescape") {
		t.advance()
		t.take(found)
	}
}

// condition sets the anchor to the WHERE of an UPDATE or DELETE, or to where it would stand.
func (t *tokens) condition(found *anchor) {
	depth, where, point := 0, false, false
	for t.advance(); t.kind != tokEnd; t.advance() {
		switch {
		case t.self('('), t.self('['):
			depth++
		case t.self(')'), t.self(']'):
			depth--
		case depth > 0 || point: // a.where is a column
		case t.is("where"):
			found.first, where = t.number+1, true
		case t.is("returning"), t.self(';'):
			t.kind = tokEnd
		}
		if t.kind == tokEnd {
			break
		}
		found.last, point = t.number, t.kind == tokPoint
	}
	if where {
		found.before, found.after = "(", ") AND "
		return
	}
	found.first, found.after = found.last, " WHERE "
}

// copyAnchor is the anchor of COPY table TO, which has no condition: it becomes COPY (query) TO, of the same rows and columns.
// nil where the shard is certain to report an error.
func (a *analysis) copyAnchor(s *pg.CopyStmt, table *topology.Table) *anchor {
	if table.Partitioned {
		return nil
	}
	list := "*"
	columns := names(s.Attlist)
	seen := map[string]bool{}
	for _, name := range columns {
		if i := columnIndex(table, name); seen[name] || systemColumns[name] || i >= 0 && table.Columns[i].Generated {
			return nil
		}
		seen[name] = true
	}
	if all := stored(table); len(columns) == 0 && len(all) < len(table.Columns) {
		for _, i := range all {
			columns = append(columns, table.Columns[i].Name)
		}
	}
	if len(columns) > 0 {
		for i, name := range columns {
			columns[i] = identifier(name)
		}
		list = strings.Join(columns, ", ")
	}
	found := &anchor{std: a.env.StdStrings, cut: cutAll}
	found.hash = table.KeyType.HashSQL(identifier(table.Name) + "." + identifier(table.KeyColumn()))
	found.after = "(SELECT " + list + " FROM ONLY " + identifier(table.Schema) + "." + identifier(table.Name) + " WHERE "
	found.tail = ")"
	t := tokens{lexer: lexer{sql: a.sql, std: true}, number: -1}
	if t.advance(); !t.copied(found) {
		found.refusal = &Error{
			Code: codeNotSupported, Message: "COPY in the syntax of PostgreSQL 7 is not supported for a table whose rows are being moved",
			Hint: "Write COPY … TO STDOUT (FORMAT …, DELIMITER …), or try again when the move has ended.",
		}
	}
	return found
}

// copied sets the anchor's tokens to the table and columns of COPY. It is false for BINARY and DELIMITERS, which stand where
// COPY (query) has no place for them.
func (t *tokens) copied(found *anchor) bool {
	t.advance()
	if t.is("binary") {
		return false
	}
	found.first = t.number
	to := false
	for depth := 0; t.kind != tokEnd; t.advance() {
		switch {
		case t.self('('):
			depth++
		case t.self(')'):
			depth--
		case depth > 0:
		case t.is("to"):
			to = true
		case t.is("delimiters"):
			return false
		}
		if !to {
			found.last = t.number
		}
	}
	return true
}

// identifier writes a name so that it reads the same everywhere.
func identifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
