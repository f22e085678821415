package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/postgres"
)

// TestMoves runs the program for a few seconds, and looks at what it writes.
func TestMoves(t *testing.T) {
	if _, err := postgres.Find(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	page := filepath.Join(dir, "moves.md")
	if err := os.WriteFile(page, []byte("above\n"+figuresBegin+"\nold\n"+figuresEnd+"\nbelow\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), &bytes.Buffer{}, dir, options{cutovers: 2, rate: 50, rows: 2000, rounds: 1, before: time.Second}); err != nil {
		t.Fatal(err)
	}
	var r result
	text, err := os.ReadFile(filepath.Join(dir, "moves.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Cutovers) < 2 || r.Writes < 50 || r.Copy.Rows < 1000 || r.Copy.Mover <= 0 || r.Copy.Psql <= 0 || r.Before.Writes == 0 || r.Cleaning.Writes == 0 {
		t.Errorf("%s", text)
	}
	for _, one := range r.Cutovers {
		// So few writes may all miss a short cutover: TestCutoverIsFelt holds what is made of those that do not.
		if one.Pause <= 0 || one.Parts["narrow"] <= 0 || !one.Back && one.Parts["flip"] <= 0 {
			t.Errorf("%+v", one)
		}
	}
	written, err := os.ReadFile(page)
	if err != nil || !strings.Contains(string(written), "| … flip | ") || !strings.Contains(string(written), "| the mover | ") || !strings.HasSuffix(string(written), figuresEnd+"\nbelow\n") {
		t.Errorf("%v\n%s", err, written)
	}
	svg, err := os.ReadFile(filepath.Join(dir, "moves.svg"))
	if err != nil || strings.Count(string(svg), "<circle") != 3*len(r.Cutovers) {
		t.Errorf("%v\n%s", err, svg)
	}
}

func TestCutoverIsFelt(t *testing.T) {
	const line = `time=2026-11-24T13:55:01.050Z level=INFO msg=cutover move=7 source=s1 target=s2 flips=1 reason="" pause=40ms hold=23.19ms narrow=1.08ms flip=330µs`
	one, at, err := parseCutover(line)
	if err != nil || one.Move != "7" || one.Pause != 40 || one.Back || one.Parts["flip"] != 0.33 || len(one.Parts) != 3 {
		t.Fatalf("%+v, %v", one, err)
	}
	made := func(kind int, from, took time.Duration) write { return write{kind, at.Add(from), took} }
	const ms = time.Millisecond
	one.feel([]write{made(0, -200*ms, 90*ms), made(0, -70*ms, 35*ms), made(1, -40*ms, 3*ms), made(2, 5*ms, 4*ms), made(0, 30*ms, 99*ms)}, 0, at)
	if one.Moving != 35 || one.Others != 4 {
		t.Errorf("the longest write took %v ms, of the others %v", one.Moving, one.Others)
	}
	back, _, err := parseCutover(strings.Replace(line, `reason=""`, `reason="the cutover took longer than 2s"`, 1))
	if err != nil || !back.Back {
		t.Errorf("%+v, %v", back, err)
	}
	if _, _, err := parseCutover("time=2026-11-24T13:55:01.050Z msg=cutover"); err == nil {
		t.Error("half a line was read")
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{4, 1, 3, 2}
	for q, want := range map[float64]float64{0: 1, .5: 3, .99: 4, 1: 4} {
		if got := quantile(values, q); got != want {
			t.Errorf("%v: %v, want %v", q, got, want)
		}
	}
	if got := quantile(nil, .5); got != 0 || math.IsNaN(got) {
		t.Errorf("of nothing: %v", got)
	}
}
