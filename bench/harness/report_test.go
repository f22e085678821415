package main

import (
	"strings"
	"testing"
	"time"
)

// point adds three samples of a cell whose median has the given CPU, and a noisy one that does not count.
func point(r *report, target, mode string, clients int, cpu float64) {
	for _, s := range []sample{
		{TPS: 900, P50: 1, P99: 9, CPU: cpu * 9, RSS: 7 * megabyte},
		{TPS: 800, P50: 2, P99: 8, CPU: cpu, RSS: 8 * megabyte},
		{TPS: 700, P50: 3, P99: 7, CPU: cpu / 9, RSS: 9 * megabyte},
		{TPS: 100, P50: 9, P99: 9, CPU: cpu / 9, RSS: 9 * megabyte, Noisy: true},
	} {
		r.addSample(target, load{mode, clients}, s)
	}
}

func TestReport(t *testing.T) {
	opts := &options{targets: kinds, rounds: 3, scale: 1, pool: 20, window: 3 * time.Second}
	r := newReport(opts)
	point(r, "shardproxy4", "simple", 8, 18.5)
	point(r, "shardproxy1", "simple", 8, 16)
	point(r, "plain", "simple", 8, 0)
	point(r, "pgbouncer", "simple", 8, 10)
	point(r, "relay", "simple", 8, 12.5)
	point(r, "shardproxy1", "simple", 1, 1000) // counts for no goal
	r.Idle = []idleResult{{Target: "shardproxy1", Clients: 10_000, BytesPerClient: 9000}}
	for _, l := range []largeResult{{Target: "plain", MBps: 1000}, {Target: "shardproxy1", MBps: 650, RSSBefore: 20 * megabyte, RSSPeak: 21 * megabyte}} {
		r.addLarge(l)
	}
	r.finish()

	want := []goal{
		{"CPU, one shard ÷ PgBouncer, simple, 8 clients", 1.6, "≤", 1.5, false},
		{"CPU, one shard ÷ relay, simple, 8 clients", 1.28, "≤", 1.3, true},
		{"CPU, four shards ÷ one, simple, 8 clients", 1.15625, "≤", 1.15, false},
		{"bytes an idle client of 10000, shardproxy1", 9000, "≤", 10_000, true},
		{"MB/s, large result ÷ plain, shardproxy1", 0.65, "≥", 0.7, false},
		{"MB of RSS a large result adds, shardproxy1", 1, "≤", 16, true},
	}
	if len(r.Reach) != len(want) {
		t.Fatalf("got %d goals, want %d: %v", len(r.Reach), len(want), r.Reach)
	}
	for i, g := range r.Reach {
		if g != want[i] {
			t.Errorf("goal %d: got %+v, want %+v", i, g, want[i])
		}
	}

	var out strings.Builder
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"simple 8 plain 800 2.000 8.000 – – – 8.0 0 1 of 4",
		"simple 8 shardproxy1 800 2.000 8.000 16.0 1.60 1.28 8.0 0 1 of 4",
		"shardproxy1 10000 9000 0.0",
		"shardproxy1 650 0.65 – 20.0 21.0",
	} {
		if !hasLine(out.String(), line) {
			t.Errorf("no line %q in\n%s", line, out.String())
		}
	}
}

// hasLine looks for a line of these words, whatever the space between them.
func hasLine(text, line string) bool {
	for l := range strings.Lines(text) {
		if strings.Join(strings.Fields(l), " ") == line {
			return true
		}
	}
	return false
}
