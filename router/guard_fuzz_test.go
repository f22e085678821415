package router

import (
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"
)

// frame is the nesting of messages that a statement has by itself, perToken what one token of the
// guard's count may stand for at most: an operator two, a bracket with a sub-select in it six.
const frame, perToken = 24, 6

// nesting is how deep the messages of a parse tree hold each other.
func nesting(m protoreflect.Message) int {
	deepest := 0
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Message() == nil:
		case field.IsList():
			for i := range v.List().Len() {
				deepest = max(deepest, nesting(v.List().Get(i).Message()))
			}
		default:
			deepest = max(deepest, nesting(v.Message()))
		}
		return true
	})
	return deepest + 1
}

// guardedDepth is the least limit under which sql passes the guard.
func guardedDepth(sql string) int {
	low, high := 0, len(sql)+1
	for low < high {
		mid := (low + high) / 2
		if guard(sql, true, mid) == nil {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low
}

// FuzzGuard holds what the guard counts against the tree that the parser builds. A statement whose
// tree is deeper slips through the guard.
func FuzzGuard(f *testing.F) {
	for _, shape := range deepShapes {
		f.Add(shape.build(40))
	}
	for _, sql := range whole {
		f.Add(sql)
	}
	for i, a := range deepShapes { // one within the other
		b := deepShapes[(i*7+3)%len(deepShapes)]
		f.Add(strings.Replace(a.build(12), "1", "("+b.build(12)+")", 1))
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if len(sql) > 20_000 || strings.Contains(sql, "\x00") || guard(sql, true, 300) != nil {
			return
		}
		tree, err := pg_query.Parse(sql)
		if err != nil {
			return
		}
		if deep, counted := nesting(tree.ProtoReflect()), guardedDepth(sql); deep > frame+perToken*counted {
			t.Fatalf("the guard counts %d, the tree is %d deep: %q", counted, deep, sql)
		}
	})
}

// TestGuardCountsWhatTheParserNests wraps an expression in random constructs, with others beside it.
func TestGuardCountsWhatTheParserNests(t *testing.T) {
	wraps := []string{
		"(%s)", "-(%s)", "%s + 1", "1 * %s", "%s::int", "(%s)[1]", "a[%s]", "ARRAY[1, %s]", "f(a, %s)", "CASE WHEN a THEN 1 WHEN %s THEN 2 END", "CASE WHEN a AND b THEN %s END", "CASE %s WHEN b THEN 1 ELSE 2 END",
		"a AND %s", "%s OR a", "a AND %s OR b", "NOT %s", "(%s) IS NULL", "(%s) IN (1, 2)", "a IN (1, %s)", "(%s) BETWEEN 1 AND 2", "a BETWEEN 1 AND (%s)", "(%s) LIKE 'x'", "(%s) COLLATE \"C\"", "(%s) AT TIME ZONE 'UTC'",
		"(SELECT %s)", "(SELECT 1, %s, 2 FROM a, b)", "(SELECT 1 FROM a WHERE %s)", "(SELECT 1 FROM a JOIN b ON c JOIN d ON %s)", "(SELECT 1 FROM (SELECT %s) x)", "(SELECT 1, 2 UNION SELECT %s, 2 UNION SELECT 3, 4)", "(WITH w AS (SELECT %s) SELECT 1)",
		"(VALUES (1, 2), (3, %s))", "EXISTS (SELECT %s)", "a = ANY (SELECT %s)", "sum(a) OVER (PARTITION BY a, %s ORDER BY b)", "count(*) FILTER (WHERE %s)", "ROW(1, %s)", "(%s).b.c", "coalesce(%s, 1)", "json_object('a' VALUE %s)", "x.end + %s",
		"xmlelement(name a, %s)", "(SELECT 1 FROM a ORDER BY %s LIMIT 1)", "(SELECT 1 FROM f(%s) AS x(y))", "(SELECT 1 GROUP BY GROUPING SETS ((a), (%s)))", "(SELECT 1 FROM a WINDOW w AS (ORDER BY %s))",
	}
	rapid.Check(t, func(t *rapid.T) {
		expression := "1"
		for _, wrap := range rapid.SliceOfN(rapid.SampledFrom(wraps), 0, 40).Draw(t, "wraps") {
			expression = strings.Replace(wrap, "%s", expression, 1)
		}
		sql := rapid.SampledFrom([]string{"SELECT %s", "SELECT 1 WHERE %s", "INSERT INTO t VALUES (1, %s)", "UPDATE t SET a = 1, b = %s", "CREATE VIEW v AS SELECT %s", "CREATE TABLE t (a int DEFAULT (%s), b int)"}).Draw(t, "statement")
		sql = strings.Replace(sql, "%s", expression, 1)
		tree, err := pg_query.Parse(sql)
		if err != nil {
			t.Skip("precedence makes it invalid")
		}
		if deep, counted := nesting(tree.ProtoReflect()), guardedDepth(sql); deep > frame+perToken*counted {
			t.Fatalf("the guard counts %d, the tree is %d deep: %s", counted, deep, sql)
		}
	})
}
