package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

const explainColumn = "QUERY PLAN"

// explainPlan answers EXPLAIN (SHARDPROXY): where the statement would run, and why.
func (s *Session) explainPlan(t *router.Template) error {
	// The literals are those of the inner text: it is planned by itself.
	inner, err := s.srv.router.Template(s.snap, s.env, t.Text, &s.scratch)
	if err != nil {
		return err
	}
	lines := s.explanation(inner, t.Text)
	rows := make([][]string, len(lines))
	for i, l := range lines {
		rows[i] = []string{l}
	}
	s.rows([]string{explainColumn}, rows, "EXPLAIN")
	return nil
}

// Explain says where a statement of a fresh session would run, and why, as EXPLAIN (SHARDPROXY) does. Parameters have no
// value.
func (s *Server) Explain(sql string) ([]string, *wire.Error) {
	d := s.defaults.Load()
	if d == nil {
		return nil, wire.Errorf(wire.CodeCannotConnectNow, "no shard has answered yet: the tables are not known")
	}
	snap := s.snapshot.Load()
	c := &Session{
		srv: s, snap: snap, routes: &routes{snap: snap}, bound: unbound,
		env: s.envs.of(d, backend.NoSettings, "", false),
	}
	t, err := s.router.Template(snap, c.env, sql, &c.scratch)
	if err != nil {
		return nil, c.explain(err)
	}
	return c.explanation(t, sql), nil
}

// explanation tells of a statement that has just been planned, a line each.
func (s *Session) explanation(t *router.Template, sql string) []string {
	lines := []string{"Kind: " + t.Kind.String()}
	switch {
	case t.Kind == router.Reject:
		lines = append(lines, refusedLines(t.Reason)...)
	case len(t.Unknown) > 0:
		lines = append(lines, "Shards: known once the schema has been read again", "Unknown: "+strings.Join(t.Unknown, ", "))
	default:
		lines = append(lines, s.placeLines(t, sql)...)
	}
	lines = append(lines, "Writes: "+map[bool]string{false: "no", true: "yes"}[t.Write])
	var tables []string
	for _, table := range t.Tables {
		name := table.Kind.String() + " " + table.String()
		if key := table.KeyColumn(); key != "" {
			name += " by " + key
		}
		tables = append(tables, name)
	}
	if len(tables) > 0 {
		lines = append(lines, "Tables: "+strings.Join(tables, ", "))
	}
	return lines
}

func refusedLines(reason *router.Error) []string {
	lines := []string{"Refused: " + reason.Message}
	if reason.Hint != "" {
		lines = append(lines, "Hint: "+reason.Hint)
	}
	return lines
}

// placeLines says on which shards, with which text, and how their answers become one.
func (s *Session) placeLines(t *router.Template, sql string) []string {
	shards, err := s.destination(t, sql)
	var refused *router.Error
	switch {
	case err != nil && errors.As(err, &refused) && refused == t.Reason:
		return append([]string{"Shards: several"}, refusedLines(refused)...)
	case err != nil && len(t.KeyParams()) > 0:
		return []string{"Shards: depends on " + parameterList(t.KeyParams())}
	case err != nil:
		return []string{"Shards: known when it runs", "Reason: " + err.Error()}
	case t.Kind == router.Any && !t.First && s.bound == unbound:
		return []string{"Shards: any one"}
	}
	names := make([]string, len(shards))
	for i, id := range shards {
		names[i] = s.shardName(id)
	}
	lines := []string{"Shards: " + listOf(names)}
	all := t.Kind == router.All || t.Kind == router.AllBare
	switch {
	case t.Kind == router.Syntax && t.Reason != nil:
		return append(lines, refusedLines(t.Reason)...)
	case len(shards) == 1:
		return lines
	case !all && !t.Combine && t.Reason != nil:
		return append(lines, refusedLines(t.Reason)...)
	case t.Kind == router.Insert:
		lines = append(lines, s.pieceLines(t)...)
	}
	if t.Finishes() {
		return append(lines, s.finishLines(t, shards, sql)...)
	}
	lines = append(lines, s.ownedLines(t, shards)...)
	return append(lines, "Merge: "+mergeOf(t, all))
}

// pieceLines gives the text that each shard is sent, which holds its own rows only.
func (s *Session) pieceLines(t *router.Template) []string {
	pieces, err := t.Split(s.snap, &s.args)
	if err != nil {
		return refusedLines(err)
	}
	var lines []string
	for _, p := range pieces {
		lines = append(lines, fmt.Sprintf("SQL on %s: %s", s.shardName(p.Shard), p.SQL))
	}
	return lines
}

// finishLines gives the texts of a statement whose last step is one shard's. The first may differ where rows are being moved.
func (s *Session) finishLines(t *router.Template, shards []topology.ShardID, sql string) []string {
	f, refused := s.srv.router.Finish(s.snap, s.env, t, sql)
	if refused != nil {
		return refusedLines(refused)
	}
	if !f.Gathers() {
		return append(s.inputLines(f.Inputs[0], shards, "Merge: "+s.shardName(shards[0])+" does the last step over "+f.Inputs[0].Gives+", which the others give it"), "Last step: "+f.FinalText())
	}
	lines := []string{"Merge: one shard runs the statement over what is gathered for its parts"}
	args := router.Args{SQL: sql, Foreign: s.foreign, Through: s.through}
	for i, in := range f.Inputs {
		of, refused := in.Shards(s.snap, &args, shards)
		if refused != nil {
			of = shards
		}
		names := make([]string, len(of))
		for k, id := range of {
			names[k] = s.shardName(id)
		}
		lines = append(lines, s.inputLines(in, of, fmt.Sprintf("Part %d: %s, of %s", i+1, in.Gives, listOf(names)))...)
	}
	return append(lines, "Last step: "+f.FinalText())
}

// inputLines gives the texts of an input, each once, behind a line that says what it is.
func (s *Session) inputLines(in *router.Input, shards []topology.ShardID, what string) []string {
	lines := []string{what}
	for _, shard := range shards {
		foreign := s.snap.ForeignOf(s.srv.snapshot.Load(), shard)
		pull, refused := in.Pull(foreign)
		switch {
		case refused != nil:
			return append(lines, refusedLines(refused)...)
		case len(foreign) > 0:
			lines = append(lines, "SQL on "+s.shardName(shard)+": "+pull)
		case !slices.Contains(lines, "SQL: "+pull):
			lines = append(lines, "SQL: "+pull)
		}
	}
	return lines
}

// mergeOf says how the answers of several shards become one.
func mergeOf(t *router.Template, all bool) string {
	switch {
	case all:
		return "the answer of the first shard, with which the others must agree"
	case t.Kind == router.Insert && t.Returns:
		return "rows in the order of the statement"
	case t.Returns:
		return "rows of one shard after those of another"
	}
	return "counts are added up"
}

func parameterList(numbers []int) string {
	if len(numbers) == 1 {
		return "parameter " + strconv.Itoa(numbers[0])
	}
	names := make([]string, len(numbers))
	for i, n := range numbers {
		names[i] = strconv.Itoa(n)
	}
	return "parameters " + strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// refusal words the router's error for a client.
func refusal(refused *router.Error) *wire.Error {
	e := wire.Errorf(refused.Code, "%s", refused.Message)
	e.Detail, e.Hint, e.Position = refused.Detail, refused.Hint, refused.Position
	return e
}
