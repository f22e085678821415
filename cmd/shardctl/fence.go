package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

// fenceTimeout is how long the console is waited for: longer than it works on fences.
const fenceTimeout = 16 * time.Minute

func (o *options) fenceCommand() *cobra.Command {
	install := o.fenceVerb("install", "Make every shard refuse writes by an old map and rows of other shards, or mend what does", "FENCE INSTALL")
	install.Long = `Puts a fence on every shard, or mends the one that is there: triggers on each sharded and reference table, and the functions
that they call. It may be repeated, and leaves alone what is right. Where writers are in the way, it tries again for some seconds.

EPOCH is that of the oldest map by which the shard can be written to. From then on, who writes to a shard directly, past the
proxies, must say by which map: SET shardproxy.epoch. Tables that are created through a proxy later get their triggers by themselves.

Exit status: 0 all shards have their fence; 1 standard error counts those that have not.`
	install.Example = "  shardctl fence install"
	check := o.fenceVerb("check", "Whether every shard has its fence, and what is wrong with it", "FENCE CHECK")
	check.Long = `Compares the fence of every shard with the map and the shard's tables, and changes nothing.

Exit status: 0 all is well; 1 standard error counts the shards with problems.`
	check.Example = "  shardctl fence check\n  shardctl fence check --json"
	return group("fence", "Keep proxies with an old map from writing", install, check)
}

func (o *options) fenceVerb(use, short, sql string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.fence(cmd, sql) },
	}
}

// fence prints the answer of the console, and is an error where a shard is not well.
func (o *options) fence(cmd *cobra.Command, sql string) error {
	tables, err := o.queryWithin(cmd, sql, fenceTimeout)
	if err != nil {
		return err
	}
	t := &tables[0]
	if o.json {
		err = t.json(cmd.OutOrStdout())
	} else {
		err = t.text(cmd.OutOrStdout())
	}
	shards, ill := 0, map[string]bool{}
	for i := range t.rows {
		shard := t.value(i, "shard")
		if i == 0 || shard != t.value(i-1, "shard") {
			shards++
		}
		if status := t.value(i, "status"); status != "ok" && status != "installed" {
			ill[shard] = true
		}
	}
	if err == nil && len(ill) > 0 {
		verb := map[bool]string{true: "has", false: "have"}[len(ill) == 1]
		err = fmt.Errorf("%d of %d shards %s no fence as the map wants it", len(ill), shards, verb)
	}
	return err
}
