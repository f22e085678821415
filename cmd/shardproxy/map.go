package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"shardproxy/internal/config"
	"shardproxy/topology"
)

// mapRetry is how often a proxy that has no map yet asks the catalog again.
const mapRetry = time.Second

// fileMap is the map of a configuration file without a catalog.
func fileMap(c *config.Config) (*topology.Snapshot, error) {
	shards, ranges, err := c.Topology()
	if err != nil {
		return nil, err
	}
	rules, err := c.KeyRules()
	if err != nil {
		return nil, err
	}
	return topology.New(topology.Content{Cluster: c.Cluster.Name, Epoch: 1, Shards: shards, Ranges: ranges, Rules: rules})
}

// startKeeper gives the map of the catalog, or of the state file. Where there is neither it asks again until ctx ends.
func startKeeper(ctx context.Context, c *config.Config, log *slog.Logger, onSchema func(), publish func(*topology.Snapshot)) (*topology.Keeper, error) {
	catalog, err := topology.OpenCatalog(c.Catalog.DSN.Reveal())
	if err != nil {
		return nil, err
	}
	keeper := topology.NewKeeper(topology.KeeperConfig{
		Catalog: catalog, Cluster: c.Cluster.Name, StateFile: c.Catalog.StateFile, OnSchema: onSchema, Log: log,
	}, publish)
	for {
		err := keeper.Start(ctx)
		if err == nil {
			return keeper, nil
		}
		log.Warn("there is no map yet", "error", err)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("reading the map: %w", err)
		case <-time.After(mapRetry):
		}
	}
}

// newGossip makes the way to the peers that the file asks for, nil for none.
func (s *service) newGossip(keeper *topology.Keeper) (*topology.Gossip, error) {
	g := &s.config.Gossip
	if g.Listen == "" {
		return nil, nil
	}
	address, err := net.ResolveTCPAddr("tcp", g.Listen)
	if err != nil {
		return nil, fmt.Errorf("gossip.listen: %w", err)
	}
	keys, err := g.AESKeys()
	if err != nil {
		return nil, err
	}
	name, err := proxyName(g)
	if err != nil {
		return nil, err
	}
	ip := address.IP
	if ip == nil {
		ip = net.IPv4zero
	}
	gossip, err := topology.NewGossip(topology.GossipConfig{
		Cluster: s.config.Cluster.Name, Node: name, BindAddr: ip.String(), BindPort: address.Port, Advertise: g.Advertise,
		Seeds: g.Seeds, Keys: keys, Timing: topology.GossipLAN, OnCancel: s.cancelForPeer, OnTies: s.tiesForPeer, Log: s.log,
	}, keeper)
	if err != nil {
		return nil, err
	}
	keeper.Gossip(gossip)
	return gossip, nil
}

// proxyName is what this proxy is called among its peers: as the configuration says, or by its host and the port of its gossip.
func proxyName(g *config.Gossip) (string, error) {
	if g.Name != "" {
		return g.Name, nil
	}
	host, err := os.Hostname()
	if err != nil || g.Listen == "" {
		return host, err
	}
	_, port, err := net.SplitHostPort(g.Listen)
	return net.JoinHostPort(host, port), err
}
