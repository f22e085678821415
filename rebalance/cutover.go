package rebalance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"shardproxy/rebalance/mover"
	"shardproxy/topology"
)

// What a cutover tells the proxies stands in the map: a hold is a change of it, one epoch before the one by which the
// ranges will have their other owner. So it reaches every proxy by the ways that all changes do, is confirmed like them, and
// is known to who takes up the move after a crash.

// cutoverEffect gives what to do for the effects of a cutover.
func (r *runner) cutoverEffect(e Effect) (seq uint64, f func(ctx context.Context) (Done, error)) {
	m := r.m
	switch e := e.(type) {
	case Grant:
		return e.Seq, func(ctx context.Context) (Done, error) { return r.grant(ctx, &m) }
	case AskHold:
		return e.Seq, func(ctx context.Context) (Done, error) { return Done{}, r.askHold(ctx, &m, e.Epoch) }
	case Narrow:
		return e.Seq, func(ctx context.Context) (Done, error) { return Done{}, r.narrow(ctx, &m, e) }
	case Widen:
		return e.Seq, func(ctx context.Context) (Done, error) { return r.widen(ctx, &m, e) }
	case ReadLSN:
		sql := r.direction(&m, false).PositionSQL()
		return e.Seq, func(ctx context.Context) (Done, error) {
			lsn, err := r.on(m.From()).lsn(ctx, sql)
			return Done{LSN: lsn}, err
		}
	case Flip:
		return e.Seq, func(ctx context.Context) (Done, error) { return Done{}, r.flip(ctx, &m, e) }
	case Burn:
		return e.Seq, func(ctx context.Context) (Done, error) { return r.burn(ctx, &m, e.Epoch) }
	case ReleaseHold:
		return e.Seq, func(ctx context.Context) (Done, error) { return r.release(ctx, &m) }
	}
	return 0, func(context.Context) (Done, error) { return Done{}, fmt.Errorf("unknown effect %v", e) }
}

// grant gives the epoch behind that of the hold, when nothing else is in the way and all is ready.
func (r *runner) grant(ctx context.Context, m *Move) (Done, error) {
	snap := r.c.cfg.Keeper.Snapshot()
	owner := m.From()
	if m.State == Reversing { // which turns round once it is granted
		owner = m.To()
	}
	from, ok := snap.ShardByName(m.Shard(owner))
	if !ok {
		return Done{}, fmt.Errorf("there is no shard %q any more: %w", m.Shard(owner), errFinal)
	}
	for _, owned := range snap.Ranges() {
		for _, a := range m.Ranges {
			if owned.Shard != from && a.overlaps(Range{owned.Start, owned.End}) {
				return Done{}, fmt.Errorf("shard %s does not own %v: %w", m.Shard(owner), a, errFinal)
			}
		}
	}
	if err := mayOwn(snap, m, owner.other()); err != nil {
		return Done{}, err
	}
	if err := r.c.grant(ctx, m.ID); err != nil {
		return Done{}, err
	}
	epoch := r.c.cfg.Keeper.Snapshot().Epoch + 2
	err := r.moversRest(ctx)
	if err == nil {
		err = r.warm(ctx, owner, epoch)
	}
	return Done{Epoch: epoch}, err
}

// warm opens the connections that a cutover needs, and makes its fences ready, so that nobody has to wait for that.
func (r *runner) warm(ctx context.Context, owner Side, epoch topology.Epoch) error {
	r.coolDown()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.c.cfg.Catalog.Warm(ctx) })
	for at := range r.sides {
		g.Go(func() error { return r.sides[at].open(ctx) })
		g.Go(func() (err error) {
			r.views[at], err = r.there.Freezer(ctx, mover.Side(at))
			return err
		})
		g.Go(func() error { return r.prepareFence(ctx, Side(at), Side(at) != owner, epoch) })
	}
	err := g.Wait()
	if err != nil { // what is ready would be in the way of others
		r.coolDown()
	}
	return err
}

// coolDown undoes warm, except for the connections.
func (r *runner) coolDown() {
	r.closeViews()
	for at := range r.fences {
		r.forgoFence(Side(at))
	}
}

// mayOwn looks whether the map would take the flip: nobody should be kept waiting for one that cannot be.
func mayOwn(snap *topology.Snapshot, m *Move, to Side) error {
	next := *m
	next.Reverse = to == Source
	if _, err := snap.Apply(next.Change()); err != nil {
		return fmt.Errorf("%w: %w", err, errFinal)
	}
	return nil
}

// told is what the map tells of the move, nil for nothing.
func (r *runner) told() *topology.Moving {
	list := r.c.cfg.Keeper.Snapshot().Moving()
	for i := range list {
		if list[i].ID == int64(r.of.ID) {
			return &list[i]
		}
	}
	return nil
}

// moving is what the map is to tell of the move.
func (r *runner) moving(hold topology.Epoch) topology.Moving {
	m := topology.Moving{ID: int64(r.of.ID), Source: r.of.Source, Target: r.of.Target, Hold: hold}
	for _, a := range r.of.Ranges {
		m.Ranges = append(m.Ranges, topology.KeyRange{Start: a.Start, End: a.End})
	}
	return m
}

