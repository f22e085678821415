package router

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// LiteralKind is how a literal is written.
type LiteralKind uint8

const (
	Integer  LiteralKind = iota + 1 // 42
	Decimal                         // 4.2, .5, 1e10
	String                          // '…', '' stands for one quote
	Escape                          // E'…', and '…' while standard_conforming_strings is off
	Dollar                          // $tag$…$tag$
	Bit                             // B'…'
	Hex                             // X'…'
	Unicode                         // U&'…'
	National                        // N'…'
)

// Literal is one literal of a statement: its span in the text, without a sign. A String, Escape,
// Bit, Hex, Unicode or National literal may go on after a line break ('a' newline 'b').
type Literal struct {
	Start, End int
	Kind       LiteralKind
	// Kept: the literal's text is part of the cache key. What a cached Template holds may
	// depend on the value of no other literal.
	Kept bool
}

// text is the literal's value as PostgreSQL reads it, appended to buf[:0] only where that is not
// a stretch of sql, and false where that is not known: Unicode, Bit and Hex literals, and
// escapes that PostgreSQL refuses.
func (l Literal) text(sql string, buf []byte) ([]byte, bool) {
	s := sql[l.Start:l.End]
	switch l.Kind {
	case Integer, Decimal:
		return stringBytes(s), true
	case Dollar:
		tag := strings.IndexByte(s[1:], '$') + 2
		return stringBytes(s[tag : len(s)-tag]), true
	case String:
		return unquote(s[1:], buf, false)
	case National:
		return unquote(s[2:], buf, false)
	case Escape:
		return unquote(s[strings.IndexByte(s, '\'')+1:], buf, true)
	}
	return nil, false
}

// unquote reads a quoted literal behind its first quote, to its last quote.
func unquote(s string, buf []byte, escapes bool) ([]byte, bool) {
	body := s[:len(s)-1]
	if strings.IndexByte(body, '\'') < 0 && (!escapes || strings.IndexByte(body, '\\') < 0) {
		return stringBytes(body), true
	}
	buf = buf[:0]
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '\'' && i+1 < len(s) && s[i+1] == '\'':
			buf = append(buf, '\'')
			i += 2
		case c == '\'':
			next := continued(s, i+1)
			if next < 0 && escapes && !utf8.Valid(buf) {
				return nil, false
			}
			if next < 0 {
				return buf, true
			}
			i = next + 1
		case c == '\\' && escapes:
			var n int
			if buf, n = appendEscape(buf, s[i+1:]); n == 0 {
				return nil, false
			}
			i += 1 + n
		default:
			buf = append(buf, c)
			i++
		}
	}
	return nil, false
}

// appendEscape appends what the escape in s, behind its backslash, stands for, and gives the
// bytes of s it took: 0 where PostgreSQL refuses it.
func appendEscape(buf []byte, s string) ([]byte, int) {
	c := s[0]
	switch c {
	case 'b':
		return append(buf, '\b'), 1
	case 'f':
		return append(buf, '\f'), 1
	case 'n':
		return append(buf, '\n'), 1
	case 'r':
		return append(buf, '\r'), 1
	case 't':
		return append(buf, '\t'), 1
	case 'v':
		return append(buf, '\v'), 1
	case 'x':
		v, n := digits(s[1:], 16, 2)
		if n == 0 {
			return append(buf, 'x'), 1
		}
		return append(buf, byte(v)), notNull(v, 1+n)
	case '0', '1', '2', '3', '4', '5', '6', '7':
		v, n := digits(s, 8, 3)
		return append(buf, byte(v)), notNull(v&0xff, n)
	case 'u', 'U':
		return appendUnicodeEscape(buf, s)
	}
	return append(buf, c), 1
}

// notNull is n, or 0 where the byte is the NUL that PostgreSQL refuses.
func notNull(v rune, n int) int {
	if v == 0 {
		return 0
	}
	return n
}

// appendUnicodeEscape reads uXXXX and UXXXXXXXX, and pairs of them that are one surrogate pair.
func appendUnicodeEscape(buf []byte, s string) ([]byte, int) {
	r, n := unicodeEscape(s)
	if n == 0 || r == 0 {
		return nil, 0
	}
	if utf16.IsSurrogate(r) {
		if !strings.HasPrefix(s[n:], `\`) {
			return nil, 0
		}
		low, m := unicodeEscape(s[n+1:])
		r = utf16.DecodeRune(r, low)
		if m == 0 || r == utf8.RuneError {
			return nil, 0
		}
		n += 1 + m
	}
	if r > utf8.MaxRune {
		return nil, 0
	}
	return utf8.AppendRune(buf, r), n
}

func unicodeEscape(s string) (r rune, n int) {
	var want int
	switch {
	case strings.HasPrefix(s, "u"):
		want = 4
	case strings.HasPrefix(s, "U"):
		want = 8
	default:
		return 0, 0
	}
	if r, n = digits(s[1:], 16, want); n != want || r < 0 {
		return 0, 0
	}
	return r, 1 + n
}

// digits reads up to limit digits of base 8 or 16.
func digits(s string, base, limit int) (v rune, n int) {
	for n < limit && n < len(s) {
		d := hexDigit(s[n])
		if d >= base {
			break
		}
		v = v*rune(base) + rune(d)
		n++
	}
	return v, n
}

// hexDigit is the value of a hexadecimal digit, 16 for any other byte.
func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return 16
}
