package admin

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"shardproxy/rebalance"
	"shardproxy/rebalance/mover"
	"shardproxy/topology"
	"shardproxy/wire"
)

// Mover is what is needed to move key ranges: the journal of moves, which whoever coordinates them follows, and ways to look at the
// shards.
type Mover interface {
	Epoch(ctx context.Context) (topology.Epoch, error) // of the catalog
	AddMoves(ctx context.Context, records []topology.MoveRecord) error
	LoadMoves(ctx context.Context, all bool) ([]topology.MoveRecord, error)
	AddMoveOrder(ctx context.Context, move int64, what string, who topology.Actor) (id int64, err error)
	MoveOrderAnswer(ctx context.Context, id int64) (answered bool, refusal string, err error)

	Status(ctx context.Context) ([]rebalance.Status, error) // of the moves under way, wherever they are coordinated
	Preflight(ctx context.Context, m rebalance.Move) (*mover.Report, error)
	OnNode(ctx context.Context, node topology.Node, run func(topology.Query) error) error
}

const (
	// journalTimeout ends what asks the catalog for moves.
	journalTimeout = 10 * time.Second
	// orderPatience is how long an order is waited for, and orderEvery how often its answer is looked for.
	orderPatience = 10 * time.Second
	orderEvery    = 100 * time.Millisecond
)

const moveColumns = `id# kind source target phase task back paused ranges# share percent# rows# mb mb_per_s lag_bytes# eta pause_ms# attempt#
	throttle alarm blockers error asked_by created updated`

// moves are the verbs for moves that are in the journal.
func moves() []verb {
	list := []verb{
		{
			name: "SHOW MOVES", args: "[ALL]", help: "key ranges on their way from one shard to another; with ALL, those that have ended too",
			role: RoleStats, fields: fields(moveColumns), read: readShowMoves,
		},
	}
	for _, o := range []struct {
		order rebalance.Order
		help  string
	}{
		{rebalance.OrderAbort, "give a move up: the ranges stay where they are, and nothing is left of it"},
		{rebalance.OrderPause, "stop the copy of a move, or put off its cutover"},
		{rebalance.OrderResume, "let a move go on that was paused"},
		{rebalance.OrderReverse, "give the ranges of a move back to its source, with all that was written since"},
		{rebalance.OrderFinish, "end the time in which a move can be reversed, or take the new owner's rows where both differ"},
	} {
		list = append(list, verb{
			name: "MOVE " + strings.ToUpper(o.order.String()), args: "id", help: o.help, role: RoleAdmin, alone: true,
			fields: fields("id# command answer"), read: readOrder(o.order),
		})
	}
	return list
}

// mover gives the Mover, or says why there is none.
func (s *session) mover() (Mover, *wire.Error) {
	if m := s.console.cfg.Mover; m != nil && s.console.cfg.Operator != nil {
		return m, nil
	}
	return nil, wire.Errorf(wire.CodeFeatureNotSupported, "key ranges cannot be moved: the topology comes from the configuration file of the proxy").
		WithHint("Let a catalog hold the topology: shardctl init makes one.")
}

// journalError tells a client that the catalog was not there.
func journalError(err error) *wire.Error {
	return wire.Errorf(wire.CodeCannotConnectNow, "%v", err).WithHint("The journal of moves is in the catalog; data traffic goes on without it.")
}

func readShowMoves(a *arguments) (reply, *wire.Error) {
	all := a.word("all")
	return func(ctx context.Context, s *session) ([][]any, *wire.Error) {
		if s.console.cfg.Mover == nil {
			return nil, nil
		}
		return s.showMoves(ctx, all)
	}, a.done()
}

// showMoves lists the journal, and of moves under way what is not journalled.
func (s *session) showMoves(ctx context.Context, all bool) ([][]any, *wire.Error) {
	ctx, cancel := context.WithTimeout(ctx, journalTimeout)
	defer cancel()
	records, err := s.console.cfg.Mover.LoadMoves(ctx, all)
	if err != nil {
		return nil, journalError(err)
	}
	status, err := s.console.cfg.Mover.Status(ctx)
	if err != nil {
		return nil, journalError(err)
	}
	live := make(map[rebalance.MoveID]*rebalance.Status)
	for _, st := range status {
		live[st.Move.ID] = &st
	}
	rows := make([][]any, len(records))
	for i, r := range records {
		m, err := rebalance.FromRecord(r)
		if err != nil { // a later version wrote it
			m = rebalance.Move{ID: rebalance.MoveID(r.ID), Source: r.Source, Target: r.Target, Error: err.Error(), Who: r.Actor}
		}
		rows[i] = moveRow(&m, live[m.ID], r.CreatedAt, r.UpdatedAt)
	}
	return rows, nil
}

const megabyte = 1e6

