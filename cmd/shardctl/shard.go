package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
)

// addShardTime is how long the console is waited for: the rows of large reference tables may take long. Ctrl-C ends it sooner.
const addShardTime = 24 * time.Hour

func (o *options) addShardCommand() *cobra.Command {
	return &cobra.Command{
		Use: "add NAME {PRIMARY [REPLICA...] | --dsn DSN}", Short: "Make an empty database a shard, which owns nothing yet",
		Long: `Makes an empty database a shard: with the schema of the others (by pg_dump, which the proxy runs), the rows of the reference tables,
the fence, and sequences that go on behind those of all others. Clients go on meanwhile; what they write to reference tables, and
DDL, waits for the last steps, four seconds at most and mostly some tenths. It owns no keys until ranges are moved to it: shardctl rebalance.

What stands on standard error is how far it is. If it fails, the cluster is as it was, and the command may be repeated: it goes on with what
there is in the database.

` + nodeHelp + `

Without PRIMARY, --dsn is that of the new shard, and the proxy is that of $SHARDCTL_DSN. Of such a DSN count hosts (the primary first), ports
and database: the proxies log in as their service user.

Exit status: 0 the shard is in the map; 1 it is not, and standard error says why.`,
		Example: `  shardctl shard add s5 10.0.0.5:5432/app 10.0.1.5:5432/app
  shardctl shard add s5 --dsn postgres://10.0.0.5/app`,
		Args: between(1, anyNumber), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				nodes, err := nodesOf(o.dsn)
				if err != nil {
					return usageError{cmd.CommandPath(), err}
				}
				args, o.dsn = append(args, nodes...), ""
			}
			return o.changeWithin(cmd, "ADD SHARD "+literals(args), addShardTime)
		},
	}
}

// nodesOf gives the nodes that a DSN names, as the console has them.
func nodesOf(dsn string) (nodes []string, err error) {
	if dsn == "" {
		return nil, errors.New("the address of the primary is missing: PRIMARY, or --dsn")
	}
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, err // pgconn hides the password in it
	}
	add := func(host string, port uint16) {
		node := net.JoinHostPort(host, strconv.Itoa(int(port)))
		if strings.HasPrefix(host, "/") {
			node = fmt.Sprintf("%s:%d", host, port)
		}
		if cfg.Database != "" {
			node += "/" + cfg.Database
		}
		if !slices.Contains(nodes, node) { // each host has a second place where TLS may be done without
			nodes = append(nodes, node)
		}
	}
	add(cfg.Host, cfg.Port)
	for _, f := range cfg.Fallbacks {
		add(f.Host, f.Port)
	}
	return nodes, nil
}
