package main

import (
	"context"

	"shardproxy/proxy"
	"shardproxy/topology"
	"shardproxy/wire"
)

// peersOf lets clients cancel by any proxy what another one does for them, and finds deadlocks among the clients of several.
func peersOf(g *topology.Gossip) proxy.Peers {
	return proxy.Peers{Tag: g.Tag(), Ties: g.Ties, Forward: func(ctx context.Context, tag, pid uint32, secret string) {
		g.ForwardCancel(ctx, tag, pid, secret)
	}}
}

// tiesForPeer tells of the sessions here that keep others waiting.
func (s *service) tiesForPeer(of []topology.Process) []topology.Tie { return s.server.Ties(of) }

// cancelForPeer cancels what a client of ours has asked another proxy to cancel.
func (s *service) cancelForPeer(ctx context.Context, pid uint32, secret string) {
	s.server.CancelHere(ctx, wire.CancelKey{PID: pid, Secret: secret}) // gossip runs once there is a server
}
