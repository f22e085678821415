package harness

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
)

// Dev is dev.json: what `shardproxy dev` says of the cluster it started.
type Dev struct {
	Proxies []ProxyInfo `json:"proxies"`
	Catalog string      `json:"catalog"`
	Shards  []Shard     `json:"shards"` // in the order of their key ranges
	Spares  []Node      `json:"spares"` // in no map, with an empty database each
}

// ProxyInfo is one proxy process.
type ProxyInfo struct {
	DSN   string `json:"dsn"`
	Admin string `json:"admin"`
	HTTP  string `json:"http"`
	PID   int    `json:"pid"`
}

// Shard is one shard's name and servers.
type Shard struct {
	Name  string `json:"name"`
	Nodes []Node `json:"nodes"`
}

// Node is one PostgreSQL server.
type Node struct {
	Role string `json:"role"`
	DSN  string `json:"dsn"`
	PID  int    `json:"pid"` // of the postmaster
}

// Primary is the shard's primary.
func (s Shard) Primary() Node {
	for _, n := range s.Nodes {
		if n.Role == "primary" {
			return n
		}
	}
	return Node{}
}

// Options of StartCluster.
type Options struct {
	Binary string
	Shards int
	Args   []string // further arguments of `shardproxy dev`
	Sync   bool     // the servers sync to disk, as in production
}

// Cluster is a running dev cluster.
type Cluster struct {
	Dev
	Dir string // its folder
	*process
}

// StartCluster starts `shardproxy dev` and returns once the proxy accepts connections. The cluster ends with this process.
func StartCluster(ctx context.Context, o Options) (*Cluster, error) {
	dir, err := TempDir()
	if err != nil {
		return nil, err
	}
	listen, http, err := freePorts()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "dev")
	args := []string{"dev", "--dir", data, "--shards", strconv.Itoa(o.Shards), "--replicas", "0", "--listen", listen, "--http", http}
	if !o.Sync {
		args = append(args, "--ephemeral")
	}
	p, err := launch(dir, o.Binary, append(args, o.Args...)...)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: data, process: p}
	err = c.await(ctx, func() bool {
		text, err := os.ReadFile(filepath.Join(data, "dev.json"))
		return err == nil && json.Unmarshal(text, &c.Dev) == nil && len(c.Proxies) > 0 && listens(listen)
	})
	if err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// DSN of the first proxy.
func (c *Cluster) DSN() string { return c.Proxies[0].DSN }
