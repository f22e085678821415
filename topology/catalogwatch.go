package topology

import (
	"context"
	"fmt"
	"time"
)

const (
	epochChannel  = "shardproxy_epoch"
	schemaChannel = "shardproxy_schema"

	// watchIdle is how long silence is believed: a connection that a firewall dropped tells nothing.
	watchIdle     = 15 * time.Second
	watchPause    = 100 * time.Millisecond // after a failure, doubled up to watchPauseMax
	watchPauseMax = 5 * time.Second
)

// Watch calls news with the epoch of the catalog, first at once and then whenever it changed, until ctx ends. While the
// catalog cannot be reached, each attempt gives an error with the last epoch known; the next call without one says that it is
// there again. The epoch can go back if the catalog was restored from a backup.
//
// It calls schema with what TellSchema was called with anywhere, and with "" when it may have been called while the catalog
// could not be reached.
func (c *Catalog) Watch(ctx context.Context, news func(Epoch, error), schema func(from string)) error {
	last, pause := Epoch(0), watchPause
	failed := false
	for {
		err := c.watch(ctx, func(e Epoch) {
			last, pause = e, watchPause
			news(e, nil)
			if failed {
				failed = false
				schema("")
			}
		}, schema)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failed = true
		news(last, fmt.Errorf("watching the catalog: %w", err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, watchPauseMax)
	}
}

// watch uses one connection until it breaks.
func (c *Catalog) watch(ctx context.Context, news func(Epoch), schema func(from string)) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	if _, err := conn.Exec(ctx, "LISTEN "+epochChannel+"; LISTEN "+schemaChannel); err != nil {
		return err
	}
	told := Epoch(0)
	for {
		var epoch int64
		query, cancel := context.WithTimeout(ctx, catalogConnectTimeout)
		err := conn.QueryRow(query, "SELECT epoch FROM shardproxy.meta").Scan(&epoch)
		cancel()
		if err != nil {
			return err
		}
		if e := Epoch(epoch); e != told {
			told = e
			news(e)
		}
		idle, cancel := context.WithTimeout(ctx, watchIdle)
		heard, err := conn.WaitForNotification(idle)
		quiet := idle.Err() != nil && ctx.Err() == nil && !conn.IsClosed()
		cancel()
		if err != nil && !quiet {
			return err
		}
		if heard != nil && heard.Channel == schemaChannel {
			schema(heard.Payload)
		}
	}
}

// TellSchema tells all who watch the catalog that tables have changed on the shards, and who says so. The catalog keeps
// nothing of it.
func (c *Catalog) TellSchema(ctx context.Context, from string) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	_, err = conn.Exec(ctx, "SELECT pg_catalog.pg_notify($1, $2)", schemaChannel, from)
	return err
}
