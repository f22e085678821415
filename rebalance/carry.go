package rebalance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"shardproxy/fence"
	"shardproxy/rebalance/mover"
	"shardproxy/topology"
)

// errNoShard says that the map does not know a shard of the move any more: it was never told of the move, else it would keep the shard.
var errNoShard = errors.New("there is no such shard any more")

// ready makes the movers where there are none, or another node has become the primary of a shard. It ends the task.
func (r *runner) ready() error {
	snap := r.c.cfg.Keeper.Snapshot()
	same := r.there != nil
	for at := range r.sides {
		id, ok := snap.ShardByName(r.of.Shard(Side(at)))
		same = same && ok && snap.Shards[id].Nodes[0] == r.nodes[at]
	}
	if same {
		return nil
	}
	r.endTask()
	r.there, r.back = nil, nil
	return r.movers()
}

// movers makes the movers of both directions.
func (r *runner) movers() error {
	snap := r.c.cfg.Keeper.Snapshot()
	for at := range r.sides {
		name := r.of.Shard(Side(at))
		id, ok := snap.ShardByName(name)
		if !ok {
			return fmt.Errorf("shard %s: %w: %w", name, errNoShard, errFinal)
		}
		r.nodes[at] = snap.Shards[id].Nodes[0]
		if r.sides[at] != nil {
			r.sides[at].close()
		}
		var err error
		if r.sides[at], err = r.newSide(name, r.nodes[at]); err != nil {
			return err
		}
	}
	spec := mover.Spec{Cluster: r.c.cfg.Cluster, ID: int64(r.of.ID), Source: r.sides[Source].config.Copy(), Target: r.sides[Target].config.Copy()}
	for _, t := range r.tables() {
		if t.Key != "" {
			spec.Tables = append(spec.Tables, mover.Table{TableName: t.TableName, Key: t.Key, KeyType: t.KeyType})
		}
	}
	for _, a := range r.of.Ranges {
		spec.Ranges = append(spec.Ranges, topology.KeyRange{Start: a.Start, End: a.End})
	}
	there, err := mover.New(spec)
	if err != nil {
		return err
	}
	r.there, r.back = there, there.Reverse()
	return nil
}

// direction is the mover from the owner before to the owner after, or back.
func (r *runner) direction(m *Move, back bool) *mover.Mover {
	if back != (m.From() == Target) {
		return r.back
	}
	return r.there
}

// effect gives what to do for an effect that is answered.
func (r *runner) effect(e Effect) (seq uint64, f func(ctx context.Context) (Done, error)) {
	m := r.m // as it is now: the task must not look at what it becomes
	plain := func(seq uint64, f func(ctx context.Context) error, sides ...Side) (uint64, func(ctx context.Context) (Done, error)) {
		return seq, func(ctx context.Context) (Done, error) {
			for _, at := range sides {
				if err := r.look(ctx, &m, at); err != nil {
					return Done{}, err
				}
			}
			return Done{}, f(ctx)
		}
	}
	if err := r.ready(); err != nil {
		return r.without(e, err)
	}
	switch e := e.(type) {
	case Preflight:
		return plain(e.Seq, r.preflight, Source, Target)
	case DropSlots:
		return plain(e.Seq, func(ctx context.Context) error { return r.dropSlots(ctx, &m, e.Side) }, e.Side)
	case DeleteRows:
		return plain(e.Seq, func(ctx context.Context) error { return r.deleteRows(ctx, &m, e.Side) }, e.Side)
	case Announce:
		return plain(e.Seq, func(ctx context.Context) error { return r.announce(ctx, &m) }, Target)
	case Forget:
		return plain(e.Seq, func(ctx context.Context) error { return r.forget(ctx, &m) })
	case Reassert:
		return plain(e.Seq, func(ctx context.Context) error { return r.reassert(ctx, &m) })
	case Prepare:
		return plain(e.Seq, r.prepare, Source, Target)
	case Copy:
		return plain(e.Seq, r.copy, Source, Target)
	case PrepareReverse:
		back := r.back
		if e.Side == Source {
			back = r.there
		}
		return plain(e.Seq, func(ctx context.Context) error {
			err := r.waiting(ctx, e.Side, func() error {
				_, err := back.PrepareStream(ctx)
				return err
			})
			if err != nil {
				return errors.Join(err, r.forgoDropped(ctx, &m))
			}
			return nil
		}, Source, Target)
	case LookForBlockers:
		return plain(e.Seq, func(ctx context.Context) error {
			err := r.lookForBlockers(ctx)
			if errors.As(err, new(mover.ErrSchemaChanged)) { // what has streamed so far is of no use
				r.send(ctx, StreamLost{Guard: m.Guard(0), Err: err.Error(), Final: true})
				return errors.New(err.Error())
			}
			return err
		}, Source, Target)
	case WaitApplied:
		flow := r.flow
		return plain(e.Seq, func(ctx context.Context) error { return flow.catchUp(ctx, e.LSN) })
	case TakeViews:
		return plain(e.Seq, r.takeViews)
	case Verify:
		return plain(e.Seq, func(ctx context.Context) error { return r.verify(ctx, &m, e.Again) }, Source, Target)
	}
	return r.cutoverEffect(e)
}

