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
	Name   string   // of the file in DIR, "shardproxy.toml"
	Listen string   // host:port
	HTTP   string   // host:port
	Gossip string   // host:port, "" for a proxy that is alone
	Peers  []string // the gossip addresses of the others
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
	line("[cluster]\nname = %s\ndatabase = %s\n", quote(clusterName), quote(Database))
	line("[catalog]\ndsn = %s\nstate_file = %s", quote(c.Catalog), quote(c.folder.path(p.Name+".map")))
	if p.Gossip != "" {
		line("\n[gossip]\nlisten = %s\nseeds = [%s]", quote(p.Gossip), quoteAll(p.Peers))
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
