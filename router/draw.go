package router

import (
	"slices"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// DrawVerb is what is done to a sequence.
type DrawVerb uint8

const (
	DrawNext    DrawVerb = iota // nextval, and the default of a column
	DrawCurrent                 // currval
	DrawLast                    // lastval
	DrawSet                     // setval
)

// Draw is one number that a statement takes from a sequence, or one that it sets.
type Draw struct {
	Verb     DrawVerb
	Sequence string // as regclass reads it
	Identity bool   // of an identity column: asks for no privilege
	Value    string // DrawSet
	Called   bool   // DrawSet: the next number is the one behind Value
}

// Drawing says which numbers a statement takes from sequences, each exactly once, and where they stand in its text. Such a
// statement is a Reject until they do.
type Drawing struct {
	Draws []Draw // in the order in which PostgreSQL would take them
	edits []drawEdit
}

// drawEdit puts a text, and behind it a number, in the place of sql[start:end].
type drawEdit struct {
	start, end    int
	before, after string
	draw          int // -1: no number
}

// Insertion is a change of a text: at is a byte of the old text, grown by how many characters it became longer there.
type Insertion struct{ At, Grown int }

// Fill gives the text with numbers in it: number writes each.
func (d *Drawing) Fill(sql string, number func(draw int) string) (text string, inserted []Insertion) {
	var b strings.Builder
	from := 0
	for _, e := range d.edits {
		b.WriteString(sql[from:e.start])
		n := b.Len()
		b.WriteString(e.before)
		if e.draw >= 0 {
			b.WriteString(number(e.draw))
		}
		b.WriteString(e.after)
		inserted = append(inserted, Insertion{e.end, b.Len() - n - (e.end - e.start)})
		from = e.end
	}
	b.WriteString(sql[from:])
	return b.String(), inserted
}

// draw notes a number to be taken.
func (a *analysis) draw(d Draw, e drawEdit) {
	e.draw = len(a.drawing.Draws)
	a.drawing.Draws = append(a.drawing.Draws, d)
	a.addEdit(e)
}

func (a *analysis) addEdit(e drawEdit) { a.drawing.edits = append(a.drawing.edits, e) }

// refuseDraw is refuse of something that goes once the numbers are in the text, if they can be put there.
func (a *analysis) refuseDraw(e *Error) {
	if a.refusal == nil {
		a.drawRefusal = e
	}
	a.refuse(e)
}

// drawn gives the Template its Drawing, if nothing but the lack of numbers is in the way.
func (a *analysis) drawn() {
	if len(a.drawing.Draws) == 0 || a.refusal == nil || a.refusal != a.drawRefusal || a.undrawn || a.t.Kind != Reject {
		return
	}
	slices.SortStableFunc(a.drawing.edits, func(x, y drawEdit) int { return x.start - y.start })
	a.t.Draws = &a.drawing
	a.cacheable = false // the places are those of this text
}

// onceEach notes the calls that a statement makes exactly once for its only row, or for each row of VALUES: those that are a
// whole value by themselves. Their columns in a select list are named after them, unless they have a name.
func (a *analysis) onceEach(n *pg.Node) {
	note := func(v *pg.Node, named bool) {
		if f := v.GetFuncCall(); f != nil {
			a.calls[f] = named
		}
	}
	a.calls = make(map[*pg.FuncCall]bool)
	a.nested = true
	if s := n.GetSelectStmt(); constantRow(s) && s.WithClause == nil && len(s.SortClause) == 0 && len(s.DistinctClause) == 0 {
		for _, target := range s.TargetList {
			v, named := target.GetResTarget().GetVal(), target.GetResTarget().GetName() != ""
			note(v, named)
			a.nested = a.nested && (named || v.GetFuncCall() != nil || v.GetAExpr() != nil || v.GetNullTest() != nil)
		}
		return
	}
	if s := n.GetInsertStmt(); s != nil && s.WithClause == nil && s.SelectStmt.GetSelectStmt() != nil && plainValues(s.SelectStmt.GetSelectStmt()) {
		for _, row := range s.SelectStmt.GetSelectStmt().ValuesLists {
			for _, cell := range row.GetList().GetItems() {
				note(cell, true)
			}
		}
		return
	}
	a.nested = false
}

// sequenceCall reads nextval and its like.
func (a *analysis) sequenceCall(f *pg.FuncCall, name string) {
	a.t.Write = true
	e := &Error{
		Code:    codeNotSupported,
		Message: name + "() is only supported as a value by itself: in a SELECT without FROM, and in the VALUES of INSERT",
		Hint:    "Take the number by a SELECT of its own, or give it in the statement.",
	}
	named, once := a.calls[f]
	d, ok := a.sequenceDraw(f, name)
	if !once && a.nested && a.foreign == 0 && (d.Verb == DrawCurrent || d.Verb == DrawLast) {
		named, once = true, true // these change nothing
	}
	if !ok || !once {
		a.undrawn = true
		a.refuse(e)
		return
	}
	end := a.endOf(int(f.Location))
	place := drawEdit{start: int(f.Location), end: end, after: "::bigint"}
	if !named {
		place.after += " AS " + name
	}
	a.draw(d, place)
	a.refuseDraw(e)
}

// sequenceDraw reads the arguments of a sequence function, which must be known.
func (a *analysis) sequenceDraw(f *pg.FuncCall, name string) (d Draw, ok bool) {
	if name == "lastval" {
		return Draw{Verb: DrawLast}, len(f.Args) == 0
	}
	if len(f.Args) == 0 {
		return d, false
	}
	arg := f.Args[0]
	if cast := arg.GetTypeCast(); cast != nil && last(names(cast.TypeName.GetNames())) == "regclass" {
		arg = cast.Arg
	}
	text := arg.GetAConst().GetSval()
	if text == nil {
		return d, false
	}
	d.Sequence = a.sequenceNamed(text.Sval)
	switch {
	case name == "nextval" && len(f.Args) == 1:
		return d, true
	case name == "currval" && len(f.Args) == 1:
		d.Verb = DrawCurrent
		return d, true
	case name == "setval" && (len(f.Args) == 2 || len(f.Args) == 3):
		d.Verb, d.Called = DrawSet, true
		if len(f.Args) == 3 {
			c := f.Args[2].GetAConst()
			if c.GetBoolval() == nil {
				return d, false
			}
			d.Called = c.GetBoolval().GetBoolval()
		}
		d.Value, ok = integer(f.Args[1])
		return d, ok
	}
	return d, false
}

// integer reads a literal integer.
func integer(n *pg.Node) (text string, ok bool) {
	if e := n.GetAExpr(); e != nil && e.Lexpr == nil && len(e.Name) == 1 && e.Name[0].GetString_().GetSval() == "-" {
		text, ok = integer(e.Rexpr)
		return "-" + text, ok && text[0] != '-'
	}
	c := n.GetAConst()
	switch {
	case c.GetIval() != nil:
		return strconv.Itoa(int(c.GetIval().Ival)), true
	case c.GetFval() != nil:
		_, err := strconv.ParseInt(c.GetFval().Fval, 10, 64)
		return c.GetFval().Fval, err == nil
	}
	return "", false
}

// sequenceNamed gives the one that a text means as regclass; where none is known, a shard says so.
func (a *analysis) sequenceNamed(text string) string {
	parts := strings.Split(text, ".")
	for i, part := range parts {
		if parts[i] = strings.ToLower(part); strings.HasPrefix(part, `"`) {
			parts[i] = strings.ReplaceAll(strings.Trim(part, `"`), `""`, `"`)
		}
	}
	schemas := a.path
	if len(parts) == 2 {
		schemas = parts[:1]
	}
	if len(parts) > 2 {
		return text
	}
	for _, schema := range schemas {
		name := topology.TableName{Schema: schema, Name: parts[len(parts)-1]}
		if t, ok := a.schema.Tables[name]; ok && t.Kind == topology.Other {
			return identifier(name.Schema) + "." + identifier(name.Name)
		}
	}
	a.unknown(&pg.RangeVar{Schemaname: strings.Join(parts[:len(parts)-1], ""), Relname: parts[len(parts)-1]})
	return text
}

// endOf gives the end of a call that begins at start: behind the parenthesis that closes its arguments.
func (a *analysis) endOf(start int) int {
	lx := lexer{sql: a.sql, std: a.env.StdStrings, pos: start}
	depth := 0
	for tok := lx.next(); tok != tokEnd; tok = lx.next() {
		switch {
		case tok == tokSelf && a.sql[lx.start] == '(':
			depth++
		case tok == tokSelf && a.sql[lx.start] == ')':
			if depth--; depth == 0 {
				return lx.pos
			}
		}
	}
	return len(a.sql)
}

// drawDefaults puts the numbers of the columns in their place that the new rows do not give: INSERT gets them as further columns,
// and DEFAULT becomes one.
func (a *analysis) drawDefaults(s *pg.InsertStmt, table *topology.Table, columns []int) {
	rows := s.SelectStmt.GetSelectStmt().GetValuesLists()
	args := &Args{SQL: a.sql, Literals: a.lits}
	spans := rowSpans(args)
	if s.WithClause != nil || len(spans) != len(rows) || s.Override != pg.OverridingKind_OVERRIDING_NOT_SET {
		a.undrawn = true
		return
	}
	var added []int
	always, given := false, false
	for i := range table.Columns {
		c, at := &table.Columns[i], slices.Index(columns, i)
		defaults := 0
		for _, row := range rows {
			if cells := row.GetList().GetItems(); at >= 0 && at < len(cells) && cells[at].GetSetToDefault() != nil {
				defaults++
			}
		}
		switch {
		case c.Draws == "" && c.Sequence && (at < 0 || defaults > 0):
			a.undrawn = true
			return
		case c.Draws == "":
		case at < 0:
			added = append(added, i)
			always = always || c.Always
		case defaults > 0:
			always = always || c.Always
			given = given || c.Always && defaults < len(rows)
		default:
			given = given || c.Always
		}
	}
	if always && given { // OVERRIDING SYSTEM VALUE would let pass what PostgreSQL refuses
		a.undrawn = true
		return
	}
	a.drawHead(s, table, columns, added, always, spans[0].Start)
	for i, row := range rows {
		a.drawRow(row.GetList().GetItems(), table, columns, added, spans[i])
	}
}

// drawRow takes the numbers of one row, in the order of the table's columns as PostgreSQL does.
func (a *analysis) drawRow(cells []*pg.Node, table *topology.Table, columns, added []int, span Span) {
	for i := range table.Columns {
		c := &table.Columns[i]
		d := Draw{Sequence: c.Draws, Identity: c.Identity}
		for j, column := range columns {
			if column == i && c.Draws != "" && j < len(cells) && cells[j].GetSetToDefault() != nil {
				at := int(cells[j].GetSetToDefault().Location)
				a.draw(d, drawEdit{start: at, end: at + len("default")})
			}
		}
		if slices.Contains(added, i) {
			a.draw(d, drawEdit{start: span.End - 1, end: span.End - 1, before: ", "})
		}
	}
}

// drawHead adds columns to the list of INSERT, which is made where there is none.
func (a *analysis) drawHead(s *pg.InsertStmt, table *topology.Table, columns, added []int, always bool, rows int) {
	name := func(i int) string { return identifier(table.Columns[i].Name) }
	values, closing := 0, 0 // where VALUES begins, and the list of columns ends
	lx := lexer{sql: a.sql[:rows], std: a.env.StdStrings, pos: int(s.Relation.Location)}
	for tok := lx.next(); tok != tokEnd; tok = lx.next() {
		if tok == tokSelf && a.sql[lx.start] == ')' {
			closing = lx.start
		}
		values = lx.start
	}
	if len(added) > 0 && len(s.Cols) > 0 {
		list := ""
		for _, i := range added {
			list += ", " + name(i)
		}
		a.addEdit(drawEdit{start: closing, end: closing, before: list, draw: -1})
	}
	head := ""
	if len(added) > 0 && len(s.Cols) == 0 {
		var list []string
		for _, i := range columns {
			list = append(list, name(i))
		}
		for _, i := range added {
			list = append(list, name(i))
		}
		head = "(" + strings.Join(list, ", ") + ") "
	}
	if always {
		head += "OVERRIDING SYSTEM VALUE "
	}
	if head != "" {
		a.addEdit(drawEdit{start: values, end: values, before: head, draw: -1})
	}
}
