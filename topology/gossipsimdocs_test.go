package topology

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	figuresBegin = "<!-- written by TestGossipSimulation: begin -->\n"
	figuresEnd   = "<!-- end -->\n"
)

// writeSimulation replaces the figures in gossip.md and draws gossip.svg.
func writeSimulation(t *testing.T, dir string, all []*simResult) {
	t.Helper()
	page := filepath.Join(dir, "gossip.md")
	old, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := bytes.Cut(old, []byte(figuresBegin))
	_, after, ok2 := bytes.Cut(rest, []byte(figuresEnd))
	if !ok1 || !ok2 {
		t.Fatalf("%s lacks the marks that stand around the figures", page)
	}
	text := string(before) + figuresBegin + simTables(all) + figuresEnd + string(after)
	if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
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

// simPlot draws time over peers, both on logarithmic scales.
func simPlot(all []*simResult) string {
	const width, height, left, top, right, bottom = 720, 400, 70, 30, 210, 50
	x := func(peers float64) float64 {
		return left + (width-left-right)*(math.Log10(peers)-1)/(math.Log10(500)-1)
	}
	y := func(d time.Duration) float64 { // 1 ms to 10 s
		return height - bottom - (height-top-bottom)*math.Log10(max(1, float64(d)/float64(time.Millisecond)))/4
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/><text x="%d" y="18" font-size="14">Time until all peers have it</text>`+"\n", width, height, left)
	for _, d := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond, time.Second, 10 * time.Second} {
		fmt.Fprintf(&b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%v</text>`+"\n", left, y(d), width-right, left-8, y(d)+4, d)
	}
	for _, n := range []float64{10, 100, 500} {
		fmt.Fprintf(&b, `<path d="M%.1f %dV%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%.0f</text>`+"\n", x(n), top, height-bottom, x(n), height-bottom+18, n)
	}
	fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">peers</text>`+"\n", float64(left+width-right)/2, height-10)

	for i, line := range simLines(all) {
		var points []string
		for _, p := range line.points {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(p.peers), y(p.took)))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(p.peers), y(p.took), line.color)
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"%s/>`+"\n", strings.Join(points, " "), line.color, line.dash)
		fmt.Fprintf(&b, `<path d="M%d %dh24" stroke="%s" stroke-width="2"%s/><text x="%d" y="%d">%s</text>`+"\n",
			width-right+15, top+14+22*i, line.color, line.dash, width-right+45, top+18+22*i, line.name)
	}
	return b.String() + "</svg>\n"
}

type simLine struct {
	name, color, dash string
	points            []simPoint
}

type simPoint struct {
	peers float64
	took  time.Duration
}

// simLines is the worst change at each loss, and the whole maps without and with the highest loss.
func simLines(all []*simResult) (lines []simLine) {
	colors := []string{"#1b7837", "#2166ac", "#b2182b", "#e08214", "#762a83"}
	const dashed = ` stroke-dasharray="5 4"`
	add := func(name, dash string, loss float64, took func(*simResult) time.Duration) {
		l := simLine{name: name, color: colors[len(lines)%len(colors)], dash: dash}
		for _, r := range all {
			if r.loss == loss {
				l.points = append(l.points, simPoint{float64(r.peers), took(r)})
			}
		}
		lines = append(lines, l)
	}
	for _, loss := range simLoss {
		add(fmt.Sprintf("a change, %.0f %% lost", 100*loss), "", loss, func(r *simResult) time.Duration { return r.change.worst })
	}
	for i, m := range all[0].maps {
		add(fmt.Sprintf("map of %d,000 ranges", m.ranges/1000), dashed, 0, func(r *simResult) time.Duration { return r.maps[i].took })
	}
	return lines
}
