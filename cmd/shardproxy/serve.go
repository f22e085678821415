package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"shardproxy/admin"
	"shardproxy/backend"
	"shardproxy/internal/config"
	"shardproxy/proxy"
	"shardproxy/router"
	"shardproxy/wire"
)

// newServeCommand is `shardproxy serve`.
func newServeCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:          "serve --config FILE",
		Short:        "Run the proxy",
		Long:         "Runs the proxy of a configuration file until SIGTERM or Ctrl-C, which let transactions end first.",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), file, func() {})
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (TOML)")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag is declared one line above
	}
	return cmd
}

// serve runs the proxy of a configuration file until ctx is done, and calls ready once it listens.
func serve(ctx context.Context, file string, ready func()) error {
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	if err := c.Validate(); err != nil {
		return err
	}
	log := newLogger(c.Log)
	cfg, err := proxyConfig(c, log)
	if err != nil {
		return err
	}
	server, err := proxy.NewServer(*cfg)
	if err != nil {
		return err
	}
	if c.Auth.Query != "" {
		as := &proxy.User{ServerUser: c.Auth.QueryUser, ServerPassword: c.Auth.QueryPassword.Reveal()}
		server.SetLookup(server.QueryUsers(c.Auth.Query, as, poolMode(c.Pool.Mode)))
	}
	console := admin.NewConsole(admin.Config{
		Version: version(), Database: c.Cluster.Database, PoolMode: poolMode(c.Pool.Mode), Limits: cfg.Pools, Users: cfg.Users,
		AdminUsers: c.Admin.Users, StatsUsers: c.Admin.StatsUsers, Log: log,
	}, server)
	server.Console = console

	listeners, err := listen(ctx, &c.Listen)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range listeners {
			_ = l.Close()
		}
	}()
	// What serves clients outlives ctx until they are drained.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, running := errgroup.WithContext(running)
	if c.Admin.HTTP != "" {
		h := admin.NewHTTP(admin.HTTPConfig{
			Address: c.Admin.HTTP, Pprof: c.Admin.Pprof, Metrics: admin.NewRegistry(server), NotReady: server.Ready, Log: log,
		})
		g.Go(func() error { return ignoreCanceled(h.Run(running)) })
	}
	if err := server.Start(ctx); err != nil {
		return err
	}
	if tls := cfg.Accept.TLS; tls != nil {
		g.Go(func() error {
			return ignoreCanceled(tls.Run(running, 10*time.Second, func(err error) { log.Error("TLS certificate", "error", err) }))
		})
		go reloadOnHangup(running, tls, log)
	}
	g.Go(func() error { return ignoreCanceled(server.Run(running)) })
	g.Go(func() error { return ignoreCanceled(console.Run(running)) })
	for _, l := range listeners {
		g.Go(func() error { return server.Serve(running, l) })
		log.Info("listening", "address", l.Addr().String())
	}
	ready()
	select {
	case <-ctx.Done():
	case <-running.Done():
	}
	for _, l := range listeners {
		_ = l.Close()
	}
	drain, cancel := context.WithTimeout(context.Background(), c.Listen.DrainTimeout.Duration)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		log.Warn("drain", "error", err)
	}
	stop()
	return g.Wait()
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func reloadOnHangup(ctx context.Context, tls *wire.ServerTLS, log *slog.Logger) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			if err := tls.Reload(); err != nil {
				log.Error("TLS certificate", "error", err)
			} else {
				log.Info("TLS certificate loaded again")
			}
		}
	}
}

func newLogger(c config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // checked by Validate
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// listen opens all addresses, or none.
func listen(ctx context.Context, c *config.Listen) (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
		}
	}()
	var lc net.ListenConfig
	for _, address := range c.Addresses {
		l, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			return listeners, err
		}
		listeners = append(listeners, l)
	}
	if c.UnixSocketDir == "" {
		return listeners, nil
	}
	_, port, err := net.SplitHostPort(c.Addresses[0])
	if err != nil {
		return listeners, err
	}
	path := filepath.Join(c.UnixSocketDir, ".s.PGSQL."+port)
	if err := removeStale(ctx, path); err != nil {
		return listeners, err
	}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return listeners, err
	}
	return append(listeners, l), os.Chmod(path, 0o777) //nolint:gosec // as PostgreSQL's: authentication decides
}

// removeStale removes the socket of a process that has gone.
func removeStale(ctx context.Context, path string) error {
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var d net.Dialer
	if conn, err := d.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return fmt.Errorf("%s: another process listens on it", path)
	}
	return os.Remove(path)
}

