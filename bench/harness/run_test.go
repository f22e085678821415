package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestRun measures the smallest matrix with real processes, and then that nothing is left of it.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("starts PostgreSQL")
	}
	out := filepath.Join(t.TempDir(), "results.json")
	temp := tempFolder(t)
	opts, err := parseOptions([]string{
		"-targets", "plain,relay", "-modes", "simple,prepared", "-clients", "2", "-seconds", "0.2",
		"-rounds", "1", "-scale", "1", "-idle", "", "-large", "5", "-quiet", "0s", "-out", out,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := run(context.Background(), opts); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Reads) != 4 || len(r.Large) != 2 {
		t.Fatalf("got %d cells and %d large results:\n%s", len(r.Reads), len(r.Large), text)
	}
	for _, c := range r.Reads {
		isProxy := c.Target == "relay"
		if c.TPS <= 0 || c.P50 <= 0 || c.P99 < c.P50 || c.Failed != 0 || (c.CPU > 0) != isProxy || (c.RSS > 0) != isProxy {
			t.Errorf("%+v", c)
		}
	}
	expectNothingLeft(t, temp)
}

// An interrupt ends the run, and leaves as little.
func TestRunInterrupted(t *testing.T) {
	if testing.Short() {
		t.Skip("starts PostgreSQL")
	}
	out := filepath.Join(t.TempDir(), "results.json")
	temp := tempFolder(t)
	opts, err := parseOptions([]string{"-targets", "relay", "-clients", "1", "-seconds", "600", "-scale", "1", "-idle", "", "-large", "0", "-quiet", "0s", "-out", out})
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(context.Background())
	defer interrupt()
	go func() {
		defer interrupt()
		running := filepath.Join(temp, "*", "run*", "log*")
		for logs, _ := filepath.Glob(running); len(logs) == 0; logs, _ = filepath.Glob(running) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Millisecond): // then look again
			}
		}
	}()
	if err := run(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("results of an interrupted run were written")
	}
	expectNothingLeft(t, temp)
}

// tempFolder makes a TMPDIR that the servers' account may pass through; t.TempDir's parent is closed to it.
func tempFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bench-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	return dir
}

// expectNothingLeft looks for the folders of runs in a TMPDIR.
func expectNothingLeft(t *testing.T, temp string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(temp, tempPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range left {
		t.Errorf("%s was left behind", name)
	}
}
