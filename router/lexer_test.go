package router

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"pgregory.net/rapid"
)

// oddTexts are texts that a lexer is likely to get wrong. Others of this package's tests use
// them too.
var oddTexts = []string{
	"SELECT 1",
	"SELECT 'a''b', E'a\\'b', 'a\\', \"c\"\"d\", U&'\\0061', U&\"\\0061\" UESCAPE '!'",
	"SELECT 'a'\n'b', 'a' -- x\n 'b', 'a' -- x\n -- y\n\n'b', E'a'\n'\\'b'",
	"SELECT 'a' 'b'", "SELECT 'a'/* x */\n'b'", "SELECT 'a'-- x", "SELECT 'a'--x\r'b'",
	"SELECT 'a' - 1, 'a'\n- 1, 'a'\n-1, 'a'\n--",
	"SELECT B'01', b'1'\n'0', X'1F', x'aB', N'abc', n'a''b', b'01''10'",
	"SELECT $$a$b$$, $a$x$$y$a$, $a$$b$a$, $A$ $a$ $A$, $$$$, $_1$a$_1$, $é$x$é$",
	"SELECT $1, $12+$3, a$1, a$b$c, $1$2",
	"SELECT 1.5, .5, 1., 1e10, 1.e5, .5e-3, 1E+7, 1..2, 1.2.3, 1.5e, 1ee, 12abc, 0x1F, 1_000, 1.2x, 1._1, $1a",
	"SELECT a.b.c, a . b, (a).b, a[1:2], a[b::int:3], f(a := 1, b => 2), a.*, a::int::text",
	"SELECT 1+-2, 1 +- 2, 1*-2, a@-b, a<->b, a->>'b', a #>> b, a ?| b, a ? b, a @> b, a<=b, a>=b, a<>b, a!=b, a=-1",
	"SELECT +++1, - - 1, +-+-1, ~-1, @-+-1, *+-1, a ||/ b, !!1, a &&- b, a -|- b, a %- b, a `- b",
	"SELECT a--b\n, c/*d*/e, a*/*b*/c, a+--b\n1, a-/*x*/-b, a<--b\n1, 1-/**/-1, a/-1",
	"SELECT /* /* nested */ still */ 1 /**/ /***/ /*/ */ 2 /* **/",
	"SELECT 1 /* open /* */", "SELECT 'open", "SELECT \"open", "SELECT $a$open$b$", "SELECT E'open\\'", "SELECT U&'open", "SELECT B'0",
	"SELECT a ~ 'b' AND NOT c ~~ d OR e !~~* f", "SELECT é, \u00a0x, 名前, \"ü\" FROM tæble",
	"SELECT e 'x', E 'x', e, b, x, n, u, U & 'a', u&b, u&'a', e.b", "a:b ::c : :d :=e ..f . .g",
	";;", "", " ", "--", "/* */", "SELECT 1;;SELECT 2;", "\t\n\r\f\vSELECT\v1", "SELECT {a} \\d ` $ $$", "SELECT '\u00e9'",
	"SELECT 'a\tb\nc', E'\\n\\t\\101\\x41\\u0041\\U00000041\\ud83d\\ude00'", "x'1'y'2'", "E''''", "''''", "''", "$1$$a$$", "a$$b$$",
	"SELECT interval '1' day, interval(3) '1', timestamp with time zone '2020-01-01'",
	"SELECT 9223372036854775807, 9223372036854775808, -1, - 1, 007",
}

type scanned struct {
	start, end int
	kind       token
}

func lexAll(sql string, std bool) (all []scanned) {
	lx := lexer{sql: sql, std: std}
	for tok := lx.next(); tok != tokEnd; tok = lx.next() {
		all = append(all, scanned{lx.start, lx.pos, tok})
	}
	return all
}

// scanAll is PostgreSQL's own scanner.
func scanAll(sql string) (all []scanned, err error) {
	result, err := pg_query.Scan(sql)
	if err != nil {
		return nil, err
	}
	for _, t := range result.Tokens {
		s := scanned{int(t.Start), int(t.End), tokSelf}
		switch t.Token {
		case pg_query.Token_SQL_COMMENT, pg_query.Token_C_COMMENT:
			continue
		case pg_query.Token_IDENT, pg_query.Token_UIDENT:
			s.kind = tokWord
			if sql[t.Start] == '"' {
				s.kind = tokQuoted
			} else if t.Token == pg_query.Token_UIDENT {
				s.kind = tokUQuoted
			}
		case pg_query.Token_FCONST, pg_query.Token_ICONST:
			s.kind = tokDecimal
			if t.Token == pg_query.Token_ICONST || !strings.ContainsAny(sql[s.start:s.end], ".eE") {
				s.kind = tokInteger
			}
			if strings.ContainsAny(sql[s.start:s.end], "_xXoObB") {
				s.kind = tokJunk
			}
		case pg_query.Token_SCONST:
			switch sql[t.Start] {
			case '\'':
				s.kind = tokString
			case '$':
				s.kind = tokDollar
			default:
				s.kind = tokEscape
			}
			if n := len(all); n > 0 && all[n-1].kind == tokNational && all[n-1].end == s.start {
				all[n-1].end = s.end
				continue
			}
		case pg_query.Token_NCHAR:
			s.kind = tokWord
			if s.end < len(sql) && sql[s.end] == '\'' && s.end == s.start+1 {
				s.kind = tokNational
			}
		case pg_query.Token_USCONST:
			s.kind = tokUnicode
		case pg_query.Token_BCONST:
			s.kind = tokBit
		case pg_query.Token_XCONST:
			s.kind = tokHex
		case pg_query.Token_PARAM:
			s.kind = tokParam
		case pg_query.Token_TYPECAST:
			s.kind = tokCast
		case pg_query.Token_Op, pg_query.Token_EQUALS_GREATER, pg_query.Token_LESS_EQUALS, pg_query.Token_GREATER_EQUALS, pg_query.Token_NOT_EQUALS:
			s.kind = tokOperator
		case pg_query.Token_DOT_DOT, pg_query.Token_COLON_EQUALS:
		case pg_query.Token_ASCII_46:
			s.kind = tokPoint
		default:
			switch c := sql[t.Start]; {
			case t.KeywordKind != pg_query.KeywordKind_NO_KEYWORD:
				s.kind = tokWord
			case strings.ContainsRune("+-*/%^<>=?", rune(c)):
				s.kind = tokOperator
			case !strings.ContainsRune(",()[];:", rune(c)):
				s.kind = tokOther
			}
		}
		all = append(all, s)
	}
	return all, nil
}

