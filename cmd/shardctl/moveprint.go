package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/schollz/progressbar/v3"
)

// only has some of the columns, in their order.
func (t *table) only(columns []string) *table {
	less := &table{}
	var at []int
	for i, name := range t.columns {
		if slices.Contains(columns, name) {
			at = append(at, i)
			less.columns, less.numbers = append(less.columns, name), append(less.numbers, t.numbers[i])
		}
	}
	for _, row := range t.rows {
		var values [][]byte
		for _, i := range at {
			values = append(values, row[i])
		}
		less.rows = append(less.rows, values)
	}
	return less
}

// where has the rows whose column has one of these values.
func (t *table) where(column string, values []string) table {
	some := table{columns: t.columns, numbers: t.numbers}
	for i := range t.rows {
		if slices.Contains(values, t.value(i, column)) {
			some.rows = append(some.rows, t.rows[i])
		}
	}
	return some
}

// scheduleText tells what was changed and what will move, a line each.
func scheduleText(w io.Writer, t *table) {
	for i := range t.rows {
		if t.value(i, "move") == "" {
			fmt.Fprintf(w, "epoch %s: %s\n", t.value(i, "epoch"), t.value(i, "change"))
			continue
		}
		n, _ := strconv.Atoi(t.value(i, "ranges")) // a number: the console says so
		fmt.Fprintf(w, "move %s: %s, %s, %s %% of the ring, from %s to %s\n",
			t.value(i, "move"), t.value(i, "kind"), plural(n, "range"), t.value(i, "share"), t.value(i, "source"), t.value(i, "target"))
	}
}

// planText shows a plan: what belongs to a move stands below it.
func planText(w io.Writer, t *table) error {
	var b bytes.Buffer
	tabs := newTabs(&b)
	for i := range t.rows {
		detail := oneLineOf(t.value(i, "detail"))
		if subject := t.value(i, "subject"); subject != "" {
			detail = subject + ": " + detail
		}
		indent := ""
		item := t.value(i, "item")
		switch move := t.value(i, "move"); {
		case item == "move":
			item = "move " + move
		case move != "":
			indent = "  "
		}
		size := ""
		if rows := t.value(i, "rows"); rows != "" {
			n, _ := strconv.ParseFloat(t.value(i, "bytes"), 64) // a number: the console says so
			size = fmt.Sprintf("%s rows, %.1f MB move", rows, n/1e6)
		}
		fmt.Fprintf(tabs, "%s%s\t%s\t%s\n", indent, item, detail, size)
		if hint := t.value(i, "hint"); hint != "" {
			fmt.Fprintf(tabs, "%s\t  %s\t\n", indent, oneLineOf(hint))
		}
	}
	if err := tabs.Flush(); err != nil {
		return err
	}
	for line := range bytes.Lines(b.Bytes()) {
		if _, err := fmt.Fprintf(w, "%s\n", bytes.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// bar shows on a terminal how far moves are.
type bar struct{ *progressbar.ProgressBar }

const barSteps = 100 // percent

func newBar(w io.Writer) *bar {
	if !isTerminal(w) {
		return &bar{}
	}
	return &bar{progressbar.NewOptions(barSteps, progressbar.OptionSetWriter(w), progressbar.OptionSetWidth(30),
		progressbar.OptionSetPredictTime(false), progressbar.OptionClearOnFinish())}
}

// show takes the mean of the moves, and names what the first that is not done yet is about.
func (b *bar) show(t *table) {
	if b.ProgressBar == nil || len(t.rows) == 0 {
		return
	}
	sum, text := 0, ""
	for i := range t.rows {
		percent, err := strconv.Atoi(t.value(i, "percent"))
		if err != nil { // it goes back, or was given up
			percent = barSteps
		}
		sum += percent
		if percent < barSteps && text == "" {
			text = fmt.Sprintf("move %s %s", t.value(i, "id"), t.value(i, "phase"))
			if eta := t.value(i, "eta"); eta != "" {
				text += ", " + t.value(i, "mb_per_s") + " MB/s, " + eta
			}
		}
	}
	b.Describe(text)
	_ = b.Set(sum / len(t.rows)) // a terminal that is gone need not be told
}

func (b *bar) close() {
	if b.ProgressBar != nil {
		_ = b.Finish()
	}
}