// without answers an effect for which there are no movers. Where the map was never told of the move, nothing of it was made.
func (r *runner) without(e Effect, err error) (seq uint64, f func(ctx context.Context) (Done, error)) {
	m := r.m
	switch e := e.(type) {
	case DropSlots:
		seq = e.Seq
	case DeleteRows:
		seq = e.Seq
	case Forget:
		return e.Seq, func(ctx context.Context) (Done, error) { return Done{}, r.forget(ctx, &m) }
	default:
		return m.Seq, func(context.Context) (Done, error) { return Done{}, err }
	}
	if m.State == Aborting && r.told() == nil {
		err = nil
	}
	return seq, func(context.Context) (Done, error) { return Done{}, err }
}

// preflight also installs the fences on both shards: without them nothing may move.
func (r *runner) preflight(ctx context.Context) error {
	if err := mayOwn(r.c.cfg.Keeper.Snapshot(), &r.of, Target); err != nil {
		return err
	}
	states, err := r.mapped(ctx)
	if err != nil {
		return err
	}
	for at := range r.sides {
		if err := patiently(ctx, func() error { return fence.Install(ctx, r.sides[at].query, states[at], r.tables()) }); err != nil {
			return fmt.Errorf("the fence of shard %s: %w", r.sides[at].name, err)
		}
	}
	report, err := look(ctx, r.there)
	if err != nil {
		return err
	}
	for _, p := range report.Problems {
		if p.Warning {
			r.log.Warn("preflight", "warning", p.String())
		}
	}
	if err := report.Err(); err != nil {
		return fmt.Errorf("%w: %w", err, errFinal)
	}
	return nil
}

// patiently asks again while tables are busy, for two seconds or so: after that the move says what it waits for.
func patiently(ctx context.Context, f func() error) error {
	for tries := 10; ; tries-- {
		err := f()
		if !errors.Is(err, fence.ErrBusy) || tries == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryPause):
		}
	}
}

// dropSlots drops the slots on a side, and where the move ends or begins anew, how far the streams to it were.
func (r *runner) dropSlots(ctx context.Context, m *Move, at Side) error {
	r.closeCopy()
	if m.State != Released {
		r.closeViews()
	}
	from, to := r.there, r.back // the ones whose slot, and whose progress, is on that side
	if at == Target {
		from, to = r.back, r.there
	}
	if err := from.DropSide(ctx, mover.Source); err != nil {
		return err
	}
	probe, err := r.probe(at)
	if err == nil {
		err = probe.DropSide(ctx, mover.Source)
	}
	if err != nil || !set(Prepared, Cleaning, Aborting).has(m.State) {
		return err
	}
	if probe, err = r.probe(at.other()); err == nil { // its progress, where the end of a comparison was lost
		err = probe.DropSide(ctx, mover.Target)
	}
	if err != nil {
		return err
	}
	return to.DropSide(ctx, mover.Target)
}

