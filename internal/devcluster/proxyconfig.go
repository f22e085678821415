package devcluster

import (
	"encoding/json"
	"fmt"
	"strings"
)

// AdminDatabase is the virtual database of the admin console.
const AdminDatabase = "shardproxy"

// ProxyConfig is what the configuration of one proxy says beside the cluster itself.
type ProxyConfig struct {
	Name      string   // of the file in DIR, "shardproxy.toml"
	Listen    string   // host:port
	HTTP      string   // host:port
	Tables    []string // table.column of shard keys
	Reference []string // reference tables
}

// WriteConfig writes the file that `serve --config` reads, and returns its path. internal/config explains the keys.
func (c *Cluster) WriteConfig(p ProxyConfig) (path string, err error) {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("# Written by shardproxy dev at each start.")
	line("[listen]\naddresses = [%s]\ndrain_timeout = \"1s\"\n", quote(p.Listen)) // Ctrl-C is not to wait for a forgotten psql
	line("[admin]\nhttp = %s\nusers = [%s]\n", quote(p.HTTP), quote(User))
	line("[[users]]\nname = %s\nsecret = %s\n", quote(User), quote(Password))
	line("[server_tls]\nsslmode = \"disable\"\n") // the servers are on this machine
	line("[cluster]\nname = \"dev\"\ndatabase = %s\n", quote(Database))
	line("[tables]\nexplicit = [%s]\nreference = [%s]", quoteAll(p.Tables), quoteAll(p.Reference))
	for _, s := range c.Shards {
		line("\n[[shards]]\nname = %s", quote(s.Name))
		for _, n := range s.Nodes {
			line("[[shards.nodes]]\nhost = %s\nport = %d\ndatabase = %s\nrole = %s",
				quote(n.Host), n.Port, quote(n.Database), quote(n.Role.String()))
		}
	}
	// It holds the password of the development user.
	return c.folder.path(p.Name), c.folder.writeFile(p.Name, []byte(b.String()), 0o600)
}

// quote writes a TOML basic string; a JSON string is one.
func quote(s string) string {
	quoted, _ := json.Marshal(s) // a string cannot fail
	return string(quoted)
}

func quoteAll(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quote(s)
	}
	return strings.Join(quoted, ", ")
}
