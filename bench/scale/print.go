package main

import (
	"fmt"
	"strings"
	"time"

	"shardproxy/internal/plot"
)

// table has a column for each size.
func table(all []*result) string {
	var b strings.Builder
	row := func(what string, cell func(*result) string) {
		b.WriteString("| " + what)
		for _, r := range all {
			b.WriteString(" | " + cell(r))
		}
		b.WriteString(" |\n")
	}
	row("shards, each with 3 nodes", func(r *result) string { return thousands(r.shards) })
	b.WriteString("|---" + strings.Repeat("|---", len(all)) + "|\n")
	row("the owner of a key", func(r *result) string { return duration(r.lookup) })
	row("apply a change of one range", func(r *result) string { return duration(r.apply) })
	row("apply a new shard", func(r *result) string { return duration(r.addShard) })
	row("make a change in the catalog", func(r *result) string { return duration(r.commit) })
	row("read the state file", func(r *result) string { return duration(r.readFile) })
	row("write the state file", func(r *result) string { return duration(r.writeFile) })
	row("load from the catalog", func(r *result) string { return duration(r.load) })
	row("create in the catalog", func(r *result) string { return duration(r.init) })
	row("memory of the map", func(r *result) string { return size(float64(r.held)) })
	row("state file, or whole map to a peer before packing", func(r *result) string { return size(float64(r.file)) })
	row("a change of one range to a peer", func(r *result) string { return fmt.Sprintf("%d bytes", r.delta) })
	return b.String()
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

func duration(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d.Nanoseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.2g ms", d.Seconds()*1e3)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func size(bytes float64) string {
	if bytes < 1e6 {
		return fmt.Sprintf("%.0f KB", bytes/1e3)
	}
	return fmt.Sprintf("%.1f MB", bytes/1e6)
}

// draw shows the times over the number of shards.
func draw(all []*result) plot.Plot {
	p := plot.Plot{Title: "Time for one of each", X: "shards", LegendPixels: 230}
	for _, r := range all {
		p.XTicks = append(p.XTicks, plot.Tick{At: float64(r.shards), Name: thousands(r.shards)})
	}
	for _, d := range []time.Duration{10 * time.Nanosecond, time.Microsecond, 100 * time.Microsecond, 10 * time.Millisecond, time.Second, 100 * time.Second} {
		p.YTicks = append(p.YTicks, plot.Tick{At: float64(d), Name: d.String()})
	}
	for _, line := range []struct {
		name string
		took func(*result) time.Duration
	}{
		{"create in the catalog", func(r *result) time.Duration { return r.init }},
		{"load from the catalog", func(r *result) time.Duration { return r.load }},
		{"read the state file", func(r *result) time.Duration { return r.readFile }},
		{"change one range in the catalog", func(r *result) time.Duration { return r.commit }},
		{"apply a change of one range", func(r *result) time.Duration { return r.apply }},
		{"the owner of a key", func(r *result) time.Duration { return r.lookup }},
	} {
		l := plot.Line{Name: line.name}
		for _, r := range all {
			l.Points = append(l.Points, plot.Point{X: float64(r.shards), Y: float64(line.took(r))})
		}
		p.Lines = append(p.Lines, l)
	}
	return p
}
