package router

import (
	"fmt"
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"pgregory.net/rapid"
)

// normalForm is the key of a statement behind its head, false where it is not cached.
func normalForm(sql string, std bool) (string, bool) {
	var sc Scratch
	ok := normalise(&sc, sql, &Env{StdStrings: std}, 0)
	return strings.TrimPrefix(string(sc.key), strings.Repeat("\x00", keyHead)), ok
}

func TestNormaliseKeepsApart(t *testing.T) {
	// Any two statements of one group have one key, any two of different groups have not.
	groups := [][]string{
		{"SELECT a FROM t WHERE b = 1", "select A from T where B = 2", "SELECT a  /* x */\nFROM t -- y\n WHERE b = 333 ;", "\tSELECT a FROM t WHERE b = 1 /* z */", "SELECT a FROM t/**/WHERE b = 1"},
		{"SELECT a FROM t WHERE b = 1.0", "SELECT a FROM t WHERE b = 1e5", "SELECT a FROM t WHERE b = .5"},
		{"SELECT a FROM t WHERE b = '1'", "SELECT a FROM t WHERE b = 'it''s'", "SELECT a FROM t WHERE b = 'a'\n'b'"},
		{`SELECT a FROM t WHERE b = E'1'`, `SELECT a FROM t WHERE b = e'\''`},
		{"SELECT a FROM t WHERE b = $$1$$", "SELECT a FROM t WHERE b = $x$y$x$"},
		{"SELECT a FROM t WHERE b = B'1'"},
		{"SELECT a FROM t WHERE b = X'1'"},
		{"SELECT a FROM t WHERE b = N'1'"},
		{"SELECT a FROM t WHERE b = $1"},
		{"SELECT a FROM t WHERE b = $2"},
		{"SELECT a FROM t WHERE b = -1"},
		{"SELECT a FROM t WHERE b = - 1"},
		{"SELECT a FROM t WHERE b = NULL"},
		{`SELECT "A" FROM t`},
		{`SELECT "a" FROM t`},
		{`SELECT a FROM t`},
		{"SELECT é FROM t"},
		{"SELECT É FROM t"},
		{"SELECT a_very_long_name_of_a_column FROM t", "SELECT A_VERY_LONG_NAME_OF_A_COLUMN FROM t"},
		{"SELECT a_very_long_name_of_another FROM t"},
		{"SELECT a FROM t ORDER BY 1"},
		{"SELECT a FROM t ORDER BY 2"},
		{"SELECT a FROM t ORDER BY '1'"},
		{"SELECT a FROM t GROUP BY 1"},
		{"SELECT a FROM t GROUP BY 1, 2"},
		{"SELECT a FROM t LIMIT 1"},
		{"SELECT a FROM t LIMIT 2"},
		{"SELECT a FROM t OFFSET 1"},
		{"SELECT a FROM t OFFSET 2"},
		{"SELECT a FROM t FETCH FIRST 1 ROW ONLY"},
		{"SELECT a FROM t FETCH FIRST 2 ROW ONLY"},
		{"SELECT DISTINCT ON (1) a FROM t"},
		{"SELECT DISTINCT ON (2) a FROM t"},
		{"SELECT DISTINCT a FROM t WHERE b = 1", "SELECT DISTINCT a FROM t WHERE b = 2"},
		{"SELECT a FROM t WHERE b IS DISTINCT FROM 1", "SELECT a FROM t WHERE b IS DISTINCT FROM 2"},
		{"SELECT a FROM t ORDER BY b IS DISTINCT FROM c, 1"},
		{"SELECT a FROM t ORDER BY b IS DISTINCT FROM c, 2"},
		{"SELECT a FROM t WHERE b IN (SELECT c FROM u ORDER BY 1) AND d = 1", "SELECT a FROM t WHERE b IN (SELECT c FROM u ORDER BY 1) AND d = 2"},
		{"SELECT a FROM t ORDER BY (SELECT 1), 2"},
		{"SELECT a FROM t ORDER BY (SELECT 1), 3"},
		{"SELECT a FROM t GROUP BY 1 HAVING b = 1", "SELECT a FROM t GROUP BY 1 HAVING b = 2"},
		{"SELECT a FROM t GROUP BY 1 HAVING b = 1 ORDER BY 2"},
		{"SELECT a FROM t UNION SELECT a FROM t WHERE b = 1", "SELECT a FROM t UNION SELECT a FROM t WHERE b = 2"},
		{"SELECT a FROM t GROUP BY 1 UNION SELECT a FROM t WHERE b = 1", "SELECT a FROM t GROUP BY 1 UNION SELECT a FROM t WHERE b = 2"},
		{"SELECT now() - interval '1 day', 1", "SELECT now() - interval '1 day', 2"},
		{"SELECT now() - interval '2 days', 1"},
		{"SELECT a::interval FROM t WHERE b = 1", "SELECT a::interval FROM t WHERE b = 2"},
		{"INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (2, 'b')"},
		{"INSERT INTO t VALUES (1, 'a'), (2, 'b')"},
		{"(SELECT 1)", "(SELECT 2)"},
		{"SELECT 1 + 2"},
		{"SELECT 1 +2"},
		{"SELECT ab"},
		{"SELECT a b"},
		{`SELECT "a""b"`},
		{`SELECT "a" "b"`},
		{"BEGIN"},
		{"COMMIT"},
		{"SAVEPOINT a"},
		{"SAVEPOINT b"},
		{"RELEASE a"},
		{"ROLLBACK TO a"},
		{"START TRANSACTION"},
		{"END"},
		{"ABORT"},
		{"SELECT \"\x01\""},
		{"SELECT \"\x1f\""},
		{"SELECT 1 /* shardproxy: key=1 */", "SELECT 2 /* other */ /* shardproxy: key=1 */"},
	}
	seen := map[string]string{}
	for i, group := range groups {
		for _, sql := range group {
			key, ok := normalForm(sql, true)
			if !ok {
				t.Errorf("%s is not cached", sql)
			}
			name := fmt.Sprint("group ", i, ", of ", group[0])
			if other, there := seen[key]; there && other != name {
				t.Errorf("%s has the key of %s", sql, other)
			} else if !there && sql != group[0] {
				t.Errorf("%s has not the key of %s: %q", sql, group[0], key)
			}
			seen[key] = name
		}
	}
}

