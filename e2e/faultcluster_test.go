package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"shardproxy/e2e/harness"
	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

const (
	faultName  = "faults"
	faultKey   = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" // of the gossip, in base64
	faultOther = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA="
)

// faultHBA also lets the role in that moves rows.
const faultHBA = manyHBA + "host replication all 127.0.0.1/32 scram-sha-256\n"

// faultCluster is four shards, a catalog and three proxies, each a process of its own, with relays between them that can
// lose what they carry.
type faultCluster struct {
	dir     string // of the state files
	catalog *pgtest.Server
	shards  []*pgtest.Server
	relays  []*relay // where the proxies find the shards
	proxies []*faultProxy
}

// faultProxy is a proxy that can be killed and started again at the same addresses, with the same state file.
type faultProxy struct {
	*harness.Proxy            // nil while it is dead
	owner          *testing.T // it lives as long as this test, of which the steps are parts
	name           string
	at             harness.Addresses
	config         string
	gossip         *relay // where its peers find it
	catalog        *relay // where it finds the catalog

	consoled *session // with its console, once one was needed

	noGossip, noCatalog atomic.Bool
	pid                 atomic.Int64
}

// newFaultCluster starts all, and ends it with the test.
func newFaultCluster(t *testing.T) *faultCluster {
	t.Helper()
	c := &faultCluster{dir: t.TempDir()}
	server := func() *pgtest.Server {
		// What was acknowledged must be there after a kill -9.
		s := pgtest.Start(t, pgtest.Options{HBA: faultHBA, Settings: map[string]string{"synchronous_commit": "on"}})
		s.Exec(t, "postgres", "CREATE ROLE app LOGIN REPLICATION PASSWORD 'app'")
		s.Exec(t, "postgres", "GRANT SET ON PARAMETER session_replication_role TO app") // it moves rows
		s.Exec(t, "postgres", "CREATE DATABASE app OWNER app")
		return s
	}
	c.catalog = server()
	for i := range shardCount {
		c.shards = append(c.shards, server())
		c.relays = append(c.relays, newRelay(t, fmt.Sprintf("%s:%d", c.shards[i].Host, c.shards[i].Port), false, func(netip.AddrPort, bool) bool { return false }))
	}
	c.initCatalog(t, "app", faultName)
	for i := range 3 {
		c.proxies = append(c.proxies, c.newProxy(t, string(rune('a'+i))))
	}
	var seeds []string
	for _, p := range c.proxies {
		seeds = append(seeds, p.gossip.address)
	}
	for _, p := range c.proxies {
		p.config = c.configure(p, "app", faultName, faultKey, seeds)
		p.start(t)
	}
	waitFor(t, "the proxies know each other", func() bool {
		for i := range c.proxies {
			if c.alivePeers(t, i) != 2 {
				return false
			}
		}
		return true
	})
	return c
}

// initCatalog puts a cluster of the shards into a database of the catalog's server.
func (c *faultCluster) initCatalog(t *testing.T, database, cluster string) {
	t.Helper()
	catalog, err := topology.OpenCatalog(c.catalog.DSNAs("app", "app", database))
	if err != nil {
		t.Fatal(err)
	}
	content := topology.Content{Cluster: cluster, Epoch: 1, Ranges: topology.EqualRanges(shardCount), Rules: topology.DefaultKeyRules()}
	content.Rules.Explicit = make(map[topology.TableName]string)
	for _, key := range keyTables {
		table, column, _ := strings.Cut(key, ".")
		content.Rules.Explicit[topology.TableName{Schema: "public", Name: table}] = column
	}
	for i, r := range c.relays {
		at := r.tcp.Addr().(*net.TCPAddr)
		content.Shards = append(content.Shards, topology.Shard{
			Name: fmt.Sprintf("s%d", i+1), Nodes: []topology.Node{{Host: at.IP.String(), Port: at.Port, Database: "app"}},
		})
	}
	snap, err := topology.New(content)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.Init(t.Context(), snap, topology.Actor{User: "test", From: "e2e"}); err != nil {
		t.Fatal(err)
	}
}

