package router

import (
	"strings"
	"unsafe"
)

// token is the kind of one token of PostgreSQL's scanner (scan.l). The kinds of literals have
// the numbers of their LiteralKind.
type token uint8

const (
	tokString   = token(String)
	tokEscape   = token(Escape)
	tokDollar   = token(Dollar)
	tokBit      = token(Bit)
	tokHex      = token(Hex)
	tokUnicode  = token(Unicode)
	tokNational = token(National)
	tokInteger  = token(Integer)
	tokDecimal  = token(Decimal)

	tokEnd      token = iota + 16
	tokWord           // unquoted identifier or keyword
	tokQuoted         // "…"
	tokUQuoted        // U&"…"
	tokParam          // $1
	tokOperator       // + - <= @> …, one of a single character too
	tokCast           // ::
	tokPoint          // .
	tokSelf           // , ( ) [ ] ; : := ..
	tokJunk           // a number with letters behind it: only newer grammars know 0x1F and 1_000
	tokOther          // a byte that starts no token
	tokOpen           // a literal, quoted identifier or comment without its end: the rest of the text
)

func (t token) literal() bool { return t <= tokNational }

// lexer cuts a statement into tokens as PostgreSQL does. It neither allocates nor copies.
//
//	lx := lexer{sql: sql, std: true}
//	for tok := lx.next(); tok != tokEnd; tok = lx.next() { … sql[lx.start:lx.pos] … }
type lexer struct {
	sql     string
	std     bool // standard_conforming_strings
	pos     int  // end of the token, where the next one is looked for
	start   int  // of the token
	signs   int  // the + and - before this position are operators of one character each
	blank   bool // blanks or comments stand before the token
	slashed bool // the token is '…' or N'…' with a backslash escape in it
	hint    Span // of the inside of the first hint comment, behind "shardproxy:"
}

// Classes of bytes by what they can begin.
const (
	isOther = iota
	isBlank
	isLetter
	isPrefix // a letter that, before a quote, makes another kind of literal
	isDigit
	isQuote
	isDoubleQuote
	isDollar
	isPoint
	isColon
	isSelf
	isDash
	isSlash
	isOperator
)

var class, inIdentifier, inOperator = classes()

// classes gives the class of each byte, which bytes may go on in an identifier, and which in an
// operator.
func classes() (class [256]uint8, ident, op [256]bool) {
	fill := func(chars string, c uint8) {
		for i := range len(chars) {
			class[chars[i]] = c
		}
	}
	for c := 0x80; c < 0x100; c++ {
		class[c] = isLetter
	}
	fill("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_", isLetter)
	fill("bBeEnNuUxX", isPrefix)
	fill("0123456789", isDigit)
	fill(" \t\n\r\f\v", isBlank)
	fill(",()[];", isSelf)
	fill("~!@#^&|`?+*%<>=", isOperator)
	class['\''], class['"'], class['$'], class['.'] = isQuote, isDoubleQuote, isDollar, isPoint
	class[':'], class['-'], class['/'] = isColon, isDash, isSlash
	for c := range 256 {
		switch class[c] {
		case isLetter, isPrefix, isDigit, isDollar:
			ident[c] = true
		case isOperator, isDash, isSlash:
			op[c] = true
		}
	}
	return class, ident, op
}

// next moves to the next token. After tokEnd and tokOpen it gives tokEnd.
func (lx *lexer) next() token {
	s, i := lx.sql, lx.pos
	lx.blank, lx.slashed = false, false
	if i < len(s) && s[i] == ' ' { // by far the most common
		i++
		lx.blank = true
	}
	for i < len(s) {
		switch class[s[i]] {
		case isBlank:
			i++
			lx.blank = true
			continue
		case isLetter:
			return lx.word(i)
		case isPrefix:
			return lx.prefixed(i)
		case isDigit:
			return lx.number(i)
		case isQuote:
			if lx.std {
				return lx.quoted(i, i, tokString)
			}
			return lx.escaped(i, i, tokEscape)
		case isDoubleQuote:
			return lx.quoted(i, i, tokQuoted)
		case isDollar:
			return lx.dollar(i)
		case isPoint:
			if i+1 < len(s) && class[s[i+1]] == isDigit {
				return lx.number(i)
			}
			if i+1 < len(s) && s[i+1] == '.' {
				return lx.end(i, i+2, tokSelf)
			}
			return lx.end(i, i+1, tokPoint)
		case isColon:
			if i+1 < len(s) && s[i+1] == ':' {
				return lx.end(i, i+2, tokCast)
			}
			if i+1 < len(s) && s[i+1] == '=' {
				return lx.end(i, i+2, tokSelf)
			}
			return lx.end(i, i+1, tokSelf)
		case isSelf:
			return lx.end(i, i+1, tokSelf)
		case isDash:
			if i+1 < len(s) && s[i+1] == '-' {
				i = lineEnd(s, i)
				lx.blank = true
				continue
			}
			return lx.operator(i)
		case isSlash:
			if i+1 < len(s) && s[i+1] == '*' {
				after := lx.comment(i)
				if after < 0 {
					return lx.end(i, len(s), tokOpen)
				}
				i = after
				lx.blank = true
				continue
			}
			return lx.operator(i)
		case isOperator:
			return lx.operator(i)
		default:
			return lx.end(i, i+1, tokOther)
		}
	}
	return lx.end(len(s), len(s), tokEnd)
}

