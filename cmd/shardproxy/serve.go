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
	"shardproxy/rebalance"
	"shardproxy/rebalance/join"
	"shardproxy/topology"
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
	return serveAfter(ctx, file, func(context.Context, *service) {}, ready)
}

// serveAfter is serve that does something first, before it waits for a shard.
func serveAfter(ctx context.Context, file string, first func(context.Context, *service), ready func()) error {
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
	first(ctx, s)
	if err := s.start(ctx, running); err != nil {
		stop()
		s.closeListeners()
		return errors.Join(err, g.Wait())
	}
	ready()
	s.end(ctx, s.awaitEnd(ctx, running), stop)
	stop()
	return g.Wait()
}

// service is the parts of a running proxy.
type service struct {
	config    *config.Config // with which it began; process has the one in force
	log       *slog.Logger
	process   *process
	server    *proxy.Server
	console   *admin.Console
	listeners []net.Listener // of clients
	web       net.Listener   // of metrics and health; may be nil

	keeper      *topology.Keeper       // nil: the map is in the configuration file
	coordinator *rebalance.Coordinator // of moves; nil likewise
	joiner      *join.Joiner           // of shards; nil likewise
	gossip      *topology.Gossip       // nil: there is none
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
	p, err := newProcess(file, c)
	if err != nil {
		return nil, err
	}
	s := &service{config: c, log: p.log, process: p}
	first, err := s.firstMap(ctx)
	if err != nil {
		return nil, err
	}
	live, err := liveConfig(c, p.tls.Load())
	if err != nil {
		return nil, err
	}
	cfg := proxy.Config{Fixed: fixedConfig(c, first, s.log), Live: *live}
	if s.keeper != nil {
		cfg.SchemaChanged, cfg.Behind = s.keeper.SchemaChanged, s.keeper.Behind
	}
	if s.gossip != nil {
		cfg.Peers, cfg.Checks = peersOf(s.gossip), s.gossip.Mine
	}
	if s.server, err = proxy.NewServer(cfg); err != nil {
		return nil, err
	}
	console := admin.Config{
		Version: version(), AdminUsers: c.Admin.Users, StatsUsers: c.Admin.StatsUsers, Control: s.server, Process: p, Log: s.log,
	}
	if s.keeper != nil {
		console.Operator = s.keeper
		if s.coordinator, err = s.newCoordinator(); err != nil {
			return nil, err
		}
		s.joiner = s.newJoiner()
		console.Joiner = s.joiner
		console.Mover = mover{s.keeper.Catalog(), s.coordinator, s.server}
	}
	if s.gossip != nil {
		console.Peers, console.Gossip = s.gossip.Peers, s.gossip
	}
	d, err := s.newDoctor()
	if err != nil {
		return nil, err
	}
	console.Doctor = d.Examine
	console.Fences = fences{s}
	s.console = admin.NewConsole(console, s.server)
	s.server.Console = s.console
	p.server, p.console = s.server, s.console
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
	s.gossip, err = s.newGossip(keeper)
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
		metrics := admin.NewRegistry(s.server)
		if s.gossip != nil {
			admin.AddGossip(metrics, s.gossip, s.server)
		}
		if s.coordinator != nil {
			admin.AddMoves(metrics, s.coordinator.Own)
		}
		h := admin.NewHTTP(admin.HTTPConfig{
			Pprof: s.config.Admin.Pprof, Metrics: metrics, NotReady: s.server.Ready, Notes: s.notes, Log: s.log,
		})
		s.log.Info("metrics and health", "address", s.web.Addr().String())
		run(func(ctx context.Context) error { return h.Serve(ctx, s.web) })
	}
	run(s.process.watchCertificates)
	run(func(ctx context.Context) error {
		s.reloadOnHangup(ctx, hangup)
		return nil
	})
	run(s.server.Run)
	run(s.console.Run)
	if s.keeper != nil {
		run(s.keeper.Run)
		run(s.coordinator.Run)
		run(s.joiner.Watch)
	}
	if s.gossip != nil {
		run(s.gossip.Run)
	}
}

// notes says what an operator should know although the proxy serves.
func (s *service) notes() []string {
	var notes []string
	if s.keeper != nil && s.keeper.Trouble() != "" {
		notes = append(notes, s.keeper.Trouble())
	}
	if s.server.Paused("") {
		notes = append(notes, "paused: work waits for RESUME")
	}
	return notes
}

// start waits for a shard, until ctx or running ends. A wait that is ended by ctx, which is a signal, is no error.
func (s *service) start(ctx, running context.Context) error {
	starting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(running, cancel)()
	defer context.AfterFunc(s.process.told, cancel)()
	err := s.server.Start(starting)
	if err != nil && starting.Err() != nil {
		return nil // the caller sees that ctx or running has ended
	}
	return err
}

func (s *service) reloadOnHangup(ctx context.Context, hangup <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			_, _, _ = s.process.Reload() // it logs what came of it
		}
	}
}

func newLogger(c config.Log, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}
