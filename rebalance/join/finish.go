package join

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"shardproxy/fence"
	"shardproxy/topology"
)

const (
	// finishTime is how long what every shard must do may wait for a shard that joins: less than proxies are patient.
	finishTime = 4 * time.Second
	// politeTime is how long transactions are waited for that began before: what they write next may be refused. Those that began
	// since wait for us in turn, and look the same.
	politeTime = 300 * time.Millisecond
	// quietTime is for transactions to end that write, before anybody waits for it; lookBackTime for those of the last moments.
	quietTime, lookBackTime = 30 * time.Second, 3 * time.Second
	// ackWait and inFlight are those of a cutover (package rebalance): for proxies to take a map, and for what they have sent before.
	ackWait, inFlight = 500 * time.Millisecond, 5 * time.Millisecond
	lookAgain         = 5 * time.Millisecond
	takeBackTime      = 10 * time.Second
)

// finish adds the shard while clients wait with what every shard must do.
func (a *addition) finish(ctx context.Context) (*topology.Snapshot, error) {
	before, err := a.writers(ctx)
	if err != nil {
		return nil, failed("the transactions of shard "+a.old.name+" cannot be listed", err)
	}
	watchers := a.watchers(ctx)
	defer func() {
		for _, s := range watchers {
			s.close()
		}
	}()
	began := time.Now()
	active, during, err := a.enter(ctx, watchers, before)
	if err == nil {
		a.note("clients waited for %d ms at most, with writes of reference tables and DDL", time.Since(began).Milliseconds())
		a.lookBack(ctx, during)
		return active, nil
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), takeBackTime)
	defer cancel()
	if e := a.takeBack(late); e != nil {
		a.Log.Warn("a shard that was not added is still in the map, as joining", "shard", a.shard.Name, "error", e)
	}
	return nil, failed("shard "+a.shard.Name+" was not added", err)
}

