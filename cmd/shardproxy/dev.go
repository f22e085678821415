package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"shardproxy/internal/devcluster"
	"shardproxy/internal/postgres"
	"shardproxy/topology"
)

// serveFunc runs the proxy of a configuration file until ctx is done, and calls ready once it listens.
type serveFunc func(ctx context.Context, configFile string, ready func()) error

const (
	devDir = ".dev"
	// devDirRoot is for a root whose current folder the servers' account may not enter.
	devDirRoot = "/var/lib/shardproxy/dev"
	proxiesMax = 16
)

// devOptions are the flags of `shardproxy dev`.
type devOptions struct {
	cluster     devcluster.Options
	listen      string
	http        string
	tables      []string
	reference   []string
	proxies     int
	serversOnly bool
	verbose     bool
}

// newDevCommand is `shardproxy dev`. serve runs the first proxy in this process.
func newDevCommand(serve serveFunc) *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run the proxy with PostgreSQL shards of its own on this machine",
		Long: `Starts PostgreSQL primaries, streaming replicas and a catalog database on free ports of 127.0.0.1, and the
proxy before them. DIR/dev.json names every DSN and process. Ctrl-C stops all; a second start on the same folder
finds the data again.`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("replicas") {
				o.cluster.Replicas = -1
			}
			return runDev(cmd.Context(), cmd.OutOrStdout(), serve, &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.cluster.Dir, "dir", "", "folder for the data (default "+devDir+"; a temporary one with --ephemeral)")
	f.IntVar(&o.cluster.Shards, "shards", 0, "number of shards (default 4, or as found in the folder)")
	f.IntVar(&o.cluster.Servers, "servers", 0, "number of primaries that share the shards (default one per shard, at most 4)")
	f.IntVar(&o.cluster.Replicas, "replicas", 1, "replicas of each primary")
	f.IntVar(&o.cluster.Spares, "spare", 0, "primaries that are no shards, each with an empty database: dev.json names them for shardctl shard add")
	f.BoolVar(&o.cluster.Ephemeral, "ephemeral", false, "do not sync to disk, and remove the data at the end")
	f.StringVar(&o.listen, "listen", "127.0.0.1:6432", "address of the proxy; port 0 takes a free one")
	f.StringVar(&o.http, "http", "127.0.0.1:9932", "address of metrics and health; port 0 takes a free one")
	f.StringArrayVar(&o.tables, "table", nil, "TABLE.COLUMN: the shard key of a table that no rule finds (repeatable)")
	f.StringArrayVar(&o.reference, "reference", nil, "TABLE: a full copy on every shard (repeatable)")
	f.IntVar(&o.proxies, "proxies", 1, "number of proxies; those after the first are processes on free ports")
	f.BoolVar(&o.serversOnly, "servers-only", false, "start no proxy: run `serve --config DIR/shardproxy.toml` yourself")
	f.BoolVar(&o.verbose, "verbose", false, "log each server")
	return cmd
}

func runDev(ctx context.Context, out io.Writer, serve serveFunc, o *devOptions) (err error) {
	if o.proxies < 1 || o.proxies > proxiesMax {
		return fmt.Errorf("%d proxies: 1 to %d are possible", o.proxies, proxiesMax)
	}
	if o.cluster.Dir == "" && !o.cluster.Ephemeral {
		o.cluster.Dir = defaultDevDir()
	}
	addresses, err := devAddresses(o)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	o.cluster.Log = log

	from := time.Now()
	c, err := devcluster.Start(ctx, o.cluster)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return errors.New("stopped while starting")
		}
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()

	explicit, reference, err := tableRules(o)
	if err != nil {
		return err
	}
	if err := c.SyncCatalog(ctx, explicit, reference); err != nil {
		return err
	}
	configs, err := writeConfigs(c, addresses)
	if err != nil {
		return err
	}
	stopped := ctx.Done()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		c.Watch(ctx)
		return nil
	})
	var proxies []devcluster.ProxyInfo
	if !o.serversOnly {
		proxies, err = startProxies(ctx, g, serve, addresses, configs)
	}
	if err == nil {
		err = c.WriteDevJSON(proxies)
	}
	if err != nil {
		g.Go(func() error { return err }) // ends what runs already
		err = g.Wait()
		select {
		case <-stopped:
			return nil // that is why
		default:
			return err
		}
	}
	greet(out, c, addresses[0], configs[0], proxies, time.Since(from))
	g.Go(func() error {
		<-ctx.Done()
		return nil
	})
	return g.Wait()
}

// defaultDevDir is below the current folder where the servers may enter that.
func defaultDevDir() string {
	if err := postgres.CanEnter(devDir); err != nil {
		return devDirRoot
	}
	return devDir
}

// address is where one proxy listens.
type address struct {
	host   string
	port   int
	http   string
	gossip string // "" for a proxy that is alone
}

