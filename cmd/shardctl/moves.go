package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	watchEvery    = time.Second
	verifyTimeout = 7 * time.Hour // longer than the console lets it work, as below
	planTimeout   = 12 * time.Minute
)

// movesCommand shows moves and has the orders for them. `abort`, `reverse` and `finish` are commands of their own as well; `pause` and
// `resume` are not, since those are for the proxy's own work.
func (o *options) movesCommand() *cobra.Command {
	all, watch := false, false
	cmd := &cobra.Command{
		Use: "moves", Short: "Key ranges on their way from one shard to another", Args: subcommandNeeded,
		Long: `Lists the moves under way, with --all those that have ended too. Rows, MB, speed, lag, ETA and blockers are of this moment where the proxy
that is asked coordinates the moves; any other proxy knows them as of some two seconds ago. PAUSE_MS is how long clients have waited for the cutovers so far.

Phases: planned, prepared, copying, streaming; hold to flipped are the cutover; released, verified: both shards are compared; soak: the
source follows the target, so that the move can be reversed, for ten minutes or until it is told to finish; cleaning, cleaned. Ends of
another kind: aborted, reversed. failed-verification waits for somebody to decide: reverse, or finish.`,
		Example: "  shardctl moves --watch\n  shardctl moves --all --json\n  shardctl moves pause 7",
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.moves(cmd, all, watch) },
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that have ended")
	cmd.Flags().BoolVar(&watch, "watch", false, "show them again every second, until Ctrl-C")
	cmd.AddCommand(o.orderCommands("moves ")...)
	return cmd
}

// orderCommands are those for one move. path is of the command that they are put under.
func (o *options) orderCommands(path string) (list []*cobra.Command) {
	for _, c := range []struct{ verb, short, long string }{
		{"abort", "Give a move up", "Ends a move whose ranges have not gone to their new owner yet. They stay where they are; slots, publications and copied rows are removed."},
		{"pause", "Stop a move where it is", "Stops the copy of a move, or puts its cutover off; the stream goes on. The source keeps its log for it meanwhile: mind the disk."},
		{"resume", "Let a paused move go on", "Lets a move go on that was paused."},
		{"reverse", "Give the ranges of a move back to its source", "Gives the ranges back, with all that was written since. It can be done until the move is cleaned."},
		{"finish", "End the soak of a move", "Ends the time in which a move can be reversed: its slots and the rows on its source are removed. After a verification that has failed, it takes the new owner's rows."},
	} {
		list = append(list, &cobra.Command{
			Use: c.verb + " MOVE", Short: c.short, Args: between(1, 1), ValidArgsFunction: o.completeMove,
			Long:    c.long + "\n\nExit status: 0 the move follows; 1 it does not, and standard error says why.",
			Example: "  shardctl " + path + c.verb + " 7",
			RunE:    func(cmd *cobra.Command, args []string) error { return o.order(cmd, c.verb, args[0]) },
		})
	}
	return list
}

// topOrders are the orders that are commands of their own.
func (o *options) topOrders() []*cobra.Command {
	return slices.DeleteFunc(o.orderCommands(""), func(c *cobra.Command) bool {
		return strings.HasPrefix(c.Use, "pause ") || strings.HasPrefix(c.Use, "resume ")
	})
}

func (o *options) completeMove(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	tables, err := o.query(cmd, "SHOW MOVES")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp // there is no place to say why
	}
	var ids []string
	for i := range tables[0].rows {
		ids = append(ids, tables[0].value(i, "id"))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func (o *options) order(cmd *cobra.Command, verb, id string) error {
	if _, err := strconv.ParseUint(id, 10, 63); err != nil {
		return usageError{cmd.CommandPath(), fmt.Errorf("%q is not the number of a move", id)}
	}
	tables, err := o.query(cmd, "MOVE "+strings.ToUpper(verb)+" "+id)
	if err != nil {
		return err
	}
	t := &tables[0]
	if o.json {
		return t.json(cmd.OutOrStdout())
	}
	fmt.Fprintf(cmd.OutOrStdout(), "move %s: %s %s\n", t.value(0, "id"), verb, t.value(0, "answer"))
	return nil
}

// moveColumns are what people see; --json has all.
var moveColumns = []string{"id", "kind", "source", "target", "phase", "back", "percent", "rows", "mb", "mb_per_s", "lag_bytes", "eta", "pause_ms", "paused", "throttle", "alarm", "blockers", "error"}

func (o *options) moves(cmd *cobra.Command, all, watch bool) error {
	sql := "SHOW MOVES"
	if all {
		sql += " ALL"
	}
	for first := true; ; first = false {
		tables, err := o.query(cmd, sql)
		if err != nil && cmd.Context().Err() != nil && !first {
			return nil
		}
		if err != nil {
			return err
		}
		if watch && isTerminal(cmd.OutOrStdout()) {
			fmt.Fprint(cmd.OutOrStdout(), "\x1b[H\x1b[2J")
		}
		if err := o.printMoves(cmd, &tables[0]); err != nil || !watch {
			return err
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}

func (o *options) printMoves(cmd *cobra.Command, t *table) error {
	if o.json {
		return t.json(cmd.OutOrStdout())
	}
	return t.only(moveColumns).text(cmd.OutOrStdout())
}

// isTerminal says whether somebody looks at what is written, and not a file or a program.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (o *options) verifyCommand() *cobra.Command {
	move := ""
	cmd := &cobra.Command{
		Use: "verify [SHARD | RANGE]", Short: "Whether all rows are on the shard that owns their key",
		Long: `Counts the rows of the sharded tables, and those that are misplaced: of keys that their shard does not own, and that are not on their way.
Ten keys of them are named for each table. It reads whole tables, of all shards, or of one, or the rows of one key range on all shards.
A range is called by its first hash, as ` + "`shardctl ranges`" + ` has it, with 0x before the hexadecimal form.

With --move it says what came of the comparison of source and target that each move makes by itself.

Exit status: 0 all rows are in place; 1 some are not, or a move was not verified.`,
		Example: "  shardctl verify\n  shardctl verify s1\n  shardctl verify 0x4000000000000000\n  shardctl verify --move 7",
		Args:    between(0, 1), ValidArgsFunction: o.completeShard,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case move != "" && len(args) > 0:
				return usageError{cmd.CommandPath(), errors.New("a move has its shards and ranges already")}
			case move != "":
				return o.verifyMove(cmd, move)
			case len(args) == 0:
				return o.verify(cmd, "VERIFY")
			}
			return o.verify(cmd, "VERIFY "+shardOrRange(args[0]))
		},
	}
	cmd.Flags().StringVar(&move, "move", "", "number of a move")
	return cmd
}

