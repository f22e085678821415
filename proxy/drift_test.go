package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shardproxy/topology"
)

// TestDriftSchedule runs the schedule by a clock of its own: a line is the time, and what is looked at.
func TestDriftSchedule(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var d driftSchedule
	now, got := start, []string(nil)
	run := func(until time.Duration, shards int) {
		for now.Before(start.Add(until)) {
			shard, again, newLap, wait := d.next(now, shards)
			if wait > 0 {
				now = now.Add(min(wait, driftPoll))
				continue
			}
			line := fmt.Sprintf("%v ", now.Sub(start))
			if newLap {
				line += "lap "
			}
			if again != "" {
				line += "again " + again
			} else {
				line += fmt.Sprint(shard)
			}
			got = append(got, line)
			now = now.Add(driftPause)
		}
	}
	d.change(now)
	run(11*time.Second, 3)
	d.lookAgain("s2", now)
	d.lookAgain("s1", now.Add(time.Second))
	d.lookAgain("s2", now.Add(2*time.Second)) // the later one counts
	run(time.Minute, 3)
	run(5*time.Minute+12*time.Second, 4) // one more shard
	d.change(now)
	d.change(now.Add(5 * time.Second)) // the first of a burst counts
	run(6*time.Minute, 4)
	want := []string{
		"10s lap 0", "10.1s 1", "10.2s 2",
		"32s again s1", "33s again s2",
		"5m10s lap 3", "5m10.1s 0", "5m10.2s 1", "5m10.3s 2", // a lap goes on where the last one ended
		"5m22s lap 3", "5m22.1s 0", "5m22.2s 1", "5m22.3s 2",
	}
	for i, line := range got { // what is polled for may be late by that
		at, rest, _ := strings.Cut(line, " ")
		wantAt, wantRest, _ := strings.Cut(append(want, "")[min(i, len(want))], " ")
		is, _ := time.ParseDuration(at)
		should, _ := time.ParseDuration(wantAt)
		if rest != wantRest || is < should || is > should+2*driftPoll {
			t.Errorf("%d: %s, want %s %s", i, line, wantAt, wantRest)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d looks, want %d: %q", len(got), len(want), got)
	}
	// In the middle of a lap, the shards that it has passed are looked at again.
	d.change(now)
	run(now.Sub(start)+driftSettle+driftPoll, 1000)
	if d.left == 0 || d.left > 998 {
		t.Fatalf("%d left of the lap", d.left)
	}
	d.change(now)
	shard, _, newLap, _ := d.next(now.Add(driftSettle), 1000)
	if !newLap || shard != d.cursor-1 || d.left != 999 {
		t.Errorf("in mid-lap: shard %d, new lap %v, %d left", shard, newLap, d.left)
	}
}

// TestDriftCounts holds when a finding counts.
func TestDriftCounts(t *testing.T) {
	a, b, c := topology.Difference{Kind: "table", Name: "a"}, topology.Difference{Kind: "table", Name: "b"}, topology.Difference{Kind: "table", Name: "c"}
	var d driftKeeper
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i, step := range []struct {
		err   error
		found []topology.Difference
		want  string // the state after it, and ? where a second look is due
	}{
		{nil, nil, "well"},
		{nil, []topology.Difference{a, b}, "well ?"}, // a change under way
		{nil, nil, "well"},
		{nil, []topology.Difference{a, b}, "well ?"},
		{nil, []topology.Difference{b, c}, "b"}, // the rest may be under way
		{nil, []topology.Difference{b}, "b"},
		{nil, []topology.Difference{c}, "b ?"},
		{nil, []topology.Difference{a}, "b ?"},
		{errors.New("gone"), nil, "b ?"},
		{errors.New("gone"), nil, "gone"},
		{errors.New("gone still"), nil, "gone still"},
		{nil, []topology.Difference{a}, "gone still ?"},
		{nil, []topology.Difference{a}, "a"},
		{errors.New("locked"), nil, "a ?"},
		{nil, []topology.Difference{a}, "a"},
		{nil, nil, "well"},
	} {
		d.schedule.second = nil
		_, counts := d.note(ShardDrift{Shard: "s1", Checked: at.Add(time.Duration(i) * time.Second), Err: step.err, Differences: step.found})
		is := d.shards["s1"]
		got := "well"
		switch {
		case is.Err != nil:
			got = is.Err.Error()
		case len(is.Differences) > 0:
			var names []string
			for _, d := range is.Differences {
				names = append(names, d.Name)
			}
			got = strings.Join(names, " ")
		}
		if len(d.schedule.second) > 0 {
			got += " ?"
		}
		if got != step.want || counts == strings.HasSuffix(got, "?") {
			t.Errorf("step %d: %s (counts: %v), want %s", i, got, counts, step.want)
		}
	}
}

// driftServer is a second server before the shards of a kit, in which nothing runs by itself.
func driftServer(t *testing.T, change func(*Config)) (*kit, *Server) {
	t.Helper()
	var cfg Config
	k := newKit(t, func(c *Config) {
		cfg = *c
		c.Checks = func(string) bool { return false }
	})
	change(&cfg)
	s, err := NewServer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Run(ended) // closes what is idle
	})
	return k, s
}

// lap looks at all shards, and twice at those that are not as they should be.
func (s *Server) lap(ctx context.Context) (said string) {
	snap := s.snapshot.Load()
	s.drift.sum = ""
	for i := range snap.Shards {
		for range 2 {
			s.lookAfter(ctx, snap, topology.ShardID(i))
		}
	}
	var lines []string
	for _, d := range s.Drift() {
		for _, difference := range d.Differences {
			lines = append(lines, d.Shard+": "+difference.String())
		}
		if d.Err != nil {
			lines = append(lines, d.Shard+": error")
		}
	}
	return strings.Join(lines, "\n")
}