// notPostgreSQL matches what the C library's scanner was changed in: it takes $1a for two tokens,
// and comments for tokens, so that a literal does not go on behind one.
var notPostgreSQL = regexp.MustCompile(`\$[0-9]+[A-Za-z_\x80-\xff]|'\s*--.*[\r\n]`)

func compareTokens(sql string) error {
	if notPostgreSQL.MatchString(sql) {
		return nil
	}
	ours, oursOpen := lexAll(sql, true), false
	for _, s := range ours {
		oursOpen = oursOpen || s.kind == tokOpen
	}
	theirs, err := scanAll(sql)
	if err != nil {
		return nil // checked by oursOpen only: PostgreSQL also refuses escapes and odd numbers
	}
	if oursOpen {
		return fmt.Errorf("%q is unterminated for us, not for PostgreSQL", sql)
	}
	if fmt.Sprint(ours) != fmt.Sprint(theirs) {
		return fmt.Errorf("%q\n  ours   %v\n  theirs %v", sql, ours, theirs)
	}
	return nil
}

func TestLexerAgreesWithPostgreSQL(t *testing.T) {
	for _, sql := range oddTexts {
		if err := compareTokens(sql); err != nil {
			t.Error(err)
		}
		// Also each item of a list by itself: one bad number spoils the whole text.
		for _, part := range strings.Split(strings.TrimPrefix(sql, "SELECT "), ",") {
			if err := compareTokens(part); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestLexerAgreesWithPostgreSQLOnAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		if err := compareTokens(drawText(t)); err != nil {
			t.Fatal(err)
		}
	})
}

// drawText puts pieces of SQL together without regard for the grammar.
func drawText(t *rapid.T) string {
	pieces := rapid.SliceOfN(rapid.SampledFrom([]string{
		"a", "E", "N", "b", "x", "U&", "u", "SELECT", "select", "FROM", "order by", "BEGIN", "ATOMIC", "END", "create function", "é", "_1",
		"'", "''", "'a'", "\"", "\"q\"", "\\", "\\'", "$", "$$", "$a$", "$1", "0", "12", ".", "..", "1.5", "1e5", "e", "+", "-", "--", "*", "/",
		"/*", "*/", "<", ">", "=", "@", "?", "|", "!", "::", ":", ":=", ",", ";", "(", ")", "[", "]", " ", "\n", "\t", "\r", "'a'\n'b'", "-- x\n", "/* y */", "%", "~", "^", "&", "#", "`",
	}), 0, 12).Draw(t, "pieces")
	return strings.Join(pieces, "")
}

func TestLexerFindsUnterminatedTokens(t *testing.T) {
	for _, sql := range []string{"'a", "\"a", "E'a\\'", "$a$b", "/* /* */", "B'0", "U&'a", "U&\"a", "N'a", "'a'\n'b"} {
		all := lexAll("x "+sql, true)
		if last := all[len(all)-1]; last != (scanned{2, 2 + len(sql), tokOpen}) {
			t.Errorf("%q gives %v", sql, all)
		}
	}
}

func TestLexerWithoutStandardStrings(t *testing.T) {
	got := lexAll(`'a\'b' N'\'' E'\'' '\\' 'a''' "\"`, false)
	want := []scanned{{0, 6, tokEscape}, {7, 12, tokNational}, {13, 18, tokEscape}, {19, 23, tokEscape}, {24, 29, tokEscape}, {30, 33, tokQuoted}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestLexerIsLinear would take hours if runs of signs were looked at again for each of them.
func TestLexerIsLinear(*testing.T) {
	for _, piece := range []string{"+", "+-", "-+", "*", "/*", "'a'\n", "$a", "--\n", "1.", "''", "a'", "@-"} {
		lexAll(strings.Repeat(piece, 1<<20), true)
	}
}
