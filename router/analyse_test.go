package router

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"shardproxy/topology"
)

// planStatements are the statements of testdata/plans.txt without their directives.
func planStatements(t testing.TB) (list []string) {
	t.Helper()
	text, err := os.ReadFile("testdata/plans.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split(string(text), "\n\n") {
		sql, _, _ := strings.Cut(block, "\n----")
		for strings.HasPrefix(sql, "#") {
			_, sql, _ = strings.Cut(sql, "\n")
		}
		if sql != "" {
			list = append(list, sql)
		}
	}
	return list
}

// routed analyses sql and routes it, and fails where the Template contradicts itself.
func routed(t *testing.T, r *Router, snap *topology.Snapshot, sql string) {
	t.Helper()
	var sc Scratch
	for id, bound := range []bool{false, true} {
		tpl, err := r.Template(snap, &Env{ID: uint64(id), SearchPath: []string{"public"}, StdStrings: true, Bound: bound}, sql, &sc)
		if err != nil {
			continue
		}
		switch {
		case tpl.Kind == 0:
			t.Errorf("%q has no kind", sql)
		case tpl.Kind == Reject && tpl.Reason == nil:
			t.Errorf("%q is refused without a reason", sql)
		case (tpl.Kind == Keyed || tpl.Kind == Insert) && !tpl.Combine && tpl.Reason == nil:
			t.Errorf("%q has no reason to refuse several shards", sql)
		case tpl.Kind == Keyed || tpl.Kind == Insert:
			args := &Args{SQL: sql, Literals: sc.Literals, Params: testParams{"1", "2", "{1,2}"}}
			shards, err := tpl.Route(snap, args, nil)
			if err == nil && len(shards) == 0 || err == nil && len(shards) > 1 && !tpl.Combine {
				t.Errorf("%q is routed to %v", sql, shards)
			}
			if err == nil && tpl.Kind == Insert {
				if _, err := tpl.Split(snap, args); err != nil && len(shards) > 1 {
					t.Errorf("%q cannot be split: %v", sql, err)
				}
			}
		}
	}
}

// TestMixedStatements puts parts of the statements of testdata/plans.txt together: whatever the
// grammar makes of that, the analysis must come to an end and to a Template that is whole.
func TestMixedStatements(t *testing.T) {
	r, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	snap, list, rng := testSnapshot(t), planStatements(t), rand.New(rand.NewPCG(3, 4))
	part := func() []string { return strings.Fields(list[rng.IntN(len(list))]) }
	for range 4000 {
		a, b := part(), part()
		words := append(a[:rng.IntN(len(a)+1)], b[rng.IntN(len(b)):]...)
		routed(t, r, snap, strings.Join(words, " "))
	}
}

func FuzzAnalyse(f *testing.F) {
	for _, sql := range planStatements(f) {
		f.Add(sql)
	}
	r, err := New(DefaultConfig())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, sql string) { routed(t, r, testSnapshot(t), sql) })
}

// TestOwnEquality: where users have an = of their own for types of keys, a bare = says nothing of a key.
func TestOwnEquality(t *testing.T) {
	schema := testSchema()
	schema.Operators["="] = topology.Operator{Volatility: topology.Immutable, Keys: true}
	snap, err := topology.NewSnapshot(1, []topology.Shard{{Name: "s0"}, {Name: "s1"}}, topology.EqualRanges(2), schema)
	if err != nil {
		t.Fatal(err)
	}
	for sql, want := range map[string]Kind{
		"SELECT * FROM users WHERE id = 5":                                            Scatter,
		"SELECT * FROM users WHERE id IN (5)":                                         Scatter,
		"SELECT * FROM users WHERE id = ANY ('{5}')":                                  Scatter,
		"SELECT * FROM users WHERE id OPERATOR(pg_catalog.=) 5":                       Keyed,
		"SELECT * FROM tasks JOIN events USING (user_id)":                             Scatter,
		"SELECT * FROM tasks WHERE user_id IN (SELECT user_id FROM events)":           Scatter,
		"SELECT * FROM tasks t JOIN users u ON t.user_id OPERATOR(pg_catalog.=) u.id": Scatter,
		"SELECT * FROM tasks t JOIN users u ON t.user_id = u.id":                      Scatter,
		"INSERT INTO users (id) VALUES (5)":                                           Insert,
	} {
		tpl, _ := templateOf(t, snap, sql)
		if tpl.Kind != want {
			t.Errorf("%s: %v, want %v", sql, tpl.Kind, want)
		}
		if joined := strings.Contains(sql, "tasks") && !strings.Contains(sql, "pg_catalog"); tpl.Finishes() != joined {
			t.Errorf("%s: gathered: %v, want %v", sql, tpl.Finishes(), joined)
		}
	}
}

// TestHintedConfigIsNotCached: what set_config sets is read from literals, which are not part of the key.
func TestHintedConfigIsNotCached(t *testing.T) {
	snap := testSnapshot(t)
	r, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.b", "a.c"} {
		var sc Scratch
		tpl, err := r.Template(snap, &Env{ID: 1, StdStrings: true}, "/* shardproxy: key=5 */ SELECT set_config('"+name+"', 'x', false)", &sc)
		if err != nil {
			t.Fatal(err)
		}
		if !tpl.Config || len(tpl.SetConfig) != 1 || tpl.SetConfig[0].Name != name {
			t.Errorf("%s: %+v", name, tpl.SetConfig)
		}
	}
}