func TestDrift(t *testing.T) {
	var log bytes.Buffer
	k, s := driftServer(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	ctx := t.Context()
	if got := s.lap(ctx); got != "" || len(s.Drift()) != kitShards {
		t.Fatalf("equal shards: %s, %v", got, s.Drift())
	}
	k.ask(1, "ALTER TABLE t ALTER v SET DEFAULT 'secret'")
	k.ask(2, "DROP TABLE r")
	want := "s2: column v of public.t has the default 'secret'::text here, none on s1\ns3: table public.r is missing"
	for range 2 {
		if got := s.lap(ctx); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	// The reference is the first shard, whoever may be right.
	k.ask(0, "DROP TABLE r; ALTER TABLE t ALTER v SET DEFAULT 'secret'")
	if got, want := s.lap(ctx), "s2: table public.r is not on s1\ns3: column v of public.t has no default here, 'secret'::text on s1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	k.ask(1, "DROP TABLE r")
	k.ask(2, "ALTER TABLE t ALTER v SET DEFAULT 'secret'")
	if got := s.lap(ctx); got != "" {
		t.Errorf("equal again: %s", got)
	}
	if n := strings.Count(log.String(), "WARN"); n != 4 || strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), `first="column v of public.t"`) {
		t.Errorf("%d warnings\n%s", n, log.String())
	}
	if n := strings.Count(log.String(), "as it should be again"); n != 2 {
		t.Errorf("%d shards were said to be well\n%s", n, log.String())
	}
}

// TestDriftOfUnreachable: a shard that cannot be asked has no drift; and the next one is compared with where it is the first.
func TestDriftOfUnreachable(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := closed.Addr().(*net.TCPAddr).Port
	_ = closed.Close()
	k, s := driftServer(t, func(c *Config) {
		shards := slices.Clone(c.Topology.Shards)
		shards[0].Nodes = []topology.Node{{Host: "127.0.0.1", Port: port, Database: "gone"}}
		snap, err := topology.New(topology.Content{
			Cluster: "kit", Epoch: 1, Shards: shards, Ranges: topology.EqualRanges(len(shards)), Rules: topology.DefaultKeyRules(),
		})
		if err != nil {
			panic(err)
		}
		c.Topology = snap
	})
	k.ask(1, "DROP TABLE r")
	if got, want := s.lap(t.Context()), "s1: error\ns3: table public.r is not on s2"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestDriftStep goes through laps step by step, with a shard that is another proxy's and one that leaves the map.
func TestDriftStep(t *testing.T) {
	mine := map[string]bool{"s1": true, "s3": true}
	_, s := driftServer(t, func(c *Config) { c.Checks = func(shard string) bool { return mine[shard] } })
	checked := func() (names []string) {
		for _, d := range s.Drift() {
			names = append(names, d.Shard)
		}
		return names
	}
	ctx := t.Context()
	if wait := s.driftStep(ctx); wait != driftPoll || len(checked()) > 0 {
		t.Fatalf("the first lap began at once: %v, %v", wait, checked())
	}
	lap := func() {
		s.drift.schedule.changed = time.Now().Add(-driftSettle)
		for s.driftStep(ctx) == driftPause {
		}
	}
	lap()
	if diff := cmp.Diff([]string{"s1", "s3"}, checked()); diff != "" {
		t.Error(diff)
	}
	mine["s1"], mine["s2"] = false, true
	lap()
	if diff := cmp.Diff([]string{"s2", "s3"}, checked()); diff != "" {
		t.Error(diff)
	}
	snap := s.snapshot.Load()
	fewer, err := topology.New(topology.Content{
		Cluster: "kit", Epoch: 2, Shards: snap.Shards[:2], Ranges: topology.EqualRanges(2), Rules: topology.DefaultKeyRules(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Publish(fewer)
	s.drift.schedule.lookAgain("s3", time.Now().Add(-driftConfirm))
	lap()
	if diff := cmp.Diff([]string{"s2"}, checked()); diff != "" {
		t.Error(diff)
	}
}

// TestOnNode holds that nothing stays behind, also where the work is given up.
func TestOnNode(t *testing.T) {
	k, s := driftServer(t, func(*Config) {})
	node := s.snapshot.Load().Shards[1].Nodes[0]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- s.OnNode(ctx, node, func(query topology.Query) error {
			rows, err := query(ctx, "SELECT current_database()")
			if err != nil || rows[0][0] != node.Database {
				return fmt.Errorf("%v, %w", rows, err)
			}
			if _, err := query(ctx, "SELECT 1/0"); err == nil {
				return errors.New("1/0 is no error")
			}
			_, err = query(ctx, "SELECT pg_sleep(60)")
			return err
		})
	}()
	waitFor(t, "the statement runs", func() bool { return k.running("pg_sleep(60)") == 1 })
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("%v", err)
	}
	waitFor(t, "the statement is cancelled", func() bool { return k.running("pg_sleep(60)") == 0 })
}

// TestMayOpen holds that the budget bounds the sessions, and that the proxy's own work comes on top.
func TestMayOpen(t *testing.T) {
	_, s := driftServer(t, func(c *Config) { c.Pools.Max, c.Pools.Total = 10, 45 })
	for shards, want := range map[int]int{1: 20 + 4, 2: 40 + 8, 3: 45 + 12, 100: 45 + 32} { // two roles: the superuser's and plain
		if got := s.MayOpen(shards); got != want {
			t.Errorf("%d shards: %d, want %d", shards, got, want)
		}
	}
}
