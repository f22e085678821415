package router

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

// facts is a table with columns of many types.
const factsTable = `CREATE TABLE facts (user_id bigint NOT NULL, id int NOT NULL, g int, s smallint, i int, n numeric, m numeric(12,3), c text COLLATE "C",
	u text COLLATE "und-x-icu", v varchar(20) COLLATE "und-x-icu", p char(6), d float8, r real, ts timestamptz, dt date, a int[], j jsonb, b bool, iv interval, x bit(3),
	PRIMARY KEY (user_id, id))`

const oidFact = 1 // of columns whose type is of no matter to the router

// finishSnapshot is a snapshot with facts, and with all functions of PostgreSQL.
func finishSnapshot(t *testing.T, snap *topology.Snapshot) *topology.Snapshot {
	t.Helper()
	facts := &topology.Table{
		TableName: topology.TableName{Schema: "public", Name: "facts"}, Kind: topology.Sharded, KeyType: topology.KeyInt, Primary: []string{"user_id", "id"},
		Columns: []topology.Column{{Name: "user_id", Type: oidInt8, NotNull: true}, {Name: "id", Type: oidFact, NotNull: true}},
	}
	for _, name := range strings.Fields("g s i n m c u v p d r ts dt a j b iv x") {
		facts.Columns = append(facts.Columns, topology.Column{Name: name, Type: oidFact})
	}
	snap.Schema.Tables[facts.TableName] = facts
	server := pgtest.Shared(t)
	rows, err := server.Connect(t, server.CreateDatabase(t)).Query(context.Background(), `SELECT proname, max(CASE provolatile WHEN 'v' THEN 3 WHEN 's' THEN 2 ELSE 1 END), bool_or(prokind = 'a')
		FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace GROUP BY proname`)
	if err != nil {
		t.Fatal(err)
	}
	var (
		name      string
		volatile  int
		aggregate bool
	)
	if _, err = pgx.ForEachRow(rows, []any{&name, &volatile, &aggregate}, func() error {
		snap.Schema.Functions[name] = topology.Function{Volatility: topology.Volatility(" isv"[volatile]), Builtin: true, Aggregate: aggregate}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return snap
}

// fact is a value of a column of facts. Floats are multiples of 1/4, whose sums are the same in any order, and numbers that
// are equal are written alike: which of them a group shows is nobody's to say.
func fact(column string, i int, rng *rand.Rand) string {
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	switch column {
	case "id":
		return fmt.Sprint(i)
	case "n":
		return pick("123456789012345678901234567890.123456789", "-0.000000000000001", "7", "-3.25", "99999999.99", "NaN", "0.5", "1000000")
	case "m":
		return pick("1.125", "-2.5", "1000.001", "0")
	case "c", "u", "v", "p":
		return pick("a", "B", "b", "A", "ä", "Z", "z", "é", "_x", "", "a b")
	case "d":
		return fmt.Sprint(float64(rng.IntN(40)-20) / 4)
	case "r": // their sum as real has less digits than that of avg, which is exact
		return fmt.Sprint(float64(rng.IntN(40)-20) / 10)
	case "ts":
		return pick("2024-02-29 23:59:59.999999+00", "1999-12-31 12:00:00+05:30", "infinity", "2024-07-01 00:00:00+02", "0044-03-15 12:00:00+00 BC")
	case "dt":
		return pick("2024-02-29", "1999-12-31", "-infinity", "2024-07-01")
	case "a":
		return pick("{}", "{1,2}", "{NULL,3}", "{{1,2},{3,4}}", "{2}")
	case "j":
		return pick(`{"k": 1}`, `[1, "x\\y"]`, `null`, `"\\u00e4"`, `{"k": {"l": [null]}}`)
	case "b":
		return pick("t", "f")
	case "iv":
		return pick("1 mon", "29 days", "-1 day +02:03:04.5", "0")
	case "x":
		return pick("101", "011", "000")
	}
	return fmt.Sprint(rng.IntN(9) - 3)
}

// TestRandomFinishesAreExact compares random statements whose last step is one shard's with what a database with all rows
// gives: rows, their order and types. While rows are on two shards, too.
func TestRandomFinishesAreExact(t *testing.T) {
	for name, of := range map[string]func() *topology.Snapshot{
		"resting": func() *topology.Snapshot { return testSnapshot(t) },
		"moving":  func() *topology.Snapshot { return movingSnapshot(t, rand.New(rand.NewPCG(*exactSeed, 2))) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newClusterOf(t, finishSnapshot(t, of()))
			for _, sql := range []string{"SELECT avg(r), count(r) FROM facts", "SELECT g, avg(r) FROM facts GROUP BY g ORDER BY g"} {
				c.check(t, sql, nil)
			}
			g := &finishGenerator{generator{rng: rand.New(rand.NewPCG(*exactSeed, 3))}}
			for i := range *exactCount {
				sql := g.statement()
				c.check(t, sql, nil)
				if t.Failed() {
					t.Fatalf("statement %d of seed %d", i, *exactSeed)
				}
			}
			t.Logf("%d of %d statements were finished, %d texts were changed", c.finished, *exactCount, c.owned)
			if c.finished < *exactCount*3/4 {
				t.Errorf("only %d of %d statements were finished", c.finished, *exactCount)
			}
		})
	}
}

// finishGenerator writes SELECTs over facts that need the rows of all shards together.
type finishGenerator struct{ generator }

func (g *finishGenerator) statement() string {
	switch g.rng.IntN(14) {
	case 0, 1, 2:
		return g.rows()
	case 3:
		return g.window()
	case 4, 5:
		return g.union()
	case 6, 7:
		return g.parts()
	}
	return g.groups()
}

// union is a set operation, of columns whose types and collations go together, or not.
func (g *finishGenerator) union() string {
	n := 1 + g.rng.IntN(3)
	kinds := make([][]string, n)
	for i := range kinds {
		kinds[i] = [][]string{
			{"g", "s", "i", "f.user_id", "g + s", "NULL", "'5'", "i::bigint", "length(v)"},
			{"c", "c", "v", "lower(c)", "'a'", "NULL", "u COLLATE \"C\"", "j->>'k' COLLATE \"C\""},
			{"u", "u || 'x'", "v", "NULL", "lower(u)"},
			{"n", "d", "i", "r"},
			{"dt", "ts", "NULL"},
			{"a", "ARRAY[g]", "'{1,2}'"},
		}[g.rng.IntN(6)]
	}
	operand := func() string {
		list := make([]string, n)
		for i := range list {
			list[i] = g.pick(kinds[i]...)
		}
		columns := strings.Join(list, ", ")
		switch {
		case g.chance(10):
			return "(SELECT DISTINCT " + columns + " FROM facts f ORDER BY " + strings.Join([]string{"1", "1, 2", "1, 2, 3"}[n-1:n], "") + " LIMIT 4)"
		case g.chance(15):
			return "SELECT " + columns + " FROM facts f WHERE f.user_id = " + g.pick("1", "3", "5")
		}
		return "SELECT " + columns + " FROM facts f" + g.pick("", " WHERE b", " WHERE g > 1", " WHERE f.user_id IN (1, 2, 3)")
	}
	sql := operand()
	for range 1 + g.rng.IntN(2) {
		sql += g.pick(" UNION ", " UNION ALL ", " INTERSECT ", " EXCEPT ", " EXCEPT ALL ", " INTERSECT ALL ") + operand()
	}
	if g.chance(25) {
		return "SELECT count(*) FROM (" + sql + ") s"
	}
	return sql + g.order(n)
}

// parts is a statement over several sets of rows of facts.
func (g *finishGenerator) parts() string {
	number := func(alias string) string {
		return alias + "." + g.pick("g", "s", "i", "user_id", "id")
	}
	inner := "(SELECT " + g.pick("max(i)", "min(s)", "count(*)", "sum(g)") + " FROM facts h WHERE " + g.pick("h.b", "h.i = f.g", "h.user_id = 3", "h.user_id = f.user_id", "h.g > f.s AND h.b") + ")"
	condition := g.pick("f.b", number("f")+" > "+inner, number("f")+" IN (SELECT "+number("h")+" FROM facts h WHERE "+g.pick("h.b", "h.c = 'a'", "h.n > 5", "h.u = f.u")+")",
		"NOT EXISTS (SELECT * FROM facts h WHERE "+number("h")+" = "+number("f")+" AND h.b)", "f.user_id = 2", "f.g IS NULL")
	switch g.rng.IntN(4) {
	case 0:
		return "SELECT f.user_id, f.id, " + inner + " FROM facts f WHERE " + condition + " ORDER BY 1, 2" + g.limit()
	case 1:
		join := g.pick("JOIN", "LEFT JOIN", "RIGHT JOIN")
		return "SELECT f.user_id, f.id, k.user_id, k.id, k.u FROM facts f " + join + " facts k ON " + number("f") + " = " + number("k") + g.pick("", " AND k.b", " AND f.b", " AND k.g = 2") +
			" WHERE " + g.pick(condition, "k.g IS NULL", "k.b", "k.user_id = 1") + " ORDER BY 1, 2, 3, 4" + g.limit()
	case 2:
		return "WITH w AS (SELECT g, " + g.aggregate() + " AS x FROM facts f GROUP BY g) SELECT f.user_id, f.id, w.x FROM facts f JOIN w ON w.g = " + number("f") + " WHERE " + condition + " ORDER BY 1, 2"
	}
	return "SELECT x, count(*) FROM (SELECT " + g.aggregate() + " AS x, g FROM facts f GROUP BY g) s LEFT JOIN facts f ON f.i = s.g AND " + condition + " GROUP BY x ORDER BY 2, 1"
}

func (g *finishGenerator) column() string {
	return g.pick("g", "s", "i", "n", "m", "c", "u", "v", "p", "d", "r", "ts", "dt", "a", "j", "b", "iv", "x", "f.user_id")
}

// scalar is an expression whose values can be put in order.
func (g *finishGenerator) scalar() string {
	return g.pick(g.column(), g.column(), "g + s", "lower(u)", "coalesce(c, 'none')", "n > 0", "date_trunc('day', ts)", "length(v)", "f.g % 2", "CASE WHEN b THEN g ELSE 0 END",
		"i::numeric / 3", "u || c COLLATE \"C\"", "a[1]", "j->>'k'", "extract(year FROM dt)", "-g", "g IS NULL")
}

func (g *finishGenerator) from() string {
	sql := g.pick("facts f", "facts AS f", "facts f", "facts f JOIN users w ON w.id = f.user_id", "facts f LEFT JOIN tasks w ON w.user_id = f.user_id", "facts f CROSS JOIN countries w")
	if g.chance(60) {
		sql += " WHERE " + g.pick("g > 0", "f.user_id > 3", "b", "f.user_id IN (1, 2, 3)", "EXISTS (SELECT FROM events e WHERE e.user_id = f.user_id)", "false", "n <> 'NaN' OR c = 'a'", "i BETWEEN -2 AND 4")
	}
	return sql
}

func (g *finishGenerator) aggregate() string {
	sql := g.pick(
		"count(*)", "count("+g.column()+")", "count("+g.scalar()+")", "sum("+g.pick("s", "i", "n", "m", "d", "iv", "f.user_id", "g * 2", "CASE WHEN b THEN i END")+")",
		"avg("+g.pick("s", "i", "n", "m", "d", "r", "iv", "f.user_id", "i + 0.5")+")", "min("+g.pick("s", "n", "c", "u", "v", "p", "d", "ts", "dt", "iv", "a", "lower(u)")+")",
		"max("+g.pick("i", "m", "c", "u", "v", "p", "r", "ts", "dt", "iv", "a", "u || 'x'")+")", "bool_and(b)", "bool_or(g > 1)", "every(b)", "bit_and(i)", "bit_or(s)", "bit_xor(i)", "bit_or(x)",
		"count(DISTINCT "+g.scalar()+")", "sum(DISTINCT "+g.pick("i", "m", "s")+")", "avg(DISTINCT i)", "max(DISTINCT u)",
		"stddev("+g.pick("i", "n", "m")+")", "variance(i)", "var_pop(m)", "stddev_samp(s)", "string_agg(u, ',' ORDER BY u, id, f.user_id)", "array_agg(i ORDER BY f.user_id, id)",
		"percentile_cont(0.5) WITHIN GROUP (ORDER BY i)", "percentile_disc(0.25) WITHIN GROUP (ORDER BY u)", "mode() WITHIN GROUP (ORDER BY b)",
		"jsonb_agg(j ORDER BY f.user_id, id)", "regr_count(i, s)", "rank(2) WITHIN GROUP (ORDER BY g)", "count(DISTINCT (g, b))")
	if g.chance(20) && !strings.Contains(sql, "facts") {
		sql += " FILTER (WHERE " + g.pick("b", "g > 0", "u < 'b'", "i IS NOT NULL AND s < 3") + ")"
	}
	switch {
	case g.chance(15):
		return "coalesce(" + sql + "::text, 'none')"
	case g.chance(10):
		return "(" + sql + ") IS NULL"
	}
	return sql
}

func (g *finishGenerator) groups() string {
	var targets, by []string
	groups := g.rng.IntN(4)
	if g.chance(25) {
		groups = 0
	}
	for i := range groups {
		e := g.scalar()
		switch g.rng.IntN(4) {
		case 0:
			targets, by = append(targets, e), append(by, fmt.Sprint(i+1))
		case 1:
			alias := fmt.Sprintf("k%d", i)
			targets, by = append(targets, e+" AS "+alias), append(by, alias)
		default:
			targets, by = append(targets, e), append(by, e)
		}
	}
	for range 1 + g.rng.IntN(4) {
		targets = append(targets, g.aggregate())
	}
	if g.chance(5) {
		targets = append(targets, "grouping("+g.scalar()+")")
	}
	sql := "SELECT " + strings.Join(targets, ", ") + " FROM " + g.from()
	if len(by) > 0 {
		list := strings.Join(by, ", ")
		switch {
		case g.chance(5):
			list = "ROLLUP (" + strings.Join(by, ", ") + ")"
		case g.chance(5):
			list = "GROUPING SETS ((), " + strings.Join(by, ", ") + ")"
		}
		sql += " GROUP BY " + list
	}
	if g.chance(30) {
		sql += " HAVING " + g.pick("count(*) > 1", "max(i) > 0", "sum(n) IS NULL OR count(*) < 5", "min(u) < 'b'", "count(DISTINCT g) > 1", "avg(i) > 0.5", "true", "bool_or(b)")
	}
	return sql + g.order(len(targets))
}

func (g *finishGenerator) rows() string {
	n := 1 + g.rng.IntN(3)
	var targets []string
	for i := range n {
		e := g.scalar()
		if g.chance(30) {
			e += fmt.Sprintf(" AS o%d", i)
		}
		targets = append(targets, e)
	}
	distinct := g.pick("", "", "DISTINCT ")
	from := g.from()
	switch {
	case distinct == "" && g.chance(20): // rows that are told apart by a hidden column
		return "SELECT " + strings.Join(targets, ", ") + " FROM " + strings.Replace(from, "CROSS JOIN countries w", "", 1) + " ORDER BY " + g.scalar() + g.pick("", " DESC", " NULLS FIRST", " USING <") +
			", f.user_id, f.id" + g.pick("", ", w.id") + g.limit()
	case distinct == "" && g.chance(15):
		return "SELECT DISTINCT ON (g, lower(u)) " + strings.Join(targets, ", ") + ", g FROM facts f ORDER BY g, lower(u), f.user_id, f.id" + g.limit()
	case distinct == "" && g.chance(15):
		return "SELECT f.*, " + targets[0] + " FROM facts f ORDER BY " + g.pick("c", "u", "f.n", "j") + g.pick("", " DESC") + ", user_id, id" + g.limit()
	}
	return "SELECT " + distinct + strings.Join(targets, ", ") + " FROM " + from + g.order(n)
}

// order is an ORDER BY of all columns, so that there is one right order.
func (g *finishGenerator) order(columns int) string {
	if g.chance(25) {
		return ""
	}
	var list []string
	for _, i := range g.rng.Perm(columns) {
		list = append(list, fmt.Sprint(i+1)+g.pick("", "", " DESC", " NULLS FIRST", " DESC NULLS LAST"))
	}
	return " ORDER BY " + strings.Join(list, ", ") + g.limit()
}

func (g *finishGenerator) limit() string {
	return g.pick("", "", " LIMIT 3", " LIMIT 5 OFFSET 2", " OFFSET 4", " LIMIT ALL OFFSET 1", " FETCH FIRST 4 ROWS WITH TIES", " OFFSET 1 FETCH NEXT 3 ROWS ONLY", " LIMIT 0", " LIMIT 2 + 2", " LIMIT 9223372036854775807 OFFSET 7")
}

func (g *finishGenerator) window() string {
	over := g.pick("", "PARTITION BY g", "PARTITION BY lower(u), b") + " ORDER BY " + g.scalar() + ", f.user_id, f.id"
	call := g.pick("row_number()", "rank()", "sum(i)", "lag(u)", "first_value(n)", "count(*)", "ntile(3)")
	targets := g.pick("f.user_id, id", "f.*", "*")
	if g.chance(30) {
		return "SELECT " + targets + ", " + call + " OVER w, max(c) OVER (PARTITION BY g) FROM facts f WINDOW w AS (" + over + ") ORDER BY f.user_id, f.id" + g.limit()
	}
	return "SELECT " + targets + ", " + call + " OVER (" + over + ") AS o FROM facts f WHERE b OR g > 0 ORDER BY f.user_id, f.id" + g.limit()
}