func (o *options) verify(cmd *cobra.Command, sql string) error {
	tables, err := o.queryWithin(cmd, sql, verifyTimeout)
	if err != nil {
		return err
	}
	t := &tables[0]
	var sums [3]int
	for i, column := range []string{"rows", "misplaced", "moving"} {
		for row := range t.rows {
			n, _ := strconv.Atoi(t.value(row, column)) // numbers: the console says so
			sums[i] += n
		}
	}
	if o.json {
		err = t.json(cmd.OutOrStdout())
	} else if err = t.text(cmd.OutOrStdout()); err == nil && sums[1] == 0 {
		fmt.Fprintf(cmd.OutOrStdout(), "\n%s in place, %s of moves that go on\n", plural(sums[0]-sums[2], "row"), plural(sums[2], "row"))
	}
	if err == nil && sums[1] > 0 {
		err = fmt.Errorf("%s misplaced", plural(sums[1], "row")+map[bool]string{true: " is", false: " are"}[sums[1] == 1])
	}
	return err
}

func (o *options) verifyMove(cmd *cobra.Command, id string) error {
	if _, err := strconv.ParseUint(id, 10, 63); err != nil {
		return usageError{cmd.CommandPath(), fmt.Errorf("%q is not the number of a move", id)}
	}
	tables, err := o.query(cmd, "VERIFY MOVE "+id)
	if err != nil {
		return err
	}
	t := &tables[0]
	if err := o.printRecord(cmd, &record{*t}); err != nil {
		return err
	}
	if t.value(0, "verified") != "yes" {
		return fmt.Errorf("move %s is not verified: %s", id, t.value(0, "detail"))
	}
	return nil
}

// settled is how a move has come to rest for who waits for it.
type settled struct {
	done bool
	err  error
}

// settledOf tells whether the ranges have their new owner, and whether both shards had the same rows. With cleaned, nothing may be left
// of the move.
func settledOf(t *table, row int, cleaned bool) settled {
	id, phase := t.value(row, "id"), t.value(row, "phase")
	failed := func(what string) settled {
		if reason := t.value(row, "error"); reason != "" {
			what += ": " + reason
		}
		return settled{true, fmt.Errorf("move %s %s", id, what)}
	}
	switch phase {
	case "cleaned":
		return settled{done: true}
	case "soak", "cleaning":
		return settled{done: !cleaned}
	case "aborted":
		return failed("was aborted")
	case "reversed":
		return failed("was reversed")
	case "failed-verification":
		return failed("has found differences; decide with `shardctl reverse " + id + "` or `shardctl finish " + id + "`")
	}
	return settled{}
}

// waiter waits for moves.
type waiter struct {
	o      *options
	cmd    *cobra.Command
	ids    []string
	finish bool // tell each one to finish as soon as it soaks

	asked map[string]bool // to finish
	last  table           // what was seen last, of these moves only
}

const (
	waitEvery = 500 * time.Millisecond
	// waitPatience is how long nobody may answer: a proxy is restarted, or another one is behind the address.
	waitPatience = time.Minute
)

// wait returns when all moves have settled, with the error of the first that has failed.
func (w *waiter) wait(ctx context.Context) error {
	w.asked = make(map[string]bool)
	bar := newBar(w.cmd.ErrOrStderr())
	defer bar.close()
	heard := time.Now()
	for {
		tables, err := w.o.query(w.cmd, "SHOW MOVES ALL")
		switch {
		case ctx.Err() != nil:
			return errors.New("no longer waiting; the moves go on, `shardctl moves` shows them")
		case err == nil:
			heard = time.Now()
			w.last = tables[0].where("id", w.ids)
			bar.show(&w.last)
			if done, err := w.settled(); done {
				return err
			}
		case time.Since(heard) > waitPatience:
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(waitEvery):
		}
	}
}

// settled says whether all have, and tells those to finish that can.
func (w *waiter) settled() (done bool, first error) {
	done = true
	for row := range w.last.rows {
		s := settledOf(&w.last, row, w.finish)
		done = done && s.done
		if first == nil {
			first = s.err
		}
		if id := w.last.value(row, "id"); w.finish && w.last.value(row, "phase") == "soak" && !w.asked[id] {
			_, err := w.o.query(w.cmd, "MOVE FINISH "+id)
			w.asked[id] = err == nil // else it is asked again, if it still soaks
		}
	}
	return done, first
}
