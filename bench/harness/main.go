// Command harness measures shardproxy beside plain PostgreSQL, PgBouncer and a bare relay, each a
// process of its own on this machine: point reads by pgbench, idle clients, a large result.
// bench/README.md says what the figures mean.
//
//	options ─► environment (one PostgreSQL server, loaded) ─► targets ─┬─ pgbench.run ──┐
//	                                                                   ├─ measureIdle ──┼─► report ─► table, JSON
//	                                                                   └─ measureLarge ─┘
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// tempPrefix begins the name of the folder of a run, under TMPDIR.
const tempPrefix = "shardproxy-bench-"

func main() {
	opts, err := parseOptions(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, opts); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures everything and leaves nothing behind: no process, no file but the results.
func run(ctx context.Context, opts *options) (err error) {
	if len(opts.idle) > 0 {
		if err := raiseFileLimit(slices.Max(opts.idle)); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", tempPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // the servers run as another user than root
		return err
	}
	e, err := prepare(ctx, opts, dir)
	if e != nil {
		defer func() { err = errors.Join(err, e.server.StopImmediately()) }()
	}
	if err != nil {
		return err
	}
	r := newReport(opts)
	err = errors.Join(
		throughput(ctx, e, opts, r),
		idle(ctx, e, opts, r),
		large(ctx, e, opts, r),
	)
	r.finish()
	if r.hasResults() {
		err = errors.Join(err, r.print(os.Stdout))
	}
	if ctx.Err() != nil {
		return ctx.Err() // what an earlier, whole run wrote stays
	}
	return errors.Join(err, r.write(opts.out))
}

// prepare checks the programs, builds the relay, and starts and loads the server. It returns the
// environment as soon as there is a server to stop.
func prepare(ctx context.Context, opts *options, dir string) (*environment, error) {
	e := &environment{dir: dir, poolSize: opts.pool, relay: filepath.Join(dir, "relay"), shardproxy: opts.shardproxy}
	e.clientsMax = slices.Max(slices.Concat(opts.clients, opts.idle)) + 100
	if err := opts.findPrograms(ctx, e); err != nil {
		return nil, err
	}
	if opts.wants("relay") {
		progress("building the relay")
		build := exec.CommandContext(ctx, "go", "build", "-o", e.relay, "shardproxy/bench/relay")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build the relay: %w\n%s", err, out)
		}
	}
	progress("starting PostgreSQL, pgbench scale %d", opts.scale)
	server, err := startServer(ctx, dir)
	if err != nil {
		return nil, err
	}
	e.server = server
	if e.serverUser, err = ownerOf(server); err != nil {
		return e, err
	}
	load := &loader{pgbench: opts.pgbench, server: server, scale: opts.scale}
	if err := load.whole(ctx); err != nil {
		return e, err
	}
	for _, n := range opts.shardCounts() {
		if err := load.sharded(ctx, n); err != nil {
			return e, err
		}
	}
	return e, load.settle(ctx)
}

// throughput drives all targets by pgbench, taking turns, so that what else the machine does
// strikes all alike; each round begins with another target.
func throughput(ctx context.Context, e *environment, opts *options, r *report) error {
	bench := &pgbench{binary: opts.pgbench, dir: e.dir, accounts: opts.scale * accountsPerScale, window: opts.window}
	targets, err := startAll(ctx, e, opts.targets)
	defer stopAll(targets)
	if err != nil {
		return err
	}
	for round := range opts.rounds {
		for _, mode := range opts.modes {
			for _, clients := range opts.clients {
				for i := range targets {
					t := targets[(i+round)%len(targets)]
					if !e.canRun(t.kind, mode) {
						continue
					}
					progress("round %d of %d: %s, %d clients, %s", round+1, opts.rounds, mode, clients, t.name)
					l := load{Mode: mode, Clients: clients}
					s, err := runQuietly(ctx, bench, t, l, opts.patience)
					if err != nil {
						return fmt.Errorf("%s, %s, %d clients: %w", t.name, mode, clients, err)
					}
					r.addSample(t.name, l, s)
				}
			}
		}
	}
	return nil
}

func runQuietly(ctx context.Context, bench *pgbench, t *target, l load, patience time.Duration) (s sample, err error) {
	quiet, err := quietly(ctx, patience, func() (err error) {
		s, err = bench.run(ctx, t, l)
		return err
	})
	s.Noisy = !quiet
	return s, err
}

// idle measures each target that pools in a new process, whose memory no earlier load has shaped.
func idle(ctx context.Context, e *environment, opts *options, r *report) error {
	for _, k := range opts.targets {
		if !k.pools || len(opts.idle) == 0 || ctx.Err() != nil {
			continue
		}
		progress("idle clients: %s", k.name)
		t, err := e.start(ctx, k)
		if err != nil {
			return err
		}
		results, err := measureIdle(ctx, t, opts.idle)
		t.stop()
		r.Idle = append(r.Idle, results...)
		if err != nil {
			return err
		}
	}
	return nil
}

// large measures in new processes too, so that the peak of the RSS is that of the result.
func large(ctx context.Context, e *environment, opts *options, r *report) error {
	if opts.large == 0 || ctx.Err() != nil {
		return nil
	}
	for round := range opts.rounds {
		for _, k := range opts.targets {
			progress("round %d of %d: large result, %s", round+1, opts.rounds, k.name)
			t, err := e.start(ctx, k)
			if err != nil {
				return err
			}
			var result largeResult
			quiet, err := quietly(ctx, opts.patience, func() (err error) {
				result, err = measureLarge(ctx, t, opts.large)
				return err
			})
			t.stop()
			if err != nil {
				return err
			}
			result.Noisy = !quiet
			r.addLarge(result)
		}
	}
	return nil
}

// startAll starts all or, with an error, returns those that run.
func startAll(ctx context.Context, e *environment, kinds []kind) (targets []*target, err error) {
	for _, k := range kinds {
		t, err := e.start(ctx, k)
		if err != nil {
			return targets, err
		}
		targets = append(targets, t)
	}
	return targets, nil
}

func stopAll(targets []*target) {
	for _, t := range targets {
		t.stop()
	}
}

// progress says on standard error what is going on.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