func (r *runner) actor() topology.Actor {
	return topology.Actor{User: r.of.Who, From: fmt.Sprintf("move %d, coordinator %s", r.of.ID, r.lease.Holder)}
}

// apply makes a change of the map, unless somebody else has taken the move up or it has gone on since m.
func (r *runner) apply(ctx context.Context, m *Move, change topology.Change) (*topology.Snapshot, error) {
	return r.c.cfg.Keeper.ApplyForMove(ctx, change, r.lease, int64(m.ID), m.Rev, r.actor())
}

// tell is apply by whatever map there is when it succeeds.
func (r *runner) tell(ctx context.Context, m *Move, change topology.Change) error {
	for {
		_, err := r.apply(ctx, m, change)
		if !errors.As(err, new(topology.ErrConflict)) {
			return err
		}
		if ctx.Err() != nil {
			return err
		}
	}
}

// askHold makes the hold and waits for all live proxies to confirm it. One that does not is not waited for for long: its
// writes are refused by the fence.
func (r *runner) askHold(ctx context.Context, m *Move, epoch topology.Epoch) error {
	snap := r.c.cfg.Keeper.Snapshot()
	if told := r.told(); told == nil || told.Hold != epoch || snap.Epoch != epoch-1 {
		if snap.Epoch != epoch-2 {
			return fmt.Errorf("the topology has changed meanwhile: %w", errFinal)
		}
		r.heldAt = time.Now() // if it is not known what came of it
		var err error
		if snap, err = r.apply(ctx, m, topology.SetMoving{Moving: r.moving(epoch)}); err != nil {
			return err
		}
		r.heldAt = r.c.cfg.Keeper.Since()
		if snap.Epoch != epoch-1 {
			return fmt.Errorf("the topology has changed meanwhile: %w", errFinal)
		}
	}
	r.base = snap
	r.known(ctx, ackWait)
	return ctx.Err()
}

// known waits for all live proxies to go by the map, but no longer than most. A fence that is raised earlier is no fault: it only makes
// clients try again that need not have.
func (r *runner) known(ctx context.Context, most time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if err := r.c.cfg.Keeper.Confirmed(ctx, r.c.cfg.Keeper.Snapshot().Epoch); err != nil {
		r.log.Debug("not all proxies have confirmed the map", "error", err)
	}
}

// narrow takes the ranges from a side. What the owner before is given up with must be all that it has: a table that was made in
// the last moment would stay behind.
func (r *runner) narrow(ctx context.Context, m *Move, e Narrow) error {
	if err := r.fenceTo(ctx, e.Side, false, e.Epoch); err != nil || m.State != Fenced {
		return err
	}
	return r.sameTables(ctx)
}

// widen gives a side the ranges. What the owner after wrote before it is of the mover, and not for the stream back.
func (r *runner) widen(ctx context.Context, m *Move, e Widen) (Done, error) {
	var done Done
	if e.Side == m.To() && m.State == Opened {
		var err error
		if done.LSN, err = r.on(e.Side).lsn(ctx, "SELECT pg_catalog.pg_current_wal_flush_lsn()"); err != nil {
			return done, err
		}
	}
	return done, r.fenceTo(ctx, e.Side, true, e.Epoch)
}

// flip changes the owner, ends the hold and journals the move in one transaction.
func (r *runner) flip(ctx context.Context, m *Move, e Flip) error {
	if r.base == nil || r.base.Epoch+1 != e.Epoch {
		return fmt.Errorf("there is no hold for epoch %d: %w", e.Epoch, errFinal)
	}
	record, err := e.Then.Record()
	if err != nil {
		return err
	}
	batch := topology.Batch{}
	switch c := m.Change().(type) {
	case topology.Batch:
		batch = append(batch, c...)
	default:
		batch = append(batch, c)
	}
	batch = append(batch, topology.SetMoving{Moving: r.moving(0)})
	_, err = r.c.cfg.Keeper.FlipMove(ctx, r.base, batch, r.lease, record, r.actor())
	if errors.As(err, new(topology.ErrConflict)) {
		return fmt.Errorf("%w: %w", err, errFinal)
	}
	return err
}

func (r *runner) burn(ctx context.Context, m *Move, epoch topology.Epoch) (Done, error) {
	for r.c.cfg.Keeper.Snapshot().Epoch < epoch {
		if err := r.tell(ctx, m, topology.BurnEpoch{}); err != nil {
			return Done{}, err
		}
	}
	r.known(ctx, ackWait)
	return Done{Epoch: r.c.cfg.Keeper.Snapshot().Epoch}, nil
}

// release ends a hold that no flip has ended, and says how long it was: until all live proxies go by the map without it.
func (r *runner) release(ctx context.Context, m *Move) (done Done, err error) {
	if m.State == Returning {
		r.coolDown()
	}
	if told := r.told(); told != nil && told.Hold != 0 {
		err = r.tell(ctx, m, topology.SetMoving{Moving: r.moving(0)})
	}
	if err == nil && !r.heldAt.IsZero() {
		r.known(ctx, ackWait)
		done.Pause = time.Since(r.heldAt)
		r.heldAt = time.Time{}
	}
	return done, err
}
