package router

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"
)

// deepShapes build statements that grow deeper with n, one for each recursive rule of gram.y.
var deepShapes = []struct {
	name  string
	build func(n int) string
}{
	{"plus", chain("SELECT 1", "+1")},
	{"minus signs", chain("SELECT ", "- ", "1")},
	{"plus signs without blanks", chain("SELECT ", "+", "x")},
	{"concatenation", chain("SELECT a", "||a")},
	{"cast", chain("SELECT 1", "::int")},
	{"subscript", chain("SELECT a", "[1]")},
	{"comparison", chain("SELECT a", "= ANY (b)")},
	{"operator()", chain("SELECT a", " OPERATOR(pg_catalog.+) a")},
	{"prefix operator", chain("SELECT ", "@ ", "a")},
	{"NOT", chain("SELECT ", "NOT ", "a")},
	{"IS NULL", chain("SELECT a", " IS NULL")},
	{"ISNULL", chain("SELECT a", " ISNULL")},
	{"IS DISTINCT FROM", nest("SELECT ", "(a IS DISTINCT FROM ", "b", ")")},
	{"COLLATE", chain("SELECT a", ` COLLATE "C"`)},
	{"AT TIME ZONE", chain("SELECT a", " AT TIME ZONE 'UTC'")},
	{"LIKE", nest("SELECT ", "a LIKE (", "b", ")")},
	{"IN", chain("SELECT a", " IN (1)")},
	{"BETWEEN", nest("SELECT ", "a BETWEEN b AND (", "c", ")")},
	{"AND", chain("SELECT a", " AND a")},
	{"AND NOT", chain("SELECT a", " AND NOT a")},
	{"AND OR", chain("SELECT a", " AND a OR a")},
	{"fields", chain("SELECT (a)", ".b")},
	{"name", chain("SELECT a", ".b")},
	{"CROSS JOIN", chain("SELECT 1 FROM a", " CROSS JOIN a")},
	{"JOIN ON", chain("SELECT 1 FROM a", " JOIN a ON b")},
	{"JOIN ON =", chain("SELECT 1 FROM a", " JOIN a ON b = c")},
	{"JOIN to the right", func(n int) string {
		return "SELECT 1 FROM a" + strings.Repeat(" JOIN a", n) + strings.Repeat(" ON b", n)
	}},
	{"UNION", chain("SELECT 1", " UNION SELECT 1")},
	{"UNION ALL of lists", chain("SELECT 1, 2", " UNION ALL SELECT 1, 2")},
	{"EXCEPT VALUES", chain("SELECT 1", " EXCEPT VALUES (1), (2)")},
	{"INTERSECT TABLE", chain("TABLE a", " INTERSECT TABLE a")},
	{"parentheses", nest("SELECT ", "(", "1", ")")},
	{"parentheses with sums", nest("SELECT ", "(1+2+3+", "1", ")")},
	{"functions", nest("SELECT ", "f(", "1", ")")},
	{"functions after commas", nest("SELECT ", "f(1, 2, ", "1", ")")},
	{"windows", nest("SELECT ", "sum(", "1", ") OVER (PARTITION BY a)")},
	{"over", nest("SELECT ", "sum(a) OVER (PARTITION BY ", "1", ")")},
	{"filter", nest("SELECT ", "sum(a) FILTER (WHERE ", "1", ")")},
	{"CASE WHEN", nest("SELECT ", "CASE WHEN ", "a", " THEN 1 END")},
	{"CASE THEN", nest("SELECT ", "CASE WHEN a AND b THEN ", "a", " END")},
	{"CASE ELSE", nest("SELECT ", "CASE a WHEN b THEN c ELSE ", "a", " END")},
	{"CASE with false ends", nest("SELECT ", "CASE WHEN a.end THEN ", "a", " END")},
	{"ARRAY", nest("SELECT ", "ARRAY[", "1", "]")},
	{"bare ARRAY", nest("SELECT ARRAY", "[", "1", "]")},
	{"subscripts within each other", nest("SELECT ", "a[", "1", "]")},
	{"ROW", nest("SELECT ", "ROW(1, ", "1", ")")},
	{"scalar sub-selects", nest("SELECT ", "(SELECT ", "1", ")")},
	{"FROM sub-selects", nest("SELECT * FROM ", "(SELECT * FROM ", "a", ") b")},
	{"lateral sub-selects", nest("SELECT * FROM ", "a, LATERAL (SELECT * FROM ", "a", ") b")},
	{"IN sub-selects", nest("SELECT 1 WHERE ", "a IN (SELECT 1 WHERE ", "a", ")")},
	{"EXISTS", nest("SELECT 1 WHERE ", "NOT EXISTS (SELECT 1 WHERE ", "a", ")")},
	{"VALUES", nest("", "VALUES ((", "SELECT 1", "))")},
	{"WITH", nest("", "WITH a AS (", "SELECT 1", ") SELECT 1")},
	{"UNION in parentheses", nest("", "(", "SELECT 1", " UNION SELECT 1)")},
	{"joins in parentheses", nest("SELECT * FROM ", "(", "a", " JOIN b ON c)")},
	{"coalesce", nest("SELECT ", "coalesce(", "1", ")")},
	{"cast()", nest("SELECT ", "cast(", "1", " AS int)")},
	{"json", nest("SELECT ", "json_object('a' VALUE ", "1", ")")},
	{"xml", nest("SELECT ", "xmlelement(name a, xmlattributes(1 AS b), ", "1", ")")},
	{"grouping sets", nest("SELECT 1 GROUP BY ", "GROUPING SETS (", "a", ")")},
	{"ON CONFLICT", chain("INSERT INTO a VALUES (1) ON CONFLICT (b) DO UPDATE SET c = 1", "+1")},
	{"MERGE", chain("MERGE INTO a USING b ON c WHEN MATCHED THEN UPDATE SET d = 1", "+1")},
	{"CREATE VIEW", chain("CREATE VIEW v AS SELECT 1", "+1")},
	{"CREATE RULE", chain("CREATE RULE r AS ON INSERT TO a DO ALSO (SELECT 1; SELECT 1", "+1", ")")},
	{"DEFAULT", chain("CREATE TABLE a (b int DEFAULT 1", "+1", ")")},
	{"function body", chain("CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 1", "+1", "; END")},
	{"array type", chain("SELECT 1::int", "[]")},
	{"EXPLAIN", chain("EXPLAIN SELECT 1", "+1")},
}