// newProxy gives a proxy its addresses and relays.
func (c *faultCluster) newProxy(t *testing.T, name string) *faultProxy {
	t.Helper()
	at, err := harness.FreeAddresses()
	if err != nil {
		t.Fatal(err)
	}
	p := &faultProxy{owner: t, name: name, at: at}
	p.gossip = newRelay(t, at.Gossip, true, func(from netip.AddrPort, stream bool) bool {
		return p.noGossip.Load() || c.cutOff(from, stream)
	})
	p.catalog = newRelay(t, fmt.Sprintf("%s:%d", c.catalog.Host, c.catalog.Port), false, func(netip.AddrPort, bool) bool {
		return p.noCatalog.Load()
	})
	return p
}

// cutOff says whether a packet or stream comes from a proxy whose gossip is cut.
func (c *faultCluster) cutOff(from netip.AddrPort, stream bool) bool {
	for _, p := range c.proxies {
		if p.noGossip.Load() && (!stream && from.String() == p.at.Gossip || stream && ownsStream(int(p.pid.Load()), from.Port())) {
			return true
		}
	}
	return false
}

func (c *faultCluster) configure(p *faultProxy, database, cluster, key string, seeds []string) string {
	host, port, _ := strings.Cut(p.catalog.address, ":")
	return fmt.Sprintf(`
[[users]]
name = "app"
secret = "app"
[server_tls]
sslmode = "disable"
[pool]
acquire_timeout = "3s"
connect_timeout = "2s"
[cluster]
name = %q
[catalog]
dsn = "postgres://app:app@%s:%s/%s?sslmode=disable"
state_file = %q
[gossip]
name = %q
listen = %q
advertise = %q
seeds = ["%s"]
keys = [%q]
`, cluster, host, port, database, filepath.Join(c.dir, p.name+".map"), p.name, p.at.Gossip, p.gossip.address,
		strings.Join(seeds, `", "`), key)
}

// start starts the proxy, and ends it with the test.
func (p *faultProxy) start(t *testing.T) {
	t.Helper()
	proxy, err := harness.Serve(context.WithoutCancel(t.Context()), proxyBin, p.at, p.config)
	if err != nil {
		t.Fatal(err)
	}
	first := p.pid.Swap(int64(proxy.PID())) == 0
	p.Proxy, p.consoled = proxy, nil
	if first {
		p.owner.Cleanup(func() {
			if p.Proxy == nil {
				return
			}
			if t := p.owner; t.Failed() {
				t.Logf("log of proxy %s:\n%s", p.name, p.Log())
			}
			if err := p.Stop(); err != nil {
				p.owner.Error(err)
			}
		})
	}
}

// kill ends the proxy by kill -9.
func (p *faultProxy) kill(t *testing.T) {
	t.Helper()
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	p.Proxy = nil
}

// console gives a session with the console of the proxy, one for each of its lives.
func (p *faultProxy) console(t *testing.T) *session {
	t.Helper()
	if p.consoled == nil {
		p.consoled = connect(p.owner, strings.Replace(p.DSN, "/app?", "/shardproxy?", 1))
	}
	return p.consoled
}

// cutGossip loses what goes to the proxy and comes from it.
func (c *faultCluster) cutGossip(i int, cut bool) {
	c.proxies[i].noGossip.Store(cut)
	for _, p := range c.proxies {
		p.gossip.hangUp()
	}
}

func (c *faultCluster) cutCatalog(i int, cut bool) {
	c.proxies[i].noCatalog.Store(cut)
	c.proxies[i].catalog.hangUp()
}

// alivePeers counts the peers that a proxy takes for alive.
func (c *faultCluster) alivePeers(t *testing.T, i int) int {
	t.Helper()
	alive := 0
	for _, line := range c.proxies[i].console(t).must(t, "SHOW PEERS").lines {
		if strings.HasPrefix(line, "row ") && strings.Contains(line, `"alive"`) {
			alive++
		}
	}
	return alive
}

// epochs gives those of proxies, with blanks between them.
func (c *faultCluster) epochs(t *testing.T, proxies ...int) string {
	t.Helper()
	var all []string
	for _, i := range proxies {
		all = append(all, firstColumn(c.proxies[i].console(t).must(t, "SHOW EPOCH")))
	}
	return strings.Join(all, " ")
}

// harnessShards is the shards as the helpers of other tests want them.
func (c *faultCluster) harnessShards() *harness.Cluster {
	h := &harness.Cluster{}
	for i, s := range c.shards {
		h.Shards = append(h.Shards, harness.Shard{Name: fmt.Sprintf("s%d", i+1), Nodes: []harness.Node{{Role: "primary", DSN: s.DSNAs("app", "app", "app")}}})
	}
	return h
}
