package router

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var (
	exactSeed  = flag.Uint64("exact.seed", 7, "seed of TestRandomQueriesAreExact")
	exactCount = flag.Int("exact.count", 600, "number of queries of TestRandomQueriesAreExact")
)

// TestRandomQueriesAreExact makes queries of joins, sub-queries and conditions on keys, and compares
// those that are not refused with what a database with all rows gives.
func TestRandomQueriesAreExact(t *testing.T) {
	c := newCluster(t)
	g := &generator{rng: rand.New(rand.NewPCG(*exactSeed, 0))}
	ran := 0
	for i := range *exactCount {
		sql := g.statement()
		if c.check(t, sql, nil) {
			ran++
		}
		if t.Failed() {
			t.Fatalf("statement %d of seed %d", i, *exactSeed)
		}
	}
	t.Logf("%d of %d statements ran", ran, *exactCount)
	if ran < *exactCount/10 {
		t.Errorf("only %d of %d statements were not refused", ran, *exactCount)
	}
}

// generator writes statements over users, projects, events, tasks and countries.
type generator struct {
	rng   *rand.Rand
	names int
}

// source is something in FROM: its alias and its integer columns, keys among them.
type source struct {
	alias   string
	columns []string
	key     string
}

func (g *generator) pick(list ...string) string { return list[g.rng.IntN(len(list))] }
func (g *generator) chance(percent int) bool    { return g.rng.IntN(100) < percent }
func (g *generator) alias() string {
	g.names++
	return fmt.Sprintf("t%d", g.names)
}

func (g *generator) statement() string {
	g.names = 0
	switch {
	case g.chance(15):
		return g.update()
	case g.chance(10):
		return g.with()
	case g.chance(5):
		return g.insert()
	}
	return g.query(nil, 2, g.chance(25))
}

var generated = []source{
	{alias: "users", columns: []string{"id"}, key: "id"},
	{alias: "projects", columns: []string{"id", "creator_user_id"}, key: "creator_user_id"},
	{alias: "events", columns: []string{"user_id"}, key: "user_id"},
	{alias: "tasks", columns: []string{"id", "user_id"}, key: "user_id"},
	{alias: "countries", columns: []string{"id"}, key: "id"},
	{alias: "active_users", columns: []string{"user_id"}, key: "user_id"},
}

// from gives a FROM item and what it makes visible.
func (g *generator) from(outer []source, depth int) (string, []source) {
	if depth > 0 && g.chance(50) {
		l, ls := g.from(outer, depth-1)
		r, rs := g.from(outer, depth-1)
		join := g.pick("JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN")
		both := append(slices.Clone(ls), rs...)
		on := g.condition(both, 0)
		if g.chance(75) {
			on = g.equal(ls, rs) + g.pick("", " AND "+on)
		}
		if join == "FULL JOIN" { // others are not merge-joinable
			on = g.equal(ls, rs)
		}
		return "(" + l + " " + join + " " + r + " ON " + on + ")", both
	}
	if depth > 0 && g.chance(25) {
		a := g.alias()
		if g.chance(50) {
			return "LATERAL (" + g.sub(outer, "k") + ") " + a, []source{{a, []string{"k"}, "k"}}
		}
		return "(" + g.sub(nil, "k") + ") " + a, []source{{a, []string{"k"}, "k"}}
	}
	s := generated[g.rng.IntN(len(generated))]
	a := g.alias()
	return s.alias + " " + a, []source{{a, s.columns, s.key}}
}

// sub is a query of one column.
func (g *generator) sub(outer []source, name string) string {
	from, visible := g.from(outer, g.rng.IntN(2))
	sql := "SELECT " + g.pick("", "", "DISTINCT ") + g.column(visible) + " AS " + name + " FROM " + from
	if g.chance(70) {
		sql += " WHERE " + g.condition(append(slices.Clone(visible), outer...), 1)
	}
	switch {
	case g.chance(15):
		sql += " ORDER BY 1 LIMIT 2"
	case g.chance(10):
		sql += " UNION ALL " + g.sub(outer, name)
	}
	return sql
}

func (g *generator) query(outer []source, depth int, aggregate bool) string {
	from, visible := g.from(outer, depth)
	if g.chance(25) {
		f, v := g.from(visible, depth-1)
		from, visible = from+", "+f, append(visible, v...)
	}
	targets := []string{g.column(visible), g.column(visible)}
	if aggregate {
		targets = []string{"count(*)", "max(" + g.column(visible) + ")"}
	} else if g.chance(20) {
		targets[0] = "(SELECT count(*) FROM tasks s WHERE " + g.condition(append([]source{{"s", []string{"id", "user_id"}, "user_id"}}, visible...), 0) + ")"
	}
	sql := "SELECT " + strings.Join(targets, ", ") + " FROM " + from
	if g.chance(85) {
		sql += " WHERE " + g.condition(visible, 2)
	}
	if !aggregate && g.chance(10) {
		sql += " ORDER BY 1, 2"
	}
	return sql
}

