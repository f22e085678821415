package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// options are what the command line asks for.
type options struct {
	targets    []kind
	modes      []string
	clients    []int
	window     time.Duration
	rounds     int
	patience   time.Duration
	scale      int
	pool       int
	idle       []int // ascending
	large      int   // MB
	shardproxy string
	pgbench    string // found by findPrograms
	out        string
}

var allModes = []string{"simple", "extended", "prepared"}

func parseOptions(args []string) (*options, error) {
	flags := flag.NewFlagSet("harness", flag.ExitOnError)
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	targets := flags.String("targets", strings.Join(names, ","), "what to measure; a shardproxy that is not built is left out")
	modes := flags.String("modes", strings.Join(allModes, ","), "pgbench's query modes")
	clients := flags.String("clients", "1,8,64", "numbers of pgbench's clients")
	seconds := flags.Float64("seconds", 3, "length of a run")
	rounds := flags.Int("rounds", 3, "runs of each cell; the median counts")
	patience := flags.Duration("quiet", 5*time.Second, "how long to wait before a run for other processes to leave the machine idle")
	scale := flags.Int("scale", 10, "pgbench's scale: 100,000 accounts each")
	pool := flags.Int("pool", 20, "backends of each pool")
	idle := flags.String("idle", "2000,10000", "numbers of idle clients; empty: none")
	large := flags.Int("large", 500, "megabytes of the large result; 0: none")
	binary := flags.String("shardproxy", "bin/shardproxy", "the binary to measure")
	out := flags.String("out", "bench/results.json", "file for the results")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	o := &options{
		modes:  list(*modes),
		window: time.Duration(*seconds * float64(time.Second)),
		rounds: *rounds, patience: *patience, scale: *scale, pool: *pool, large: *large, shardproxy: *binary, out: *out,
	}
	for _, name := range list(*targets) {
		i := slices.Index(names, name)
		if i < 0 {
			return nil, fmt.Errorf("unknown target %q; there are %s", name, strings.Join(names, ", "))
		}
		o.targets = append(o.targets, kinds[i])
	}
	for _, mode := range o.modes {
		if !slices.Contains(allModes, mode) {
			return nil, fmt.Errorf("unknown mode %q; there are %s", mode, strings.Join(allModes, ", "))
		}
	}
	var err1, err2 error
	o.clients, err1 = numbers(*clients)
	o.idle, err2 = numbers(*idle)
	slices.Sort(o.idle)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if len(o.targets) == 0 || len(o.clients) == 0 {
		return nil, errors.New("no target or no number of clients given")
	}
	if o.window <= 0 || o.rounds < 1 || o.scale < 1 || o.pool < 1 || o.large < 0 {
		return nil, errors.New("seconds, rounds, scale and pool must be above zero, large not below")
	}
	return o, nil
}

// list splits a comma-separated flag.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

func numbers(s string) ([]int, error) {
	var ns []int
	for _, word := range list(s) {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a number above zero", word)
		}
		ns = append(ns, n)
	}
	return ns, nil
}

func (o *options) wants(name string) bool {
	return slices.ContainsFunc(o.targets, func(k kind) bool { return k.name == name })
}

// shardCounts are the numbers of shards, above one, that targets need data for.
func (o *options) shardCounts() []int {
	var counts []int
	for _, k := range o.targets {
		if k.shards > 1 && !slices.Contains(counts, k.shards) {
			counts = append(counts, k.shards)
		}
	}
	return counts
}

// findPrograms looks for what the targets run, and drops shardproxy where it is not built.
func (o *options) findPrograms(ctx context.Context, e *environment) (err error) {
	if o.pgbench, err = exec.LookPath("pgbench"); err != nil {
		return fmt.Errorf("%w: install PostgreSQL's client programs (Debian: postgresql-client, postgresql-contrib)", err)
	}
	if o.wants("pgbouncer") {
		e.pgbouncer, err = exec.LookPath("pgbouncer")
		if err != nil {
			return fmt.Errorf("%w: install it (Debian: apt-get install pgbouncer) or leave it out of -targets", err)
		}
		version, err := exec.CommandContext(ctx, e.pgbouncer, "--version").Output()
		if err != nil {
			return fmt.Errorf("pgbouncer --version: %w", err)
		}
		e.pgbouncerPrepares = pgbouncerPrepares(version)
	}
	if _, err := os.Stat(o.shardproxy); errors.Is(err, fs.ErrNotExist) {
		progress("%s is not built: shardproxy is left out", o.shardproxy)
		o.targets = slices.DeleteFunc(o.targets, func(k kind) bool { return strings.HasPrefix(k.name, "shardproxy") })
		if len(o.targets) == 0 {
			return errors.New("no target is left")
		}
	}
	return nil
}
