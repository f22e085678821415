package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// How long the doctor is waited for: longer than the console lets it work.
const (
	doctorTimeout = 20 * time.Minute
	deepTimeout   = 7 * time.Hour
)

func (o *options) doctorCommand() *cobra.Command {
	deep, strict := false, false
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at the whole cluster and say what is wrong",
		Long: `Asks a proxy to look at the catalog, at all proxies, shards and replicas, their settings and schemas, at fences, tables, and at what
commits and moves have left behind. It changes nothing.

With --deep it also reads all rows of all tables: whether they are on the shard that owns their key, and whether reference tables
have the same rows everywhere. That is a load, takes as long as a backup, and needs one of admin.users.

Exit status: 0 all is well, or there are only warnings; 1 there are errors, or with --strict warnings.`,
		Example: "  shardctl doctor\n  shardctl doctor --json --strict\n  shardctl doctor --deep",
		Args:    between(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.doctor(cmd, deep, strict) },
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "also read all rows of all tables")
	cmd.Flags().BoolVar(&strict, "strict", false, "count warnings as errors")
	return cmd
}

func (o *options) doctor(cmd *cobra.Command, deep, strict bool) error {
	sql, timeout := "DOCTOR", doctorTimeout
	if deep {
		sql, timeout = "DOCTOR DEEP", deepTimeout
	}
	tables, err := o.queryWithin(cmd, sql, timeout)
	if err != nil {
		return err
	}
	t := &tables[0]
	report := newReport(t)
	if o.json {
		err = t.json(cmd.OutOrStdout())
	} else {
		err = report.text(cmd.OutOrStdout())
	}
	if err == nil && (report.errors > 0 || strict && report.warnings > 0) {
		err = fmt.Errorf("the doctor has found %s", report.found())
	}
	return err
}

// report is what the doctor says, for people.
type report struct {
	*table
	checks, errors, warnings int
}

func newReport(t *table) *report {
	r := &report{table: t}
	for i := range t.rows {
		if i == 0 || t.value(i, "check") != t.value(i-1, "check") {
			r.checks++
		}
		switch t.value(i, "status") {
		case "error":
			r.errors++
		case "warning":
			r.warnings++
		}
	}
	return r
}

// found counts what is not well.
func (r *report) found() string {
	return plural(r.errors, "error") + " and " + plural(r.warnings, "warning")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// text writes a line for each check that is well, and else a paragraph: each finding with what to do about it, once for those that
// follow one another with the same.
func (r *report) text(w io.Writer) error {
	tabs := newTabs(w)
	for i := range r.rows {
		check := ""
		if i == 0 || r.value(i, "check") != r.value(i-1, "check") {
			check = r.value(i, "check")
		}
		detail := oneLineOf(r.value(i, "detail"))
		if subject := r.value(i, "subject"); subject != "" {
			detail = subject + ": " + detail
		}
		fmt.Fprintf(tabs, "%s\t%s\t%s\n", check, r.value(i, "status"), detail)
		hint := r.value(i, "hint")
		last := i+1 == len(r.rows) || r.value(i+1, "hint") != hint || r.value(i+1, "check") != r.value(i, "check")
		if hint != "" && last {
			fmt.Fprintf(tabs, "\t\t  %s\n", oneLineOf(hint))
		}
	}
	if err := tabs.Flush(); err != nil {
		return err
	}
	summary := "all is well"
	if r.errors+r.warnings > 0 {
		summary = r.found()
	}
	_, err := fmt.Fprintf(w, "\n%s: %s\n", plural(r.checks, "check"), summary)
	return err
}

// oneLineOf keeps what a server says from breaking the table.
func oneLineOf(s string) string { return cmp.Or(strings.Join(strings.Fields(s), " "), "-") }
