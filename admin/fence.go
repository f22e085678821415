package admin

import (
	"context"
	"time"

	"shardproxy/fence"
	"shardproxy/wire"
)

// Fences are those of all shards of the map: see fence.InstallAll and fence.CheckAll.
type Fences interface {
	Install(ctx context.Context) []fence.Result
	Check(ctx context.Context) []fence.Result
}

// fenceTimeout ends work on fences. A shard takes some 50 ms where none is busy, and 8 are worked on at a time.
const fenceTimeout = 15 * time.Minute

const fenceColumns = "shard epoch# tables# status problem hint"

// fences are the verbs for the fences of the shards. A shard has a row, or one for each of its problems.
func fences() []verb {
	return []verb{
		{
			name: "FENCE INSTALL", help: "make the shards refuse writes by an old map and rows of other shards, or mend what does",
			role: RoleAdmin, fields: fields(fenceColumns), alone: true,
			read: readFence((*session).installFences),
		},
		{
			name: "FENCE CHECK", help: "whether the shards refuse writes by an old map and rows of other shards, and why not",
			role: RoleStats, fields: fields(fenceColumns),
			read: readFence((*session).checkFences),
		},
	}
}

// readFence is a verb without arguments.
func readFence(run func(s *session, ctx context.Context) []fence.Result) func(a *arguments) (reply, *wire.Error) {
	return func(a *arguments) (reply, *wire.Error) {
		if err := a.done(); err != nil {
			return nil, err
		}
		return func(ctx context.Context, s *session) ([][]any, *wire.Error) {
			if s.console.cfg.Fences == nil {
				return nil, wire.Errorf(wire.CodeFeatureNotSupported, "this proxy has nothing to do with fences")
			}
			var results []fence.Result
			err := s.patiently(ctx, func(ctx context.Context) error {
				limited, cancel := context.WithTimeout(ctx, fenceTimeout)
				defer cancel()
				results = run(s, limited)
				return ctx.Err()
			})
			if err != nil {
				return nil, wire.Errorf(wire.CodeQueryCanceled, "work on fences was ended: %v", err).
					WithHint("Each shard has all that was to be done, or nothing of it; FENCE CHECK tells.")
			}
			var rows [][]any
			for i := range results {
				rows = append(rows, fenceRows(&results[i])...)
			}
			return rows, nil
		}, nil
	}
}

func (s *session) checkFences(ctx context.Context) []fence.Result {
	return s.console.cfg.Fences.Check(ctx)
}

// installFences leaves a line in the log.
func (s *session) installFences(ctx context.Context) []fence.Result {
	results := s.console.cfg.Fences.Install(ctx)
	changed, failed, problems := 0, 0, 0
	for i := range results {
		if results[i].Changed {
			changed++
		}
		if results[i].Err != nil {
			failed++
		}
		problems += len(results[i].Problems)
	}
	s.console.cfg.Log.Info("fences installed", "user", s.user, "from", s.client.Conn().RemoteAddr().String(),
		"shards", len(results), "changed", changed, "failed", failed, "problems", problems)
	return results
}

// fenceRows are the rows of one shard.
func fenceRows(r *fence.Result) (rows [][]any) {
	row := func(status string, problem, hint any) {
		var epoch any // NULL for no fence
		if r.Epoch > 0 {
			epoch = int64(r.Epoch)
		}
		rows = append(rows, []any{r.Shard, epoch, int64(r.Tables), status, problem, hint})
	}
	for _, p := range r.Problems {
		row("problem", p.String(), orNull(p.Hint))
	}
	switch {
	case r.Err != nil:
		row("failed", r.Err.Error(), "Repeat the command; look at the rights of the service user.")
	case rows != nil:
	case r.Changed:
		row("installed", nil, nil)
	default:
		row("ok", nil, nil)
	}
	return rows
}
