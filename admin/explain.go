package admin

import (
	"context"
	"strings"

	"shardproxy/wire"
)

// readExplain is EXPLAIN of any statement of the application, which is not run. As that of the data port it may be
// written with the option SHARDPROXY.
func readExplain(a *arguments) (reply, *wire.Error) {
	sql := a.rest("the statement")
	if option, statement, ok := strings.Cut(sql, ")"); ok && strings.EqualFold(strings.Join(strings.Fields(option), ""), "(shardproxy") {
		sql = strings.TrimSpace(statement)
	}
	if sql == "" {
		a.fail(a.end, "the statement is missing")
	}
	return func(_ context.Context, s *session) ([][]any, *wire.Error) {
		lines, err := s.console.src.Explain(sql)
		if err != nil {
			return nil, err
		}
		rows := make([][]any, len(lines))
		for i, line := range lines {
			rows[i] = []any{line}
		}
		return rows, nil
	}, a.done()
}
