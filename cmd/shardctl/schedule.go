package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"shardproxy/topology"
)

// schedule has the flags of the commands that move key ranges.
type schedule struct {
	o                  *options
	plan, wait, finish bool
}

func (o *options) newSchedule(cmd *cobra.Command) *schedule {
	s := &schedule{o: o}
	f := cmd.Flags()
	f.BoolVar(&s.plan, "plan", false, "show what would happen and change nothing: rows, MB, room, and all that could be in the way")
	f.BoolVar(&s.wait, "wait", false, "wait until the ranges have their new owner and both shards were compared")
	f.BoolVar(&s.finish, "finish", false, "with --wait: let no move soak, and wait until nothing is left of them on the source")
	return s
}

const scheduleHelp = `

The proxy that coordinates moves carries them out; this command returns when they are in the journal, or with --wait when they are done.
` + "`shardctl moves`" + ` shows them. A range is called by its first hash, as ` + "`shardctl ranges`" + ` has it, with 0x before the hexadecimal form.

Exit status: 0 done, or left to the coordinator; 1 not done, or with --wait a move has not come to its end as it should; 2 the command
line is wrong.`

// scheduleCommands are split, move, isolate, merge and rebalance.
func (o *options) scheduleCommands() []*cobra.Command {
	return []*cobra.Command{o.splitCommand(), o.moveCommand(), o.isolateCommand(), o.mergeCommand(), o.rebalanceCommand()}
}

func (o *options) splitCommand() *cobra.Command {
	var at string
	var to []string
	into, bySize := 0, false
	cmd := &cobra.Command{
		Use: "split {SHARD | RANGE} [--to SHARD]...", Short: "Cut what a shard or a range has in parts, and move all but the first",
		Long: `Cuts the keys of a shard, or one key range, in two parts of equal width, or as the flags say. The first part stays; the others go to the
shards of --to in turn, of which there may not be more than such parts. Without --to, the map is cut and nothing moves.` + scheduleHelp,
		Example: `  shardctl split s1 --to s5 --wait
  shardctl split s1 --into 3 --by-size --to s5,s6 --plan
  shardctl split 0x4000000000000000 --at 0x5000000000000000 --to s2`,
		Args: between(1, 1), ValidArgsFunction: o.completeShard,
	}
	s := o.newSchedule(cmd)
	cmd.Flags().StringVar(&at, "at", "", "hash at which the second part begins")
	cmd.Flags().IntVar(&into, "into", 0, "number of parts (default 2)")
	cmd.Flags().BoolVar(&bySize, "by-size", false, "parts of equal size, as measured, not of equal width")
	cmd.Flags().StringSliceVar(&to, "to", nil, "shards for the second part and those after it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if at != "" && (bySize || cmd.Flags().Changed("into")) {
			return usageError{cmd.CommandPath(), errors.New("--at makes two parts: it goes with neither --into nor --by-size")}
		}
		sql := "SPLIT " + shardOrRange(args[0])
		switch {
		case at != "":
			sql += " AT " + literal(at)
		case cmd.Flags().Changed("into"):
			sql += " INTO " + literal(strconv.Itoa(into))
		}
		if bySize {
			sql += " BY SIZE"
		}
		if len(to) > 0 {
			sql += " TO " + strings.ReplaceAll(literals(to), "' '", "', '")
		}
		return s.run(cmd, sql)
	}
	return cmd
}

func (o *options) moveCommand() *cobra.Command {
	var to string
	var key tableKey
	cmd := &cobra.Command{
		Use: "move {RANGE | --table TABLE --key KEY} --to SHARD", Short: "Move a key range to another shard",
		Long:    "Moves a key range, or the one that a key is in." + scheduleHelp,
		Example: "  shardctl move 0x4000000000000000 --to s2 --wait\n  shardctl move --table users --key 42 --to s2 --plan",
		Args:    between(0, 1), ValidArgsFunction: cobra.NoFileCompletions,
	}
	s := o.newSchedule(cmd)
	key.flags(cmd)
	toFlag(cmd, &to)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 1 && key != (tableKey{}):
			return usageError{cmd.CommandPath(), errors.New("a range or a key is moved, not both")}
		case len(args) == 1:
			return s.run(cmd, "MOVE RANGE "+literal(args[0])+" TO "+literal(to))
		}
		of, err := key.sql(cmd)
		if err != nil {
			return err
		}
		return s.run(cmd, "MOVE KEY "+of+" TO "+literal(to))
	}
	return cmd
}

func (o *options) isolateCommand() *cobra.Command {
	var to string
	var key tableKey
	cmd := &cobra.Command{
		Use: "isolate --table TABLE --key KEY --to SHARD", Short: "Give the rows of one key a range of their own, on a shard of your choice",
		Long:    "Moves the rows of one key, such as one hot user, in all sharded tables. If it is on the shard already, only its range is cut out." + scheduleHelp,
		Example: "  shardctl isolate --table users --key 42 --to s9 --wait",
		Args:    between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
	}
	s := o.newSchedule(cmd)
	key.flags(cmd)
	toFlag(cmd, &to)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		of, err := key.sql(cmd)
		if err != nil {
			return err
		}
		return s.run(cmd, "ISOLATE "+of+" TO "+literal(to))
	}
	return cmd
}

func (o *options) mergeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "merge RANGE", Short: "Make one range of a range and the one before it",
		Long:    "Joins two neighbours. If they are on two shards, the lighter one moves to the other first." + scheduleHelp,
		Example: "  shardctl merge 0x4000000000000000 --wait",
		Args:    between(1, 1), ValidArgsFunction: cobra.NoFileCompletions,
	}
	s := o.newSchedule(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return s.run(cmd, "MERGE RANGE "+literal(args[0])) }
	return cmd
}