func TestNormaliseUncached(t *testing.T) {
	for _, sql := range []string{
		"", " ", ";", "1", "'a'", "'a' SELECT", "SET a = 1", "SHOW a", "EXPLAIN SELECT 1", "CREATE TABLE t (a int)", "DECLARE c CURSOR FOR SELECT 1", "FETCH 1 FROM c", "COPY t FROM STDIN",
		"PREPARE a AS SELECT 1", "EXECUTE a(1)", "selects 1", "savepoints a", "SELECT 'open", "SELECT /* open", "SELECT \"open", "SELECT $a$open",
		`SELECT U&'\0061'`, `SELECT U&"a"`, "SELECT 0x1F", "SELECT 1_000", "SELECT 12abc", "SELECT $1a", "SELECT \x01", "SELECT {", "SELECT \\x",
		"SELECT 1; SELECT 2", "SELECT 1;;", "SELECT '" + strings.Repeat("x", maxKeyBytes) + "'", "SELECT 1" + strings.Repeat(",1", maxKeyLiterals),
	} {
		if key, ok := normalForm(sql, true); ok {
			t.Errorf("%.50q is cached as %.50q", sql, key)
		}
	}
}

func TestNormaliseAlwaysFindsLiterals(t *testing.T) {
	for _, sql := range []string{"SET a = 1, 'b'", "SELECT 1; SELECT 'b'", "SELECT 0x1F, 1, 'b'", "EXECUTE a(1, 'b')", "SELECT 1, 'b', '" + strings.Repeat("x", maxKeyBytes) + "'"} {
		var sc Scratch
		normalise(&sc, sql, &Env{StdStrings: true}, 0)
		if len(sc.Literals) < 2 || sql[sc.Literals[0].Start:sc.Literals[0].End] != "1" || sql[sc.Literals[1].Start:sc.Literals[1].End] != "'b'" {
			t.Errorf("%.50q has the literals %v", sql, sc.Literals)
		}
	}
}

