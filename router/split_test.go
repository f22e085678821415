package router

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"pgregory.net/rapid"
)

func statements(sql string) []string {
	list := []string{}
	for _, s := range Split(sql, true, nil) {
		list = append(list, sql[s.Start:s.End])
	}
	return list
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		sql  string
		want []string
	}{
		{"", nil},
		{" ;; \n; -- x", nil},
		{"SELECT 1", []string{"SELECT 1"}},
		{" SELECT 1 ; ", []string{"SELECT 1"}},
		{"SELECT 1; SELECT ';'; /* ; */ SELECT $$;$$ -- ;\n; x", []string{"SELECT 1", "SELECT ';'", "/* ; */ SELECT $$;$$ -- ;", "x"}},
		{"SELECT 'open; SELECT 2", []string{"SELECT 'open; SELECT 2"}},
		{"SELECT 1; /* open ; ", []string{"SELECT 1", "/* open ;"}},
		{"CREATE RULE r AS ON INSERT TO a DO (SELECT 1; SELECT 2); SELECT 3", []string{"CREATE RULE r AS ON INSERT TO a DO (SELECT 1; SELECT 2)", "SELECT 3"}},
		{"SELECT (1; SELECT 2", []string{"SELECT (1; SELECT 2"}},
		{"SELECT 1); SELECT 2", []string{"SELECT 1)", "SELECT 2"}},
		{"BEGIN; SELECT 1; END; SELECT 2", []string{"BEGIN", "SELECT 1", "END", "SELECT 2"}},
		{"SELECT create_function, begin atomic; SELECT 2", []string{"SELECT create_function, begin atomic", "SELECT 2"}},
	} {
		if got := statements(c.sql); !slices.Equal(got, c.want) {
			t.Errorf("%q is split into %q, want %q", c.sql, got, c.want)
		}
	}
}

// whole are statements that PostgreSQL's grammar accepts, among them those that hold semicolons.
var whole = []string{
	"SELECT 1", "SELECT ';', $$;$$, \";\"", "/* a; */ SELECT 1 -- b;\n", "BEGIN", "END", "TABLE a", "SELECT 1 AS end", "SELECT 1 end", "SELECT begin, atomic FROM end_of",
	"CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN a THEN b END; END",
	"create or replace procedure p(a int) begin atomic insert into t values (1); select 1 end; select 2; end",
	"CREATE OR REPLACE FUNCTION begin(atomic int) RETURNS int BEGIN ATOMIC END",
	"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC; ; SELECT (SELECT 1); END",
	"CREATE FUNCTION f() RETURNS int RETURN CASE WHEN a THEN 1 END",
	"CREATE FUNCTION f() RETURNS int BEGIN ATOMIC CREATE FUNCTION g() RETURNS int BEGIN ATOMIC SELECT 1; END; SELECT 2; END",
	"CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN ATOMIC; END; $$",
	"CREATE RULE r AS ON INSERT TO a DO ALSO (SELECT 1; UPDATE b SET c = 1;)",
	"CREATE TABLE function (begin int, atomic int)", "CREATE VIEW v AS SELECT 1", "DO $$ BEGIN; END $$",
}

func TestSplitAgreesWithGrammar(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		for _, s := range rapid.SliceOfN(rapid.SampledFrom(whole), 1, 5).Draw(t, "statements") {
			text.WriteString(rapid.SampledFrom([]string{"", " ", ";", "\n;", "/* ; */"}).Draw(t, "before"))
			text.WriteString(s)
			text.WriteString(rapid.SampledFrom([]string{";", " ;", ";;", "-- x;\n;"}).Draw(t, "after"))
		}
		sql := text.String()
		want, err := pg_query.SplitWithParser(sql, true)
		if err != nil {
			t.Fatalf("%q: %v", sql, err)
		}
		if got := statements(sql); !slices.Equal(withoutComments(got), withoutComments(want)) {
			t.Fatalf("%q is split into\n%q, by the grammar into\n%q", sql, got, want)
		}
	})
}

// TestSplitAgreesWithScanner takes texts that need not be valid. The C library's splitter knows
// no BEGIN ATOMIC, and leaves out what has no keyword.
func TestSplitAgreesWithScanner(t *testing.T) {
	check := func(sql string) error {
		want, err := pg_query.SplitWithScanner(sql, true)
		if err != nil || notPostgreSQL.MatchString(sql) {
			return nil
		}
		got := statements(sql)
		got = slices.DeleteFunc(got, func(s string) bool { return !hasKeyword(s) })
		if !slices.Equal(withoutComments(got), withoutComments(want)) {
			return fmt.Errorf("%q is split into\n%q, by the scanner into\n%q", sql, got, want)
		}
		return nil
	}
	for _, sql := range oddTexts {
		if err := check(sql + "; SELECT 2 ;" + sql); err != nil {
			t.Error(err)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOfN(rapid.SampledFrom([]string{"SELECT ", "FROM ", ";", " ", "'a;'", "$$;$$", "/* ; */", "-- ;\n", "(1)", "E'\\';'", "\";\"", "+"}), 0, 12)
		if err := check(strings.Join(pieces.Draw(t, "pieces"), "")); err != nil {
			t.Fatal(err)
		}
	})
}

func hasKeyword(sql string) bool {
	result, err := pg_query.Scan(sql)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(result.Tokens, func(t *pg_query.ScanToken) bool {
		return t.KeywordKind != pg_query.KeywordKind_NO_KEYWORD
	})
}

// withoutComments writes each statement as its tokens: who gets the comments between two
// statements differs.
func withoutComments(list []string) []string {
	plain := []string{}
	for _, sql := range list {
		words := []string{}
		for _, s := range lexAll(sql, true) {
			words = append(words, sql[s.start:s.end])
		}
		plain = append(plain, strings.Join(words, " "))
	}
	return plain
}

func FuzzSplit(f *testing.F) {
	for _, sql := range append(oddTexts, whole...) {
		f.Add(sql, true)
	}
	f.Fuzz(func(t *testing.T, sql string, std bool) {
		last := 0
		for _, s := range Split(sql, std, nil) {
			if s.Start < last || s.End <= s.Start || s.End > len(sql) {
				t.Fatalf("span %v after %d of %d bytes", s, last, len(sql))
			}
			last = s.End
			if again := Split(sql[s.Start:s.End], std, nil); len(again) != 1 || again[0] != (Span{0, s.End - s.Start}) {
				t.Fatalf("the statement %q is split again: %v", sql[s.Start:s.End], again)
			}
		}
	})
}

func BenchmarkSplit100Bytes(b *testing.B) {
	b.ReportAllocs()
	var spans []Span
	for b.Loop() {
		spans = Split(statement100, true, spans[:0])
	}
}
