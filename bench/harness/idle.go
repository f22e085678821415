package main

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	idleConnecting = 64              // clients that log in at the same time
	idleSettle     = 3 * time.Second // for garbage of the logins to be collected
	perAddress     = 20_000          // clients of one source address; it has 28,000 ports by default
)

// idleResult is what idle clients cost a proxy.
type idleResult struct {
	Target         string `json:"target"`
	Clients        int    `json:"clients"`
	BytesPerClient int64  `json:"bytes_per_client"` // growth of the RSS, since one client had asked one query
	RSS            int64  `json:"rss"`
}

// measureIdle opens clients up to each of counts (ascending), lets every one ask one query, and
// reads the proxy's RSS while all of them are idle.
func measureIdle(ctx context.Context, t *target, counts []int) ([]idleResult, error) {
	if err := t.at.try(ctx); err != nil {
		return nil, err
	}
	base, err := t.proxy.memory()
	if err != nil {
		return nil, err
	}
	var clients idleClients
	defer clients.close()
	var results []idleResult
	for _, count := range counts {
		if err := clients.open(ctx, t.at, count); err != nil {
			return results, fmt.Errorf("%s with %d idle clients: %w", t.name, count, err)
		}
		select {
		case <-time.After(idleSettle):
		case <-ctx.Done():
			return results, ctx.Err()
		}
		now, err := t.proxy.memory()
		if err != nil {
			return results, err
		}
		results = append(results, idleResult{
			Target: t.name, Clients: count, RSS: now.RSS,
			BytesPerClient: (now.RSS - base.RSS) / int64(count),
		})
	}
	return results, nil
}

// idleClients holds connections that have asked one query and ask nothing more.
type idleClients struct {
	mu    sync.Mutex
	conns []net.Conn
}

// open opens connections until there are count.
func (c *idleClients) open(ctx context.Context, at endpoint, count int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(idleConnecting)
	for i := len(c.conns); i < count && ctx.Err() == nil; i++ {
		group.Go(func() error {
			source := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i/perAddress))}
			conn, err := at.connect(ctx, source, 1024)
			if err != nil {
				return err
			}
			c.mu.Lock()
			c.conns = append(c.conns, conn.Conn) // without its read buffer
			c.mu.Unlock()
			_, err = conn.query(ctx, fmt.Sprintf("SELECT abalance FROM pgbench_accounts WHERE aid = %d", 1+i))
			return err
		})
	}
	return group.Wait()
}

func (c *idleClients) close() {
	for _, conn := range c.conns {
		conn.Close()
	}
}
