package devcluster

import (
	"shardproxy/internal/postgres"
	"shardproxy/topology"
)

// ProxyInfo is one running proxy as dev.json names it.
type ProxyInfo struct {
	DSN   string `json:"dsn"`   // of the application's database
	Admin string `json:"admin"` // DSN of the admin console
	HTTP  string `json:"http"`  // URL of metrics and health
	PID   int    `json:"pid"`
}

// NewProxyInfo describes a proxy by the addresses it listens on.
func NewProxyInfo(host string, port int, http string, pid int) ProxyInfo {
	return ProxyInfo{
		DSN:   postgres.DSN(User, Password, host, port, Database),
		Admin: postgres.DSN(User, Password, host, port, AdminDatabase),
		HTTP:  "http://" + http,
		PID:   pid,
	}
}

type devJSON struct {
	Proxies []ProxyInfo `json:"proxies"`
	Catalog string      `json:"catalog"`
	Shards  []shardJSON `json:"shards"`
	Spares  []nodeJSON  `json:"spares,omitempty"` // that were no shards when the cluster was made
}

type shardJSON struct {
	Name  string     `json:"name"`
	Nodes []nodeJSON `json:"nodes"`
}

type nodeJSON struct {
	Role string `json:"role"`
	DSN  string `json:"dsn"`
	PID  int    `json:"pid"`
}

// WriteDevJSON writes DIR/dev.json: once it is there, the cluster and the proxies can be used.
func (c *Cluster) WriteDevJSON(proxies []ProxyInfo) error {
	if proxies == nil {
		proxies = []ProxyInfo{}
	}
	doc := devJSON{Proxies: proxies, Catalog: c.Catalog}
	for i, s := range c.Shards {
		shard := shardJSON{Name: s.Name}
		for j, m := range c.membersOf(i) {
			shard.Nodes = append(shard.Nodes, nodeJSON{
				Role: s.Nodes[j].Role.String(),
				DSN:  m.pg.DSNAs(User, Password, s.Nodes[j].Database),
				PID:  m.pg.PID(),
			})
		}
		doc.Shards = append(doc.Shards, shard)
	}
	for _, m := range c.spares {
		doc.Spares = append(doc.Spares, nodeJSON{Role: topology.Primary.String(), DSN: m.pg.DSNAs(User, Password, Database), PID: m.pg.PID()})
	}
	return c.folder.writeJSON("dev.json", doc, 0o644)
}
