package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"shardproxy/rebalance"
	"shardproxy/topology"
	"shardproxy/wire"
)

const (
	// scheduleTimeout ends a command that weighs shards or looks at them before a move.
	scheduleTimeout = 10 * time.Minute
	scheduleColumns = "epoch# change move# kind source target ranges# share"
)

// request is a command that changes who owns what.
type request struct {
	bySize bool   // shards are weighed
	drains string // shard that is given nothing more
	plan   func(p rebalance.Planner) (rebalance.Schedule, error)
}

// schedules are the verbs that move key ranges, and the same with PLAN, which only show what they would do.
func schedules() (list []verb) {
	for _, v := range []struct {
		name, args, help string
		read             func(a *arguments) request
	}{
		{"SPLIT", "{SHARD name | RANGE start} [AT hash | INTO number] [BY SIZE] [TO shard, …]", "cut what a shard or a range has in parts; the first stays, the others go to the shards in turn", readSplit},
		{"MOVE RANGE", "start TO shard", "move a key range, which is called by its first hash", readMoveRange},
		{"MOVE KEY", "[schema.]table key TO shard", "move the key range that a key is in", readMoveKey},
		{"ISOLATE", "[schema.]table key TO shard", "give the rows of one key a range of their own on a shard", readIsolate},
		{"MERGE RANGE", "start", "make one range of the one that starts there and the one before it", readMerge},
		{"REBALANCE", "{[BY SIZE] [TOLERANCE part] | CONSISTENT [SLOTS number]}", "move as little as it takes to give each shard its equal share, or what consistent hashing wants it to have, and draining ones nothing", readRebalance},
		{"DRAIN SHARD", "name", "give a shard no more ranges, and move those that it has to the others", readDrain},
	} {
		list = append(list,
			verb{
				name: "PLAN " + v.name, args: v.args, help: "what " + v.name + " would do, and what could keep it from that", role: RoleStats,
				fields: fields(planColumns), read: readSchedule(v.read, (*session).showPlan),
			},
			verb{
				name: v.name, args: v.args, help: v.help, role: RoleAdmin, alone: true,
				fields: fields(scheduleColumns), read: readSchedule(v.read, (*session).schedule),
			},
		)
	}
	return list
}

func readSchedule(read func(a *arguments) request, run func(*session, context.Context, request) ([][]any, *wire.Error)) func(a *arguments) (reply, *wire.Error) {
	return func(a *arguments) (reply, *wire.Error) {
		r := read(a)
		if err := a.done(); err != nil {
			return nil, err
		}
		return func(ctx context.Context, s *session) (rows [][]any, err *wire.Error) {
			failed := s.patiently(ctx, func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, scheduleTimeout)
				defer cancel()
				rows, err = run(s, ctx, r)
				return ctx.Err()
			})
			if failed != nil && err != nil && errors.Is(failed, errCanceled) {
				err = wire.Errorf(wire.CodeQueryCanceled, "%v", failed)
			}
			return rows, err
		}, nil
	}
}

// planned is a schedule with the map that it was made for.
type planned struct {
	rebalance.Schedule
	snap *topology.Snapshot
}

// planFor makes the schedule of a request for the newest map.
func (s *session) planFor(ctx context.Context, r request) (p planned, refused *wire.Error) {
	m, refused := s.mover()
	if refused != nil {
		return p, refused
	}
	planner := rebalance.Planner{Snapshot: s.console.src.Snapshot(), Who: s.user}
	var err error
	if r.bySize {
		if planner.Weights, err = rebalance.Weigh(ctx, planner.Snapshot, m.OnNode); err != nil {
			return p, wire.Errorf(wire.CodeCannotConnectNow, "%v", err).WithHint("All shards must answer to be weighed; without BY SIZE nobody is asked.")
		}
		planner.Snapshot = s.console.src.Snapshot() // weighing took a while
	}
	epoch, err := m.Epoch(ctx)
	switch {
	case err != nil:
		return p, journalError(err)
	case epoch != planner.Snapshot.Epoch:
		return p, wire.Errorf(wire.CodeSerializationFailure, "the topology has just changed: the catalog is at epoch %d, this proxy at %d", epoch, planner.Snapshot.Epoch).
			WithHint("Repeat the command.")
	}
	p.snap = planner.Snapshot
	if p.Schedule, err = r.plan(planner); err != nil {
		var known *wire.Error
		if errors.As(err, &known) {
			return p, known
		}
		return p, wire.Errorf(wire.CodeObjectNotInPrerequisite, "%v", err).WithHint("SHOW RANGES and SHOW SHARDS tell what there is.")
	}
	if r.drains != "" {
		if id, ok := p.snap.ShardByName(r.drains); ok && p.snap.Shards[id].State != topology.ShardDraining {
			p.Changes = append([]topology.Change{topology.SetShardState{Name: r.drains, State: topology.ShardDraining}}, p.Changes...)
		}
	}
	return p, nil
}

