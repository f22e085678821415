package router

import (
	"fmt"
	"unicode/utf8"
)

// maxDepth bounds parentheses and subscripts within each other. A level of sub-selects takes six
// levels of protobuf messages, of which Go reads 10,000.
const maxDepth = 500

// maxTotal bounds the tokens of a statement: the parser takes some 150 bytes for each, on the C
// side and ours together.
const maxTotal = 2_000_000

// caseTokens is what one CASE counts: it takes four levels of protobuf messages, an operator two.
const caseTokens = 4

// guard refuses a statement before it reaches the C parser, which recurses over the tree that it
// builds and kills the process where that is too deep: there is no stack check in it, and no
// recover from a C stack overrun.
//
// The guard bounds the depth of the tree from the tokens alone. Whatever makes the tree deeper
// by one is counted; what can only stand beside each other is not added up: members of a comma
// list (rows of VALUES, an IN list), the terms between AND and OR, statements. What the text
// counts is a bound for valid statements only; an invalid one never becomes a tree.
func guard(sql string, stdStrings bool, maxTokens int) *Error {
	g := guardian{lexer: lexer{sql: sql, std: stdStrings}, max: maxTokens, levels: make([]bracket, 1, 16)}
	return g.run()
}

// bracket is one open parenthesis or bracket, and below them all the statement itself.
//
// Its depth is sets + max over comma segments of (links + max over terms of (chain + inner)).
type bracket struct {
	chain int // operators, casts … in this term: each may hold all before or behind it
	inner int // the deepest bracket closed in this term
	terms int // the deepest term of this segment before this one
	links int // joins, AND, OR and CASE of this segment: they hold terms
	lists int // the deepest segment before this one
	sets  int // UNION, INTERSECT, EXCEPT: they hold comma lists
	whole int // the deepest statement before this one
}

type guardian struct {
	lexer
	max    int
	open   int // what the open levels count, without what is closed in them
	levels []bracket
}

func (g *guardian) run() *Error {
	points, total, after := 0, 0, tokEnd
	for tok := g.next(); tok != tokEnd; tok = g.next() {
		if total++; total > maxTotal {
			return g.refuse(fmt.Sprintf("It has more than %d tokens.", maxTotal))
		}
		switch tok {
		case tokPoint:
			if points++; points > 3 { // a.b.c.d is one name
				g.count(1)
			}
		case tokOperator, tokCast:
			g.count(1)
		case tokSelf:
			g.self(g.sql[g.start])
			if len(g.levels) > maxDepth {
				return g.refuse(fmt.Sprintf("More than %d brackets hold each other.", maxDepth))
			}
		case tokWord:
			if after != tokPoint {
				g.word()
			}
		}
		if tok != tokPoint && tok != tokWord && tok != tokQuoted {
			points = 0
		}
		if g.open > g.max {
			return g.tooDeep()
		}
		after = tok
	}
	for len(g.levels) > 1 {
		g.close()
	}
	if g.top().depth() > g.max {
		return g.tooDeep()
	}
	return nil
}

func (g *guardian) top() *bracket { return &g.levels[len(g.levels)-1] }

func (g *guardian) count(n int) {
	g.top().chain += n
	g.open += n
}

// self opens or closes a bracket, or ends a segment or statement.
func (g *guardian) self(c byte) {
	l := g.top()
	switch c {
	case '(', '[':
		if c == '[' {
			g.count(1) // a subscript holds what it stands behind
		}
		g.open++
		g.levels = append(g.levels, bracket{})
	case ')', ']':
		if len(g.levels) > 1 {
			g.close()
		}
	case ',':
		g.open -= l.chain + l.links
		l.endSegment()
	case ';':
		g.open -= l.chain + l.links + l.sets
		l.endStatement()
	}
}

// close ends the top level, which becomes an inner one of the level below.
func (g *guardian) close() {
	l := g.top()
	g.open -= l.chain + l.links + l.sets + 1
	depth := l.depth() + 1
	g.levels = g.levels[:len(g.levels)-1]
	g.top().inner = max(g.top().inner, depth)
}

func (l *bracket) endTerm() {
	l.terms = max(l.terms, l.chain+l.inner)
	l.chain, l.inner = 0, 0
}

func (l *bracket) endSegment() {
	l.endTerm()
	l.lists = max(l.lists, l.links+l.terms)
	l.links, l.terms = 0, 0
}

func (l *bracket) endStatement() {
	l.endSegment()
	l.whole = max(l.whole, l.sets+l.lists)
	l.sets, l.lists = 0, 0
}

// depth is the depth of the level, which ends with it.
func (l *bracket) depth() int {
	l.endStatement()
	return l.whole
}

// word counts a keyword that makes the tree deeper.
func (g *guardian) word() {
	size := g.pos - g.start
	if size < 2 || size > 9 {
		return
	}
	var buf [9]byte
	for i := range size {
		buf[i] = lower(g.sql[g.start+i])
	}
	l := g.top()
	switch string(buf[:size]) {
	case "not", "is", "isnull", "notnull", "like", "ilike", "similar", "between", "in", "at",
		"collate", "operator", "overlaps":
		g.count(1)
	case "and", "or", "join":
		g.open += 1 - l.chain
		l.endTerm()
		l.links++
	case "case":
		g.open += caseTokens
		l.links += caseTokens
	case "union", "intersect", "except":
		g.open += 1 - l.chain - l.links
		l.endSegment()
		l.sets++
	}
}

func (g *guardian) tooDeep() *Error {
	return g.refuse(fmt.Sprintf("More than %d operators, casts, joins and brackets hold each other.", g.max))
}

func (g *guardian) refuse(detail string) *Error {
	return &Error{
		Code:     codeTooComplex,
		Message:  "stack depth limit exceeded",
		Detail:   detail,
		Hint:     "Use = ANY (ARRAY[…]), a VALUES list, COPY, or several statements.",
		Position: 1 + utf8.RuneCountInString(g.sql[:g.start]),
	}
}