func moveRow(m *rebalance.Move, st *rebalance.Status, created, updated time.Time) []any {
	switch {
	case st == nil || st.Move.Rev < m.Rev: // the journal is newer
	case st.Told:
		now := *m
		now.Task, now.Error, now.Blockers, now.Alarmed = st.Move.Task, st.Move.Error, st.Move.Blockers, st.Move.Alarmed
		m = &now
	default:
		m = &st.Move
	}
	rows, bytes := m.Rows, m.Bytes
	if st != nil {
		rows, bytes = max(rows, st.Move.Rows), max(bytes, st.Move.Bytes)
	}
	var back, paused, percent, rate, lag, eta, pause, throttle, blockers any
	if m.Reverse {
		back = "yes"
	}
	if m.Paused {
		paused = "yes"
	}
	if done, ok := progressOf(m, st); ok {
		percent = int64(done)
	}
	if m.PauseAll > 0 {
		pause = m.PauseAll.Milliseconds()
	}
	if len(m.Blockers) > 0 {
		blockers = strings.Join(m.Blockers, "; ")
	}
	if st != nil && st.Lag >= 0 {
		lag = st.Lag
	}
	if st != nil {
		throttle = orNull(st.Throttle)
	}
	if st != nil && st.Copying > 0 && !m.Paused {
		rate = fmt.Sprintf("%.1f", float64(bytes)/megabyte/st.Copying.Seconds())
		if st.Copied > 0 {
			left := float64(st.Chunks-st.Copied) / float64(st.Copied)
			eta = time.Duration(left * float64(st.Copying)).Round(time.Second).String()
		}
	}
	return []any{
		int64(m.ID), m.Kind.String(), m.Source, m.Target, m.State.String(), m.Task.String(), back, paused, int64(len(m.Ranges)), shareOf(m.Ranges),
		percent, rows, fmt.Sprintf("%.1f", float64(bytes)/megabyte), rate, lag, eta, pause, int64(m.Attempt),
		throttle, orNull(m.Alarm()), blockers, orNull(m.Error), m.Who, timeText(created), timeText(updated),
	}
}

// progressOf guesses how much of the way to its soak a move has behind it, in percent: most of it is the copy. What goes back has none.
func progressOf(m *rebalance.Move, st *rebalance.Status) (percent int, ok bool) {
	const copyFrom, copyTo = 3, 85
	if m.Reverse {
		return 0, false
	}
	switch m.State {
	case rebalance.Planned:
		return 0, true
	case rebalance.Prepared:
		return 1, true
	case rebalance.Copying:
		if st == nil || st.Chunks == 0 {
			return copyFrom, true
		}
		return copyFrom + int((copyTo-copyFrom)*st.Copied/st.Chunks), true
	case rebalance.Streaming, rebalance.Returning:
		return copyTo, true
	case rebalance.Hold, rebalance.Fenced, rebalance.Drained, rebalance.Opened:
		return 90, true
	case rebalance.Flipped, rebalance.Released, rebalance.FailedVerification:
		return 93, true
	case rebalance.Verified:
		return 98, true
	case rebalance.Soak, rebalance.Cleaning, rebalance.Cleaned:
		return 100, true
	}
	return 0, false
}

// shareOf is the part of the ring, in percent.
func shareOf(ranges []rebalance.Range) string {
	sum := 0.0
	for _, r := range ranges {
		if r.Start == 0 && r.End == 0 {
			return "100.0000"
		}
		sum += float64(uint64(r.End - r.Start)) // also where End is 0, the end of the ring
	}
	return fmt.Sprintf("%.4f", 100*sum/math.Exp2(64))
}

// moveID takes the number of a move.
func (a *arguments) moveID() int64 {
	at := a.end
	if len(a.list) > 0 {
		at = a.list[0][0].at
	}
	text := a.text("the number of the move")
	id, err := strconv.ParseInt(text, 10, 64)
	if a.err == nil && (err != nil || id <= 0) {
		a.fail(at, "%q is not the number of a move", text)
	}
	return id
}

func readOrder(order rebalance.Order) func(a *arguments) (reply, *wire.Error) {
	return func(a *arguments) (reply, *wire.Error) {
		id := a.moveID()
		if err := a.done(); err != nil {
			return nil, err
		}
		return func(ctx context.Context, s *session) ([][]any, *wire.Error) {
			rows, err := s.order(ctx, id, order)
			s.log("order for a move", "order", fmt.Sprintf("%v of move %d", order, id), s.console.src.Snapshot().Epoch, err)
			return rows, err
		}, nil
	}
}

// order leaves an order for the coordinator and waits for its answer.
func (s *session) order(ctx context.Context, id int64, order rebalance.Order) ([][]any, *wire.Error) {
	m, refused := s.mover()
	if refused != nil {
		return nil, refused
	}
	var number int64
	var refusal string
	answered := false
	err := s.patiently(ctx, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, orderPatience)
		defer cancel()
		if refused = ended(ctx, m, id); refused != nil {
			return nil
		}
		if number, err = m.AddMoveOrder(ctx, id, order.String(), s.actor()); err != nil {
			return err
		}
		for !answered {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(orderEvery):
			}
			if answered, refusal, err = m.MoveOrderAnswer(ctx, number); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case refused != nil:
		return nil, refused
	case refusal != "":
		return nil, wire.Errorf(wire.CodeObjectNotInPrerequisite, "move %d does not follow the order %v: %s", id, order, refusal).
			WithHint("SHOW MOVES ALL tells how far it is.")
	case answered:
		return [][]any{{id, order.String(), "followed"}}, nil
	case number == 0:
		return nil, journalError(err)
	}
	s.write(warning(codeWarning, fmt.Sprintf("the order stays in the journal, but nobody has answered it yet: %v", err)).
		WithHint("One of the proxies coordinates all moves. If it has gone, another one takes over within seconds.").AppendNotice(nil))
	return [][]any{{id, order.String(), "waiting"}}, nil
}

// ended refuses an order for a move that is not there, or does nothing any more.
func ended(ctx context.Context, m Mover, id int64) *wire.Error {
	records, err := m.LoadMoves(ctx, true)
	if err != nil {
		return journalError(err)
	}
	i := slices.IndexFunc(records, func(r topology.MoveRecord) bool { return r.ID == id })
	switch {
	case i < 0:
		return wire.Errorf(wire.CodeUndefinedObject, "there is no move %d", id).WithHint("SHOW MOVES ALL lists them.")
	case records[i].Done:
		return wire.Errorf(wire.CodeObjectNotInPrerequisite, "move %d has ended: it is %s", id, records[i].Phase).
			WithHint("SHOW MOVES lists those that go on.")
	}
	return nil
}
