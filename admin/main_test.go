package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"shardproxy/backend"
	"shardproxy/proxy"
	"shardproxy/topology"
	"shardproxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout bounds whatever should not take long.
const testTimeout = 10 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// fixed is a Source that stands still.
type fixed struct {
	counters     proxy.Counters
	clients      []proxy.ClientInfo
	pools        []backend.Stats
	backends     []backend.ConnInfo
	snapshot     *topology.Snapshot
	hits, misses uint64
	leases       []proxy.LeaseInfo
	live         *proxy.Live
	drift        []proxy.ShardDrift
}

func (f *fixed) Counters() proxy.Counters         { return f.counters }
func (f *fixed) Clients() []proxy.ClientInfo      { return append([]proxy.ClientInfo(nil), f.clients...) }
func (f *fixed) Pools() []backend.Stats           { return f.pools }
func (f *fixed) Backends() []backend.ConnInfo     { return append([]backend.ConnInfo(nil), f.backends...) }
func (f *fixed) Snapshot() *topology.Snapshot     { return f.snapshot }
func (f *fixed) Drift() []proxy.ShardDrift        { return f.drift }
func (f *fixed) PlanCache() (hits, misses uint64) { return f.hits, f.misses }
func (f *fixed) Caches() []proxy.CacheInfo {
	return []proxy.CacheInfo{{Name: "sessions", Held: 2, Most: 100}, {Name: "unbounded", Held: 5}}
}
func (f *fixed) Database() string          { return "app" }
func (f *fixed) Live() *proxy.Live         { return f.live }
func (f *fixed) Leases() []proxy.LeaseInfo { return slices.Clone(f.leases) }
func (f *fixed) Paused(shard string) bool  { return shard == "s2" }

func (f *fixed) Explain(sql string) ([]string, *wire.Error) {
	if strings.HasPrefix(sql, "refuse") {
		return nil, wire.Errorf("54001", "too deep")
	}
	return []string{"Kind: any", "Text: " + sql}, nil
}

var (
	morning = time.Date(2026, 3, 4, 8, 0, 0, 0, time.UTC)
	key1    = backend.Key{Address: "10.0.0.1:5432", Database: "app", User: "app"}
	key2    = backend.Key{Address: "10.0.0.2:5432", Database: "app", User: "app"}
	keyGone = backend.Key{Address: "[::1]:5999", Database: "app", User: "old"} // a node that has left the topology
)

