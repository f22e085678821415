// Package plot draws the plots of docs/ as SVG, and puts figures into its pages between marks:
//
//	Plot{…}.SVG() ──► docs/name.svg        Replace(docs/name.md, begin, end, table)
package plot

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"strings"
)

// Plot is lines over two logarithmic scales.
type Plot struct {
	Title, X     string
	XTicks       []Tick // the first and the last are the ends of the scale, as those of YTicks
	YTicks       []Tick
	Lines        []Line
	LegendPixels int // room for the names of the lines; 0 is 210
}

// Tick is a value of a scale with its name.
type Tick struct {
	At   float64 // above 0
	Name string
}

// Line joins points. A value below the scale is drawn at its end.
type Line struct {
	Name   string
	Dashed bool
	Points []Point
}

// Point is one measured value.
type Point struct{ X, Y float64 }

const width, height, left, top, bottom = 720, 400, 70, 30, 50

// colors are apart for eyes that see no red and green, too.
var colors = []string{"#1b7837", "#2166ac", "#b2182b", "#e08214", "#762a83", "#01665e", "#8c510a"}

// scale gives the place of a value between two pixels.
func scale(ticks []Tick, from, to, value float64) float64 {
	low, high := math.Log10(ticks[0].At), math.Log10(ticks[len(ticks)-1].At)
	return from + (to-from)*(math.Log10(max(value, ticks[0].At))-low)/(high-low)
}

// SVG draws the plot.
func (p Plot) SVG() string {
	right := p.LegendPixels
	if right == 0 {
		right = 210
	}
	x := func(v float64) float64 { return scale(p.XTicks, left, float64(width-right), v) }
	y := func(v float64) float64 { return scale(p.YTicks, height-bottom, top, v) }
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, width, height)
	line(`<rect width="%d" height="%d" fill="white"/><text x="%d" y="18" font-size="14">%s</text>`, width, height, left, p.Title)
	for _, t := range p.YTicks {
		line(`<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`, left, y(t.At), width-right, left-8, y(t.At)+4, t.Name)
	}
	for _, t := range p.XTicks {
		line(`<path d="M%.1f %dV%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`, x(t.At), top, height-bottom, x(t.At), height-bottom+18, t.Name)
	}
	line(`<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, float64(left+width-right)/2, height-10, p.X)
	for i, l := range p.Lines {
		color, dash := colors[i%len(colors)], ""
		if l.Dashed {
			dash = ` stroke-dasharray="5 4"`
		}
		var points []string
		for _, at := range l.Points {
			points = append(points, fmt.Sprintf("%.1f,%.1f", x(at.X), y(at.Y)))
			line(`<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`, x(at.X), y(at.Y), color)
		}
		line(`<polyline points="%s" fill="none" stroke="%s" stroke-width="2"%s/>`, strings.Join(points, " "), color, dash)
		line(`<path d="M%d %dh24" stroke="%s" stroke-width="2"%s/><text x="%d" y="%d">%s</text>`,
			width-right+15, top+14+22*i, color, dash, width-right+45, top+18+22*i, l.Name)
	}
	return b.String() + "</svg>\n"
}

// Replace writes figures into a page, between two lines that stay.
func Replace(page, begin, end, figures string) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(old, []byte(begin+"\n"))
	_, after, closed := bytes.Cut(rest, []byte(end+"\n"))
	if !ok || !closed {
		return fmt.Errorf("%s lacks the lines %q and %q that stand around the figures", page, begin, end)
	}
	text := string(before) + begin + "\n" + figures + end + "\n" + string(after)
	return os.WriteFile(page, []byte(text), 0o644)
}