// devAddresses checks, before any server is started, that the addresses can be had.
func devAddresses(o *devOptions) ([]address, error) {
	addresses := make([]address, o.proxies)
	var held []net.Listener // until all are found, so that none is found twice
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	claim := func(flag, hostport string) (*net.TCPAddr, error) {
		l, err := claim(flag, hostport)
		if err != nil {
			return nil, err
		}
		held = append(held, l)
		return l.Addr().(*net.TCPAddr), nil
	}
	for i := range addresses {
		listen, http := o.listen, o.http
		if i > 0 {
			listen, http = freePort(o.listen), freePort(o.http)
		}
		l, err := claim("--listen", listen)
		if err != nil {
			return nil, err
		}
		h, err := claim("--http", http)
		if err != nil {
			return nil, err
		}
		addresses[i] = address{host: l.IP.String(), port: l.Port, http: h.String()}
		if o.proxies > 1 {
			g, err := claim("gossip", freePort(o.http))
			if err != nil {
				return nil, err
			}
			addresses[i].gossip = g.String()
		}
	}
	return addresses, nil
}

func freePort(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return hostport // claim says what is wrong with it
	}
	return net.JoinHostPort(host, "0")
}

// claim listens on the address; port 0 takes a free one.
func claim(flag, hostport string) (l net.Listener, err error) {
	if host, port, e := net.SplitHostPort(hostport); e == nil && port == "0" {
		l, err = postgres.ListenQuiet(host)
	} else {
		l, err = net.Listen("tcp", hostport)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, hostport, err)
	}
	return l, nil
}

// tableRules reads the flags --table and --reference.
func tableRules(o *devOptions) (explicit map[topology.TableName]string, reference []topology.TableName, err error) {
	explicit = make(map[topology.TableName]string)
	for _, s := range o.tables {
		table, column, err := topology.ParseColumnName(s, "public")
		if err != nil {
			return nil, nil, fmt.Errorf("--table: %w", err)
		}
		explicit[table] = column
	}
	for _, s := range o.reference {
		table, err := topology.ParseTableName(s, "public")
		if err != nil {
			return nil, nil, fmt.Errorf("--reference: %w", err)
		}
		reference = append(reference, table)
	}
	return explicit, reference, nil
}

// writeConfigs writes one file for each proxy.
func writeConfigs(c *devcluster.Cluster, addresses []address) (paths []string, err error) {
	for i, a := range addresses {
		name := "shardproxy.toml"
		if i > 0 {
			name = fmt.Sprintf("shardproxy-%d.toml", i+1)
		}
		var peers []string
		for j, other := range addresses {
			if j != i && other.gossip != "" {
				peers = append(peers, other.gossip)
			}
		}
		path, err := c.WriteConfig(devcluster.ProxyConfig{
			Name: name, Listen: net.JoinHostPort(a.host, fmt.Sprint(a.port)), HTTP: a.http, Gossip: a.gossip, Peers: peers,
		})
		if err != nil {
			return nil, err
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// greet says what runs and what to try.
func greet(out io.Writer, c *devcluster.Cluster, a address, config string, proxies []devcluster.ProxyInfo, took time.Duration) {
	made := "made"
	if c.Found {
		made = "found"
	}
	replicas := len(c.Shards[0].Nodes) - 1
	fmt.Fprintf(out, "%s %s on %s of PostgreSQL %d with %s each, in %s (%.1f s)\n\n", made,
		plural(len(c.Shards), "shard"), plural(c.Servers, "server"), c.Major, plural(replicas, "replica"), c.Dir, took.Seconds())
	if len(proxies) == 0 {
		fmt.Fprintf(out, "No proxy runs. Start one:  shardproxy serve --config %s\n", config)
		return
	}
	dsn := fmt.Sprintf("postgres://%s:%s@%s:%d/", devcluster.User, devcluster.Password, a.host, a.port)
	fmt.Fprintf(out, "  DSN      %s%s\n", dsn, devcluster.Database)
	for _, p := range proxies[1:] {
		fmt.Fprintf(out, "           %s\n", p.DSN)
	}
	fmt.Fprintf(out, "  console  %s%s\n", dsn, devcluster.AdminDatabase)
	for _, n := range c.Spares {
		fmt.Fprintf(out, "  spare    %s\n", postgres.DSN(devcluster.User, devcluster.Password, n.Host, n.Port, n.Database))
	}
	fmt.Fprintf(out, "  metrics  %s/metrics\n", proxies[0].HTTP)
	fmt.Fprintf(out, "  all      %s/dev.json\n\n", c.Dir)
	fmt.Fprintf(out, "Try:\n  psql %s%s -c 'CREATE TABLE users (id bigint PRIMARY KEY, email text)'\n", dsn, devcluster.Database)
	fmt.Fprintf(out, "  psql %s%s -c \"INSERT INTO users VALUES (1, 'a@example.com') RETURNING *\"\n", dsn, devcluster.Database)
	fmt.Fprintf(out, "  psql %s%s -c 'SHOW SHARDS'\n\nCtrl-C stops everything.\n", dsn, devcluster.AdminDatabase)
}
