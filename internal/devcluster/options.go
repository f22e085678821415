package devcluster

import (
	"errors"
	"fmt"
	"log/slog"
)

// The role and the database that applications see, and those of the catalog.
const (
	User            = "app"
	Password        = "app"
	Database        = "app"
	catalogUser     = "shardproxy"
	catalogPassword = "shardproxy"
	catalogDatabase = "catalog"
)

const (
	defaultShards     = 4
	defaultServersMax = 4 // servers that more shards share, unless told otherwise
	defaultReplicas   = 1
	shardsMax         = 1000 // names have three digits; a database takes 8 MB
	serversMax        = 64
	sparesMax         = 16
	replicasMax       = 4 // a replica costs as much memory and disk as its primary
)

// Options of Start. A shape (Shards, Servers, Replicas) that is left open is that of the cluster found in
// Dir, else the default.
type Options struct {
	Dir      string // "" with Ephemeral: a temporary folder
	Shards   int    // 0: as found, else 4
	Servers  int    // 0: as found, else one per shard, at most 4
	Replicas int    // per server; below 0: as found, else 1
	Spares   int    // primaries that are no shard, each with an empty database; 0: as found, else none
	// Ephemeral clusters are removed by Stop, do not sync to disk, and end with this process even if it is killed.
	Ephemeral bool
	Log       *slog.Logger // nil: silent
}

func (o Options) validate() error {
	switch {
	case o.Dir == "" && !o.Ephemeral:
		return errors.New("devcluster: no folder given")
	case o.Shards < 0 || o.Shards > shardsMax:
		return fmt.Errorf("%d shards: 1 to %d are possible", o.Shards, shardsMax)
	case o.Servers < 0 || o.Servers > serversMax:
		return fmt.Errorf("%d servers: 1 to %d are possible", o.Servers, serversMax)
	case o.Spares < 0 || o.Spares > sparesMax:
		return fmt.Errorf("%d spare primaries: at most %d are possible", o.Spares, sparesMax)
	case o.Replicas > replicasMax:
		return fmt.Errorf("%d replicas: at most %d are possible", o.Replicas, replicasMax)
	}
	return nil
}

// shape is what a cluster was made as; it does not change afterwards.
type shape struct {
	Shards    int  `json:"shards"`
	Servers   int  `json:"servers"`
	Replicas  int  `json:"replicas"`
	Spares    int  `json:"spares,omitempty"`
	Ephemeral bool `json:"ephemeral"`
}

// newShape fills in the defaults.
func newShape(o Options) (shape, error) {
	s := shape{Shards: o.Shards, Servers: o.Servers, Replicas: o.Replicas, Spares: o.Spares, Ephemeral: o.Ephemeral}
	if s.Shards == 0 {
		s.Shards = max(defaultShards, s.Servers)
	}
	if s.Servers == 0 {
		s.Servers = min(s.Shards, defaultServersMax)
	}
	if s.Replicas < 0 {
		s.Replicas = defaultReplicas
	}
	if s.Servers > s.Shards {
		return shape{}, fmt.Errorf("%d servers for %d shards: a server would be empty", s.Servers, s.Shards)
	}
	return s, nil
}

// admits says whether o asks for nothing else than s.
func (s shape) admits(o Options) error {
	for _, c := range []struct {
		what       string
		has, asked int
		asks       bool
	}{
		{"shards", s.Shards, o.Shards, o.Shards > 0},
		{"servers", s.Servers, o.Servers, o.Servers > 0},
		{"replicas per server", s.Replicas, o.Replicas, o.Replicas >= 0},
		{"spare primaries", s.Spares, o.Spares, o.Spares > 0},
	} {
		if c.asks && c.asked != c.has {
			return fmt.Errorf("%s holds a cluster with %d %s, not %d: use another folder, or remove that one", o.Dir, c.has, c.what, c.asked)
		}
	}
	if o.Ephemeral && !s.Ephemeral {
		return fmt.Errorf("%s holds a cluster that is to be kept: an ephemeral one needs another folder", o.Dir)
	}
	return nil
}

// serverOf is the server (from 0) that holds a shard: consecutive shards share one.
func (s shape) serverOf(shard int) int { return shard * s.Servers / s.Shards }

// database of a shard: the application's own name where no two shards share a server.
func (s shape) database(shard int) string {
	if s.Servers == s.Shards {
		return Database
	}
	return fmt.Sprintf("%s_%03d", Database, shard)
}

func shardName(shard int) string { return fmt.Sprintf("s%d", shard+1) }
