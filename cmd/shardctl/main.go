// Command shardctl looks at a cluster and changes its topology: through the admin console of any of its proxies, and, to
// create, export and import a cluster, in the catalog itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit statuses.
const (
	exitOK    = 0
	exitError = 1 // what was asked for could not be done
	exitUsage = 2 // the command line is wrong; nothing was tried
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the first signal cancels, a second one ends at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program: it gives the exit status.
func run(ctx context.Context, args []string, in io.Reader, out, errOut io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(errOut, "shardctl: %s; see `%s --help`\n", oneLine(err), usage.command)
		return exitUsage
	}
	fmt.Fprintf(errOut, "shardctl: %s\n", oneLine(err))
	return exitError
}

// oneLine is the text of an error without line breaks.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// options are the flags of all commands.
type options struct {
	dsn  string
	json bool
}

const defaultDSN = "postgres://app:app@127.0.0.1:6432/shardproxy" // of `shardproxy dev`

func newRootCommand() *cobra.Command {
	o := &options{}
	root := &cobra.Command{
		Use:   "shardctl",
		Short: "Look at a shardproxy cluster, change its topology, and operate its proxies",
		Long: `shardctl talks to the admin console of a proxy; any proxy of the cluster will do, but for what steers that one proxy: pause, resume,
reconnect, kill, reload, set and shutdown. Looking needs a user of admin.users or admin.stats_users in the proxy's
configuration, changing one of admin.users.

Create, export and import a cluster with the DSN of its catalog: init, export, import.

Exit status: 0 done, 1 not done (standard error says why, in one line), 2 the command line is wrong.`,
		Example: `  shardctl status
  shardctl --dsn postgres://dba@proxy-1:6432 shard add s5 10.0.0.5:5432/app 10.0.1.5:5432/app
  shardctl locate users 42
  shardctl nodes --json`,
		Version:       version(),
		SilenceErrors: true, // run prints them
		SilenceUsage:  true,
		Args:          subcommandNeeded,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{cmd.CommandPath(), err} })
	f := root.PersistentFlags()
	f.StringVar(&o.dsn, "dsn", "", "DSN of a proxy; its database does not matter (default $SHARDCTL_DSN or "+defaultDSN+")")
	f.BoolVar(&o.json, "json", false, "print JSON: a list of objects")
	root.AddCommand(o.statusCommand(), o.locateCommand(), o.doctorCommand())
	root.AddCommand(o.showCommands()...)
	root.AddCommand(o.operateCommands()...)
	root.AddCommand(o.shardCommand(), o.nodeCommand(), o.tableCommand())
	root.AddCommand(o.scheduleCommands()...)
	root.AddCommand(o.movesCommand(), o.verifyCommand())
	root.AddCommand(o.topOrders()...)
	root.AddCommand(o.fenceCommand())
	root.AddCommand(o.gossipCommand())
	root.AddCommand(o.initCommand(), o.importCommand(), o.exportCommand())
	return root
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: subcommandNeeded, RunE: func(cmd *cobra.Command, _ []string) error {
		return usageError{cmd.CommandPath(), errors.New("a command is missing behind " + cmd.CommandPath())}
	}}
	cmd.AddCommand(commands...)
	return cmd
}

// usageError is a wrong command line.
type usageError struct {
	command string
	error
}

func (e usageError) Unwrap() error { return e.error }

// between wants so many arguments; the words of the command's Use name them.
func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && len(args) <= most {
			return nil
		}
		return usageError{cmd.CommandPath(), fmt.Errorf("the form is `%s`", cmd.UseLine())}
	}
}

// anyNumber is for between.
const anyNumber = 1 << 20

// subcommandNeeded refuses words that are no command.
func subcommandNeeded(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := fmt.Sprintf("there is no command %q", args[0])
	cmd.SuggestionsMinimumDistance = 2 // edits
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		message += "; did you mean " + strings.Join(like, " or ") + "?"
	}
	return usageError{cmd.CommandPath(), errors.New(message)}
}

// version of the module and, where the build knows it, the commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v += " " + s.Value
		}
	}
	return v
}
