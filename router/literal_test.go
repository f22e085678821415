package router

import (
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"pgregory.net/rapid"
)

// literalOf is the only literal of SELECT sql.
func literalOf(t testing.TB, sql string) (string, Literal) {
	t.Helper()
	sql = "SELECT " + sql
	var sc Scratch
	normalise(&sc, sql, &Env{StdStrings: true}, 0)
	if len(sc.Literals) != 1 {
		t.Fatalf("%s has %d literals, want 1", sql, len(sc.Literals))
	}
	return sql, sc.Literals[0]
}

// parserValue is what PostgreSQL's parser reads, false where it refuses.
func parserValue(sql string) (string, bool) {
	tree, err := pg_query.Parse(sql)
	if err != nil || len(tree.Stmts) != 1 {
		return "", false
	}
	targets := tree.Stmts[0].Stmt.GetSelectStmt().GetTargetList()
	if len(targets) != 1 {
		return "", false
	}
	constant := targets[0].GetResTarget().GetVal().GetAConst()
	if constant == nil || constant.GetSval() == nil {
		return "", false
	}
	return constant.GetSval().Sval, true
}

func checkLiteral(t interface {
	Helper()
	Errorf(string, ...any)
}, sql string, l Literal,
) {
	t.Helper()
	got, ok := l.text(sql, nil)
	want, valid := parserValue(sql)
	if ok != valid || string(got) != want {
		t.Errorf("%q is read as %q, %v; PostgreSQL reads %q, %v", sql, got, ok, want, valid)
	}
}

func TestLiteralTextAgreesWithPostgreSQL(t *testing.T) {
	for _, text := range []string{
		"''", "'a'", "'it''s'", "''''", "'a'\n'b'", "'a''b'  \n\t 'c'\n'd'", `'a\b'`, `E'a\\b'`, `E'\'\''''`, `E'a\nb\tc\rd\be\ff\vg'`,
		`E'\101\60\7'`, `E'\x41\x4\xg'`, `E'\u0041\U0001F600'`, `E'\ud83d\ude00'`, `E'\ud83d'`, `E'\ude00'`, `E'\ud83dx'`, `E'\ud83d\u0041'`, `E'\u00'`, `E'\U00110000'`, `E'\UFFFFFFFF'`,
		`E'\0'`, `E'\x00'`, `E'\u0000'`, `E'\400'`, `E'\377'`, `E'\xc3\xa9'`, `E'\é'`, `E'\` + "\n" + `'`, `e'a'` + "\n" + `'\''`, `E''`,
		"$$a'b$$", "$x$a$$b$y$c$x$", "$$$$", "'é'", "'\u00e9''\u00e9'",
	} {
		sql, l := literalOf(t, text)
		checkLiteral(t, sql, l)
	}
	rapid.Check(t, func(t *rapid.T) {
		body := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "''", `\\`, `\'`, `\n`, `\x4`, `\101`, `\u0041`, `\ud83d`, `\ude00`, "é", "'\n'", "1", `\8`}), 0, 10).Draw(t, "body"), "")
		for _, open := range []string{"'", "E'"} {
			sql := "SELECT " + open + body + "'"
			lx := lexer{sql: sql, std: true, pos: len("SELECT")}
			if tok := lx.next(); tok.literal() && lx.pos == len(sql) {
				checkLiteral(t, sql, Literal{Start: lx.start, End: lx.pos, Kind: LiteralKind(tok)})
			}
		}
	})
}

func TestLiteralTextAliases(t *testing.T) {
	sql, l := literalOf(t, "'abc'")
	if n := testing.AllocsPerRun(100, func() { l.text(sql, nil) }); n != 0 {
		t.Errorf("a plain literal allocates %v times", n)
	}
	buf := make([]byte, 0, 16)
	sql, l = literalOf(t, "'a''c'")
	if n := testing.AllocsPerRun(100, func() { l.text(sql, buf) }); n != 0 {
		t.Errorf("a literal with a doubled quote allocates %v times though there is room", n)
	}
}

func TestLiteralTextUnknown(t *testing.T) {
	for _, text := range []string{"B'01'", "X'1F'", `U&'\0061'`} {
		sql, l := literalOf(t, text)
		if got, ok := l.text(sql, nil); ok {
			t.Errorf("%s is read as %q", text, got)
		}
	}
}

func TestNationalLiteral(t *testing.T) {
	sql, l := literalOf(t, "N'a''b'")
	if got, ok := l.text(sql, nil); !ok || string(got) != "a'b" {
		t.Errorf("got %q, %v", got, ok)
	}
}
