package router

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"shardproxy/topology"
)

// TestOwned reads testdata/owned.txt: blocks of a statement, a line "----", and its text for a shard with foreign rows, in which
// the condition is written as <hash of the key>. A line "# path: app, public" before a statement sets the search path.
func TestOwned(t *testing.T) {
	const file = "testdata/owned.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	snap := testSnapshot(t)
	r, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for i, block := range strings.Split(strings.TrimSpace(string(text)), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		input, want, _ := strings.Cut(block, "\n----\n")
		input = strings.TrimSuffix(input, "\n----")
		out.WriteString(input + "\n")
		env := &Env{ID: 1, SearchPath: []string{"public"}, StdStrings: true}
		sql := input
		for strings.HasPrefix(sql, "#") {
			line, rest, _ := strings.Cut(sql, "\n")
			if path, ok := strings.CutPrefix(line, "# path: "); ok {
				env.ID, env.SearchPath = 2, strings.Split(path, ", ")
			}
			sql = rest
		}
		if sql == "" {
			continue
		}
		got := owned(t, r, snap, env, sql)
		out.WriteString("----\n" + got + "\n")
		if !*update && got != want {
			t.Errorf("%s\n got: %s\nwant: %s", input, got, want)
		}
	}
	if *update {
		if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var testForeign = []topology.KeyRange{{Start: 1<<63 + 5, End: 1<<63 + 9}}

func owned(t *testing.T, r *Router, snap *topology.Snapshot, env *Env, sql string) string {
	t.Helper()
	var sc Scratch
	tpl, err := r.Template(snap, env, sql, &sc)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	if tpl.Kind != Scatter && tpl.Kind != Copy && !(tpl.Kind == Keyed && tpl.Combine) {
		return tpl.Kind.String()
	}
	if same, err := tpl.Owned(sql, nil); err != nil || same.SQL != sql {
		t.Errorf("%s: without foreign rows %q, %v", sql, same.SQL, err)
	}
	if tpl.Finishes() {
		f, refused := r.Finish(snap, env, tpl, sql)
		if refused != nil {
			return "refused: " + refused.Message
		}
		var pulls []string
		for _, in := range f.Inputs {
			pull, refused := in.Pull(testForeign)
			if refused != nil {
				return "refused: " + refused.Message
			}
			pulls = append(pulls, marked(pull))
		}
		return strings.Join(pulls, "\n")
	}
	o, refused := tpl.Owned(sql, testForeign)
	if refused != nil {
		return "refused: " + refused.Message
	}
	if o.SQL == sql {
		return "the same"
	}
	return marked(o.SQL)
}

// marked puts short marks in the place of the conditions on testForeign.
func marked(got string) string {
	for _, kt := range []topology.KeyType{topology.KeyInt, topology.KeyText, topology.KeyUUID} {
		head, tail, _ := strings.Cut(kt.HashSQL("\x00"), "\x00")
		condition := string(topology.AppendInRanges(nil, head+"\x00"+tail, testForeign))
		before, after, _ := strings.Cut(condition, "\x00")
		from := strings.Index(got, before)
		if from < 0 {
			continue
		}
		key, rest, _ := strings.Cut(got[from+len(before):], after)
		got = got[:from] + fmt.Sprintf("<%s %s>", kt, key) + rest
	}
	return got
}

// TestOwnedWithoutStandardStrings finds the place behind a text with a backslash escape, which the analysis read as E'…'.
func TestOwnedWithoutStandardStrings(t *testing.T) {
	r, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	env := &Env{ID: 1, SearchPath: []string{"public"}}
	for _, sql := range []string{`SELECT 'it\'s FROM', 'x' FROM users`, `SELECT '\\\\\\', '\'' FROM users`} {
		want := strings.Replace(sql, "users", `(users JOIN (SELECT) AS "shardproxy_elsewhere" ON (<int "users"."id">) IS NOT TRUE)`, 1)
		if got := owned(t, r, testSnapshot(t), env, sql); got != want {
			t.Errorf("%s\n got: %s\nwant: %s", sql, got, want)
		}
	}
}

// TestOwnedPosition compares each character of a rewritten text with the one that it is said to be.
func TestOwnedPosition(t *testing.T) {
	r, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	env := &Env{ID: 1, SearchPath: []string{"public"}, StdStrings: true}
	for _, sql := range []string{
		"SELECT 'é', u.* FROM users AS u WHERE name = 'ü' AND id > 5", "TABLE users", "UPDATE users SET name = 'é' WHERE name = 'ü' RETURNING id",
		"DELETE FROM users", "COPY users (id, name) TO STDOUT WITH (FORMAT csv)",
	} {
		var sc Scratch
		tpl, err := r.Template(testSnapshot(t), env, sql, &sc)
		if err != nil {
			t.Fatal(err)
		}
		o, refused := tpl.Owned(sql, testForeign)
		if refused != nil || !o.Changed() {
			t.Fatalf("%s: %v", sql, refused)
		}
		from, to := []rune(sql), []rune(o.SQL)
		last, same := 0, 0
		for i := range to {
			p := o.Position(i + 1)
			if p < last || p < 1 || p > len(from)+1 {
				t.Fatalf("%s: character %d of %s is said to be %d, after %d", sql, i+1, o.SQL, p, last)
			}
			if p > last && p <= len(from) && from[p-1] == to[i] {
				same++
			}
			last = p
		}
		if cut := len("TABLE") + len("users (id, name)"); same < len(from)-cut || last < len(from)-1 {
			t.Errorf("%s: only %d of %d characters were found again, the last as %d", sql, same, len(from), last)
		}
	}
}
