package join

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"shardproxy/fence"
	"shardproxy/topology"
)

// Joiner adds shards. Its fields do not change.
type Joiner struct {
	Keeper      *topology.Keeper
	DSN         func(topology.Node) string   // how the service user reaches a node
	Environment func(topology.Node) []string // the same for PostgreSQL's programs, NAME=value each
	Tools       func(major int) (dir string, err error)
	Log         *slog.Logger
}

const (
	roundsMax = 5                      // copies that nobody waits for
	roundTime = 500 * time.Millisecond // of a last one that is short enough to be repeated while clients wait
	connTime  = 10 * time.Second
)

// addition is one shard on its way in.
type addition struct {
	*Joiner
	shard  topology.Shard
	who    topology.Actor
	note   func(format string, args ...any)
	others []topology.Shard // that are in the map
	schema *topology.Schema
	tables []*table
	major  int   // of PostgreSQL
	copied int64 // rows

	old, new *session
}

// Add makes the database of shard.Nodes[0] a shard of the cluster: see the package. It gives the map in which the shard is active.
// note is told how far it is. The error is a *Refusal, or one of Keeper.Apply for a change that the map does not take.
func (j *Joiner) Add(ctx context.Context, shard topology.Shard, who topology.Actor, note func(string)) (*topology.Snapshot, error) {
	a := &addition{Joiner: j, shard: shard, who: who}
	a.note = func(format string, args ...any) { note(fmt.Sprintf(format, args...)) }
	a.shard.State = topology.ShardJoining
	if err := a.begin(ctx); err != nil {
		return nil, err
	}
	defer a.new.close()
	if err := a.takeBack(ctx); err != nil { // what an earlier attempt has left
		return nil, err
	}
	snap := j.Keeper.Snapshot()
	if _, err := snap.Apply(topology.AddShard{Shard: shard}); err != nil {
		return nil, err
	}
	for _, s := range snap.Shards {
		if s.State != topology.ShardJoining {
			a.others = append(a.others, s)
		}
	}
	var err error
	if a.old, err = j.open(ctx, a.others[0].Name, a.others[0].Nodes[0]); err != nil {
		return nil, unreachable("shard "+a.others[0].Name, err)
	}
	defer a.old.close()
	if err := a.prepare(ctx); err != nil {
		return nil, err
	}
	return a.finish(ctx)
}

// begin connects to the new shard, and sees to it that nobody else adds it.
func (a *addition) begin(ctx context.Context) (err error) {
	limited, cancel := context.WithTimeout(ctx, connTime)
	defer cancel()
	if a.new, err = a.open(limited, a.shard.Name, a.shard.Nodes[0]); err != nil {
		return unreachable(fmt.Sprintf("the new shard %v", a.shard.Nodes[0]), err)
	}
	free, err := a.new.column(ctx, "SELECT pg_try_advisory_lock(hashtextextended('shardproxy: add shard', 0))")
	if err == nil && free[0] != "t" {
		err = refuse(inUse, "Wait for it.", "somebody else is adding the shard %v", a.shard.Nodes[0])
	}
	if err != nil {
		a.new.close()
		return failed("the new shard cannot be looked at", err)
	}
	return nil
}

// prepare does all that nobody has to wait for.
func (a *addition) prepare(ctx context.Context) error {
	if _, fenced, err := fence.Read(ctx, a.old.query); err != nil || !fenced {
		return refuse(notInState, "shardctl fence install, then repeat this.",
			"shard %s has no fence, so a proxy with an old map could write to reference tables and leave the new shard out", a.old.name)
	}
	if err := a.fits(ctx); err != nil {
		return err
	}
	if err := a.replicas(ctx, &a.shard); err != nil {
		return err
	}
	var err error
	if a.schema, err = topology.LoadSchemaConn(ctx, a.old.Conn, a.Keeper.Snapshot().Rules); err != nil {
		return failed("the schema of shard "+a.old.name+" cannot be read", err)
	}
	if err := a.makeSchema(ctx); err != nil {
		return err
	}
	if err := a.empty(ctx); err != nil {
		return err
	}
	a.tables = referenceTables(a.schema)
	if err := a.copyAhead(ctx); err != nil {
		return failed("the rows of the reference tables cannot be copied", err)
	}
	a.note("it has the rows of %d reference tables (%d copied)", len(a.tables), a.copied)
	if err := a.setSequences(ctx); err != nil {
		return failed("the sequences cannot be set", err)
	}
	if err := a.refreshViews(ctx); err != nil {
		return failed("the materialized views cannot be filled", err)
	}
	return a.quiet(ctx)
}

// copyAhead copies until there is little left, or writers are always faster.
func (a *addition) copyAhead(ctx context.Context) error {
	for _, t := range a.tables {
		if err := t.size(ctx, a.old, a.new); err != nil {
			return err
		}
	}
	for round := range roundsMax {
		began := time.Now()
		changed, err := a.syncRows(ctx, a.tables)
		if err != nil {
			return err
		}
		if round == 0 {
			for _, t := range changed {
				if _, err := a.new.query(ctx, "ANALYZE "+qualified(t.TableName)); err != nil {
					return err
				}
			}
		}
		if len(changed) == 0 || round > 0 && time.Since(began) < roundTime {
			break
		}
	}
	return nil
}

// apply makes a change of whatever map there is.
func (a *addition) apply(ctx context.Context, c topology.Change) (*topology.Snapshot, error) {
	for {
		snap, err := a.Keeper.Apply(ctx, c, a.who)
		switch {
		case err == nil:
			return snap, nil
		case !errors.As(err, new(topology.ErrConflict)) || ctx.Err() != nil:
			return nil, mapError{err}
		}
	}
}

// takeBack takes the shard out of the map, if it is there and joining.
func (a *addition) takeBack(ctx context.Context) error {
	for {
		snap := a.Keeper.Snapshot()
		id, there := snap.ShardByName(a.shard.Name)
		if !there || snap.Shards[id].State != topology.ShardJoining {
			return nil
		}
		_, err := a.Keeper.Apply(ctx, topology.RemoveShard{Name: a.shard.Name}, a.who)
		if !errors.As(err, new(topology.ErrConflict)) || ctx.Err() != nil {
			return err
		}
	}
}