func (o *options) rebalanceCommand() *cobra.Command {
	bySize, consistent, tolerance, slots := false, false, 0.0, 0
	cmd := &cobra.Command{
		Use: "rebalance", Short: "Give each shard its equal share, by moving as little as possible",
		Long: `Moves ranges until each active shard has its equal share of the keys, or with --by-size of the bytes, give or take the tolerance, and each
draining one nothing. What is within the tolerance stays.

With --consistent each active shard gets the slots that consistent hashing with bounded loads (1.25 times its share at most) gives it by its
name, as placement = "consistent" does at init. A map that was made otherwise moves nearly as a whole and is cut in many ranges: look at
--plan first. What was cut, isolated or moved by hand is undone.

There is no mode by load: neither PostgreSQL nor a proxy counts it by key. Split the busy shard, or isolate its hot key.` + scheduleHelp,
		Example: "  shardctl rebalance --plan\n  shardctl rebalance --by-size --tolerance 0.05 --wait\n  shardctl rebalance --consistent --slots 1024 --plan",
		Args:    between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
	}
	s := o.newSchedule(cmd)
	cmd.Flags().BoolVar(&bySize, "by-size", false, "weigh by the measured bytes of the tables")
	cmd.Flags().BoolVar(&consistent, "consistent", false, "place slots by consistent hashing with bounded loads")
	cmd.Flags().IntVar(&slots, "slots", 0, "with --consistent: number of slots, as in cluster.slots at init (default 16384)")
	cmd.Flags().Float64Var(&tolerance, "tolerance", 0, "part of the equal share that a shard may be away from it (default 0.1)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !consistent && cmd.Flags().Changed("slots") || consistent && (bySize || tolerance != 0) {
			return usageError{cmd.CommandPath(), errors.New("--slots goes with --consistent; --by-size and --tolerance do not")}
		}
		sql := "REBALANCE"
		if consistent {
			sql += " CONSISTENT"
		}
		if cmd.Flags().Changed("slots") {
			sql += " SLOTS " + literal(strconv.Itoa(slots))
		}
		if bySize {
			sql += " BY SIZE"
		}
		if tolerance != 0 {
			sql += " TOLERANCE " + literal(strconv.FormatFloat(tolerance, 'g', -1, 64))
		}
		return s.run(cmd, sql)
	}
	return cmd
}

// drainCommand is of the group `shard`.
func (o *options) drainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "drain NAME", Short: "Give a shard no more ranges, and move those that it has to the others",
		Long: "Marks the shard as draining and moves all that it owns away. When the moves are cleaned, `shardctl shard remove` takes it out: use --wait\n" +
			"--finish to wait for that." + scheduleHelp,
		Example: "  shardctl shard drain s5 --plan\n  shardctl shard drain s5 --wait --finish",
		Args:    between(1, 1), ValidArgsFunction: o.completeShard,
	}
	s := o.newSchedule(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return s.run(cmd, "DRAIN SHARD "+literal(args[0])) }
	return cmd
}

// tableKey is a key that is typed.
type tableKey struct{ table, key string }

func (k *tableKey) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&k.table, "table", "", "table whose shard key the key is of")
	cmd.Flags().StringVar(&k.key, "key", "", "value of the shard key")
}

func (k *tableKey) sql(cmd *cobra.Command) (string, error) {
	if k.table == "" || !cmd.Flags().Changed("key") {
		return "", usageError{cmd.CommandPath(), fmt.Errorf("the form is `%s`", cmd.UseLine())}
	}
	name, err := topology.ParseTableName(k.table, "public")
	if err != nil {
		return "", usageError{cmd.CommandPath(), err}
	}
	return tableSQL(name) + " " + literal(k.key), nil
}

func toFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "to", "", "shard that gets it")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if *to == "" {
			return usageError{cmd.CommandPath(), errors.New("--to is missing: the shard that gets it")}
		}
		return nil
	}
}

// aHash is how a range is called. No shard should be called like that.
var aHash = regexp.MustCompile(`^(0[xX][0-9a-fA-F]+|[+-]?[0-9]+)$`)

func shardOrRange(arg string) string {
	if aHash.MatchString(arg) {
		return "RANGE " + literal(arg)
	}
	return "SHARD " + literal(arg)
}

// run shows the plan of a command of the console, or does it and waits as the flags say.
func (s *schedule) run(cmd *cobra.Command, sql string) error {
	o := s.o
	if s.finish && !s.wait || s.plan && s.wait {
		return usageError{cmd.CommandPath(), errors.New("--finish goes with --wait, and neither with --plan")}
	}
	if s.plan {
		sql = "PLAN " + sql
	}
	tables, err := o.queryWithin(cmd, sql, planTimeout)
	if err != nil {
		return err
	}
	t := &tables[0]
	switch {
	case s.plan && !o.json:
		return planText(cmd.OutOrStdout(), t)
	case o.json && !s.wait:
		return t.json(cmd.OutOrStdout())
	case !o.json:
		scheduleText(cmd.OutOrStdout(), t)
	}
	w := waiter{o: o, cmd: cmd, finish: s.finish}
	for i := range t.rows {
		if id := t.value(i, "move"); id != "" {
			w.ids = append(w.ids, id)
		}
	}
	if !s.wait {
		return nil
	}
	if len(w.ids) > 0 {
		err = w.wait(cmd.Context())
	} else {
		w.last = *t
	}
	if printed := o.printWaited(cmd, &w); err == nil {
		err = printed
	}
	return err
}

func (o *options) printWaited(cmd *cobra.Command, w *waiter) error {
	if !o.json && len(w.ids) == 0 {
		return nil
	}
	return o.printMoves(cmd, &w.last)
}
