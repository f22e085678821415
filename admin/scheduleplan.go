package admin

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"shardproxy/rebalance"
	"shardproxy/rebalance/mover"
	"shardproxy/wire"
)

// planColumns: move counts the moves of the plan from 1; bytes and rows are those that move, estimated.
const planColumns = "item move# subject detail bytes# rows# hint"

// preflightsMax bounds how many moves of a plan are looked at, and preflightParallel how many at a time: each reads the ids of the rows.
const (
	preflightsMax     = 64
	preflightParallel = 4
)

// showPlan shows what a request leads to, and what its moves would meet.
func (s *session) showPlan(ctx context.Context, r request) (rows [][]any, refused *wire.Error) {
	p, refused := s.planFor(ctx, r)
	if refused != nil {
		return nil, refused
	}
	for _, c := range p.Changes {
		rows = append(rows, []any{"change", nil, nil, c.String(), nil, nil, nil})
	}
	for i, look := range s.preflights(ctx, p.Moves) {
		rows = append(rows, moveRows(int64(i+1), &p.Moves[i], look)...)
	}
	total := 0.0
	for _, l := range p.Loads {
		total += l.Before
	}
	for _, l := range p.Loads {
		text := fmt.Sprintf("%.2f %% now, %.2f %% afterwards", 100*l.Before/max(total, 1), 100*l.After/max(total, 1))
		rows = append(rows, []any{"load", nil, l.Shard, text, nil, nil, nil})
	}
	if p.Empty() {
		rows = append(rows, []any{"nothing", nil, nil, "nothing is to be done", nil, nil, nil})
	}
	return rows, nil
}

// look is what was found before a move.
type look struct {
	report *mover.Report
	err    error
}

// preflights looks at the first moves.
func (s *session) preflights(ctx context.Context, moves []rebalance.Move) []look {
	found := make([]look, len(moves))
	var g errgroup.Group
	g.SetLimit(preflightParallel)
	for i := range moves[:min(len(moves), preflightsMax)] {
		g.Go(func() error {
			found[i].report, found[i].err = s.console.cfg.Mover.Preflight(ctx, moves[i])
			return nil
		})
	}
	_ = g.Wait() // nobody gives an error
	return found
}

// moveRows are what a plan says of one move.
func moveRows(n int64, m *rebalance.Move, found look) (rows [][]any) {
	text := sizeOf(m)
	for i, r := range m.Ranges {
		if i == rangesNamed {
			text += " …"
			break
		}
		text += " " + r.String()
	}
	move := []any{"move", n, m.Source + " → " + m.Target, text, nil, nil, nil}
	rows = append(rows, move)
	add := func(item, subject, detail, hint string) {
		rows = append(rows, []any{item, n, orNull(subject), detail, nil, nil, orNull(hint)})
	}
	r := found.report
	switch {
	case found.err != nil:
		add("problem", "", "it could not be looked at: "+found.err.Error(), "")
		return rows
	case r == nil:
		return rows // behind preflightsMax
	}
	shards := [2]string{m.Source, m.Target}
	var bytes, count int64
	for _, t := range r.Tables {
		bytes, count = bytes+t.MovingBytes, count+t.MovingRows
		rows = append(rows, []any{"table", n, t.Table.String(), fmt.Sprintf("of %d rows, %.1f MB", t.Rows, float64(t.Bytes)/megabyte), t.MovingBytes, t.MovingRows, nil})
	}
	move[4], move[5] = bytes, count
	for side, shard := range shards {
		add("room", shard, fmt.Sprintf("%d replication slots and %d WAL senders are free; the move takes one of each", r.FreeSlots[side], r.FreeSenders[side]), "")
	}
	add("room", m.Target, fmt.Sprintf("%.1f MB on disk for the rows, and about as much for the log", float64(bytes)/megabyte), "A server does not say how much of its disk is free.")
	add("room", m.Source, "keeps the log of what is written meanwhile: "+keptLog(r.MaxSlotWALBytes), "")
	add("time", "", copyTime(bytes, r.BytesPerSecond), "")
	for _, p := range r.Problems {
		item, subject := "problem", shards[p.Side]
		if p.Warning {
			item = "warning"
		}
		if p.Table.Name != "" {
			subject += ", " + p.Table.String()
		}
		add(item, subject, p.Text, p.Hint)
	}
	for _, b := range r.Blockers {
		add("blocker", shards[b.Side], b.String(), "The copy begins when it has ended.")
	}
	return rows
}

func keptLog(most int64) string {
	if most < 0 {
		return "without a limit"
	}
	return fmt.Sprintf("%.1f MB at most", float64(most)/megabyte)
}

// copyRate is a guess, in bytes a second, for servers that do something else besides.
const copyRate = 20e6

// copyTime guesses how long the copy takes.
func copyTime(bytes, limit int64) string {
	rate, of := copyRate, "without a limit; servers differ"
	if limit > 0 && float64(limit) < rate {
		rate, of = float64(limit), "the limit"
	}
	took := time.Duration(float64(bytes) / rate * float64(time.Second)).Round(time.Second)
	return fmt.Sprintf("some %v for the copy at %.1f MB/s (%s), and %v of leases", took, rate/megabyte, of, 2*rebalance.LeaseWait)
}

// rangesNamed is how many ranges of a move a plan names.
const rangesNamed = 4
