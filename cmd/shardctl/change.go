package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shardproxy/topology"
)

const nodeHelp = `A node is host:port or host:port/database; without a database it is that of the proxy's clients. An IPv6 address
stands in brackets, and the folder of a Unix socket may stand for the host.`

func (o *options) shardCommand() *cobra.Command {
	add := o.addShardCommand()
	drain := o.drainCommand()
	undrain := o.changeCommand("undrain NAME", "Take drain back", 1, 1, func(args []string) string {
		return "UNDRAIN SHARD " + literals(args)
	})
	remove := o.changeCommand("remove NAME", "Remove a shard that owns nothing any more", 1, 1, func(args []string) string {
		return "REMOVE SHARD " + literals(args)
	})
	for _, cmd := range []*cobra.Command{undrain, remove} {
		cmd.ValidArgsFunction = o.completeShard
	}
	return group("shard", "Add, drain and remove shards", add, drain, undrain, remove)
}

func (o *options) nodeCommand() *cobra.Command {
	primary := false
	add := o.changeCommand("add SHARD NODE", "Add a node to a shard", 2, 2, func(args []string) string {
		sql := "ADD NODE " + literals(args)
		if primary {
			sql += " PRIMARY"
		}
		return sql
	})
	add.Long = "Adds a replica. It must follow the shard's primary already, by PostgreSQL's own replication.\n\n" + nodeHelp
	add.Example = "  shardctl node add s1 10.0.2.1:5432/app"
	add.Flags().BoolVar(&primary, "primary", false, "it has been promoted: writes go there, and the primary before it becomes a replica")
	remove := o.changeCommand("remove SHARD NODE", "Remove a replica from a shard", 2, 2, func(args []string) string {
		return "REMOVE NODE " + literals(args)
	})
	promoted := o.changeCommand("primary SHARD NODE", "Send writes to a node of the shard that has been promoted", 2, 2, func(args []string) string {
		return "MAKE PRIMARY " + literals(args)
	})
	promoted.Long = "Makes a node of the shard its primary, and the primary a replica. It promotes nothing: do that in PostgreSQL first.\n\n" + nodeHelp
	for _, cmd := range []*cobra.Command{add, remove, promoted} {
		cmd.ValidArgsFunction = o.completeShard
	}
	return group("node", "Add and remove nodes of a shard, or change its primary", add, remove, promoted)
}

func (o *options) tableCommand() *cobra.Command {
	reference := false
	add := &cobra.Command{
		Use: "add {TABLE.COLUMN | --reference TABLE}", Short: "Shard a table by a column, or make it a reference table",
		Long: `Sets the rule that places the rows of a table, best before the table is created: rows that are stored already do not move.
Names are as the catalog of PostgreSQL has them, with a part in double quotes that holds a dot; without a schema the table is in
public.`,
		Example: "  shardctl table add orders.customer_id\n  shardctl table add --reference billing.currencies",
		Args:    between(1, 1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			sql, err := addTable(args[0], reference)
			if err != nil {
				return usageError{cmd.CommandPath(), err}
			}
			return o.change(cmd, sql)
		},
	}
	add.Flags().BoolVar(&reference, "reference", false, "a full copy on every shard")
	remove := &cobra.Command{
		Use: "remove TABLE", Short: "Remove the rule of a table, so that the general rules decide",
		Args: between(1, 1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := topology.ParseTableName(args[0], "public")
			if err != nil {
				return usageError{cmd.CommandPath(), err}
			}
			return o.change(cmd, "REMOVE TABLE "+tableSQL(name))
		},
	}
	list := o.showCommand("list", "The rules that place tables; the first that fits decides", "SHOW RULES")
	return group("table", "Rules that place the rows of tables", add, remove, list)
}

func addTable(arg string, reference bool) (string, error) {
	if reference {
		name, err := topology.ParseTableName(arg, "public")
		return "ADD REFERENCE " + tableSQL(name), err
	}
	name, column, err := topology.ParseColumnName(arg, "public")
	return "ADD TABLE " + tableSQL(name) + "." + identifier(column), err
}

// changeCommand runs the command of the console that sql makes of the arguments.
func (o *options) changeCommand(use, short string, least, most int, sql func(args []string) string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: between(least, most), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error { return o.change(cmd, sql(args)) },
	}
}

// change runs a command of the console that changes the topology.
func (o *options) change(cmd *cobra.Command, sql string) error {
	return o.changeWithin(cmd, sql, commandTimeout)
}

func (o *options) changeWithin(cmd *cobra.Command, sql string, timeout time.Duration) error {
	tables, err := o.queryWithin(cmd, sql, timeout)
	if err != nil {
		return err
	}
	t := &tables[0]
	if o.json {
		return t.json(cmd.OutOrStdout())
	}
	fmt.Fprintf(cmd.OutOrStdout(), "epoch %s: %s\n", t.value(0, "epoch"), t.value(0, "change"))
	return nil
}

// completeShard offers the names of shards for the first argument.
func (o *options) completeShard(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	tables, err := o.query(cmd, "SHOW SHARDS")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // there is no place to say why
	}
	var names []string
	for i := range tables[0].rows {
		names = append(names, tables[0].value(i, "shard"))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func literals(args []string) string {
	quoted := make([]string, len(args))
	for i, arg := range args {
		quoted[i] = literal(arg)
	}
	return strings.Join(quoted, " ")
}
