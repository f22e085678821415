package proxy

import (
	"context"
	"time"

	"shardproxy/backend"
	"shardproxy/topology"
	"shardproxy/wire"
)

// farewellNode is for a node to be told that we hang up, or that what it runs is not wanted any more.
const farewellNode = time.Second

// OnNode runs f with a connection of its own to a node, as the service user, and closes it. It is for looking at many nodes
// in turn: no pool keeps a connection to each. What OnShard says of errors and of query holds here too.
func (s *Server) OnNode(ctx context.Context, node topology.Node, f func(query topology.Query) error) error {
	key := backend.Key{Address: node.Address(), Database: node.Database, User: s.now().Service.ServerUser}
	server, err := s.dialer.Dial(ctx, key)
	if err != nil {
		return err
	}
	c := &backend.Conn{Stream: wire.NewStream(server.Conn), Key: server.Key, Params: server.Params, Status: 'I'}
	defer func() {
		if c.Broken && ctx.Err() != nil {
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellNode)
			defer cancel()
			_ = s.dialer.Cancel(late, key, server.Key)
		}
		_ = server.Conn.SetDeadline(time.Now().Add(farewellNode))
		c.Write(wire.AppendEmpty(nil, 'X'))
		_ = c.Flush() // it notices in any case
		_ = server.Conn.Close()
	}()
	return f(func(ctx context.Context, sql string) ([][]string, error) { return c.Rows(ctx, sql) })
}

// MayOpen is how many connections this server may have at a time to a PostgreSQL server that holds so many of the shards: those of
// sessions, for each role that the configuration names, and those of its own work.
func (s *Server) MayOpen(shards int) int {
	live := s.now()
	roles := make(map[string]bool)
	for _, u := range live.Users {
		roles[u.ServerUser] = true
	}
	sessions := len(roles) * live.Pools.Max * shards
	if live.Pools.Total > 0 {
		sessions = min(sessions, live.Pools.Total)
	}
	return sessions + min(serviceMax*shards, serviceAll)
}
