// Package admintest runs a real console over TCP before a topology in memory, for tests of its clients.
package admintest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"shardproxy/admin"
	"shardproxy/backend"
	"shardproxy/doctor"
	"shardproxy/fence"
	"shardproxy/proxy"
	"shardproxy/topology"
	"shardproxy/wire"
)

// Console is a proxy that has a console and nothing else. Its users, without passwords, are admin and watcher, who
// may only look.
type Console struct {
	Address string // host:port

	mu     sync.Mutex // guards the fields below
	snap   *topology.Snapshot
	ill    []doctor.Finding
	fences []fence.Result

	operated operated
	moved    moved
}

// Start runs a console until the test ends. It makes changes if catalog is set; else it is one whose topology comes from
// its configuration file.
func Start(t testing.TB, snap *topology.Snapshot, catalog bool, peers ...topology.Peer) *Console {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Console{Address: listener.Addr().String(), snap: snap}
	cfg := admin.Config{
		Version: "1.2.3", Control: c, Process: c, AdminUsers: []string{"admin"}, StatsUsers: []string{"watcher"},
		Peers: func() []topology.Peer { return peers }, Log: slog.New(slog.DiscardHandler),
	}
	cfg.Doctor, cfg.Fences = c.examine, c
	if catalog {
		cfg.Operator, cfg.Joiner, cfg.Mover, cfg.Gossip = c, c, c, newRing(peers)
	}
	console := admin.NewConsole(cfg, c)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serve(ctx, console, conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		stop()
		running.Wait()
	})
	return c
}

// Add makes no shard.
func (c *Console) Add(ctx context.Context, shard topology.Shard, who topology.Actor, _ func(string)) (*topology.Snapshot, error) {
	return c.Apply(ctx, topology.AddShard{Shard: shard}, who)
}

// serve lets everybody in; the console itself knows whom.
func serve(ctx context.Context, console *admin.Console, conn net.Conn) {
	defer conn.Close()
	accepted, err := wire.Accept(ctx, conn, &wire.AcceptConfig{})
	if err != nil {
		return
	}
	if accepted.Cancel != nil {
		console.Cancel(*accepted.Cancel)
		return
	}
	if _, err := conn.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 0}); err != nil {
		return
	}
	_ = console.Serve(ctx, wire.NewStream(conn), accepted.Startup) // what it gives, the client was told
}

// DSN of the console for a user. It names the database of the application.
func (c *Console) DSN(user string) string {
	return fmt.Sprintf("postgres://%s@%s/app?sslmode=disable", user, c.Address)
}

// Snapshot is the topology now.
func (c *Console) Snapshot() *topology.Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snap
}

// Apply makes a change.
func (c *Console) Apply(_ context.Context, change topology.Change, _ topology.Actor) (*topology.Snapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next, err := c.snap.Apply(change)
	if err != nil {
		return nil, err
	}
	c.snap = next
	return next, nil
}

// Counters are those of a proxy that has done nothing yet.
func (c *Console) Counters() proxy.Counters { return proxy.Counters{Started: time.Now()} }

// Clients lists none.
func (c *Console) Clients() []proxy.ClientInfo { return nil }

// Pools lists one for each primary.
func (c *Console) Pools() (pools []backend.Stats) {
	for _, s := range c.Snapshot().Shards {
		n := s.Nodes[0]
		pools = append(pools, backend.Stats{Key: backend.Key{Address: n.Address(), Database: n.Database, User: "app"}})
	}
	return pools
}

// Backends lists none.
func (c *Console) Backends() []backend.ConnInfo { return nil }

// Drift has not been looked for.
func (c *Console) Drift() []proxy.ShardDrift { return nil }

// PlanCache has not been asked.
func (c *Console) PlanCache() (hits, misses uint64) { return 0, 0 }

// Find makes the doctor find something, beside that the catalog is well.
func (c *Console) Find(check string, status doctor.Status, subject, detail, hint string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ill = append(c.ill, doctor.Finding{Check: check, Status: status, Subject: subject, Detail: detail, Hint: hint})
}

func (c *Console) examine(_ context.Context, deep bool) ([]doctor.Finding, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := append([]doctor.Finding{{Check: "catalog", Detail: "it answers"}}, c.ill...)
	if deep {
		found = append(found, doctor.Finding{Check: "placement", Detail: "all rows are where the map has them"})
	}
	return found, nil
}

// Fence sets what the shards answer when they are asked for their fences.
func (c *Console) Fence(results ...fence.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fences = results
}

// Check gives what Fence has set.
func (c *Console) Check(context.Context) []fence.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fences
}

// Install makes a fence on every shard that does not fail.
func (c *Console) Install(context.Context) []fence.Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.fences {
		if r := &c.fences[i]; r.Err == nil {
			r.Epoch, r.Changed, r.Problems = c.snap.Epoch, r.Epoch == 0 || len(r.Problems) > 0, nil
		}
	}
	return c.fences
}