// schedule changes the map at once, and leaves the moves to the coordinator.
func (s *session) schedule(ctx context.Context, r request) (rows [][]any, refused *wire.Error) {
	if r.drains != "" && s.console.cfg.Mover == nil {
		return s.drainOnly(ctx, r.drains)
	}
	p, refused := s.planFor(ctx, r)
	if refused != nil {
		return nil, refused
	}
	if p.Empty() {
		s.write((&wire.Error{Severity: wire.SeverityNotice, Code: "00000", Message: "nothing is to be done"}).AppendNotice(nil))
	}
	if len(p.Changes) > 0 {
		change := p.Changes[0]
		if len(p.Changes) > 1 {
			change = topology.Batch(p.Changes)
		}
		if rows, refused = s.change(ctx, change); refused != nil {
			return nil, refused
		}
		rows[0] = append(rows[0], nil, nil, nil, nil, nil, nil)
	}
	moves, refused := s.addMoves(ctx, &p)
	return append(rows, moves...), refused
}

// drainOnly marks a shard where nobody could move what it has.
func (s *session) drainOnly(ctx context.Context, shard string) ([][]any, *wire.Error) {
	rows, refused := s.change(ctx, topology.SetShardState{Name: shard, State: topology.ShardDraining})
	for i := range rows {
		rows[i] = append(rows[i], nil, nil, nil, nil, nil, nil)
	}
	return rows, refused
}

// addMoves puts the moves of a schedule in the journal.
func (s *session) addMoves(ctx context.Context, p *planned) (rows [][]any, refused *wire.Error) {
	if len(p.Moves) == 0 {
		return nil, nil
	}
	records := make([]topology.MoveRecord, len(p.Moves))
	for i := range p.Moves {
		var err error
		if records[i], err = p.Moves[i].Record(); err != nil {
			return nil, wire.Errorf(wire.CodeInternalError, "%v", err)
		}
	}
	adding, cancel := context.WithTimeout(ctx, journalTimeout)
	defer cancel()
	err := s.console.cfg.Mover.AddMoves(adding, records)
	switch {
	case errors.Is(err, topology.ErrMoveOverlap):
		refused = wire.Errorf(wire.CodeObjectNotInPrerequisite, "some of these key hashes are on their way already").
			WithHint("SHOW MOVES tells which. Wait for the end of that move, or end it: MOVE FINISH or MOVE ABORT with its number.")
	case err != nil:
		refused = journalError(err)
	}
	for i := range records {
		m, r := &p.Moves[i], &records[i]
		what := fmt.Sprintf("%s, from %s to %s", sizeOf(m), m.Source, m.Target)
		s.log("move added", "move", fmt.Sprintf("%d: %s", r.ID, what), p.snap.Epoch, refused)
		rows = append(rows, []any{nil, nil, r.ID, m.Kind.String(), m.Source, m.Target, int64(len(m.Ranges)), shareOf(m.Ranges)})
	}
	if refused != nil {
		return nil, refused
	}
	return rows, nil
}

// sizeOf says what a move is and how large, for people.
func sizeOf(m *rebalance.Move) string {
	ranges := fmt.Sprintf("%d ranges", len(m.Ranges))
	if len(m.Ranges) == 1 {
		ranges = "1 range"
	}
	return fmt.Sprintf("%v: %s, %s %% of the ring", m.Kind, ranges, shareOf(m.Ranges))
}

// rangeAt finds the range that starts at a hash.
func rangeAt(snap *topology.Snapshot, start topology.KeyHash) (rebalance.Range, *wire.Error) {
	i, found := slices.BinarySearchFunc(snap.Ranges(), start, func(r topology.KeyRange, h topology.KeyHash) int {
		switch {
		case r.Start < h:
			return -1
		case r.Start > h:
			return 1
		}
		return 0
	})
	if !found {
		return rebalance.Range{}, wire.Errorf(wire.CodeObjectNotInPrerequisite, "no key range starts at 0x%016x", uint64(start)).
			WithHint("SHOW RANGES lists them; LOCATE finds the one of a key.")
	}
	r := snap.Ranges()[i]
	return rebalance.Range{Start: r.Start, End: r.End}, nil
}
