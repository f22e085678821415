package devcluster

import (
	"context"
	"fmt"
	"slices"

	"shardproxy/topology"
)

// clusterName is what the catalog calls the cluster.
const clusterName = "dev"

// SyncCatalog brings the catalog to what runs: it creates it at the first start, and later changes the nodes whose
// ports have changed. explicit and reference are rules for tables, beside those that the catalog holds.
func (c *Cluster) SyncCatalog(ctx context.Context, explicit map[topology.TableName]string, reference []topology.TableName) error {
	catalog, err := topology.OpenCatalog(c.Catalog)
	if err != nil {
		return err
	}
	rules := topology.DefaultKeyRules()
	rules.Explicit = explicit
	rules.Reference = make(map[topology.TableName]bool)
	for _, t := range reference {
		rules.Reference[t] = true
	}
	want, err := topology.New(topology.Content{
		Cluster: clusterName, Epoch: 1, Shards: c.Shards, Ranges: topology.EqualRanges(len(c.Shards)), Rules: rules,
	})
	if err != nil {
		return err
	}
	who := topology.Actor{User: "dev", From: "shardproxy dev"}
	created, err := catalog.Init(ctx, want, who)
	if err != nil || created {
		return err
	}
	have, err := catalog.Load(ctx)
	if err != nil {
		return err
	}
	changes := nodeChanges(have, append(slices.Clone(want.Shards), c.joined(have)...))
	for table, column := range explicit {
		if have.Rules.Explicit[table] != column {
			changes = append(changes, topology.SetTable{Table: table, Column: column})
		}
	}
	for _, table := range reference {
		if !have.Rules.Reference[table] {
			changes = append(changes, topology.SetTable{Table: table, Reference: true})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	if _, err := catalog.Commit(ctx, have, changes, who); err != nil {
		return fmt.Errorf("bringing the catalog up to date: %w", err)
	}
	return nil
}

// joined are the spare primaries that are shards by now, found again by the ports of the last start.
func (c *Cluster) joined(have *topology.Snapshot) (shards []topology.Shard) {
	for i, m := range c.spares {
		for _, s := range have.Shards {
			if n := s.Nodes[0]; n.Host == m.pg.Host() && n.Port == c.ports[m.name] && n.Database == Database {
				shards = append(shards, topology.Shard{Name: s.Name, Nodes: []topology.Node{c.Spares[i]}})
			}
		}
	}
	return shards
}

// nodeChanges gives the changes by which the nodes of have become those that are wanted, shard by shard.
func nodeChanges(have *topology.Snapshot, want []topology.Shard) (changes topology.Batch) {
	same := func(a topology.Node) func(topology.Node) bool {
		return func(b topology.Node) bool { return a.Host == b.Host && a.Port == b.Port && a.Database == b.Database }
	}
	for _, shard := range want {
		id, ok := have.ShardByName(shard.Name)
		if !ok {
			continue // dev never changes the number of shards
		}
		old := have.Shards[id].Nodes
		for _, n := range old[1:] {
			if !slices.ContainsFunc(shard.Nodes, same(n)) {
				changes = append(changes, topology.RemoveNode{Shard: shard.Name, Node: n})
			}
		}
		for i, n := range shard.Nodes {
			if !slices.ContainsFunc(old, same(n)) {
				n.Role = topology.Replica
				changes = append(changes, topology.AddNode{Shard: shard.Name, Node: n})
			}
			if i == 0 && !same(n)(old[0]) {
				changes = append(changes, topology.SetPrimary{Shard: shard.Name, Node: n})
			}
		}
		if !slices.ContainsFunc(shard.Nodes, same(old[0])) {
			changes = append(changes, topology.RemoveNode{Shard: shard.Name, Node: old[0]})
		}
	}
	return changes
}
