package main

import (
	"fmt"
	"slices"
	"strings"

	"shardproxy/internal/plot"
)

// result is what one run has measured.
type result struct {
	Rate     int       `json:"writes_per_second"`
	Writes   int       `json:"writes"` // none failed
	Copy     *copies   `json:"copy"`
	Before   latency   `json:"before"`   // of all writes
	Copying  latency   `json:"copying"`  // of those to ranges that do not move
	Cleaning latency   `json:"cleaning"` // the same, while the old owner's rows are deleted
	Cutovers []cutover `json:"cutovers"`
}

// quantile of values, the next that there is.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func (r *result) of(value func(cutover) float64) (values []float64) {
	for _, one := range r.Cutovers {
		values = append(values, value(one))
	}
	return values
}

// table is what the page shows.
func (r *result) table() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("%d cutovers, at %d writes a second (%d in all, none failed), in ms:\n", len(r.Cutovers), r.Rate, r.Writes)
	line("| | p50 | p90 | most |\n|---|---|---|---|")
	row := func(name string, values []float64) {
		line("| %s | %.1f | %.1f | %.1f |", name, quantile(values, .5), quantile(values, .9), quantile(values, 1))
	}
	row("`pause_ms`, as the coordinator measures it", r.of(func(c cutover) float64 { return c.Pause }))
	row("the longest write of the range that moves", r.of(func(c cutover) float64 { return c.Moving }))
	row("the longest write of other ranges meanwhile", r.of(func(c cutover) float64 { return c.Others }))
	for _, name := range parts(r.Cutovers) {
		row("… "+name, r.of(func(c cutover) float64 { return c.Parts[name] }))
	}
	line("\nThe latency of writes to other ranges while one of %d rows moves, in ms:\n", r.Copy.Rows)
	line("| | writes | p50 | p99 | most |\n|---|---|---|---|---|")
	for _, one := range []struct {
		when string
		latency
	}{{"before", r.Before}, {"rows are copied", r.Copying}, {"rows of the old owner are deleted", r.Cleaning}} {
		line("| %s | %d | %.1f | %.1f | %.1f |", one.when, one.Writes, one.P50, one.P99, one.Most)
	}
	line("\nThe same rows (%d, %.0f MB with one index more than the primary key), the shortest of several:\n", r.Copy.Rows, float64(r.Copy.Bytes)/1e6)
	line("| | s | rows/s | MB/s |\n|---|---|---|---|")
	for _, one := range []struct {
		how     string
		seconds float64
	}{{"`psql COPY TO \\| psql COPY FROM`", r.Copy.Psql}, {"the mover", r.Copy.Mover}} {
		line("| %s | %.1f | %.0f | %.0f |", one.how, one.seconds, float64(r.Copy.Rows)/one.seconds, float64(r.Copy.Bytes)/1e6/one.seconds)
	}
	return b.String()
}

// draw shows which part of the cutovers took how long.
func (r *result) draw() plot.Plot {
	p := plot.Plot{Title: "Cutovers that took no longer, in %", X: "ms", LegendPixels: 260}
	for _, ms := range []float64{2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000} {
		p.XTicks = append(p.XTicks, plot.Tick{At: ms, Name: fmt.Sprint(ms)})
	}
	for _, percent := range []float64{2, 5, 10, 25, 50, 75, 100} {
		p.YTicks = append(p.YTicks, plot.Tick{At: percent, Name: fmt.Sprint(percent)})
	}
	for _, line := range []struct {
		name  string
		value func(cutover) float64
	}{
		{"the pause", func(c cutover) float64 { return c.Pause }},
		{"the longest write that moves", func(c cutover) float64 { return c.Moving }},
		{"the longest write elsewhere", func(c cutover) float64 { return c.Others }},
	} {
		l := plot.Line{Name: line.name}
		for i, ms := range slices.Sorted(slices.Values(r.of(line.value))) {
			l.Points = append(l.Points, plot.Point{X: min(ms, 2000), Y: 100 * float64(i+1) / float64(len(r.Cutovers))})
		}
		p.Lines = append(p.Lines, l)
	}
	return p
}
