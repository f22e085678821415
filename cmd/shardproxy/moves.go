package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"shardproxy/internal/config"
	"shardproxy/proxy"
	"shardproxy/rebalance"
	"shardproxy/topology"
)

// mover is what the console needs to move key ranges.
type mover struct {
	*topology.Catalog
	*rebalance.Coordinator
	server *proxy.Server
}

// OnNode asks a node as the service user.
func (m mover) OnNode(ctx context.Context, node topology.Node, run func(topology.Query) error) error {
	return m.server.OnNode(ctx, node, run)
}

// newCoordinator carries out moves where a catalog keeps their journal.
func (s *service) newCoordinator() (*rebalance.Coordinator, error) {
	name, err := proxyName(&s.config.Gossip)
	if err != nil {
		return nil, err
	}
	if s.config.Gossip.Listen == "" { // several without gossip may run on one host
		name = fmt.Sprintf("%s, process %d", name, os.Getpid())
	}
	return rebalance.NewCoordinator(rebalance.CoordinatorConfig{
		Name: name, Cluster: s.config.Cluster.Name, Catalog: s.keeper.Catalog(), Keeper: s.keeper,
		Schema: func() *topology.Schema { return s.server.Snapshot().Schema },
		DSN:    func(n topology.Node) string { return nodeDSN(s.process.config.Load(), n) },
		Limits: func() rebalance.CopyLimits {
			m := &s.process.config.Load().Moves
			return rebalance.CopyLimits{BytesPerSecond: int64(m.CopyBytesPerSecond), ReplicaLagBytes: int64(m.ReplicaLagBytes)}
		},
		Log: s.log,
	}), nil
}

// nodeDSN is how the proxy's own role reaches a node.
func nodeDSN(c *config.Config, n topology.Node) string {
	user, password := c.Cluster.ServiceUser, c.Cluster.ServicePassword.Reveal()
	if user == "" && len(c.Users) > 0 {
		u := proxyUser(c, &c.Users[0])
		user, password = u.ServerUser, u.ServerPassword
	}
	var dsn strings.Builder
	for _, field := range [][2]string{
		{"host", n.Host},
		{"port", fmt.Sprint(n.Port)},
		{"dbname", n.Database},
		{"user", user},
		{"password", password},
		{"sslmode", c.ServerTLS.SSLMode},
		{"sslrootcert", c.ServerTLS.RootCert},
		{"sslcert", c.ServerTLS.Cert},
		{"sslkey", c.ServerTLS.Key},
		{"connect_timeout", fmt.Sprint(max(1, int(c.Pool.ConnectTimeout.Seconds())))},
	} {
		if field[1] != "" {
			fmt.Fprintf(&dsn, "%s='%s' ", field[0], strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(field[1]))
		}
	}
	return dsn.String()
}
