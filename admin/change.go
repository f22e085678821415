package admin

import (
	"context"
	"errors"
	"time"

	"shardproxy/topology"
	"shardproxy/wire"
)

// Operator changes the topology for good. The snapshot that it gives is the one that the proxy goes by from now on, or one
// that came after it.
type Operator interface {
	Apply(ctx context.Context, c topology.Change, who topology.Actor) (*topology.Snapshot, error)
}

// changeTimeout ends a change that waits for a catalog which does not answer.
const changeTimeout = 30 * time.Second

// changes are the verbs that change the topology. Names of tables are as in SQL, those of shards and nodes as they were typed.
func changes() []verb {
	return []verb{
		{
			name: "ADD SHARD", args: "name host:port[/database] …", role: RoleAdmin, fields: fields("epoch# change"), alone: true, read: readAddShard,
			help: "make an empty database a shard, with the schema and the reference tables of the others; its primary is the first node",
		},
		change("REMOVE SHARD", "name", "remove a shard that owns nothing any more", func(a *arguments) topology.Change {
			return topology.RemoveShard{Name: a.shard()}
		}),
		change("UNDRAIN SHARD", "name", "take DRAIN SHARD back", func(a *arguments) topology.Change {
			return topology.SetShardState{Name: a.shard(), State: topology.ShardActive}
		}),
		change("ADD NODE", "shard host:port[/database] [PRIMARY | REPLICA]", "add a node to a shard; with PRIMARY, the primary before it becomes a replica", readAddNode),
		change("REMOVE NODE", "shard host:port[/database]", "remove a replica from a shard", func(a *arguments) topology.Change {
			return topology.RemoveNode{Shard: a.shard(), Node: a.node(topology.Replica)}
		}),
		change("MAKE PRIMARY", "shard host:port[/database]", "send writes to another node of the shard, which must have been promoted", func(a *arguments) topology.Change {
			return topology.SetPrimary{Shard: a.shard(), Node: a.node(topology.Primary)}
		}),
		change("ADD TABLE", "[schema.]table.column", "shard a table by a column; stored rows do not move", func(a *arguments) topology.Change {
			table, column := a.column()
			return topology.SetTable{Table: table, Column: column}
		}),
		change("ADD REFERENCE", "[schema.]table", "make a table a full copy on every shard; stored rows are not copied", func(a *arguments) topology.Change {
			return topology.SetTable{Table: a.table(), Reference: true}
		}),
		change("REMOVE TABLE", "[schema.]table", "remove the rule of a table, so that the general rules decide; stored rows do not move", func(a *arguments) topology.Change {
			return topology.SetTable{Table: a.table()}
		}),
	}
}

// change is a verb that makes one change.
func change(name, args, help string, read func(a *arguments) topology.Change) verb {
	return verb{
		name: name, args: args, help: help, role: RoleAdmin, fields: fields("epoch# change"), alone: true,
		read: func(a *arguments) (reply, *wire.Error) {
			c := read(a)
			if err := a.done(); err != nil {
				return nil, err
			}
			return func(ctx context.Context, s *session) ([][]any, *wire.Error) { return s.change(ctx, c) }, nil
		},
	}
}

func (a *arguments) shard() string { return a.text("the name of the shard") }

// readAddNode adds a primary as a replica that becomes the primary in the same epoch.
func readAddNode(a *arguments) topology.Change {
	shard := a.shard()
	add := topology.AddNode{Shard: shard, Node: a.node(topology.Replica)}
	if a.word("primary") {
		return topology.Batch{add, topology.SetPrimary(add)}
	}
	a.word("replica")
	return add
}

// change makes a change, logs it, and answers with the epoch that it made.
func (s *session) change(ctx context.Context, c topology.Change) ([][]any, *wire.Error) {
	operator := s.console.cfg.Operator
	if operator == nil {
		return nil, errFixedTopology()
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	before := s.console.src.Snapshot()
	if set, ok := c.(topology.SetShardState); ok {
		if id, there := before.ShardByName(set.Name); there && before.Shards[id].State == topology.ShardJoining {
			return nil, wire.Errorf(wire.CodeObjectNotInPrerequisite, "shard %s is being added", set.Name).
				WithHint("Wait for it. If whoever adds it has gone, repeat shardctl shard add, or shardctl shard remove it.")
		}
	}
	snap, err := operator.Apply(ctx, c, s.actor())
	if err != nil {
		return nil, changeError(before, c, err)
	}
	s.log("topology changed", "change", c.String(), snap.Epoch, nil)
	if table, ok := c.(topology.SetTable); ok {
		if t := before.Schema.Tables[table.Table]; t != nil && misplaces(&snap.Rules, t) {
			s.write(warning(codeWarning, "the rows that "+t.String()+" has already stay where they are, and are looked for elsewhere now").
				WithHint("If there are any, take them out and put them in again through the proxy.").AppendNotice(nil))
		}
	}
	return [][]any{{int64(snap.Epoch), c.String()}}, nil
}

func errFixedTopology() *wire.Error {
	return wire.Errorf(wire.CodeFeatureNotSupported, "the topology comes from the configuration file of the proxy and cannot be changed here").
		WithHint("Change the file and restart the proxy, or let a catalog hold the topology: shardctl init makes one.")
}

// actor is the user of the session.
func (s *session) actor() topology.Actor {
	return topology.Actor{User: s.user, From: s.client.Conn().RemoteAddr().String()}
}

// log says in the proxy's log who has done what, from where, and by which map: every verb that changes something calls it.
func (s *session) log(message, key, what string, epoch topology.Epoch, failed *wire.Error) {
	who := s.actor()
	args := []any{"user", who.User, "from", who.From, key, what, "epoch", epoch}
	if failed != nil {
		s.console.cfg.Log.Warn(message, append(args, "error", failed.Message)...)
		return
	}
	s.console.cfg.Log.Info(message, args...)
}

const codeWarning = "01000" // a warning of no class of its own

// misplaces says whether rules place the rows of a table elsewhere than they are now.
func misplaces(rules *topology.KeyRules, t *topology.Table) bool {
	if t.Kind != topology.Sharded && t.Kind != topology.Reference {
		return false
	}
	kind, key, _, err := rules.Place(t.TableName, t.Columns)
	return err != nil || kind != t.Kind || key != t.Key
}

// changeError tells a client why its change was not made. before is the map that it was meant for.
func changeError(before *topology.Snapshot, c topology.Change, err error) *wire.Error {
	var conflict topology.ErrConflict
	_, impossible := before.Apply(c)
	switch {
	case errors.As(err, &conflict):
		return wire.Errorf(wire.CodeSerializationFailure, "%v", err)
	case errors.Is(err, topology.ErrOutcomeUnknown):
		return wire.Errorf(wire.CodeTransactionUnknown, "%v", err).
			WithHint("SHOW EPOCH and SHOW SHARDS tell once the catalog is there again.")
	case impossible != nil:
		return wire.Errorf(wire.CodeObjectNotInPrerequisite, "%v", err)
	}
	return wire.Errorf(wire.CodeCannotConnectNow, "the change was not made: %v", err).
		WithHint("Changes need the catalog; data traffic goes on without it.")
}
