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
	cmd := &cobra.Command{
		Use:   "init --catalog DSN -f FILE",
		Short: "Create a cluster in a catalog, or bring the catalog's tables up to date",
		Long: `Creates the schema shardproxy in the catalog's database, or brings it up to date, and creates the cluster of FILE there. If a cluster
of that name is there already, its topology is left alone; a cluster of another name is refused.

Without [[ranges]] the shards get equal parts of the keys, in their order, or with

    [cluster]
    placement = "consistent"
    slots = 16384            # if left out

those of consistent hashing with bounded loads, which moves less when shards join later.

` + fileHelp,
		Example: "  shardctl init --catalog postgres://dba@catalog/shardproxy_catalog -f cluster.toml",
		Args:    between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.fill(cmd, dsn, file, false) },
	}
	catalogFlag(cmd, &dsn)
	fileFlag(cmd, &file)
	return cmd
}

func (o *options) importCommand() *cobra.Command {
	var dsn, file string
	cmd := &cobra.Command{
		Use:   "import --catalog DSN -f FILE",
		Short: "Fill an empty catalog from an exported file",
		Long: `Does what init does, but refuses a catalog that has a cluster already. The cluster gets the epoch of FILE. If it replaces a
catalog that was lost, that must not be below the epoch the proxies have: see cluster.epoch in FILE and ` + "`shardctl epoch`" + `.

` + fileHelp,
		Example: "  shardctl import --catalog postgres://dba@new-catalog/shardproxy_catalog -f cluster.toml",
		Args:    between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.fill(cmd, dsn, file, true) },
	}
	catalogFlag(cmd, &dsn)
	fileFlag(cmd, &file)
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

// fill puts the cluster of a file into a catalog. empty insists on one that holds none.
func (o *options) fill(cmd *cobra.Command, dsn, file string, empty bool) error {
	if file == "" {
		return usageError{cmd.CommandPath(), errors.New("-f is missing: the file with the cluster")}
	}
	catalog, explained, err := openCatalog(cmd, dsn)
	if err != nil {
		return err
	}
	snap, err := readCluster(cmd, file)
	if err != nil {
		return err
	}
	created, err := catalog.Init(cmd.Context(), snap, actor())
	switch {
	case err != nil:
		return explained(err)
	case created:
	case empty:
		return topology.ErrExists{Cluster: snap.Cluster}
	default: // show what is there
		if snap, err = catalog.Load(cmd.Context()); err != nil {
			return explained(err)
		}
	}
	return o.printFilled(cmd, snap, created)
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

// readCluster reads a cluster file; - is standard input.
func readCluster(cmd *cobra.Command, path string) (*topology.Snapshot, error) {
	if path == "-" {
		text, err := io.ReadAll(cmd.InOrStdin())
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		return config.ParseCluster("standard input", text)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return config.ParseCluster(path, text)
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
