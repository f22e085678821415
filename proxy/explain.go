package proxy

import (
	"strings"

	"shardproxy/router"
)

const explainColumn = "QUERY PLAN"

// explainPlan answers EXPLAIN (SHARDPROXY): where the statement would run, and why.
func (s *Session) explainPlan(t *router.Template) error {
	inner := t.Inner
	lines := []string{"Kind: " + inner.Kind.String()}
	switch inner.Kind {
	case router.Reject:
		lines = append(lines, "Refused: "+inner.Reason.Message)
		if inner.Reason.Hint != "" {
			lines = append(lines, "Hint: "+inner.Reason.Hint)
		}
	default:
		// The literals are those of the inner text: it is planned by itself.
		again, err := s.srv.router.Template(s.snap, s.env, t.Text, &s.scratch)
		if err != nil {
			return err
		}
		shards, err := s.destination(again, t.Text)
		if err != nil {
			lines = append(lines, "Shards: known once the parameters are", "Reason: "+err.Error())
			break
		}
		names := make([]string, len(shards))
		for i, id := range shards {
			names[i] = s.shardName(id)
		}
		lines = append(lines, "Shards: "+listOf(names))
		if len(shards) > 1 && !again.Combine && again.Reason != nil && again.Kind != router.All {
			lines = append(lines, "Refused: "+again.Reason.Message)
		}
	}
	if inner.Write {
		lines = append(lines, "Writes: yes")
	} else {
		lines = append(lines, "Writes: no")
	}
	var tables []string
	for _, table := range inner.Tables {
		name := table.Kind.String() + " " + table.String()
		if key := table.KeyColumn(); key != "" {
			name += " by " + key
		}
		tables = append(tables, name)
	}
	if len(tables) > 0 {
		lines = append(lines, "Tables: "+strings.Join(tables, ", "))
	}
	rows := make([][]string, len(lines))
	for i, l := range lines {
		rows[i] = []string{l}
	}
	s.rows([]string{explainColumn}, rows, "EXPLAIN")
	return nil
}
