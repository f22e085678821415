package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// patience is for commands that wait for clients: an operator ends the wait.
const patience = 30 * 24 * time.Hour

// operateCommands steer one proxy: the one of the DSN. The others of the cluster know nothing of it.
func (o *options) operateCommands() []*cobra.Command {
	return []*cobra.Command{
		o.showCommand("clients", "Clients of this proxy; the id is for kill", "SHOW CLIENTS"),
		o.showCommand("leases", "What the nodes have told this proxy of their fences", "SHOW LEASES"),
		o.showCommand("mem", "What this proxy holds in memory", "SHOW MEM"),
		o.explainCommand(),
		o.pauseCommand(),
		o.shardScoped("resume", "End a pause, or what kill --all has begun", "RESUME",
			"Lets work go on that pause or kill --all holds back. A shard's own pause and that of all are ended apart.",
			"  shardctl resume\n  shardctl resume --shard s1"),
		o.shardScoped("reconnect", "Make the connections of this proxy to the nodes anew", "RECONNECT",
			"Closes idle connections at once, and each other one when its transaction ends. Clients do not notice.",
			"  shardctl reconnect\n  shardctl reconnect --shard s1"),
		o.killCommand(),
		o.reloadCommand(),
		o.configCommand(),
		o.setCommand(),
		o.shutdownCommand(),
	}
}

func (o *options) explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain SQL",
		Short: "Where a statement would run, and why",
		Long: `Plans a statement as for a client whose session has just begun, and says on which shards it would run, with which text, and how
their answers become one. The statement is not run. Its parameters, such as $1, have no value.`,
		Example: "  shardctl explain 'SELECT * FROM orders WHERE customer_id = 42'\n  shardctl explain 'DELETE FROM orders WHERE customer_id = $1'",
		Args:    between(1, 1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := o.queryOne(cmd, "EXPLAIN "+args[0], commandTimeout)
			if err != nil {
				return err
			}
			if o.json {
				return t.json(cmd.OutOrStdout())
			}
			for _, row := range t.rows {
				fmt.Fprintf(cmd.OutOrStdout(), "%s\n", row[0])
			}
			return nil
		},
	}
	return cmd
}

func (o *options) pauseCommand() *cobra.Command {
	var timeout time.Duration
	cmd := o.shardScoped("pause", "Hold back new work, so that PostgreSQL can be restarted", "PAUSE",
		`Clients stay connected and wait. The command returns when all transactions have ended and the connections to the nodes are
closed; it is for this proxy only, so run it on each. Ctrl-C, or the end of --timeout, takes it back; shardctl resume ends it.`,
		"  shardctl pause --timeout 30s && systemctl restart postgresql; shardctl resume\n  shardctl pause --shard s1")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "take the pause back when it has not come to its end within this time (default: wait)")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if timeout < 0 {
			return usageError{cmd.CommandPath(), errors.New("--timeout is below zero")}
		}
		ctx := cmd.Context()
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
			cmd.SetContext(ctx)
		}
		err := run(cmd, args)
		switch {
		case err == nil || ctx.Err() == nil:
			return err
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return fmt.Errorf("transactions have not ended within %v; the pause has been taken back", timeout)
		}
		return errors.New("interrupted; the pause has been taken back")
	}
	return cmd
}

// shardScoped is a command for one shard or for all.
func (o *options) shardScoped(name, short, verb, long, example string) *cobra.Command {
	var shard string
	cmd := &cobra.Command{
		Use: name + " [--shard NAME]", Short: short, Long: long, Example: example, Args: between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sql := verb
			if cmd.Flags().Changed("shard") {
				sql += " SHARD " + literal(shard)
			}
			return o.operate(cmd, sql)
		},
	}
	cmd.Flags().StringVar(&shard, "shard", "", "only this shard")
	_ = cmd.RegisterFlagCompletionFunc("shard", func(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		return o.completeShard(cmd, nil, toComplete)
	}) // the flag is declared one line above
	return cmd
}

