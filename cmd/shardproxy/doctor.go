package main

import (
	"context"

	"shardproxy/doctor"
	"shardproxy/topology"
)

// newDoctor makes the doctor of the console, who asks as the proxy itself does.
func (s *service) newDoctor() (*doctor.Doctor, error) {
	cfg := doctor.Config{
		Cluster: s.config.Cluster.Name, Snapshot: s.server.Snapshot, OnNode: s.server.OnNode, Connections: s.server.MayOpen,
	}
	if s.gossip != nil {
		cfg.Peers = s.gossip.Peers
	}
	if s.keeper != nil {
		catalog, err := topology.OpenCatalog(s.config.Catalog.DSN.Reveal())
		if err != nil {
			return nil, err
		}
		cfg.Catalog = &doctor.Catalog{
			Load: catalog.Load, Trouble: s.keeper.Trouble,
			Moves: func(ctx context.Context) ([]topology.MoveRecord, error) { return catalog.LoadMoves(ctx, false) },
		}
	}
	return doctor.New(cfg), nil
}
