package router

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"shardproxy/topology"
)

var update = flag.Bool("update", false, "rewrite testdata/plans.txt with what the router says")

// TestPlans reads testdata/plans.txt: blocks of one statement, a line "----", and its plan. Lines
// that begin with # before a statement are comments and directives:
//
//	# params: 5, {1,2}, NULL   text parameters of the extended protocol
//	# path: app, public        the search path, instead of public
//	# bound                    the session is bound to one shard
func TestPlans(t *testing.T) {
	const file = "testdata/plans.txt"
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
		input, want, found := strings.Cut(block, "\n----\n")
		if !found {
			if !strings.HasPrefix(block, "#") && !*update {
				t.Errorf("block has no plan: %s", block)
			}
			input = strings.TrimSuffix(block, "\n----")
		}
		if i > 0 {
			out.WriteString("\n")
		}
		out.WriteString(input + "\n")
		got := plan(t, r, snap, input)
		if got == "" {
			continue
		}
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

// plan is the plan of a block as text, "" for a block of comments.
func plan(t *testing.T, r *Router, snap *topology.Snapshot, input string) string {
	t.Helper()
	env := &Env{ID: 1, SearchPath: []string{"public"}, StdStrings: true}
	var params testParams
	for strings.HasPrefix(input, "#") {
		line, rest, _ := strings.Cut(input, "\n")
		input = rest
		name, value, _ := strings.Cut(strings.TrimSpace(line[1:]), ":")
		switch name {
		case "params":
			params = strings.Split(value, ";")
		case "path":
			env.ID, env.SearchPath = 2, strings.Split(strings.ReplaceAll(value, " ", ""), ",")
		case "bound":
			env.ID, env.Bound = 3, true
		}
	}
	if input == "" {
		return ""
	}
	var sc Scratch
	tpl, err := r.Template(snap, env, input, &sc)
	if err != nil {
		return "error " + err.Error()
	}
	again, err := r.Template(snap, env, input, &sc) // from the cache, if it is held there
	if err != nil || again.Kind != tpl.Kind {
		t.Errorf("%s: planned again: %v %v", input, again, err)
	}
	args := &Args{SQL: input, Literals: sc.Literals}
	if params != nil {
		args.Params = params
	}
	return describe(snap, tpl, args)
}

// testParams are text parameters of no declared type.
type testParams []string

func (p testParams) Param(i int) (value []byte, binary, null, ok bool) {
	if i >= len(p) {
		return nil, false, false, false
	}
	v := strings.TrimSpace(p[i])
	return []byte(v), false, v == "NULL", true
}

func (p testParams) ParamType(int) uint32 { return 0 }

func describe(snap *topology.Snapshot, t *Template, args *Args) string {
	words := []string{t.Kind.String()}
	var routeErr *Error
	if t.Kind == Keyed || t.Kind == Insert {
		var shards []topology.ShardID
		if shards, routeErr = t.Route(snap, args, nil); routeErr == nil {
			words = append(words, fmt.Sprint(shards))
		}
	}
	for _, f := range []struct {
		on   bool
		name string
	}{{t.Write, "write"}, {t.Returns, "returns"}, {t.Schema, "schema"}, {t.First, "first"}, {t.Pin, "pin"}, {t.Config, "config"}, {t.Block, "block"}, {t.Combine, "combine"}} {
		if f.on {
			words = append(words, f.name)
		}
	}
	lines := []string{strings.Join(words, " ")}
	note := func(name string, value any, on bool) {
		if on {
			lines = append(lines, fmt.Sprintf("%s: %v", name, value))
		}
	}
	note("unbound", t.Unbound, t.Unbound != "")
	note("name", t.Name, t.Name != "")
	note("declare", t.Declare, t.Declare != "")
	note("tx", fmt.Sprintf("%+v", t.Tx), t.Tx != TxStmt{})
	note("set", strings.Replace(fmt.Sprintf("%+v", t.Set), " Unread:false", "", 1), t.Set.Verb != 0 || t.Set.Name != "")
	for i := 1; i < len(t.SetConfig); i++ {
		note("and", fmt.Sprintf("%+v", t.SetConfig[i]), true)
	}
	note("prepare", fmt.Sprintf("%+v", t.Prepare), t.Prepare.Name != "")
	note("unknown", t.Unknown, len(t.Unknown) > 0)
	if t.Draws != nil {
		text, _ := t.Draws.Fill(args.SQL, func(i int) string { return fmt.Sprintf("$%d", 11+i) })
		note("drawn", text, true)
		for i, d := range t.Draws.Draws {
			note(fmt.Sprintf("$%d", 11+i), fmt.Sprintf("%+v", d), true)
		}
	}
	for _, n := range t.Notices {
		note("notice", n, true)
	}
	if t.Create != nil {
		note("create", fmt.Sprintf("%v %v key=%d %s", t.Create.Name, t.Create.Kind, t.Create.Key, t.Create.Notice), true)
	}
	if c := t.Copy; c != nil {
		note("copy", fmt.Sprintf("from=%v columns=%d key=%d format=%d delimiter=%q null=%q quote=%q escape=%q header=%v", c.From, c.Columns, c.Key, c.Format, c.Delimiter, c.Null, c.Quote, c.Escape, c.Header), true)
	}
	if c := t.Copy; c != nil {
		note("nowhere", true, c.Nowhere)
	}
	if f := t.finish; f != nil && f.sql == args.SQL {
		for _, in := range f.Inputs {
			name := "pull"
			if in.t != nil {
				name += fmt.Sprint(" ", in.t.Kind)
				if shards, err := in.Shards(snap, args, nil); err == nil && in.t.Kind == Keyed {
					name += fmt.Sprint(" ", shards)
				}
			}
			note(name, in.pull, true)
		}
		note("final", f.FinalText(), true)
	}
	if t.Inner != nil {
		note("text", t.Text, true)
		note("inner", strings.ReplaceAll(describe(snap, t.Inner, args), "\n", " | "), true)
	}
	switch {
	case routeErr != nil:
		lines = append(lines, "error: "+explainError(routeErr))
	case t.Kind == Reject || t.Kind == Syntax:
		lines = append(lines, "error: "+explainError(t.Reason))
	}
	return strings.Join(lines, "\n")
}

func explainError(e *Error) string {
	s := e.Code + " " + e.Message
	if e.Detail != "" {
		s += " [" + e.Detail + "]"
	}
	return s
}
