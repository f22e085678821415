package main

import (
	"fmt"
	"strings"

	"shardproxy/internal/postgres"
)

// shardproxyCommand runs shardproxy over n shards.
func shardproxyCommand(n int) func(*environment, string, int) ([]string, error) {
	return func(e *environment, dir string, port int) ([]string, error) {
		path, err := writeConfig(dir, "shardproxy.toml", shardproxyConfig(e, n, port))
		return []string{e.shardproxy, "serve", "--config", path}, err
	}
}

// shardproxyConfig leaves at its default whatever need not be equal to the other targets'.
func shardproxyConfig(e *environment, n, port int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `[listen]
addresses = ["127.0.0.1:%d"]
max_clients = %d
[admin]
http = ""
[[auth.rules]]
address = "127.0.0.0/8"
method = "trust"
[[users]]
name = %q
[pool]
size_max = %d
[cluster]
database = %q
[tables]
explicit = ["pgbench_accounts.aid"]
reference = ["pgbench_branches", "pgbench_tellers", "pgbench_history"]
[server_tls]
sslmode = "disable"
[log]
level = "warn"
`, port, e.clientsMax, postgres.Superuser, e.poolSize, wholeDatabase)
	for i := range n {
		database := wholeDatabase
		if n > 1 {
			database = shardDatabase(i, n)
		}
		fmt.Fprintf(&b, "[[shards]]\nname = \"s%d\"\n[[shards.nodes]]\nhost = %q\nport = %d\ndatabase = %q\n",
			i+1, e.server.Host(), e.server.Port(), database)
	}
	return b.String()
}