func (o *options) killCommand() *cobra.Command {
	all := false
	var client uint32
	cmd := &cobra.Command{
		Use: "kill {--client ID | --all}", Short: "Cut off a client, or all of them",
		Long: `Ends the session of a client, whose id ` + "`shardctl clients`" + ` tells, and closes its connections to the nodes; what it was doing is
rolled back. With --all, those of all clients of this proxy; work of clients that come then waits for shardctl resume.`,
		Example: "  shardctl kill --client 17\n  shardctl kill --all && shardctl resume",
		Args:    between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if one := cmd.Flags().Changed("client"); one == all {
				return usageError{cmd.CommandPath(), fmt.Errorf("the form is `%s`", cmd.UseLine())}
			}
			if all {
				return o.operate(cmd, "KILL")
			}
			return o.operate(cmd, fmt.Sprintf("KILL_CLIENT %d", client))
		},
	}
	cmd.Flags().Uint32Var(&client, "client", 0, "id of the client")
	cmd.Flags().BoolVar(&all, "all", false, "all clients")
	return cmd
}

func (o *options) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reload", Short: "Let the proxy read its configuration file again",
		Long: `Puts the changes of the file in force that a running proxy can make, as SIGHUP does, and names those that need a restart.
A file with a mistake changes nothing. shardctl config says of each key what it is now.`,
		Example: "  shardctl reload",
		Args:    between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.operate(cmd, "RELOAD") },
	}
}

func (o *options) configCommand() *cobra.Command {
	return &cobra.Command{
		Use: "config [KEY]", Short: "The configuration of this proxy, and what can be changed while it runs",
		Long:    "Lists the keys of the configuration that is in force, with KEY those that begin so. Secrets are not shown.",
		Example: "  shardctl config\n  shardctl config pool.",
		Args:    between(0, 1), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := o.queryOne(cmd, "SHOW CONFIG", commandTimeout)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				var some [][][]byte
				for _, row := range t.rows {
					if strings.HasPrefix(string(row[0]), args[0]) {
						some = append(some, row)
					}
				}
				if t.rows = some; len(some) == 0 {
					return fmt.Errorf("no key begins with %s", args[0])
				}
			}
			if o.json {
				return t.json(cmd.OutOrStdout())
			}
			return t.text(cmd.OutOrStdout())
		},
	}
}

// keyForm is that of a key of the configuration.
var keyForm = regexp.MustCompile(`^[a-z_]+(\.[a-z_]+)+$`)

func (o *options) setCommand() *cobra.Command {
	return &cobra.Command{
		Use: "set KEY VALUE", Short: "Change a key of the configuration until the next reload",
		Long: `Changes one key of this proxy that shardctl config calls changeable. The file is not written: the next reload, or a restart, goes
by the file again.`,
		Example: "  shardctl set pool.size_max 30\n  shardctl set log.level debug\n  shardctl set pool.acquire_timeout 2s",
		Args:    between(2, 2), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !keyForm.MatchString(args[0]) {
				return usageError{cmd.CommandPath(), fmt.Errorf("%q is not a key such as pool.size_max", args[0])}
			}
			return o.operate(cmd, "SET "+args[0]+" = "+literal(args[1]))
		},
	}
}

func (o *options) shutdownCommand() *cobra.Command {
	forClients, forServers := false, false
	cmd := &cobra.Command{
		Use: "shutdown [--wait-for-clients | --wait-for-transactions]", Short: "End the proxy",
		Long: `Ends the process of the proxy. It takes no more clients, and cuts off at once those that it has; with --wait-for-transactions it
lets them end what they are at, for as long as listen.drain_timeout, as SIGTERM does; with --wait-for-clients it waits until they
have left by themselves. The command returns when that has begun.`,
		Example: "  shardctl shutdown --wait-for-transactions",
		Args:    between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case forClients && forServers:
				return usageError{cmd.CommandPath(), fmt.Errorf("the form is `%s`", cmd.UseLine())}
			case forClients:
				return o.operate(cmd, "SHUTDOWN WAIT_FOR_CLIENTS")
			case forServers:
				return o.operate(cmd, "SHUTDOWN WAIT_FOR_SERVERS")
			}
			return o.operate(cmd, "SHUTDOWN")
		},
	}
	cmd.Flags().BoolVar(&forClients, "wait-for-clients", false, "until they have left by themselves")
	cmd.Flags().BoolVar(&forServers, "wait-for-transactions", false, "until those that run have ended")
	return cmd
}

// operate runs a command of the console that answers with its name.
func (o *options) operate(cmd *cobra.Command, sql string) error {
	if _, err := o.queryOne(cmd, sql, patience); err != nil {
		return err
	}
	done := &record{}
	done.add("done", sql, false)
	if o.json {
		return done.json(cmd.OutOrStdout())
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "done: %s\n", sql)
	return err
}
