package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/topology"
)

const (
	movesAtOnce    = 6
	movesEvery     = 500 * time.Millisecond // somebody looks at them
	movesPatience  = 100 * time.Second      // for the last to end, once nothing disturbs them: failures before have made them slow to try again
	consolePatient = 15 * time.Second       // a little longer than an order is waited for
)

// ledgerMoves asks for moves without end, reverses some of them, gives a few up, and finishes the rest.
type ledgerMoves struct {
	*ledgerTest
	random *rand.Rand
	wishes int // so far
	cancel context.CancelFunc
	wg     sync.WaitGroup
	asked  map[string]int // commands that were followed, by their first words
	errors map[string]int // by SQLSTATE, of those that were not
	first  map[string]string
	failed []string
}

func (l *ledgerTest) startMoves(t *testing.T) *ledgerMoves {
	t.Helper()
	m := &ledgerMoves{
		ledgerTest: l, random: rand.New(rand.NewPCG(l.seed, 2)),
		asked: make(map[string]int), errors: make(map[string]int), first: make(map[string]string),
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	m.cancel = cancel
	m.wg.Go(func() {
		for ctx.Err() == nil {
			m.look(ctx, true)
			select {
			case <-ctx.Done():
			case <-time.After(movesEvery):
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		m.wg.Wait()
	})
	return m
}

// look gives orders to the moves that are open, and asks for another one.
func (m *ledgerMoves) look(ctx context.Context, more bool) (open []topology.MoveRecord, err error) {
	asking, cancel := context.WithTimeout(ctx, consolePatient)
	defer cancel()
	if open, err = m.journal.LoadMoves(asking, false); err != nil {
		return nil, err
	}
	for _, r := range open {
		switch dice := m.random.IntN(100); r.Phase {
		case "soak":
			order := "FINISH"
			if more && dice < 30 {
				order = "REVERSE"
			}
			m.order(ctx, "MOVE "+order, fmt.Sprint(r.ID))
		case "planned", "prepared", "copying", "streaming":
			if more && dice < 1 || !more && r.Phase == "planned" { // those that are under way are let end
				m.order(ctx, "MOVE ABORT", fmt.Sprint(r.ID))
			}
		case "failed-verification":
			m.failed = append(m.failed, fmt.Sprintf("move %d has found differences: %s", r.ID, r.Error))
			m.order(ctx, "MOVE FINISH", fmt.Sprint(r.ID))
		}
	}
	if more && len(open) < movesAtOnce {
		m.ask(asking, open)
	}
	return open, nil
}

// ledgerWishes are asked for in turn. The last waits until no move is open, else its plan would overlap with them.
var ledgerWishes = []string{"SPLIT", "MOVE", "MERGE", "MOVE", "SPLIT", "REBALANCE"}

// ask cuts, moves, joins or evens out ranges.
func (m *ledgerMoves) ask(ctx context.Context, open []topology.MoveRecord) {
	snap, err := m.journal.Load(ctx)
	if err != nil {
		return
	}
	all := snap.Ranges()
	at := m.random.IntN(len(all))
	r, wish := all[at], ledgerWishes[m.wishes%len(ledgerWishes)]
	if wish == "REBALANCE" && len(open) > 0 || wish != "REBALANCE" && isMoving(r, open) {
		return
	}
	if len(all) > 6*shardCount {
		wish = "MERGE"
	}
	to := (int(r.Shard) + 1 + m.random.IntN(shardCount-1)) % shardCount
	var followed bool
	switch start := fmt.Sprintf("0x%016x", uint64(r.Start)); wish {
	case "SPLIT":
		cut := uint64(r.Start) + 1 + m.random.Uint64N(max(1, uint64(r.End-r.Start)-1)) // also where End is 0, the end of the ring
		args := fmt.Sprintf("%s AT 0x%016x", start, cut)
		if m.random.IntN(4) > 0 {
			args += fmt.Sprintf(" TO s%d", to+1)
		}
		followed = m.order(ctx, "SPLIT RANGE", args)
	case "MOVE":
		followed = m.order(ctx, "MOVE RANGE", fmt.Sprintf("%s TO s%d", start, to+1))
	case "MERGE":
		followed = m.order(ctx, "MERGE RANGE", fmt.Sprintf("0x%016x", uint64(all[max(1, at)].Start)))
	default:
		followed = m.order(ctx, "REBALANCE", "")
	}
	if followed { // else it is the next wish again
		m.wishes++
	}
}

func isMoving(r topology.KeyRange, open []topology.MoveRecord) bool {
	for _, record := range open {
		for _, m := range record.Ranges {
			if r.Start <= m.End-1 && m.Start <= r.End-1 { // an End of 0 is the end of the ring
				return true
			}
		}
	}
	return false
}

// order runs a command at the console of some proxy. It may be dead, or cut off, or be told that it is too late.
func (m *ledgerMoves) order(ctx context.Context, verb, args string) (followed bool) {
	err := m.command(ctx, m.random.IntN(len(m.dsns)), verb+" "+args)
	m.tell("%s %s: %v", verb, args, err)
	if err == nil {
		m.asked[verb]++
		return true
	}
	code := "lost"
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		code = refused.Code
	}
	if code == "XX000" {
		m.failed = append(m.failed, fmt.Sprintf("%s %s: %v", verb, args, err))
	}
	m.errors[code]++
	if m.first[code] == "" {
		m.first[code] = err.Error()
	}
	return false
}

// end asks for no more moves, and waits until all have ended.
func (m *ledgerMoves) end(t *testing.T) {
	t.Helper()
	m.cancel()
	m.wg.Wait()
	m.tell("no more moves are asked for")
	for deadline := time.Now().Add(movesPatience); ; time.Sleep(200 * time.Millisecond) {
		open, err := m.look(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if len(open) == 0 {
			m.tell("all moves have ended")
			return
		}
		if time.Now().After(deadline) {
			for _, r := range open {
				t.Errorf("move %d from %s to %s is still %s: %s\n%s", r.ID, r.Source, r.Target, r.Phase, r.Error, r.State)
			}
			t.FailNow()
		}
	}
}

func (m *ledgerMoves) report(t *testing.T) {
	t.Helper()
	records, err := m.journal.LoadMoves(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	phases, kinds := map[string]int{}, map[string]int{}
	for _, r := range records {
		phases[r.Phase]++
		kinds[r.Kind+" "+r.Phase]++
	}
	t.Logf("moves: %v; commands: %v", kinds, m.asked)
	for _, code := range slices.Sorted(maps.Keys(m.errors)) {
		t.Logf("%5d commands × %s: %s", m.errors[code], code, m.first[code])
	}
	for _, text := range m.failed {
		t.Error(text)
	}
	if phases["cleaned"] == 0 {
		t.Error("no range has come to another shard")
	}
}
