package admin

import (
	"context"
	"errors"

	"shardproxy/rebalance/join"
	"shardproxy/topology"
	"shardproxy/wire"
)

// Joiner makes a database a shard of the cluster: see join.Joiner. Its refusals are *join.Refusal.
type Joiner interface {
	Add(ctx context.Context, shard topology.Shard, who topology.Actor, note func(string)) (*topology.Snapshot, error)
}

// readAddShard has no time limit: rows of reference tables may take long. The client ends it.
func readAddShard(a *arguments) (reply, *wire.Error) {
	c := topology.AddShard{Shard: topology.Shard{Name: a.shard()}}
	for role := topology.Primary; role == topology.Primary || len(a.list) > 0 && a.err == nil; role = topology.Replica {
		c.Shard.Nodes = append(c.Shard.Nodes, a.node(role))
	}
	if err := a.done(); err != nil {
		return nil, err
	}
	return func(ctx context.Context, s *session) ([][]any, *wire.Error) {
		if s.console.cfg.Joiner == nil {
			return nil, errFixedTopology()
		}
		return s.addShard(ctx, c)
	}, nil
}

// addShard tells the client how far it is.
func (s *session) addShard(ctx context.Context, c topology.AddShard) ([][]any, *wire.Error) {
	before := s.console.src.Snapshot()
	var snap *topology.Snapshot
	err := s.patiently(ctx, func(ctx context.Context) (err error) {
		snap, err = s.console.cfg.Joiner.Add(ctx, c.Shard, s.actor(), func(text string) {
			notice := &wire.Error{Severity: wire.SeverityNotice, Code: "00000", Message: text}
			s.write(notice.AppendNotice(nil))
			_ = s.client.Flush() // who has gone is noticed by patiently
		})
		return err
	})
	var refused *join.Refusal
	switch {
	case err == nil:
		s.log("topology changed", "change", c.String(), snap.Epoch, nil)
		return [][]any{{int64(snap.Epoch), c.String()}}, nil
	case errors.As(err, &refused):
		return nil, wire.Errorf(refused.Code, "%s", refused.Message).WithHint("%s", refused.Hint)
	case errors.Is(err, errCanceled), errors.Is(err, errClientGone):
		return nil, wire.Errorf(wire.CodeQueryCanceled, "the shard was not added: %v", err).
			WithHint("What was made in its database is used when the command is repeated.")
	}
	return nil, changeError(before, c, err)
}
