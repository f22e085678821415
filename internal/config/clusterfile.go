package config

import (
	"bytes"
	"fmt"

	"github.com/pelletier/go-toml/v2"

	"shardproxy/topology"
)

// clusterFile is a cluster as `shardctl` reads it: topology.File, or the configuration of a proxy, whose other sections
// say nothing here. Placement and Slots are of a cluster that has no ranges yet.
type clusterFile struct {
	Config
	Cluster struct {
		Cluster
		Epoch     uint64 `toml:"epoch"`
		Placement string `toml:"placement"`
		Slots     int    `toml:"slots"`
	} `toml:"cluster"`
	Shards []struct {
		Shard
		State string `toml:"state"`
	} `toml:"shards"`
}

// Values of cluster.placement.
const (
	placementEqual      = "equal"      // one range a shard, in the order of the shards; also ""
	placementConsistent = "consistent" // slots, by topology.PlanRanges
)

// ParseCluster reads the text of a cluster file; path is for errors, which are as those of Load. What a node or the
// tables leave out is as in the configuration of a proxy.
func ParseCluster(path string, text []byte) (*topology.Snapshot, error) {
	f := clusterFile{Config: *Default()}
	f.Cluster.Cluster = f.Config.Cluster
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&f); err != nil {
		return nil, fileErrors(path, text, err)
	}
	s, err := f.snapshot()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// NamesRanges says whether the text of a cluster file, which ParseCluster has read, says which shard owns what.
func NamesRanges(text []byte) bool {
	var f struct {
		Ranges []any `toml:"ranges"`
	}
	return toml.Unmarshal(text, &f) == nil && len(f.Ranges) > 0
}

func (f *clusterFile) snapshot() (*topology.Snapshot, error) {
	file := topology.File{
		Cluster: topology.FileCluster{Name: f.Cluster.Name, Epoch: f.Cluster.Epoch},
		Tables:  topology.FileTables(f.Tables),
	}
	f.Config.Cluster, f.Config.Shards = f.Cluster.Cluster, nil
	for _, s := range f.Shards {
		f.Config.Shards = append(f.Config.Shards, s.Shard)
	}
	f.setDefaults()
	for i, s := range f.Config.Shards {
		shard := topology.FileShard{Name: s.Name, State: f.Shards[i].State}
		for _, n := range s.Nodes {
			shard.Nodes = append(shard.Nodes, topology.FileNode(n))
		}
		file.Shards = append(file.Shards, shard)
	}
	for _, r := range f.Ranges {
		file.Ranges = append(file.Ranges, topology.FileRange(r))
	}
	content, err := file.Content()
	if err != nil {
		return nil, err
	}
	if err := f.place(&content); err != nil {
		return nil, err
	}
	return topology.New(content)
}

// place gives the ring to the shards of a file that has no ranges.
func (f *clusterFile) place(c *topology.Content) (err error) {
	slots := f.Cluster.Slots
	switch f.Cluster.Placement {
	case "", placementEqual:
		if slots != 0 {
			return fmt.Errorf("cluster.slots is only for placement = %q", placementConsistent)
		}
		return nil
	case placementConsistent:
	default:
		return fmt.Errorf("cluster.placement: %q is neither %q nor %q", f.Cluster.Placement, placementEqual, placementConsistent)
	}
	if len(f.Ranges) > 0 {
		return fmt.Errorf("the file has ranges, so cluster.placement must not be %q", placementConsistent)
	}
	if slots == 0 {
		slots = topology.SlotsDefault
	}
	names := make([]string, len(c.Shards))
	for i, s := range c.Shards {
		names[i] = s.Name
	}
	c.Ranges, err = topology.PlanRanges(names, slots)
	return err
}

// FormatCluster is the inverse of ParseCluster: a file that gives the same snapshot again.
func FormatCluster(s *topology.Snapshot) ([]byte, error) {
	text, err := toml.Marshal(s.File())
	if err != nil {
		return nil, fmt.Errorf("writing the cluster as TOML: %w", err)
	}
	return text, nil
}
