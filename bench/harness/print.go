package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// print writes the tables.
func (r *report) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\n%d × %s, Linux %s, %s; %g s a run, median of %d, scale %d, %d backends a pool\n",
		r.Machine.CPUs, r.Machine.Model, r.Machine.Kernel, r.Machine.Go, r.Window, r.Rounds, r.Scale, r.Pool)
	r.printReads(w)
	r.printIdle(w)
	r.printLarge(w)
	r.printReach(w)
	return w.Flush()
}

func (r *report) printReads(w io.Writer) {
	if len(r.Reads) > 0 {
		fmt.Fprint(w, "\nPoint reads; CPU is that of the proxy process\n")
		fmt.Fprint(w, "mode\tclients\ttarget\tTPS\tp50 ms\tp99 ms\tCPU µs/tx\t× pgbouncer\t× relay\tRSS MB\tfailed\tnoisy\t\n")
	}
	for i, c := range r.Reads {
		if i > 0 && (c.Clients != r.Reads[i-1].Clients || c.Mode != r.Reads[i-1].Mode) {
			fmt.Fprint(w, "\t\t\t\t\t\t\t\t\t\t\t\t\n")
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%.0f\t%.3f\t%.3f\t%s\t%s\t%s\t%s\t%d\t%d of %d\t\n", c.Mode, c.Clients, c.Target,
			c.TPS, c.P50, c.P99, figure(c.CPU, "%.1f"), figure(c.VsPgBouncer, "%.2f"), figure(c.VsRelay, "%.2f"),
			figure(mega(c.RSS), "%.1f"), c.Failed, c.Noisy, len(c.Samples))
	}
}

func (r *report) printIdle(w io.Writer) {
	if len(r.Idle) > 0 {
		fmt.Fprint(w, "\nIdle clients, after one query each\ntarget\tclients\tbytes a client\tRSS MB\t\n")
	}
	for _, i := range r.Idle {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t\n", i.Target, i.Clients, i.BytesPerClient, mega(i.RSS))
	}
}

func (r *report) printLarge(w io.Writer) {
	if len(r.Large) > 0 {
		fmt.Fprint(w, "\nLarge result\ntarget\tMB/s\t× plain\tCPU µs/MB\tRSS MB before\tRSS MB peak\t\n")
	}
	for _, l := range r.Large {
		var vsPlain float64
		if r.Large[0].Target == "plain" {
			vsPlain = l.MBps / r.Large[0].MBps
		}
		fmt.Fprintf(w, "%s\t%.0f\t%s\t%s\t%s\t%s\t\n", l.Target, l.MBps, figure(vsPlain, "%.2f"),
			figure(l.CPU, "%.0f"), figure(mega(l.RSSBefore), "%.1f"), figure(mega(l.RSSPeak), "%.1f"))
	}
}

func (r *report) printReach(w io.Writer) {
	if len(r.Reach) > 0 {
		fmt.Fprint(w, "\nReach\nwhat\tseen\tlimit\t\t\n")
	}
	for _, g := range r.Reach {
		verdict := "reached"
		if !g.Reached {
			verdict = "MISSED"
		}
		fmt.Fprintf(w, "%s\t%.2f\t%s %g\t%s\t\n", g.What, g.Seen, g.Sense, g.Limit, verdict)
	}
}

// figure prints a number, and a dash for one that there is not.
func figure(v float64, format string) string {
	if v == 0 {
		return "–"
	}
	return fmt.Sprintf(format, v)
}

func mega(bytes int64) float64 { return float64(bytes) / megabyte }
