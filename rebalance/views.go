package rebalance

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"

	"shardproxy/rebalance/mover"
)

// takeViews takes the snapshots on the connections that are open since grant.
func (r *runner) takeViews(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, v := range r.views {
		if v == nil {
			return errors.New("the connections for the views have gone")
		}
		g.Go(func() error { return v.Freeze(ctx) })
	}
	return g.Wait()
}

func (r *runner) closeViews() {
	for i, v := range r.views {
		if v != nil {
			v.Close()
			r.views[i] = nil
		}
	}
}

// verify compares the frozen rows of the owner before with those of the owner after at the moment when it took over. Where the
// views have gone, both are brought to one moment again by the stream back.
func (r *runner) verify(ctx context.Context, m *Move, again bool) error {
	if again {
		return r.verifyAgain(ctx, m)
	}
	if r.views[0] == nil || r.views[1] == nil {
		return fmt.Errorf("the views of the cutover have gone: %w", errFinal)
	}
	defer r.closeViews()
	return r.compare(ctx, r.views)
}

func (r *runner) compare(ctx context.Context, views [2]*mover.Frozen) error {
	left, err := r.stillThere(ctx, Source)
	if err != nil || left == nil {
		return err
	}
	checks, err := left.Verify(ctx, mover.VerifyOptions{Frozen: views})
	if err != nil {
		return err
	}
	var differences []string
	for _, c := range checks {
		for _, d := range c.Differences {
			differences = append(differences, c.Table.String()+": "+d.String())
		}
		if c.More {
			differences = append(differences, c.Table.String()+": and more")
		}
	}
	if len(differences) > 0 {
		return differsError(strings.Join(differences, "; "))
	}
	r.log.Info("both shards have the same rows", "tables", len(checks))
	return nil
}

// probe is a mover whose slot on a side gives a snapshot of it, with its position in the log.
func (r *runner) probe(at Side) (*mover.Mover, error) {
	const apart = 1 << 40 // from the numbers of moves
	spec := r.there.Spec()
	spec.ID += apart + int64(at)
	if at == Target {
		spec.Source, spec.Target = spec.Target, spec.Source
	}
	return mover.New(spec)
}

func (r *runner) verifyAgain(ctx context.Context, m *Move) error {
	probe, err := r.probe(m.To())
	if err != nil {
		return err
	}
	snapshot, err := probe.Prepare(ctx)
	if err != nil {
		return err
	}
	defer func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseMargin)
		defer cancel()
		_ = probe.Drop(ending) // what is left goes with the slots of the move
	}()
	defer snapshot.Close()
	back := r.direction(m, true)
	opened := m.OpenedAt
	if m.Reverse {
		opened = m.ReopenedAt
	}
	if err := back.StartAt(ctx, mover.LSN(opened)); err != nil {
		return err
	}
	if err := back.NewStream(mover.StreamOptions{StopAt: snapshot.LSN}).Run(ctx); err != nil {
		return err
	}
	var views [2]*mover.Frozen
	views[m.To()] = snapshot.Frozen()
	return r.compare(ctx, views)
}
