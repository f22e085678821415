package plot

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func sample() Plot {
	return Plot{
		Title: "Time", X: "shards",
		XTicks: []Tick{{10, "10"}, {100, "100"}}, YTicks: []Tick{{1, "1 ms"}, {1000, "1 s"}},
		Lines: []Line{
			{Name: "a", Points: []Point{{10, 1}, {100, 1000}}},
			{Name: "b", Dashed: true, Points: []Point{{10, 0}, {100, 31.6227766}}}, // below the scale, and in its middle
		},
	}
}

func TestPlotIsWellFormedAndToScale(t *testing.T) {
	svg := sample().SVG()
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, svg)
		}
	}
	for _, want := range []string{
		`points="70.0,350.0 510.0,30.0" fill="none" stroke="#1b7837" stroke-width="2"/>`,
		`points="70.0,350.0 510.0,190.0" fill="none" stroke="#2166ac" stroke-width="2" stroke-dasharray="5 4"/>`,
		`>1 ms</text>`, `>100</text>`, `>shards</text>`, `>Time</text>`, `>b</text>`,
	} {
		if !strings.Contains(svg, want) {
			t.Errorf("no %s in\n%s", want, svg)
		}
	}
}

func TestReplace(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	const begin, end = "<!-- begin -->", "<!-- end -->"
	if err := os.WriteFile(page, []byte("before\n"+begin+"\nold\n"+end+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the marks stay
		if err := Replace(page, begin, end, "new\n"); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if want := "before\n" + begin + "\nnew\n" + end + "\nafter\n"; err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
	if err := Replace(page, begin, "<!-- nowhere -->", "x"); err == nil {
		t.Error("a page without the marks was changed")
	}
}
