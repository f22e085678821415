package rebalance

import (
	"context"
	"errors"

	"shardproxy/fence"
	"shardproxy/topology"
)

// prepared is the change of a fence that a cutover is to make, with a connection of its own: who closes it gives the change up.
type prepared struct {
	*fence.Prepared
	side  *side
	owns  bool
	epoch topology.Epoch
}

// prepareFence makes the change of a side ready, so that those who wait for the cutover wait for its lock and its commit only.
func (r *runner) prepareFence(ctx context.Context, at Side, owns bool, epoch topology.Epoch) error {
	st, err := r.wanted(at, owns, epoch)
	if err != nil {
		return err
	}
	s := &side{name: r.sides[at].name, config: r.sides[at].config}
	change, err := fence.Prepare(ctx, s.query, st, r.tables())
	if err != nil {
		s.close()
		return err
	}
	r.fences[at] = &prepared{Prepared: change, side: s, owns: owns, epoch: epoch}
	return nil
}

// forgoFence gives up what is prepared for a side.
func (r *runner) forgoFence(at Side) {
	if p := r.fences[at]; p != nil {
		p.side.close()
		r.fences[at] = nil
	}
}

// fenceTo makes the fence of a side hold it to the ranges that the map gives it, and those of the move beside them or not. Who only gains
// waits for nobody: else a VACUUM that a cutover has run into would keep clients waiting beyond its budget too.
func (r *runner) fenceTo(ctx context.Context, at Side, owns bool, epoch topology.Epoch) error {
	defer r.forgoFence(at)
	commit := func(p *fence.Prepared) error {
		if owns {
			return p.CommitUnlocked(ctx)
		}
		return p.Commit(ctx)
	}
	if p := r.fences[at]; p != nil && p.owns == owns && p.epoch == epoch {
		err := commit(p.Prepared)
		if err == nil || errors.Is(err, fence.ErrBusy) {
			return err
		}
		r.log.Debug("what was prepared for a fence has gone", "error", err) // or nobody heard of its success: it is done anew
	}
	r.forgoFence(at)
	st, err := r.wanted(at, owns, epoch)
	if err != nil {
		return err
	}
	change, err := fence.Prepare(ctx, r.on(at).query, st, r.tables())
	if err != nil {
		return err
	}
	return commit(change)
}

// wanted is the state that fenceTo makes.
func (r *runner) wanted(at Side, owns bool, epoch topology.Epoch) (fence.State, error) {
	st, err := r.owned(at)
	st.Epoch = epoch
	st.Owned = without(st.Owned, r.of.Ranges)
	if owns {
		st.Owned = with(st.Owned, r.of.Ranges)
	}
	return st, err
}