// newFixed is a proxy at work: two shards, one with a replica; three ranges; a pool of each shard, and one whose
// node has left.
func newFixed(t testing.TB) *fixed {
	t.Helper()
	name := func(n string) topology.TableName { return topology.TableName{Schema: "public", Name: n} }
	id := []topology.Column{{Name: "id", Type: 20}, {Name: "user_id", Type: 2950}}
	schema := &topology.Schema{Tables: map[topology.TableName]*topology.Table{}, Rules: topology.KeyRules{
		Explicit:  map[topology.TableName]string{name("events"): "user_id", {Schema: "billing", Name: "paid"}: "account"},
		Reference: map[topology.TableName]bool{name("countries"): true},
		Columns:   []string{"user_id", "creator_user_id"}, Named: map[topology.TableName]string{{Name: "users"}: "id"},
	}}
	for _, table := range []*topology.Table{
		{TableName: name("users"), Kind: topology.Sharded, KeyType: topology.KeyInt, Key: 0, Columns: id},
		{TableName: name("events"), Kind: topology.Sharded, KeyType: topology.KeyUUID, Key: 1, Columns: id},
		{TableName: name("countries"), Kind: topology.Reference, Key: -1},
		{TableName: name("active_users"), Kind: topology.View, Key: -1},
		{TableName: topology.TableName{Schema: "billing", Name: "odd"}, Kind: topology.Sharded, Key: -1, Problem: "no rule names a shard key"},
	} {
		schema.Tables[table.TableName] = table
	}
	snap, err := topology.NewSnapshot(7, []topology.Shard{
		{Name: "s1", Nodes: []topology.Node{
			{Host: "10.0.0.1", Port: 5432, Database: "app", Role: topology.Primary},
			{Host: "10.0.1.1", Port: 5433, Database: "app", Role: topology.Replica},
		}},
		{Name: "s2", Nodes: []topology.Node{{Host: "10.0.0.2", Port: 5432, Database: "app", Role: topology.Primary}}},
	}, []topology.KeyRange{
		{Start: 0, End: 1 << 62, Shard: 0},
		{Start: 1 << 62, End: 1 << 63, Shard: 1},
		{Start: 1 << 63, End: 0, Shard: 0},
	}, schema)
	if err != nil {
		t.Fatal(err)
	}
	latency := make([]int64, 32)
	latency[0], latency[7], latency[31] = 1, 10, 2
	return &fixed{
		counters: proxy.Counters{
			Started: morning, Clients: 12, Panics: 1, Rounds: 13, Transactions: 11, Received: 1000, Sent: 2000,
			ByKind: map[string]int64{"keyed": 9, "scatter": 4}, Errors: map[string]int64{"0A000": 3, "23505": 2},
			Latency: latency, LatencySum: 2600 * time.Microsecond, Waited: 3 * time.Second,
		},
		clients: []proxy.ClientInfo{
			{ID: 9, User: "app", Database: "app", Application: "shop \xc3\xa9", State: "idle in transaction", Address: "[2001:db8::1]:4711", Connected: morning, TLS: true},
			{ID: 3, User: "job", Database: "app", State: "active", Address: "@", Connected: morning.Add(time.Hour)},
		},
		pools: []backend.Stats{
			{Key: keyGone, Idle: 1},
			{Key: key2, Used: 1, Waiting: 2, LongestWait: 2500 * time.Millisecond, Waited: 3 * time.Second},
			{Key: key1, Idle: 1, Used: 3},
		},
		backends: []backend.ConnInfo{
			{Key: keyGone, PID: 70, Born: morning},
			{Key: key2, PID: 20, Active: true, Born: morning, TLS: true},
			{Key: key1, PID: 4294967295, Active: true, Born: morning.Add(time.Minute)},
			{Key: key1, PID: 10, Active: true, Born: morning},
			{Key: key1, PID: 12, Born: morning.Add(time.Second)},
		},
		snapshot: snap, hits: 40, misses: 2,
		live: &proxy.Live{
			Pools: backend.Limits{Min: 1, Max: 20, Total: 100, Lifetime: time.Hour}, MaxClients: 500,
			Users: map[string]*proxy.User{
				"job": {Name: "job", ServerUser: "old", Pooling: proxy.SessionPooling, MaxConnections: 5}, "app": {Name: "app", ServerUser: "app"},
			},
		},
		leases: []proxy.LeaseInfo{
			{Key: key2, Fenced: true, Fence: 9, Confirmed: morning, Stale: true},
			{Key: key1, Fenced: true, Fence: 7, Confirmed: morning},
			{Key: keyGone},
		},
	}
}

func testConfig() Config {
	return Config{
		Version: "1.2.3", AdminUsers: []string{"root"}, StatsUsers: []string{"watcher", "root"},
		Control: &works{}, Process: &program{}, Log: slog.New(slog.DiscardHandler),
	}
}

// console is a Console behind a listener that logs everybody in.
type console struct {
	*Console
	address string
	stop    context.CancelFunc // ends the sessions
}

func startConsole(t testing.TB, cfg Config) *console {
	t.Helper()
	return startConsoleOf(t, cfg, newFixed(t))
}

func startConsoleOf(t testing.TB, cfg Config, src Source) *console {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &console{Console: NewConsole(cfg, src), address: listener.Addr().String(), stop: stop}
	from := proxy.Counters{}
	c.rates.Store(ratesOf(from, c.src.Counters(), 2*time.Second))
	done := make(chan struct{})
	sessions := make(chan struct{}, 1000) // one for each that has ended
	go func() {
		defer close(done)
		n := 0
		for ; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				break
			}
			go func() {
				defer func() { sessions <- struct{}{} }()
				defer conn.Close()
				accepted, err := wire.Accept(ctx, conn, &wire.AcceptConfig{})
				if err != nil {
					return
				}
				if accepted.Cancel != nil {
					c.Cancel(*accepted.Cancel)
					return
				}
				if _, err := conn.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 0}); err != nil {
					return
				}
				_ = c.Serve(ctx, wire.NewStream(conn), accepted.Startup) // what it gives, the client was told
			}()
		}
		for range n {
			<-sessions
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		stop()
		<-done
	})
	return c
}

func (c *console) dsn(user string) string {
	return fmt.Sprintf("postgres://%s@%s/shardproxy?sslmode=disable", user, c.address)
}
