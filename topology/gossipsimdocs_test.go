package topology

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/plot"
)

const (
	figuresBegin = "<!-- written by TestGossipSimulation: begin -->"
	figuresEnd   = "<!-- end -->"
)

// writeSimulation replaces the figures in gossip.md and draws gossip.svg.
func writeSimulation(t *testing.T, dir string, all []*simResult) {
	t.Helper()
	if err := plot.Replace(filepath.Join(dir, "gossip.md"), figuresBegin, figuresEnd, simTables(all)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "gossip.svg"), []byte(simPlot(all)), 0o644); err != nil {
		t.Fatal(err)
	}
}

func ms(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func kb(n float64) string {
	switch {
	case n < 10e3:
		return fmt.Sprintf("%.1f KB", n/1e3)
	case n < 1e6:
		return fmt.Sprintf("%.0f KB", n/1e3)
	}
	return fmt.Sprintf("%.1f MB", n/1e6)
}

func simTables(all []*simResult) string {
	var b strings.Builder
	b.WriteString("| peers | packets lost | a change is with all: median, worst | confirmed to its origin: median, worst | bytes a peer sends for it | when idle | a peer that missed 3 changes | after a partition |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		fmt.Fprintf(&b, "| %d | %.0f %% | %s, %s | %s, %s | %s | %s/s | %s | %s |\n", r.peers, 100*r.loss, ms(r.change.median), ms(r.change.worst),
			ms(r.confirmed.median), ms(r.confirmed.worst), kb(r.bytes), kb(r.idle), ms(r.missed), ms(r.healed))
	}
	b.WriteString("\n| peers | packets lost | ranges | map | all have the whole map after | a peer sends | the busiest sends |\n|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		for _, m := range r.maps {
			fmt.Fprintf(&b, "| %d | %.0f %% | %d | %s | %s | %s | %s |\n", r.peers, 100*r.loss, m.ranges, kb(float64(m.size)), ms(m.took), kb(m.sent), kb(m.most))
		}
	}
	return b.String()
}

// simPlot draws time over peers.
func simPlot(all []*simResult) string {
	tick := func(d time.Duration) plot.Tick { return plot.Tick{At: float64(d), Name: d.String()} }
	return plot.Plot{
		Title: "Time until all peers have it", X: "peers",
		XTicks: []plot.Tick{{At: 10, Name: "10"}, {At: 100, Name: "100"}, {At: 500, Name: "500"}},
		YTicks: []plot.Tick{tick(time.Millisecond), tick(10 * time.Millisecond), tick(100 * time.Millisecond), tick(time.Second), tick(10 * time.Second)},
		Lines:  simLines(all),
	}.SVG()
}

// simLines is the worst change at each loss, and the whole maps without loss.
func simLines(all []*simResult) (lines []plot.Line) {
	add := func(name string, dashed bool, loss float64, took func(*simResult) time.Duration) {
		l := plot.Line{Name: name, Dashed: dashed}
		for _, r := range all {
			if r.loss == loss {
				l.Points = append(l.Points, plot.Point{X: float64(r.peers), Y: float64(took(r))})
			}
		}
		lines = append(lines, l)
	}
	for _, loss := range simLoss {
		add(fmt.Sprintf("a change, %.0f %% lost", 100*loss), false, loss, func(r *simResult) time.Duration { return r.change.worst })
	}
	for i, m := range all[0].maps {
		add(fmt.Sprintf("map of %d,000 ranges", m.ranges/1000), true, 0, func(r *simResult) time.Duration { return r.maps[i].took })
	}
	return lines
}
