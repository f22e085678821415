package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"shardproxy/internal/config"
)

// newCheckCommand is `shardproxy check`.
func newCheckCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Say what is wrong with a configuration file",
		Long: `Reads a configuration file and prints "ok" with a summary, or each problem as file:line: message;
then the exit status is 1. It connects to nothing.`,
		Args:         cobra.NoArgs,
		SilenceUsage: true, // a bad file is no fault of the command line
		RunE: func(cmd *cobra.Command, _ []string) error {
			return check(cmd.OutOrStdout(), file)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (TOML)")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag is declared one line above
	}
	return cmd
}

// check writes the problems of file to out and returns how many there are as an error.
func check(out io.Writer, file string) error {
	c, err := config.Load(file)
	if err != nil {
		var place *config.FileError
		if !errors.As(err, &place) {
			return err // not about a line: the file is not there, for one
		}
		fmt.Fprintln(out, err)
		return fmt.Errorf("%s cannot be used", file)
	}
	if problems := c.Check(); len(problems) > 0 {
		for _, p := range problems {
			fmt.Fprintln(out, p)
		}
		return fmt.Errorf("%s has %s", file, plural(len(problems), "problem"))
	}
	nodes := 0
	for _, s := range c.Shards {
		nodes += len(s.Nodes)
	}
	fmt.Fprintf(out, "ok: %s, %s, %s\n", plural(len(c.Shards), "shard"), plural(nodes, "node"), plural(len(c.Users), "user"))
	return nil
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
