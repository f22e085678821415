package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"shardproxy/topology"
)

// showCommands print what one command of the console answers.
func (o *options) showCommands() (list []*cobra.Command) {
	for _, c := range []struct{ use, short, sql string }{
		{"shards", "Shards, and the part of the keys that each owns", "SHOW SHARDS"},
		{"nodes", "PostgreSQL servers, and the connections of this proxy to them", "SHOW NODES"},
		{"ranges", "Key ranges and their shards; an end of - is the end of the ring", "SHOW RANGES"},
		{"tables", "Tables, their shard keys, and why rows cannot be placed", "SHOW TABLES"},
		{"peers", "The other proxies, as this one knows them", "SHOW PEERS"},
		{"pools", "Connections of this proxy to the nodes, by pool", "SHOW POOLS"},
		{"epoch", "Number and checksum of the topology that this proxy goes by", "SHOW EPOCH"},
	} {
		list = append(list, o.showCommand(c.use, c.short, c.sql))
	}
	return list
}

func (o *options) showCommand(use, short, sql string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.show(cmd, sql) },
	}
}

// show prints the table that a command of the console answers.
func (o *options) show(cmd *cobra.Command, sql string) error {
	tables, err := o.query(cmd, sql)
	if err != nil {
		return err
	}
	if o.json {
		return tables[0].json(cmd.OutOrStdout())
	}
	return tables[0].text(cmd.OutOrStdout())
}

// printRecord prints a record in the form that the flags ask for.
func (o *options) printRecord(cmd *cobra.Command, r *record) error {
	if o.json {
		return r.json(cmd.OutOrStdout())
	}
	return r.text(cmd.OutOrStdout())
}

func (o *options) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "The cluster at a glance", Args: between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			tables, err := o.query(cmd, "SHOW VERSION; SHOW EPOCH; SHOW LISTS; SHOW TABLES; SHOW PEERS")
			if err != nil {
				return err
			}
			return o.printRecord(cmd, status(&tables[0], &tables[1], &tables[2], &tables[3], &tables[4]))
		},
	}
}

// status draws five tables of the console together.
func status(version, epoch, lists, tables, peers *table) *record {
	r := &record{}
	r.add("version", version.value(0, "version"), false)
	for _, column := range []string{"cluster", "epoch", "checksum"} {
		r.add(column, epoch.value(0, column), column == "epoch")
	}
	counts := map[string]string{}
	for i := range lists.rows {
		counts[lists.value(i, "list")] = lists.value(i, "items")
	}
	for _, list := range []string{"shards", "nodes", "ranges", "tables"} {
		r.add(list, counts[list], true)
	}
	r.add("tables_with_problems", count(tables, func(row int) bool { return tables.value(row, "problem") != "" }), true)
	r.add("clients", counts["used_clients"], true)
	r.add("peers", strconv.Itoa(len(peers.rows)), true)
	r.add("peers_alive", count(peers, func(row int) bool { return peers.value(row, "status") == "alive" }), true)
	r.add("peers_at_this_epoch", count(peers, func(row int) bool { return peers.value(row, "epoch") == epoch.value(0, "epoch") }), true)
	return r
}

func count(t *table, is func(row int) bool) string {
	n := 0
	for i := range t.rows {
		if is(i) {
			n++
		}
	}
	return strconv.Itoa(n)
}

func (o *options) locateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "locate TABLE KEY",
		Short: "The shard and node that hold the rows of a key",
		Long: `Hashes KEY as the shard key of TABLE is hashed and says which range, shard and node it belongs to. The hash is what
PostgreSQL's hashint8extended, hashtextextended or uuid_hash_extended gives with the seed 8816678312871386365.`,
		Example: `  shardctl locate users 42
  shardctl locate billing.invoices 018f4e5c-7a3b-7c11-9d43-2f1e6a90b7d2
  shardctl locate counters -- -7`,
		Args: between(2, 2), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := topology.ParseTableName(args[0], "public")
			if err != nil {
				return usageError{cmd.CommandPath(), err}
			}
			tables, err := o.query(cmd, fmt.Sprintf("LOCATE %s %s", tableSQL(name), literal(args[1])))
			if err != nil {
				return err
			}
			return o.printRecord(cmd, &record{tables[0]})
		},
	}
}

// tableSQL and identifier write names that the console reads as they are, in upper or lower case.
func tableSQL(name topology.TableName) string {
	return identifier(name.Schema) + "." + identifier(name.Name)
}

func identifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