func chain(head, link string, tail ...string) func(int) string {
	return func(n int) string { return head + strings.Repeat(link, n) + strings.Join(tail, "") }
}

func nest(head, left, middle, right string) func(int) string {
	return func(n int) string { return head + strings.Repeat(left, n) + middle + strings.Repeat(right, n) }
}

// longestPassing is the greatest n that the guard lets pass.
func longestPassing(build func(int) string, maxTokens int) int {
	low, high := 0, 100_000
	for low < high {
		mid := (low + high + 1) / 2
		if guard(build(mid), true, maxTokens) == nil {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low
}

func TestGuardStopsDeepStatements(t *testing.T) {
	maxTokens := DefaultConfig().MaxTokens
	for _, shape := range deepShapes {
		t.Run(shape.name, func(t *testing.T) {
			if err := guard(shape.build(20), true, maxTokens); err != nil {
				t.Errorf("20 are refused: %v", err)
			}
			err := guard(shape.build(25_000), true, maxTokens)
			if err == nil || err.Code != "54001" {
				t.Errorf("25,000 give %v, want 54001", err)
			}
			if n := longestPassing(shape.build, maxTokens); n > maxTokens+3 {
				t.Errorf("%d pass", n)
			}
		})
	}
}

// TestGuardedStatementsSurvive runs the deepest statement of each shape that the guard lets pass,
// under the greatest limit that can be configured, through the parser in another process.
func TestGuardedStatementsSurvive(t *testing.T) {
	if os.Getenv("ROUTER_PARSE_STDIN") != "" {
		parseStdin()
	}
	for _, shape := range deepShapes {
		n := longestPassing(shape.build, maxTokensCeiling)
		if err := parseElsewhere(shape.build(n)); err != nil {
			t.Errorf("%s, %d times: %v", shape.name, n, err)
		}
	}
}

// TestUnguardedStatementKills proves that the guard is needed, and that a dead parser is noticed.
func TestUnguardedStatementKills(t *testing.T) {
	if err := parseElsewhere(deepShapes[0].build(200_000)); err == nil {
		t.Error("a chain of 200,000 operators was parsed: is the guard still needed?")
	}
}

func parseElsewhere(sql string) error {
	cmd := exec.Command(os.Args[0], "-test.run=^TestGuardedStatementsSurvive$")
	cmd.Env = append(os.Environ(), "ROUTER_PARSE_STDIN=1")
	cmd.Stdin = strings.NewReader(sql)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		first, _, _ := strings.Cut(out.String(), "\n")
		return fmt.Errorf("%w: %s", err, first)
	}
	return nil
}

func parseStdin() {
	sql, err := io.ReadAll(os.Stdin)
	if err == nil {
		_, err = pg_query.Parse(string(sql))
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	os.Exit(0)
}

func TestGuardLetsLongListsPass(t *testing.T) {
	long := map[string]string{
		"rows of VALUES":  "INSERT INTO t VALUES " + strings.Repeat("(1, -2, '3'::text, now() - interval '1 day'), ", 40_000) + "(1, 2, '3', now())",
		"IN list":         "SELECT 1 FROM t WHERE a IN (" + strings.Repeat("-1, '2'::int, ", 20_000) + "1)",
		"IN list of rows": "SELECT 1 FROM t WHERE (a, b) IN (" + strings.Repeat("(1, 2), ", 20_000) + "(1, 2))",
		"ARRAY":           "SELECT ARRAY[" + strings.Repeat("1, ", 50_000) + "1]",
		"OR of 900":       "SELECT 1 FROM t WHERE a = 1" + strings.Repeat(" OR t.a = 1 AND t.b + 1 > 2", 900),
		"columns":         "SELECT " + strings.Repeat("a + b, ", 1_600) + "c FROM t",
	}
	for name, sql := range long {
		if err := guard(sql, true, DefaultConfig().MaxTokens); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGuardCountsAllTokens(t *testing.T) {
	list := strings.Repeat("1,", maxTotal/2-1)
	if err := guard("SELECT "+list+"1", true, 2000); err != nil {
		t.Errorf("%d tokens: %v", maxTotal, err)
	}
	if err := guard("SELECT "+list+"1,1", true, 2000); err == nil || err.Code != "54001" {
		t.Errorf("%d tokens: %v", maxTotal+2, err)
	}
}

func TestTemplateLimits(t *testing.T) {
	config := DefaultConfig()
	config.MaxBytes = 1000
	r := newTestRouter(t, config)
	for code, sql := range map[string]string{
		"54000": "SELECT '" + strings.Repeat("x", 1000) + "'",
		"54001": "SELECT " + strings.Repeat("(", 700) + "1",
	} {
		_, err := r.Template(nil, &Env{StdStrings: true}, sql, &Scratch{})
		var e *Error
		if !errors.As(err, &e) || e.Code != code {
			t.Errorf("got %v, want %s", err, code)
		}
	}
}

func TestGuardErrorPosition(t *testing.T) {
	const before = "SELECT 'ä', "
	err := guard(before+strings.Repeat("(", 600), true, 2000)
	if want := len([]rune(before)) + maxDepth; err == nil || err.Position != want {
		t.Errorf("got %#v, want the position %d in characters", err, want)
	}
}