// watchers are sessions on all shards, opened before anybody waits. A shard that does not answer needs no courtesy.
func (a *addition) watchers(ctx context.Context) (list []*session) {
	all := make([]*session, len(a.others))
	var g errgroup.Group
	g.SetLimit(shardsAtATime)
	for i, shard := range a.others {
		g.Go(func() (err error) {
			limited, cancel := context.WithTimeout(ctx, connTime)
			defer cancel()
			all[i], err = a.open(limited, shard.Name, shard.Nodes[0])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		a.Log.Warn("a shard cannot be looked at", "error", err)
	}
	return slices.DeleteFunc(all, func(s *session) bool { return s == nil })
}

// enter takes the shard into the map. before are the writers on the other shard that have to end first; it also gives those that ran
// when all proxies had the map.
func (a *addition) enter(ctx context.Context, watchers []*session, before []string) (active *topology.Snapshot, during []string, err error) {
	joining, err := a.announce(ctx)
	if err != nil {
		return nil, nil, err
	}
	limited, cancel := context.WithTimeout(ctx, finishTime)
	defer cancel()
	a.confirmed(limited, joining.Epoch)
	if during, err = a.writers(limited); err == nil {
		a.politely(limited, watchers)
		err = a.settle(limited, joining.Epoch, before)
	}
	if err == nil {
		active, err = a.apply(limited, topology.SetShardState{Name: a.shard.Name, State: topology.ShardActive})
	}
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = refuse(notInState, "Repeat the command: it goes on from there. If that does not help, do it when less is written.",
			"shard %s was not added: the last steps, for which clients waited, took longer than %v: %v", a.shard.Name, finishTime, oneLine(err))
	}
	return active, during, err
}

// announce puts the shard into the map, as joining, and gives the map whose epoch the fence is raised to. A map with a hold is stamped
// ahead: with the epoch of the very map that the shard comes by, if it is the one before. So that is not the one then.
func (a *addition) announce(ctx context.Context) (*topology.Snapshot, error) {
	joining, err := a.apply(ctx, topology.AddShard{Shard: a.shard})
	for err == nil && slices.ContainsFunc(joining.Moving(), func(m topology.Moving) bool { return m.Hold >= joining.Epoch }) {
		joining, err = a.apply(ctx, topology.BurnEpoch{})
	}
	return joining, err
}

// settle returns once the new shard is like the others, and must be until it is active.
func (a *addition) settle(ctx context.Context, joining topology.Epoch, before []string) error {
	if err := a.raise(ctx, joining); err != nil {
		return err
	}
	// From here on nobody writes to the reference tables of the other shard.
	changed, err := a.syncRows(ctx, a.tables)
	if err != nil {
		return err
	}
	if err := a.sameRows(ctx, changed); err != nil {
		return err
	}
	if err := a.ended(ctx, before); err != nil {
		return err
	}
	return a.sameSchema(ctx)
}

// lookBack compares the schemas once more, when those writers have ended that began while the last proxies took the map: one of
// them may have changed the schema by the map before.
func (a *addition) lookBack(ctx context.Context, during []string) {
	limited, cancel := context.WithTimeout(ctx, lookBackTime)
	defer cancel()
	err := a.old.gone(limited, writersSQL, during)
	if err == nil {
		err = a.sameSchema(limited)
	}
	if err != nil {
		a.Log.Warn("the schema of a new shard is not proven", "shard", a.shard.Name, "error", err)
		a.note("look at shardctl doctor: %v", oneLine(err))
	}
}

// confirmed waits for all live proxies to go by the map, but not for long: the fence refuses those that do not.
func (a *addition) confirmed(ctx context.Context, epoch topology.Epoch) {
	limited, cancel := context.WithTimeout(ctx, ackWait)
	defer cancel()
	if err := a.Keeper.Confirmed(limited, epoch); err != nil {
		a.Log.Debug("not all proxies have confirmed the map", "error", err)
	}
	sleep(ctx, inFlight)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// raise fences the other shard for the map in which the new one is joining.
func (a *addition) raise(ctx context.Context, epoch topology.Epoch) error {
	tables := slices.DeleteFunc(fence.Tables(a.schema), func(t fence.Table) bool { return t.Key != "" })
	for {
		err := fence.Raise(ctx, a.old.query, epoch, tables)
		if !errors.Is(err, fence.ErrBusy) || ctx.Err() != nil {
			return err
		}
		sleep(ctx, lookAgain)
	}
}

// runningSQL lists the transactions of clients in the database that run.
const runningSQL = `SELECT l.virtualtransaction FROM pg_locks l JOIN pg_stat_activity a USING (pid)
	WHERE l.locktype = 'virtualxid' AND l.granted AND a.datname = current_database() AND a.usesysid IS NOT NULL AND l.pid <> pg_backend_pid()`

// politely waits for the transactions that run on any shard. One that goes on may write to a reference table, or to the other
// shard, by a map that does not know the new shard: it is refused then.
func (a *addition) politely(ctx context.Context, watchers []*session) {
	limited, cancel := context.WithTimeout(ctx, politeTime)
	defer cancel()
	var g errgroup.Group
	for _, s := range watchers {
		g.Go(func() error {
			running, err := s.column(limited, runningSQL)
			if err != nil {
				return err
			}
			return s.gone(limited, runningSQL, running)
		})
	}
	if err := g.Wait(); err != nil {
		a.Log.Debug("not all transactions have ended that began before the shard was joining", "error", err)
	}
}

// gone waits until sql gives none of list.
func (s *session) gone(ctx context.Context, sql string, list []string) error {
	for {
		now, err := s.column(ctx, sql)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list, func(t string) bool { return slices.Contains(now, t) }) {
			return nil
		}
		sleep(ctx, lookAgain)
	}
}

// writersSQL lists the transactions of the database that have written something, or changed the schema, with who runs them.
const writersSQL = `SELECT l.transactionid FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
	WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() AND
	(a.datname = current_database() OR l.transactionid IN (SELECT transaction FROM pg_prepared_xacts WHERE database = current_database()))`

// writers lists those that run on the other shard: each may have changed the schema, and nobody sees that before it ends.
func (a *addition) writers(ctx context.Context) ([]string, error) {
	return a.old.column(ctx, writersSQL)
}

// ended waits for writers to end.
func (a *addition) ended(ctx context.Context, writers []string) error {
	err := a.old.gone(ctx, writersSQL, writers)
	if err == nil || ctx.Err() == nil {
		return err
	}
	return fmt.Errorf("transactions that write go on for long on shard %s, and may have changed the schema", a.old.name)
}

// quiet waits for the transactions that write on the other shard now. Who has written for long would have to be waited for by all.
func (a *addition) quiet(ctx context.Context) error {
	writers, err := a.writers(ctx)
	for until := time.Now().Add(quietTime); err == nil && len(writers) > 0 && time.Now().Before(until); sleep(ctx, 10*lookAgain) {
		var now []string
		now, err = a.writers(ctx)
		writers = slices.DeleteFunc(writers, func(w string) bool { return !slices.Contains(now, w) })
	}
	switch {
	case err != nil:
		return failed("the transactions of shard "+a.old.name+" cannot be listed", err)
	case len(writers) == 0:
		return nil
	}
	who, err := a.old.column(ctx, `SELECT coalesce('pid ' || pid, 'a prepared transaction') FROM pg_locks
		WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted AND transactionid::text = ANY ('{`+strings.Join(writers, ",")+`}')`)
	if err != nil {
		return failed("the transactions of shard "+a.old.name+" cannot be listed", err)
	}
	return refuse(inUse, "Wait for them or end them, and repeat the command: it goes on from there.",
		"transactions on shard %s have written, may have changed the schema, and do not end: %s", a.old.name, strings.Join(who, ", "))
}
