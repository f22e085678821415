package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"shardproxy/topology"
)

func (o *options) importCommand() *cobra.Command {
	var dsn, file string
	var yes bool
	cmd := &cobra.Command{
		Use:   "import --catalog DSN -f FILE [--yes]",
		Short: "Fill an empty catalog from a file, or make a cluster like a file",
		Long: `An empty catalog is filled, and the cluster gets the epoch of FILE. If it replaces a catalog that was lost, that must not be
below the epoch the proxies have: see cluster.epoch in FILE and ` + "`shardctl epoch`" + `.

Where the cluster is there already, import says which changes would make it like FILE, and with --yes makes them, all in one
epoch, or none if somebody else has changed the topology meanwhile. Shards, nodes, borders of ranges and rules of tables may
differ. Keys that FILE gives to another shard are refused: no rows are moved by this. Without [[ranges]] in FILE, ranges are left alone.

` + fileHelp,
		Example: `  shardctl import --catalog postgres://dba@new-catalog/shardproxy_catalog -f cluster.toml
  shardctl export > cluster.toml; vi cluster.toml; shardctl import -f cluster.toml; shardctl import -f cluster.toml --yes`,
		Args: between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.importFile(cmd, dsn, file, yes) },
	}
	catalogFlag(cmd, &dsn)
	fileFlag(cmd, &file)
	cmd.Flags().BoolVar(&yes, "yes", false, "make the changes to a cluster that is there already")
	return cmd
}

func (o *options) importFile(cmd *cobra.Command, dsn, file string, yes bool) error {
	catalog, explained, from, err := openBoth(cmd, dsn, file)
	if err != nil {
		return err
	}
	have, err := catalog.Load(cmd.Context())
	if errors.Is(err, topology.ErrNoCatalog) {
		if _, err = catalog.Init(cmd.Context(), from.snap, actor()); err != nil {
			return explained(err)
		}
		return o.printFilled(cmd, from.snap, true)
	}
	if err != nil {
		return explained(err)
	}
	batch, err := have.ChangesTo(from.snap, from.ranges)
	var moves topology.ErrNeedsMoves
	switch {
	case errors.As(err, &moves):
		return fmt.Errorf("%w; `shardctl move` moves them", err)
	case err != nil:
		return err
	}
	warnOfImport(cmd, have, from.snap, batch)
	made := yes && len(batch) > 0
	if made {
		if have, err = catalog.Commit(cmd.Context(), have, batch, actor()); err != nil {
			return explained(err)
		}
	}
	return o.printImport(cmd, have, batch, made)
}

// warnOfImport says what the list of changes does not.
func warnOfImport(cmd *cobra.Command, have, want *topology.Snapshot, batch topology.Batch) {
	tell := func(format string, args ...any) {
		fmt.Fprintf(cmd.ErrOrStderr(), "shardctl: warning: "+format+"\n", args...)
	}
	if len(batch) > 0 && want.Epoch > 1 && want.Epoch < have.Epoch { // 1: a file that names none
		tell("the file is of epoch %d, the catalog is at epoch %d: what was changed in between is taken back", want.Epoch, have.Epoch)
	}
	for _, c := range batch {
		switch c.(type) {
		case topology.SetTable, topology.SetRules:
			tell("rows that tables have already stay where they are, and are looked for where the new rules place them")
			return
		}
	}
}

func (o *options) printImport(cmd *cobra.Command, snap *topology.Snapshot, batch topology.Batch, made bool) error {
	if o.json {
		t := &table{columns: []string{"epoch", "change", "made"}, numbers: []bool{true, false, true}}
		for _, c := range batch {
			t.rows = append(t.rows, [][]byte{strconv.AppendUint(nil, uint64(snap.Epoch), 10), []byte(c.String()), strconv.AppendBool(nil, made)})
		}
		return t.json(cmd.OutOrStdout())
	}
	var b strings.Builder
	if len(batch) == 0 {
		fmt.Fprintf(&b, "cluster %s at epoch %d is like the file\n", snap.Cluster, snap.Epoch)
	} else {
		fmt.Fprintf(&b, "cluster %s at epoch %d, ", snap.Cluster, snap.Epoch)
		if made {
			fmt.Fprintf(&b, "which these changes have made:\n")
		} else {
			fmt.Fprintf(&b, "to be changed:\n")
		}
		for _, c := range batch {
			fmt.Fprintf(&b, "  %v\n", c)
		}
		if !made {
			fmt.Fprintf(&b, "Nothing was changed yet: --yes makes these changes, in one epoch.\n")
		}
	}
	_, err := cmd.OutOrStdout().Write([]byte(b.String()))
	return err
}
