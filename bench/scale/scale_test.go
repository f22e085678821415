package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestScale runs the program over small topologies, and looks at what it writes.
func TestScale(t *testing.T) {
	dir := t.TempDir()
	page := filepath.Join(dir, "scale.md")
	if err := os.WriteFile(page, []byte("above\n"+figuresBegin+"\nold\n"+figuresEnd+"\nbelow\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), &bytes.Buffer{}, dir, "10,100", 1); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"above\n" + figuresBegin + "\n| shards, each with 3 nodes | 10 | 100 |\n|---|---|---|\n", "| memory of the map | ", figuresEnd + "\nbelow\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	svg, err := os.ReadFile(filepath.Join(dir, "scale.svg"))
	if err != nil || strings.Count(string(svg), "<circle") != 2*6 {
		t.Errorf("%v\n%s", err, svg)
	}
	if err := run(t.Context(), &bytes.Buffer{}, "", "10,x", 1); err == nil {
		t.Error("a size that is no number was measured")
	}
}

func TestPrinted(t *testing.T) {
	for got, want := range map[string]string{
		thousands(7): "7", thousands(1000): "1,000", thousands(1234567): "1,234,567",
		duration(31 * time.Nanosecond): "31 ns", duration(1530 * time.Microsecond): "1.5 ms", duration(250 * time.Microsecond): "0.25 ms",
		duration(47 * time.Millisecond): "47 ms", duration(2340 * time.Millisecond): "2.3 s",
		size(60_500): "60 KB", size(59_300_000): "59.3 MB",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
