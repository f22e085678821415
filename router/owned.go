package router

import (
	"unicode/utf8"

	"shardproxy/topology"
)

// anchor is the place in a statement's text where rows that count on another shard are left out: a reference to a
// sharded table whose rows each give their own rows of the result and whose key all other sharded tables follow (driver).
// A row of theirs only matters together with a row of the anchor that has its key, and so nothing is to be said of them.
//
// The place is told by numbers of tokens: two texts of one Template have literals of different lengths.
type anchor struct {
	std         bool // standard_conforming_strings, when the tokens were counted
	first, last int32
	cut         anchorCut
	before      string // what is to stand before the token first
	after       string // … and behind the token last; the condition follows, and then tail
	tail        string
	hash        string // SQL of a row's key hash
	refusal     *Error // there is no such place
}

// anchorCut says what of the text a rewrite takes out.
type anchorCut uint8

const (
	cutNone  anchorCut = iota
	cutFirst           // the token first
	cutAll             // first to last
)

// Owned is a statement's text for a shard that holds rows which count on another one.
type Owned struct {
	SQL   string
	from  string // the client's text
	edits [2]edit
}

// edit is one change of a text, in bytes.
type edit struct{ at, cut, added int }

// Owned gives the text that a statement of kind Keyed, Scatter or Copy has, where it runs on several shards, on one that
// may hold rows of foreign, which count elsewhere: it leaves them out. Without such rows it is sql as it is. The text has
// the same parameters as sql, and its rows the same columns.
func (t *Template) Owned(sql string, foreign []topology.KeyRange) (Owned, *Error) {
	if len(foreign) == 0 || t.anchor == nil {
		return Owned{SQL: sql}, nil
	}
	return t.anchor.rewrite(sql, foreign)
}

// Changed says that the text is not the client's.
func (o *Owned) Changed() bool { return o.edits != [2]edit{} }

// Guarded says whether Owned changes the text of the statement at all. An error says why it cannot.
func (t *Template) Guarded() (bool, *Error) {
	if t.anchor == nil {
		return false, nil
	}
	return true, t.anchor.refusal
}

func (a *anchor) rewrite(sql string, foreign []topology.KeyRange) (Owned, *Error) {
	if a.refusal != nil {
		return Owned{}, a.refusal
	}
	first, last, ok := a.find(sql)
	if !ok {
		return Owned{}, &Error{Code: "XX000", Message: "the tables of the statement were not found again in its text"}
	}
	o := Owned{from: sql}
	o.edits[0] = edit{at: first.Start, added: len(a.before)}
	o.edits[1] = edit{at: last.End}
	kept := sql[first.Start:last.End]
	switch a.cut {
	case cutFirst:
		o.edits[0].cut = first.End - first.Start
		kept = sql[first.End:last.End]
	case cutAll:
		o.edits[1] = edit{at: first.Start, cut: len(kept)}
		kept = ""
	}
	text := make([]byte, 0, len(sql)+len(a.before)+len(a.after)+len(a.hash)+128+42*len(foreign))
	text = append(append(text, sql[:first.Start]...), a.before...)
	text = append(text, kept...)
	from := len(text)
	text = append(append(text, a.after...), '(')
	text = topology.AppendInRanges(text, a.hash, foreign)
	text = append(append(text, ") IS NOT TRUE"...), a.tail...) // a NULL key belongs to no other shard
	o.edits[1].added = len(text) - from
	o.SQL = string(append(text, sql[last.End:]...))
	return o, nil
}

// find gives the spans of the tokens first and last.
func (a *anchor) find(sql string) (first, last Span, ok bool) {
	lx := lexer{sql: sql, std: a.std}
	for i := int32(0); i <= a.last; i++ {
		if lx.next() == tokEnd {
			return first, last, false
		}
		if i == a.first {
			first = Span{lx.start, lx.pos}
		}
	}
	return first, Span{lx.start, lx.pos}, true
}

// Position gives the character of the client's text, counted from 1, that character p of SQL is, or stands for.
func (o *Owned) Position(p int) int {
	if !o.Changed() || p <= 0 {
		return p
	}
	at := len(o.SQL) // in bytes
	for i := range o.SQL {
		if p--; p == 0 {
			at = i
			break
		}
	}
	shift := 0
	for _, e := range o.edits {
		start := e.at + shift
		if at < start {
			break
		}
		if at < start+e.added {
			at, shift = e.at, 0
			break
		}
		shift += e.added - e.cut
	}
	return utf8.RuneCountInString(o.from[:min(max(at-shift, 0), len(o.from))]) + 1
}
