package router

import "strings"

// Split cuts the text of a simple Query into its statements, without their semicolons and the
// blanks around them, and appends their spans to dst. Statements of blanks and comments only are
// left out; comments beside a statement stay with it, they may hold its hint.
//
// It agrees with PostgreSQL's grammar wherever that accepts the text. A semicolon within
// parentheses (CREATE RULE … DO (…; …)) or in the BEGIN ATOMIC … END body of a function ends
// no statement.
func Split(sql string, stdStrings bool, dst []Span) []Span {
	if whole := trim(sql, 0, len(sql)); strings.IndexByte(sql, ';') < 0 && whole.Start < whole.End {
		if c := sql[whole.Start]; c != '-' && c != '/' { // no comment, so it is not empty
			return append(dst, whole)
		}
	}
	s := splitter{lexer: lexer{sql: sql, std: stdStrings}}
	from, empty := 0, true
	for tok := s.next(); tok != tokEnd; tok = s.next() {
		if tok == tokSelf && sql[s.start] == ';' && s.parens <= 0 && s.bodies == 0 {
			if !empty {
				dst = append(dst, trim(sql, from, s.start))
			}
			from, empty = s.pos, true
			s.parens, s.words, s.begin, s.between = 0, 0, false, false
			continue
		}
		// An unterminated comment is not blank: PostgreSQL reports it.
		empty = false
		s.follow(tok)
	}
	if !empty {
		dst = append(dst, trim(sql, from, len(sql)))
	}
	return dst
}

func trim(sql string, start, end int) Span {
	for start < end && class[sql[start]] == isBlank {
		start++
	}
	for end > start && class[sql[end-1]] == isBlank {
		end--
	}
	return Span{Start: start, End: end}
}

// splitter follows one statement as far as its end depends on it.
type splitter struct {
	lexer
	parens  int
	words   int  // how many words of CREATE [OR REPLACE] FUNCTION | PROCEDURE have come; routine from then on
	bodies  int  // of BEGIN ATOMIC … END that are open
	begin   bool // the last token is BEGIN
	between bool // the last token is ATOMIC, or a semicolon of a body: END ends that body
}

// routine is the value of splitter.words for statements that may have a BEGIN ATOMIC body, and
// other for all that may not.
const (
	routine = 100
	other   = 101
)

func (s *splitter) follow(tok token) {
	begin, between := s.begin, s.between
	s.begin, s.between = false, false
	switch {
	case tok == tokSelf:
		switch s.sql[s.start] {
		case '(':
			s.parens++
		case ')':
			s.parens--
		case ';':
			s.between = s.parens <= 0
		}
	case tok == tokWord && s.words < routine:
		s.head(s.sql[s.start:s.pos])
	case tok == tokWord && s.words == routine && s.parens <= 0:
		switch word := s.sql[s.start:s.pos]; {
		case strings.EqualFold(word, "begin"):
			s.begin = true
		case begin && strings.EqualFold(word, "atomic"):
			s.bodies++
			s.between = true
		case between && strings.EqualFold(word, "end"):
			s.bodies--
		}
	case s.words < routine:
		s.words = other
	}
}

// head reads the statement's first words.
func (s *splitter) head(word string) {
	is := func(want string) bool { return strings.EqualFold(word, want) }
	switch {
	case s.words == 0 && is("create"):
		s.words = 1
	case s.words == 1 && is("or"):
		s.words = 2
	case s.words == 2 && is("replace"):
		s.words = 3
	case (s.words == 1 || s.words == 3) && (is("function") || is("procedure")):
		s.words = routine
	default:
		s.words = other
	}
}