func (lx *lexer) end(start, end int, t token) token {
	lx.start, lx.pos = start, end
	return t
}

// lineEnd is the position of the line break that ends the -- comment at i.
func lineEnd(s string, i int) int {
	for i < len(s) && s[i] != '\n' && s[i] != '\r' {
		i++
	}
	return i
}

// comment is the position behind the comment /* … */ at i, which may hold others; -1 without an end.
func (lx *lexer) comment(i int) int {
	s, depth := lx.sql, 1
	inside := i + 2
	for i = inside; i+1 < len(s); i++ {
		switch {
		case s[i] == '*' && s[i+1] == '/':
			i++
			if depth--; depth == 0 {
				lx.noteHint(inside, i-1)
				return i + 1
			}
		case s[i] == '/' && s[i+1] == '*':
			i++
			depth++
		}
	}
	return -1
}

func (lx *lexer) word(i int) token {
	rest := lx.sql[i:]
	j := 1
	for j < len(rest) && inIdentifier[rest[j]] {
		j++
	}
	lx.start, lx.pos = i, i+j
	return tokWord
}

// prefixed reads what begins with one of the letters b, e, n, u and x.
func (lx *lexer) prefixed(i int) token {
	s := lx.sql
	if i+1 >= len(s) || (s[i+1] != '\'' && s[i+1] != '&') {
		return lx.word(i)
	}
	quoted := s[i+1] == '\''
	switch s[i] | 0x20 {
	case 'e':
		if quoted {
			return lx.escaped(i, i+1, tokEscape)
		}
	case 'b':
		if quoted {
			return lx.bits(i, tokBit)
		}
	case 'x':
		if quoted {
			return lx.bits(i, tokHex)
		}
	case 'n':
		if quoted && lx.std {
			return lx.quoted(i, i+1, tokNational)
		}
		if quoted {
			return lx.escaped(i, i+1, tokNational)
		}
	case 'u':
		if strings.HasPrefix(s[i+1:], "&'") {
			return lx.quoted(i, i+2, tokUnicode)
		}
		if strings.HasPrefix(s[i+1:], `&"`) {
			return lx.quoted(i, i+2, tokUQuoted)
		}
	}
	return lx.word(i)
}

// quoted reads the token at start whose first quote, which stands for itself when doubled, is at i.
func (lx *lexer) quoted(start, i int, t token) token {
	s := lx.sql
	quote := s[i]
	for i++; ; i++ {
		n := strings.IndexByte(s[i:], quote)
		if n < 0 {
			return lx.end(start, len(s), tokOpen)
		}
		i += n
		if i+1 < len(s) && s[i+1] == quote {
			i++
			continue
		}
		if quote == '\'' {
			if next := continued(s, i+1); next >= 0 {
				i = next
				continue
			}
		}
		return lx.end(start, i+1, t)
	}
}

// escaped reads a literal with backslash escapes whose first quote is at i.
func (lx *lexer) escaped(start, i int, t token) token {
	s := lx.sql
	slashed := false
	for i++; i < len(s); i++ {
		switch s[i] {
		case '\\':
			slashed = true
			i++
		case '\'':
			if i+1 < len(s) && s[i+1] == '\'' {
				i++
				continue
			}
			if next := continued(s, i+1); next >= 0 {
				i = next
				continue
			}
			lx.slashed = slashed && !(t == tokEscape && s[start] != '\'')
			return lx.end(start, i+1, t)
		}
	}
	return lx.end(start, len(s), tokOpen)
}