// proxyConfig is what the file means for the proxy.
func proxyConfig(c *config.Config, log *slog.Logger) (*proxy.Config, error) {
	shards, ranges, err := c.Topology()
	if err != nil {
		return nil, err
	}
	rules, err := c.KeyRules()
	if err != nil {
		return nil, err
	}
	access, err := accessRules(c.Auth.Rules)
	if err != nil {
		return nil, err
	}
	toNodes, err := wire.LoadClientTLS(wire.ClientTLSFiles{
		Mode: wire.SSLMode(c.ServerTLS.SSLMode), RootCert: c.ServerTLS.RootCert, Cert: c.ServerTLS.Cert, Key: c.ServerTLS.Key,
	})
	if err != nil {
		return nil, fmt.Errorf("server_tls: %w", err)
	}
	cfg := &proxy.Config{
		Cluster: c.Cluster.Name, Database: c.Cluster.Database, Shards: shards, Ranges: ranges, Rules: rules,
		Accept: wire.AcceptConfig{
			RequireTLS: c.Listen.TLSRequire, Timeout: c.Listen.LoginTimeout.Duration, MaxStartupBytes: c.Listen.MaxStartupBytes,
		},
		Auth: wire.AuthConfig{Timeout: c.Listen.LoginTimeout.Duration}, Access: access,
		MaxClients: c.Listen.MaxClients, MaxUnauthenticated: c.Listen.MaxUnauthenticated, Users: make(map[string]*proxy.User),
		ServerTLS: toNodes, ConnectTimeout: c.Pool.ConnectTimeout.Duration,
		Pools: backend.Limits{
			Min: c.Pool.SizeMin, Max: c.Pool.SizeMax, Total: c.Pool.MaxBackends, Wait: c.Pool.AcquireTimeout.Duration,
			Idle: c.Pool.IdleTimeout.Duration, Lifetime: c.Pool.Lifetime.Duration, CheckAfter: c.Pool.CheckAfter.Duration,
			Statements: c.Pool.PreparedStatements,
		},
		Router:       router.Config{CacheEntries: c.Limits.PlanCacheEntries, MaxTokens: c.Limits.ParserTokens, MaxBytes: c.Limits.QueryBytes},
		MessageBytes: c.Limits.MessageBytes, QueryBytes: c.Limits.QueryBytes, PreparedStatements: c.Limits.PreparedStatements,
		Log: log,
	}
	if c.Listen.TLSCert != "" {
		files := wire.ServerTLSFiles{Cert: c.Listen.TLSCert, Key: c.Listen.TLSKey}
		if c.Listen.TLSClientCerts != "none" {
			files.ClientCA = c.Listen.TLSClientCA
		}
		if cfg.Accept.TLS, err = wire.LoadServerTLS(files); err != nil {
			return nil, fmt.Errorf("listen.tls_cert: %w", err)
		}
	}
	for i := range c.Users {
		u := proxyUser(c, &c.Users[i])
		cfg.Users[u.Name] = u
		if cfg.Service == nil {
			cfg.Service = u
		}
	}
	if c.Cluster.ServiceUser != "" {
		cfg.Service = &proxy.User{ServerUser: c.Cluster.ServiceUser, ServerPassword: c.Cluster.ServicePassword.Reveal()}
	}
	if cfg.Service == nil {
		return nil, errors.New("cluster.service_user is needed where there are no [[users]]")
	}
	return cfg, nil
}

func proxyUser(c *config.Config, u *config.User) *proxy.User {
	p := &proxy.User{
		Name: u.Name, Secret: wire.Secret(u.Secret.Reveal()), ServerUser: u.ServerUser, ServerPassword: u.ServerPassword.Reveal(),
		Pooling: poolMode(c.Pool.Mode), MaxConnections: u.MaxConnections,
	}
	if p.ServerUser == "" {
		p.ServerUser = u.Name
	}
	if p.ServerPassword == "" {
		p.ServerPassword = u.Secret.Reveal()
	}
	if u.PoolMode != "" {
		p.Pooling = poolMode(u.PoolMode)
	}
	return p
}

func poolMode(name string) proxy.PoolMode {
	if name == "session" {
		return proxy.SessionPooling
	}
	return proxy.TransactionPooling
}

// accessRules turns the rules of the file into those of wire.
func accessRules(list []config.AuthRule) (wire.Rules, error) {
	var rules wire.Rules
	for i, r := range list {
		method, err := wire.ParseMethod(r.Method)
		if err != nil {
			return nil, fmt.Errorf("auth.rules[%d]: %w", i, err)
		}
		line := []string{r.Type, r.Database, r.User}
		if r.Type != "local" {
			line = append(line, cidr(r.Address))
		}
		rule, err := wire.ParseRule(strings.Join(append(line, string(method)), " "))
		if err != nil {
			return nil, fmt.Errorf("auth.rules[%d]: %w", i, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// cidr gives a bare address the length of all its bits.
func cidr(address string) string {
	if a, err := netip.ParseAddr(address); err == nil {
		return address + "/" + strconv.Itoa(a.BitLen())
	}
	return address
}
