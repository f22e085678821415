package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"

	"shardproxy/internal/config"
	"shardproxy/topology"
)

const fileHelp = `FILE is TOML with [cluster], [[shards]], [[ranges]] and [tables], as in the configuration of a proxy, which may be given
itself; - is standard input.`

func (o *options) initCommand() *cobra.Command {
	var dsn, file string
	var migrateOnly bool
	cmd := &cobra.Command{
		Use:   "init --catalog DSN {-f FILE | --migrate-only}",
		Short: "Create a cluster in a catalog, or bring the catalog's tables up to date",
		Long: `Creates the schema shardproxy in the catalog's database, or brings it up to date, and creates the cluster of FILE there. If a cluster
of that name is there already, its topology is left alone; a cluster of another name is refused. With --migrate-only no cluster
is created: that is for an upgrade.

Without [[ranges]] the shards get equal parts of the keys, in their order, or with

    [cluster]
    placement = "consistent"
    slots = 16384            # if left out

those of consistent hashing with bounded loads, which moves less when shards join later.

` + fileHelp,
		Example: "  shardctl init --catalog postgres://dba@catalog/shardproxy_catalog -f cluster.toml\n  shardctl init --catalog postgres://dba@catalog/shardproxy_catalog --migrate-only",
		Args:    between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case migrateOnly && file != "":
				return usageError{cmd.CommandPath(), errors.New("--migrate-only creates no cluster, so it takes no file")}
			case migrateOnly:
				return o.migrate(cmd, dsn)
			}
			return o.createCluster(cmd, dsn, file)
		},
	}
	catalogFlag(cmd, &dsn)
	fileFlag(cmd, &file)
	cmd.Flags().BoolVar(&migrateOnly, "migrate-only", false, "only create the catalog's tables, or bring them up to date")
	return cmd
}

func (o *options) exportCommand() *cobra.Command {
	var dsn string
	cmd := &cobra.Command{
		Use:     "export --catalog DSN",
		Short:   "Print the topology of a catalog as a file for import",
		Example: "  shardctl export --catalog postgres://dba@catalog/shardproxy_catalog > cluster.toml",
		Args:    between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			catalog, explained, err := openCatalog(cmd, dsn)
			if err != nil {
				return err
			}
			snap, err := catalog.Load(cmd.Context())
			if err != nil {
				return explained(err)
			}
			text, err := config.FormatCluster(snap)
			if err == nil {
				_, err = cmd.OutOrStdout().Write(text)
			}
			return err
		},
	}
	catalogFlag(cmd, &dsn)
	return cmd
}

func catalogFlag(cmd *cobra.Command, dsn *string) {
	cmd.Flags().StringVar(dsn, "catalog", "", "DSN of the catalog's database (default $SHARDCTL_CATALOG)")
}

func fileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "file", "f", "", "the cluster (TOML)")
}

// openCatalog also gives what makes one line of an error of the catalog.
func openCatalog(cmd *cobra.Command, dsn string) (*topology.Catalog, func(error) error, error) {
	if dsn = cmp.Or(dsn, os.Getenv("SHARDCTL_CATALOG")); dsn == "" {
		return nil, nil, usageError{cmd.CommandPath(), errors.New("--catalog is missing: the DSN of the catalog's database")}
	}
	catalog, err := topology.OpenCatalog(dsn)
	var cfg *pgconn.Config
	if err == nil {
		cfg, err = pgconn.ParseConfig(dsn)
	}
	if err != nil {
		return nil, nil, usageError{cmd.CommandPath(), err}
	}
	return catalog, func(err error) error {
		var connect *pgconn.ConnectError
		if errors.As(err, &connect) {
			return explain("the catalog", cfg, err)
		}
		return err
	}, nil
}

// createCluster creates the cluster of a file, unless it is there.
func (o *options) createCluster(cmd *cobra.Command, dsn, file string) error {
	catalog, explained, from, err := openBoth(cmd, dsn, file)
	if err != nil {
		return err
	}
	snap := from.snap
	created, err := catalog.Init(cmd.Context(), snap, actor())
	if err != nil {
		return explained(err)
	}
	if !created { // show what is there
		if snap, err = catalog.Load(cmd.Context()); err != nil {
			return explained(err)
		}
	}
	return o.printFilled(cmd, snap, created)
}

func (o *options) migrate(cmd *cobra.Command, dsn string) error {
	catalog, explained, err := openCatalog(cmd, dsn)
	if err != nil {
		return err
	}
	from, to, err := catalog.Migrate(cmd.Context())
	if err != nil {
		return explained(err)
	}
	if o.json {
		r := &record{}
		r.add("from", strconv.Itoa(from), true)
		r.add("to", strconv.Itoa(to), true)
		return r.json(cmd.OutOrStdout())
	}
	if from == to {
		fmt.Fprintf(cmd.OutOrStdout(), "the catalog is of version %d already\n", to)
		return nil
	}
	fmt.Fprintf(cmd.OutOrStdout(), "the catalog is of version %d now, it was of version %d\n", to, from)
	return nil
}

// openBoth gives the catalog and the file of a command that needs both.
func openBoth(cmd *cobra.Command, dsn, file string) (*topology.Catalog, func(error) error, *clusterFile, error) {
	if file == "" {
		return nil, nil, nil, usageError{cmd.CommandPath(), errors.New("-f is missing: the file with the cluster")}
	}
	catalog, explained, err := openCatalog(cmd, dsn)
	if err != nil {
		return nil, nil, nil, err
	}
	from, err := readCluster(cmd, file)
	return catalog, explained, from, err
}

func (o *options) printFilled(cmd *cobra.Command, snap *topology.Snapshot, created bool) error {
	nodes := 0
	for _, s := range snap.Shards {
		nodes += len(s.Nodes)
	}
	if !o.json {
		what := "is there already and was left alone"
		if created {
			what = "created"
		}
		fmt.Fprintf(cmd.OutOrStdout(), "cluster %s %s: epoch %d, %d shards, %d nodes, %d ranges\n",
			snap.Cluster, what, snap.Epoch, len(snap.Shards), nodes, len(snap.Ranges()))
		return nil
	}
	r := &record{}
	r.add("cluster", snap.Cluster, false)
	r.add("created", strconv.FormatBool(created), true) // a word of JSON, like a number
	r.add("epoch", strconv.FormatUint(uint64(snap.Epoch), 10), true)
	r.add("shards", strconv.Itoa(len(snap.Shards)), true)
	r.add("nodes", strconv.Itoa(nodes), true)
	r.add("ranges", strconv.Itoa(len(snap.Ranges())), true)
	return r.json(cmd.OutOrStdout())
}

// clusterFile is what a cluster file says.
type clusterFile struct {
	snap   *topology.Snapshot
	ranges bool // also which shard owns what
}

// readCluster reads a cluster file; - is standard input.
func readCluster(cmd *cobra.Command, path string) (*clusterFile, error) {
	var text []byte
	var err error
	name := path
	if path == "-" {
		name = "standard input"
		if text, err = io.ReadAll(cmd.InOrStdin()); err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
	} else if text, err = os.ReadFile(path); err != nil {
		return nil, err
	}
	snap, err := config.ParseCluster(name, text)
	if err != nil {
		return nil, err
	}
	return &clusterFile{snap: snap, ranges: config.NamesRanges(text)}, nil
}

// actor is who runs this program, for the catalog's log.
func actor() topology.Actor {
	a := topology.Actor{User: "unknown", From: "shardctl"}
	if u, err := user.Current(); err == nil {
		a.User = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		a.From += " on " + host
	}
	return a
}