// bits reads B'…' or X'…', where a doubled quote ends one literal and begins another.
func (lx *lexer) bits(start int, t token) token {
	s := lx.sql
	for i := start + 2; ; i++ {
		n := strings.IndexByte(s[i:], '\'')
		if n < 0 {
			return lx.end(start, len(s), tokOpen)
		}
		i += n
		next := continued(s, i+1)
		if next < 0 {
			return lx.end(start, i+1, t)
		}
		i = next
	}
}

// continued is the position of the quote that goes on with a literal that was closed before i:
// only blanks and -- comments with a line break among them may stand between. -1 without one.
func continued(s string, i int) int {
	if i >= len(s) || (class[s[i]] != isBlank && s[i] != '-') {
		return -1
	}
	newline := false
	for ; i < len(s); i++ {
		switch {
		case s[i] == '\n' || s[i] == '\r':
			newline = true
		case class[s[i]] == isBlank:
		case s[i] == '-' && i+1 < len(s) && s[i+1] == '-':
			i = lineEnd(s, i) - 1
		case s[i] == '\'' && newline:
			return i
		default:
			return -1
		}
	}
	return -1
}

// dollar reads $1, or a dollar-quoted literal.
func (lx *lexer) dollar(i int) token {
	s, j := lx.sql, i+1
	for j < len(s) && class[s[j]] == isDigit {
		j++
	}
	if j > i+1 {
		if j < len(s) && startsIdentifier(s[j]) {
			return lx.junk(i, j)
		}
		return lx.end(i, j, tokParam)
	}
	for j < len(s) && inIdentifier[s[j]] && s[j] != '$' {
		j++
	}
	if j == len(s) || s[j] != '$' {
		return lx.end(i, i+1, tokOther)
	}
	tag := s[i : j+1]
	n := strings.Index(s[j+1:], tag)
	if n < 0 {
		return lx.end(i, len(s), tokOpen)
	}
	return lx.end(i, j+1+n+len(tag), tokDollar)
}

// number reads what begins with a digit, or with a point before one.
func (lx *lexer) number(i int) token {
	s, j, t := lx.sql, i, tokInteger
	for j < len(s) && class[s[j]] == isDigit {
		j++
	}
	if j < len(s) && s[j] == '.' && (j+1 == len(s) || s[j+1] != '.') {
		t = tokDecimal
		for j++; j < len(s) && class[s[j]] == isDigit; j++ {
		}
	}
	if j < len(s) && s[j]|0x20 == 'e' {
		k := j + 1
		if k < len(s) && (s[k] == '+' || s[k] == '-') {
			k++
		}
		if k < len(s) && class[s[k]] == isDigit {
			for t = tokDecimal; k < len(s) && class[s[k]] == isDigit; k++ {
			}
			j = k
		}
	}
	if j < len(s) && startsIdentifier(s[j]) {
		return lx.junk(i, j)
	}
	return lx.end(i, j, t)
}

func startsIdentifier(c byte) bool { return class[c] == isLetter || class[c] == isPrefix }

// junk is a number, or $1, that goes on as an identifier at j.
func (lx *lexer) junk(start, j int) token {
	for j < len(lx.sql) && inIdentifier[lx.sql[j]] {
		j++
	}
	return lx.end(start, j, tokJunk)
}

// operator reads the longest operator at i that holds no start of a comment, and that ends in
// + or - only if one of ~!@#^&|`?% is in it.
func (lx *lexer) operator(i int) token {
	s, j := lx.sql, i+1
	if i < lx.signs {
		return lx.end(i, j, tokOperator)
	}
	for j < len(s) && inOperator[s[j]] && !startsComment(s, j) {
		j++
	}
	if last := s[j-1]; j > i+1 && (last == '+' || last == '-') && !strings.ContainsAny(s[i:j], "~!@#^&|`?%") {
		lx.signs = j
		for j > i+1 && (s[j-1] == '+' || s[j-1] == '-') {
			j--
		}
	}
	return lx.end(i, j, tokOperator)
}

func startsComment(s string, i int) bool {
	return i+1 < len(s) && ((s[i] == '-' && s[i+1] == '-') || (s[i] == '/' && s[i+1] == '*'))
}

// stringBytes are the bytes of s, which the caller must not change.
func stringBytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