// deleteRows deletes what a side does not own.
func (r *runner) deleteRows(ctx context.Context, m *Move, at Side) error {
	if m.State == Aborting && r.told() == nil { // no row was ever copied
		return nil
	}
	left, err := r.stillThere(ctx, at)
	if err != nil || left == nil {
		return err
	}
	wait := func(ctx context.Context) error { return r.c.quiet(ctx, r.of.ID) } // see mayWork
	return left.Cleanup(ctx, mover.Side(at), mover.CleanupOptions{Wait: wait, Vacuum: true})
}

// stillThere is a mover of the tables that were not dropped on a side since the move has begun, nil for none.
func (r *runner) stillThere(ctx context.Context, at Side) (*mover.Mover, error) {
	rows, err := r.on(at).query(ctx, "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')")
	if err != nil {
		return nil, err
	}
	there := make(map[topology.TableName]bool, len(rows))
	for _, row := range rows {
		there[topology.TableName{Schema: row[0], Name: row[1]}] = true
	}
	spec := r.there.Spec()
	spec.Tables = slices.DeleteFunc(spec.Tables, func(t mover.Table) bool { return !there[t.TableName] })
	if len(spec.Tables) == 0 {
		return nil, nil
	}
	return mover.New(spec)
}

// announce lets the map tell of the move, and the target refuse those who go by an older one.
func (r *runner) announce(ctx context.Context, m *Move) error {
	if err := r.c.quiet(ctx, r.of.ID); err != nil {
		return err
	}
	if r.told() == nil {
		if err := r.tell(ctx, m, topology.SetMoving{Moving: r.moving(0)}); err != nil {
			return err
		}
	}
	r.known(ctx, 2*time.Second)
	select { // what was planned by the map before is under way then: no proxy waits for that but for a hold
	case <-ctx.Done():
	case <-time.After(250 * time.Millisecond):
	}
	states, err := r.mapped(ctx)
	if err != nil {
		return err
	}
	return r.raise(ctx, Target, states[Target])
}

// raise brings the fence of a side to a map, unless it is for a later one already.
func (r *runner) raise(ctx context.Context, at Side, st fence.State) error {
	err := patiently(ctx, func() error { return fence.Set(ctx, r.on(at).query, st, r.tables()) })
	if errors.As(err, new(*fence.EpochError)) {
		return nil
	}
	return err
}

func (r *runner) forget(ctx context.Context, m *Move) error {
	if err := r.c.quiet(ctx, r.of.ID); err != nil || r.told() == nil {
		return err
	}
	return r.tell(ctx, m, topology.EndMoving{ID: int64(r.of.ID)})
}

func (r *runner) prepare(ctx context.Context) error {
	r.closeCopy()
	return r.waiting(ctx, Source, func() (err error) {
		r.copying, err = r.there.Prepare(ctx)
		return err
	})
}

// waiting names meanwhile what a new slot on a side waits for: PostgreSQL makes none before all transactions that have written have ended.
func (r *runner) waiting(ctx context.Context, at Side, slot func() error) error {
	ctx, cancel := context.WithCancel(ctx)
	var looking sync.WaitGroup
	defer r.waits.Store(nil)
	defer looking.Wait()
	defer cancel()
	there := r.there
	looking.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(watchEvery):
			}
			found, err := there.Blockers(ctx, mover.Side(at), watchEvery)
			if err != nil {
				r.log.Debug("what a replication slot waits for cannot be seen", "side", at, "error", err)
			}
			names := make([]string, len(found))
			for i, b := range found {
				names[i] = "shard " + r.of.Shard(at) + ": " + b.String()
			}
			r.waits.Store(&names)
		}
	})
	return slot()
}

func (r *runner) closeCopy() {
	if r.copying != nil {
		r.copying.Close()
		r.copying = nil
	}
}

// reassert brings the fences of the sides that have another primary to what the map says.
func (r *runner) reassert(ctx context.Context, m *Move) error {
	states, err := r.mapped(ctx)
	for at := range Side(2) {
		if err != nil || !m.Refence[at] {
			continue
		}
		if err = r.look(ctx, m, at); err == nil {
			err = patiently(ctx, func() error { return fence.Install(ctx, r.on(at).query, states[at], r.tables()) })
		}
		if err == nil {
			err = r.raise(ctx, at, states[at])
		}
	}
	return err
}
