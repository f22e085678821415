package router

import (
	"slices"
	"strconv"
	"strings"

	"shardproxy/topology"
)

// Piece is the part of an INSERT … VALUES that one shard runs.
type Piece struct {
	Shard  topology.ShardID
	SQL    string
	Params []int // the number (0-based) that each of its parameters had in the whole statement; nil in the simple protocol
	Rows   []int // the numbers (0-based) of its rows in the whole statement, ascending
}

// Split cuts an Insert whose rows belong to several shards (Route) into one statement for each, in
// ascending order of shards. The text outside of the rows is in all of them.
func (t *Template) Split(snap *topology.Snapshot, a *Args) ([]Piece, *Error) {
	spans := rowSpans(a)
	if t.Kind != Insert || len(spans) != len(t.rows) {
		return nil, &Error{Code: "XX000", Message: "the rows of INSERT were not found again in its text"}
	}
	if !t.Combine {
		return nil, t.Reason
	}
	var pieces []Piece
	for i := range t.rows {
		one, err := t.routeSet(snap, a, t.rows[i:i+1], nil, 0)
		if err != nil {
			return nil, err
		}
		shard := topology.ShardID(0)
		if len(one) > 0 {
			shard = one[0]
		}
		at, found := slices.BinarySearchFunc(pieces, shard, func(p Piece, s topology.ShardID) int { return int(p.Shard - s) })
		if !found {
			pieces = slices.Insert(pieces, at, Piece{Shard: shard})
		}
		pieces[at].Rows = append(pieces[at].Rows, i)
	}
	for i := range pieces {
		pieces[i].write(a, spans)
	}
	return pieces, nil
}

// write fills the piece's text and parameters.
func (p *Piece) write(a *Args, spans []Span) {
	var text strings.Builder
	w := pieceWriter{args: a, text: &text}
	w.copy(0, spans[0].Start)
	for i, row := range p.Rows {
		if i > 0 {
			text.WriteString(", ")
		}
		w.copy(spans[row].Start, spans[row].End)
	}
	w.copy(spans[len(spans)-1].End, len(a.SQL))
	p.SQL = text.String()
	if a.Params != nil {
		p.Params = w.params
	}
}

// pieceWriter copies stretches of a statement and numbers its parameters anew, in the order in
// which they come.
type pieceWriter struct {
	args   *Args
	text   *strings.Builder
	params []int
}

func (w *pieceWriter) copy(start, end int) {
	lx := lexer{sql: w.args.SQL[:end], std: w.args.std(), pos: start}
	for tok := lx.next(); tok != tokEnd; tok = lx.next() {
		if tok != tokParam {
			continue
		}
		number, err := strconv.Atoi(lx.sql[lx.start+1 : lx.pos])
		if err != nil {
			continue
		}
		at := slices.Index(w.params, number-1)
		if at < 0 {
			at = len(w.params)
			w.params = append(w.params, number-1)
		}
		w.text.WriteString(lx.sql[start:lx.start])
		w.text.WriteByte('$')
		w.text.WriteString(strconv.Itoa(at + 1))
		start = lx.pos
	}
	w.text.WriteString(w.args.SQL[start:end])
}

// std says whether the literals were read with standard_conforming_strings on.
func (a *Args) std() bool {
	for _, l := range a.Literals {
		if a.SQL[l.Start] == '\'' {
			return l.Kind != Escape
		}
	}
	return true
}

// rowSpans are the rows of INSERT … VALUES with their parentheses: what follows the first word
// VALUES outside of parentheses that is not itself a name.
func rowSpans(a *Args) (rows []Span) {
	lx := lexer{sql: a.SQL, std: a.std()}
	depth, start, inRows, begun := 0, 0, false, false
	name := false // the token before says that a name follows
	for tok := lx.next(); tok != tokEnd; tok = lx.next() {
		c := a.SQL[lx.start]
		switch {
		case tok == tokSelf && c == '(':
			if begun {
				inRows = true
			}
			if depth == 0 {
				start = lx.start
			}
			depth++
		case tok == tokSelf && c == ')':
			if depth--; depth == 0 && inRows {
				rows = append(rows, Span{start, lx.pos})
			}
		case depth > 0:
		case inRows && tok == tokSelf && c == ',':
		case inRows:
			return rows
		case begun:
			begun = false
		}
		if depth == 0 && !inRows {
			word := ""
			if tok == tokWord {
				word = strings.ToLower(a.SQL[lx.start:lx.pos])
			}
			begun = word == "values" && !name
			name = tok == tokPoint || tok == tokSelf && c == ',' || word == "into" || word == "as" || word == "with" || word == "recursive"
		}
	}
	return rows
}
