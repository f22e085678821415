package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"shardproxy/internal/config"
	"shardproxy/internal/postgres"
	"shardproxy/proxy"
	"shardproxy/rebalance"
	"shardproxy/rebalance/join"
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
	var dsn strings.Builder
	for _, p := range nodeParameters(c, n) {
		fmt.Fprintf(&dsn, "%s='%s' ", p.keyword, strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(p.value))
	}
	return dsn.String()
}

// nodeEnvironment is nodeDSN for PostgreSQL's own programs: command lines are for all to see.
func nodeEnvironment(c *config.Config, n topology.Node) (list []string) {
	for _, p := range nodeParameters(c, n) {
		list = append(list, p.variable+"="+p.value)
	}
	return list
}

// parameter of a connection, with the names that libpq has for it in a DSN and in the environment.
type parameter struct{ keyword, variable, value string }

func nodeParameters(c *config.Config, n topology.Node) (list []parameter) {
	user, password := c.Cluster.ServiceUser, c.Cluster.ServicePassword.Reveal()
	if user == "" && len(c.Users) > 0 {
		u := proxyUser(c, &c.Users[0])
		user, password = u.ServerUser, u.ServerPassword
	}
	for _, p := range []parameter{
		{"host", "PGHOST", n.Host},
		{"port", "PGPORT", fmt.Sprint(n.Port)},
		{"dbname", "PGDATABASE", n.Database},
		{"user", "PGUSER", user},
		{"password", "PGPASSWORD", password},
		{"sslmode", "PGSSLMODE", c.ServerTLS.SSLMode},
		{"sslrootcert", "PGSSLROOTCERT", c.ServerTLS.RootCert},
		{"sslcert", "PGSSLCERT", c.ServerTLS.Cert},
		{"sslkey", "PGSSLKEY", c.ServerTLS.Key},
		{"connect_timeout", "PGCONNECT_TIMEOUT", fmt.Sprint(max(1, int(c.Pool.ConnectTimeout.Seconds())))},
	} {
		if p.value != "" {
			list = append(list, p)
		}
	}
	return list
}

// newJoiner adds shards to the map of the catalog.
func (s *service) newJoiner() *join.Joiner {
	return &join.Joiner{
		Keeper:      s.keeper,
		DSN:         func(n topology.Node) string { return nodeDSN(s.process.config.Load(), n) },
		Environment: func(n topology.Node) []string { return nodeEnvironment(s.process.config.Load(), n) },
		Tools:       postgres.ClientPrograms,
		Log:         s.log,
	}
}
