package fence

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"shardproxy/topology"
)

const (
	parallel  = 8                // shards at a time
	shardTime = 30 * time.Second // for one shard
	busyTime  = 10 * time.Second // that a busy shard is asked again
	busyFirst = 50 * time.Millisecond
	busyMost  = time.Second // between two attempts
)

// OnShard runs f with a way to ask the primary of a shard of the map that is given along with it, and an error otherwise.
type OnShard func(ctx context.Context, shard topology.ShardID, f func(query topology.Query) error) error

// Result is what came of one shard.
type Result struct {
	Shard    string
	Epoch    topology.Epoch // of its fence; 0 where there is none, or it is not known
	Tables   int            // that it is to fence
	Changed  bool           // something was installed
	Problems []Problem      // what is wrong, or could not be mended
	Err      error          // why the shard could not be looked at or changed
}

// InstallAll is [Install] on every shard of a map, of the tables that each has. It goes on where a shard fails, and asks a busy
// one again for ten seconds. The results are in the order of the shards.
func InstallAll(ctx context.Context, snap *topology.Snapshot, onShard OnShard) []Result {
	return onAll(ctx, snap, onShard, func(ctx context.Context, query topology.Query, st *State, r *Result) error {
		if err := st.check(); err != nil {
			return err
		}
		return change(ctx, query, func(tx *transaction) (err error) {
			// Nobody can create a fenced table meanwhile, so triggers that are not in the list have no place any more.
			tables, err := tx.tables(ctx, snap.Rules, r)
			if err != nil {
				return err
			}
			if r.Epoch, r.Changed, err = tx.install(ctx, st, tables, true); err == nil && r.Epoch > st.Epoch {
				r.Problems = append(r.Problems, laterProblem(r.Epoch, st.Epoch))
			}
			return err
		})
	})
}

// CheckAll is [Check] on every shard of a map, of the tables that each has. The results are in the order of the shards.
func CheckAll(ctx context.Context, snap *topology.Snapshot, onShard OnShard) []Result {
	return onAll(ctx, snap, onShard, func(ctx context.Context, query topology.Query, st *State, r *Result) error {
		return look(ctx, query, func(tx *transaction) error {
			tables, err := tx.tables(ctx, snap.Rules, r)
			if err != nil {
				return err
			}
			h, err := read(ctx, tx)
			if err == nil {
				r.Epoch = h.epoch
				r.Problems = append(h.problems(st, tables), r.Problems...)
			}
			return err
		})
	})
}

// tables are those that the shard itself has.
func (tx *transaction) tables(ctx context.Context, rules topology.KeyRules, r *Result) ([]Table, error) {
	schema, err := topology.LoadSchema(ctx, tx.query, rules)
	if err != nil {
		return nil, busy(ctx, err, false)
	}
	tables := Tables(schema)
	r.Tables, r.Problems = len(tables), unplaced(schema)
	return tables, nil
}

// onAll runs f on all shards, some at a time.
func onAll(ctx context.Context, snap *topology.Snapshot, onShard OnShard, f func(context.Context, topology.Query, *State, *Result) error) []Result {
	states := statesOf(snap)
	results := make([]Result, len(states))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(parallel, len(states)) {
		workers.Go(func() {
			for i := range next {
				results[i] = onOne(ctx, onShard, topology.ShardID(i), &states[i], f)
			}
		})
	}
	for i := range states {
		next <- i // where ctx has ended, the worker says so in the result
	}
	close(next)
	workers.Wait()
	return results
}

// onOne runs f on one shard until it is not busy.
func onOne(ctx context.Context, onShard OnShard, shard topology.ShardID, st *State, f func(context.Context, topology.Query, *State, *Result) error) Result {
	ctx, cancel := context.WithTimeout(ctx, shardTime)
	defer cancel()
	until := time.Now().Add(busyTime)
	for pause := busyFirst; ; pause = min(2*pause, busyMost) {
		r := Result{Shard: st.Shard}
		err := ctx.Err()
		if err == nil {
			err = onShard(ctx, shard, func(query topology.Query) error { return f(ctx, query, st, &r) })
		}
		if !errors.Is(err, ErrBusy) || time.Now().Add(pause).After(until) {
			if err != nil {
				r = Result{Shard: st.Shard, Err: fmt.Errorf("shard %s: %w", st.Shard, err)}
			}
			return r
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
		}
	}
}
