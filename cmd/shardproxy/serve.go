package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"shardproxy/admin"
	"shardproxy/internal/config"
	"shardproxy/proxy"
	"shardproxy/topology"
	"shardproxy/wire"
)

// certificatesEvery is how often the certificate files are looked at: a renewal is not urgent.
const certificatesEvery = 5 * time.Second

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
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // from the start: unhandled, it ends the process
	defer signal.Stop(hangup)

	s, err := newService(ctx, file)
	if err != nil {
		return err
	}
	if err := s.listen(ctx); err != nil {
		return err
	}
	defer s.closeListeners()
	// What serves clients outlives ctx until they are drained.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, running := errgroup.WithContext(running)
	s.runBeside(running, g, hangup)
	for _, l := range s.listeners {
		g.Go(func() error { return s.server.Serve(running, l) })
		s.log.Info("listening", "address", l.Addr().String())
	}
	if err := s.start(ctx, running); err != nil {
		stop()
		s.closeListeners()
		return errors.Join(err, g.Wait())
	}
	ready()
	select {
	case <-ctx.Done():
	case <-running.Done():
	}
	s.drain(stop)
	stop()
	return g.Wait()
}

// service is the parts of a running proxy.
type service struct {
	config    *config.Config
	log       *slog.Logger
	tls       *wire.ServerTLS // nil: clients get none
	server    *proxy.Server
	console   *admin.Console
	listeners []net.Listener // of clients
	web       net.Listener   // of metrics and health; may be nil

	keeper *topology.Keeper // nil: the map is in the configuration file
	gossip *topology.Gossip // nil: there is none
}

// newService makes the parts that a configuration file asks for. Nothing runs or listens yet.
func newService(ctx context.Context, file string) (*service, error) {
	c, err := config.Load(file)
	if err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &service{config: c, log: newLogger(c.Log)}
	first, err := s.firstMap(ctx)
	if err != nil {
		return nil, err
	}
	cfg, err := proxyConfig(c, first, s.log)
	if err != nil {
		return nil, err
	}
	s.tls = cfg.Accept.TLS
	if s.keeper != nil {
		cfg.SchemaChanged = s.keeper.SchemaChanged
	}
	if s.server, err = proxy.NewServer(*cfg); err != nil {
		return nil, err
	}
	if c.Auth.Query != "" {
		as := &proxy.User{ServerUser: c.Auth.QueryUser, ServerPassword: c.Auth.QueryPassword.Reveal()}
		s.server.SetLookup(s.server.QueryUsers(c.Auth.Query, as, poolMode(c.Pool.Mode)))
	}
	console := admin.Config{
		Version: version(), Database: c.Cluster.Database, PoolMode: poolMode(c.Pool.Mode), Limits: cfg.Pools, Users: cfg.Users,
		AdminUsers: c.Admin.Users, StatsUsers: c.Admin.StatsUsers, Log: s.log,
	}
	if s.keeper != nil {
		console.Operator = s.keeper
	}
	if s.gossip != nil {
		console.Peers = s.gossip.Peers
	}
	s.console = admin.NewConsole(console, s.server)
	s.server.Console = s.console
	return s, nil
}

// firstMap gives the map that the proxy begins with.
func (s *service) firstMap(ctx context.Context) (*topology.Snapshot, error) {
	if s.config.Catalog.DSN == "" {
		return fileMap(s.config)
	}
	onSchema := func() { s.server.SchemaChanged() } // gossip runs once there is a server
	keeper, err := startKeeper(ctx, s.config, s.log, onSchema, func(next *topology.Snapshot) {
		if s.server != nil { // the first one is given to it by hand
			s.server.Publish(next)
		}
	})
	if err != nil {
		return nil, err
	}
	s.keeper = keeper
	s.gossip, err = newGossip(s.config, keeper, s.log)
	return keeper.Snapshot(), err
}

// listen opens all addresses, or none.
func (s *service) listen(ctx context.Context) (err error) {
	if s.listeners, err = listenClients(ctx, &s.config.Listen); err != nil {
		return err
	}
	if address := s.config.Admin.HTTP; address != "" {
		var lc net.ListenConfig
		if s.web, err = lc.Listen(ctx, "tcp", address); err != nil {
			s.closeListeners()
			return err
		}
	}
	return nil
}

func (s *service) closeListeners() {
	for _, l := range s.listeners {
		_ = l.Close()
	}
	if s.web != nil {
		_ = s.web.Close()
	}
}

// runBeside runs all but the clients' listeners, in g, until ctx ends.
func (s *service) runBeside(ctx context.Context, g *errgroup.Group, hangup <-chan os.Signal) {
	run := func(f func(context.Context) error) {
		g.Go(func() error {
			if err := f(ctx); !errors.Is(err, context.Canceled) {
				return err
			}
			return nil
		})
	}
	if s.web != nil {
		h := admin.NewHTTP(admin.HTTPConfig{
			Pprof: s.config.Admin.Pprof, Metrics: admin.NewRegistry(s.server), NotReady: s.server.Ready, Notes: s.notes, Log: s.log,
		})
		s.log.Info("metrics and health", "address", s.web.Addr().String())
		run(func(ctx context.Context) error { return h.Serve(ctx, s.web) })
	}
	if s.tls != nil {
		run(func(ctx context.Context) error { return s.tls.Run(ctx, certificatesEvery, s.reportReload) })
	}
	run(func(ctx context.Context) error {
		s.reloadOnHangup(ctx, hangup)
		return nil
	})
	run(s.server.Run)
	run(s.console.Run)
	if s.keeper != nil {
		run(s.keeper.Run)
	}
	if s.gossip != nil {
		run(s.gossip.Run)
	}
}

// notes says what an operator should know although the proxy serves.
func (s *service) notes() []string {
	if s.keeper == nil || s.keeper.Trouble() == "" {
		return nil
	}
	return []string{s.keeper.Trouble()}
}

// start waits for a shard, until ctx or running ends. A wait that is ended by ctx, which is a signal, is no error.
func (s *service) start(ctx, running context.Context) error {
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(running, cancel)()
	err := s.server.Start(starting)
	if err != nil && starting.Err() != nil {
		return nil // the caller sees that ctx or running has ended
	}
	return err
}

// drain closes the listeners and lets clients end their transactions. When the time for that is up, stop is called,
// which ends what still waits for something.
func (s *service) drain(stop func()) {
	for _, l := range s.listeners {
		_ = l.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.config.Listen.DrainTimeout.Duration)
	defer cancel()
	defer context.AfterFunc(ctx, stop)()
	if err := s.server.Shutdown(ctx); err != nil {
		s.log.Warn("drain", "error", err)
	}
}

func (s *service) reloadOnHangup(ctx context.Context, hangup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			if s.tls == nil {
				s.log.Info("SIGHUP: there is nothing to read again")
				continue
			}
			s.reportReload(s.tls.Reload())
		}
	}
}

func (s *service) reportReload(err error) {
	if err != nil {
		s.log.Error("TLS certificate could not be read again, the former stays in use", "error", err)
		return
	}
	s.log.Info("TLS certificate read again")
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