func (g *generator) with() string {
	g.names = 0
	body := g.pick("", "MATERIALIZED ")
	sql := "WITH c AS " + body + "(" + g.sub(nil, "k") + ") SELECT " + g.pick("c.k", "count(*)") + " FROM c"
	visible := []source{{"c", []string{"k"}, "k"}}
	if g.chance(60) {
		from, v := g.from(nil, 0)
		sql += g.pick(" JOIN ", " LEFT JOIN ") + from + " ON " + g.equal(visible, v)
		visible = append(visible, v...)
	}
	if g.chance(60) {
		sql += " WHERE " + g.condition(visible, 1)
	}
	return sql
}

func (g *generator) update() string {
	g.names = 0
	target := generated[g.rng.IntN(3)]
	visible := []source{{target.alias, target.columns, target.key}}
	sql := "DELETE FROM " + target.alias
	using := " USING "
	if g.chance(50) {
		set := map[string]string{"users": "name", "projects": "title", "events": "kind"}[target.alias]
		sql, using = "UPDATE "+target.alias+" SET "+set+" = 'new'", " FROM "
	}
	if g.chance(40) {
		from, v := g.from(nil, 1)
		sql += using + from
		visible = append(visible, v...)
	}
	sql += " WHERE " + g.condition(visible, 2)
	if g.chance(30) {
		sql += " RETURNING " + target.alias + "." + target.key + ", " + target.alias
	}
	return sql
}

func (g *generator) insert() string {
	g.names = 0
	sql := "INSERT INTO tasks (id, title, user_id) SELECT 9, 'new', s.k FROM (" + g.sub(nil, "k") + ") s"
	if g.chance(40) {
		from, v := g.from(nil, 1)
		sql += " JOIN " + from + " ON " + g.equal([]source{{"s", []string{"k"}, "k"}}, v)
	}
	return sql + g.pick("", " RETURNING *")
}

func (g *generator) column(visible []source) string {
	s := visible[g.rng.IntN(len(visible))]
	if g.chance(60) {
		return s.alias + "." + s.key
	}
	return s.alias + "." + s.columns[g.rng.IntN(len(s.columns))]
}

func (g *generator) equal(l, r []source) string { return g.column(l) + " = " + g.column(r) }

func (g *generator) constants() string {
	return g.pick("1", "2, 5", "3, 3", "1, 4, 6", "NULL, 2")
}

// condition writes a condition over the visible columns.
func (g *generator) condition(visible []source, depth int) string {
	switch n := g.rng.IntN(100); {
	case n < 24:
		return g.column(visible) + " = " + g.pick("1", "2", "5", "'3'", "4::bigint", "+3", "- -2", "-(-(4))", "'5'::smallint")
	case n < 44:
		return g.equal(visible, visible)
	case n < 52:
		return g.column(visible) + " IN (" + g.constants() + ")"
	case n < 56:
		return g.column(visible) + " = ANY (ARRAY[" + g.pick("1, 2", "3", "5, NULL") + "])"
	case n < 60:
		return "(" + g.column(visible) + ", " + g.column(visible) + ") = (" + g.column(visible) + ", 2)"
	case n < 64:
		return g.column(visible) + g.pick(" > 2", " IS NULL", " IS NOT NULL", " <> 5", " IS NOT DISTINCT FROM 3", " BETWEEN 2 AND 2", " = ALL (ARRAY[4])")
	case n < 74:
		return g.condition(visible, depth) + " AND " + g.condition(visible, depth)
	case n < 82:
		return "(" + g.condition(visible, depth) + " OR " + g.condition(visible, depth) + ")"
	case n < 85:
		return "NOT (" + g.condition(visible, depth) + ")"
	case depth > 0 && n < 93:
		return g.column(visible) + g.pick(" IN (", " IN (", " NOT IN (", " = ANY (") + g.sub(visible, "k") + ")"
	case depth > 0:
		from, inner := g.from(visible, depth-1)
		return g.pick("EXISTS", "NOT EXISTS") + " (SELECT FROM " + from + " WHERE " + g.condition(append(inner, visible...), depth-1) + ")"
	}
	return g.equal(visible, visible) + " AND " + g.column(visible) + " = 2"
}
