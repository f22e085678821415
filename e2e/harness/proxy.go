package harness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Proxy is a process of `shardproxy serve` before the shards of a cluster.
type Proxy struct {
	*process
	DSN  string
	HTTP string
}

// StartAgain starts proxy number i of the cluster (from 0) anew, after it has ended, and returns once it listens.
func (c *Cluster) StartAgain(ctx context.Context, binary string, i int) (*Proxy, error) {
	dir, err := TempDir()
	if err != nil {
		return nil, err
	}
	name := "shardproxy.toml"
	if i > 0 {
		name = fmt.Sprintf("shardproxy-%d.toml", i+1)
	}
	process, err := launch(dir, binary, "serve", "--config", filepath.Join(c.Dir, name))
	if err != nil {
		return nil, err
	}
	p := &Proxy{process: process, DSN: c.Proxies[i].DSN, HTTP: c.Proxies[i].HTTP}
	address, err := url.Parse(p.DSN)
	if err != nil {
		return nil, err
	}
	if err := p.await(ctx, func() bool { return listens(address.Host) }); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// StartProxy starts a further proxy before the cluster's shards. tables are TABLE.COLUMN of shard keys;
// settings are lines of TOML put before its tables of shards, such as "[pool]\nsize_max = 2".
func (c *Cluster) StartProxy(ctx context.Context, binary string, tables []string, settings string) (*Proxy, error) {
	dir, err := TempDir()
	if err != nil {
		return nil, err
	}
	listen, http, err := freePorts()
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[listen]\naddresses = [%q]\ndrain_timeout = \"1s\"\n[admin]\nhttp = %q\nusers = [\"app\"]\n", listen, http)
	fmt.Fprintf(&b, "[[users]]\nname = \"app\"\nsecret = \"app\"\n[tables]\nexplicit = [\"%s\"]\n%s\n", strings.Join(tables, `", "`), settings)
	for _, s := range c.Shards {
		node, err := url.Parse(s.Primary().DSN)
		if err != nil {
			return nil, err
		}
		host, port, err := net.SplitHostPort(node.Host)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "[[shards]]\nname = %q\n[[shards.nodes]]\nhost = %q\nport = %s\ndatabase = %q\n",
			s.Name, host, port, strings.TrimPrefix(node.Path, "/"))
	}
	p, err := serve(ctx, dir, binary, listen, b.String())
	if p != nil {
		p.HTTP = "http://" + http
	}
	return p, err
}

// Addresses are where a proxy of Serve listens.
type Addresses struct{ Listen, HTTP, Gossip string }

// FreeAddresses gives some on which nobody listens now.
func FreeAddresses() (a Addresses, err error) {
	if a.Listen, a.HTTP, err = freePorts(); err != nil {
		return a, err
	}
	a.Gossip, _, err = freePorts()
	return a, err
}

// Serve starts a proxy with a configuration of the caller's, without its addresses, and returns once it listens.
func Serve(ctx context.Context, binary string, at Addresses, config string) (*Proxy, error) {
	dir, err := TempDir()
	if err != nil {
		return nil, err
	}
	p, err := serve(ctx, dir, binary, at.Listen, fmt.Sprintf("[listen]\naddresses = [%q]\ndrain_timeout = \"1s\"\n[admin]\nhttp = %q\nusers = [\"app\"]\n%s", at.Listen, at.HTTP, config))
	if p != nil {
		p.HTTP = "http://" + at.HTTP
	}
	return p, err
}

func serve(ctx context.Context, dir, binary, listen, config string) (*Proxy, error) {
	file := filepath.Join(dir, "shardproxy.toml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	process, err := launch(dir, binary, "serve", "--config", file)
	if err != nil {
		return nil, err
	}
	p := &Proxy{process: process, DSN: "postgres://app:app@" + listen + "/app?sslmode=disable"}
	if err := p.await(ctx, func() bool { return listens(listen) }); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}