func TestScratchShrinks(t *testing.T) {
	var sc Scratch
	normalise(&sc, "SELECT 1"+strings.Repeat(",1", 100_000), &Env{StdStrings: true}, 0)
	if len(sc.Literals) != 100_001 {
		t.Fatalf("%d literals", len(sc.Literals))
	}
	normalise(&sc, "SELECT 1", &Env{StdStrings: true}, 0)
	if cap(sc.Literals) > 4*maxKeyLiterals {
		t.Errorf("room for %d literals is kept", cap(sc.Literals))
	}
}

// TestEqualKeysAreEqualStatements takes PostgreSQL's fingerprint, which tells statements apart
// but for their constants, as the judge.
func TestEqualKeysAreEqualStatements(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		byKey, printed := map[string]uint64{}, map[string]string{}
		for range 30 {
			sql := drawStatement(t)
			key, ok := normalForm(sql, true)
			if !ok {
				continue
			}
			mark, err := pg_query.FingerprintToUInt64(sql)
			if err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
			if other, seen := byKey[key]; seen && other != mark {
				t.Fatalf("%s and %s have one key", sql, printed[key])
			}
			byKey[key], printed[key] = mark, sql
		}
	})
}

// drawStatement builds a valid statement.
func drawStatement(t *rapid.T) string {
	pick := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	value := func() string { return pick("value", "1", "2", "-1", "'a'", "E'b'", "1.5", "$1", "NULL", "$$c$$", "a") }
	blank := pick("blank", " ", "  ", "\n", " /* c */ ", " -- d\n")
	sql := pick("verb", "SELECT a,", "select A,", "SELECT DISTINCT a,") + blank + value() + " FROM" + blank + pick("table", "t", "T", `"T"`, "u") +
		" WHERE " + pick("column", "a", "b") + pick("operator", " = ", "=", " <> ") + value()
	if rapid.Bool().Draw(t, "ordered") {
		sql += " ORDER BY " + pick("order", "1", "2", "a")
	}
	if rapid.Bool().Draw(t, "limited") {
		sql += " LIMIT " + pick("limit", "1", "2", "$1")
	}
	return sql
}

// FuzzNormalise changes what a key must not depend on, and looks whether it does.
func FuzzNormalise(f *testing.F) {
	for _, sql := range oddTexts {
		f.Add(sql, true)
		f.Add(sql, false)
	}
	f.Fuzz(func(t *testing.T, sql string, std bool) {
		env := &Env{StdStrings: std}
		var sc Scratch
		cached := normalise(&sc, sql, env, 0)
		key, literals := string(sc.key), sc.Literals
		last := 0
		for _, l := range literals {
			if l.Start < last || l.End <= l.Start || l.End > len(sql) {
				t.Fatalf("literal %v after %d of %d bytes", l, last, len(sql))
			}
			last = l.End
			if value, ok := l.text(sql, nil); ok && len(value) > l.End-l.Start {
				t.Fatalf("literal %s has the longer value %q", sql[l.Start:l.End], value)
			}
		}
		if !cached || sc.Hint.Present {
			return
		}
		changed := alike(sql, std, literals)
		var other Scratch
		if !normalise(&other, changed, env, 0) && len(changed) <= maxKeyBytes {
			t.Fatalf("%q is cached, %q is not", sql, changed)
		}
		if len(changed) <= maxKeyBytes && string(other.key) != key {
			t.Fatalf("%q has the key %q, %q has %q", sql, key, changed, other.key)
		}
	})
}

// alike is sql with other literals, blanks and letter cases.
func alike(sql string, std bool, literals []Literal) string {
	var b strings.Builder
	lx := lexer{sql: sql, std: std}
	n := 0
	for tok := lx.next(); tok != tokEnd; tok = lx.next() {
		if lx.blank {
			b.WriteString("\t/* x */\n")
		}
		text := sql[lx.start:lx.pos]
		if tok.literal() {
			if !literals[n].Kept && tok == tokInteger {
				text += "0"
			}
			if !literals[n].Kept && tok == tokString {
				text = "'other'"
			}
			n++
		}
		if tok == tokWord {
			capitals := []byte(text)
			for i, c := range capitals {
				if c >= 'a' && c <= 'z' {
					capitals[i] -= 'a' - 'A'
				}
			}
			text = string(capitals)
		}
		b.WriteString(text)
	}
	return b.String()
}
