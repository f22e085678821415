package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/rebalance"
	"shardproxy/rebalance/mover"
	"shardproxy/topology"
)

// journal is a Mover in memory, whose coordinator follows an order at once unless it is told why not.
type journal struct {
	*desk

	mu      sync.Mutex // guards the fields below
	records []topology.MoveRecord
	orders  []string
	refusal string
	silent  bool // orders are not answered
	err     error
	behind  topology.Epoch // of the catalog, if it is not the desk's
	live    []rebalance.Status
	report  mover.Report
	rows    func(node topology.Node, sql string) [][]string
}

func (j *journal) Epoch(context.Context) (topology.Epoch, error) {
	if j.behind != 0 {
		return j.behind, nil
	}
	return j.Snapshot().Epoch, j.err
}

func (j *journal) AddMoves(_ context.Context, records []topology.MoveRecord) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	for i := range records {
		records[i].ID, records[i].Rev = int64(len(j.records)+1), 1
		records[i].CreatedAt, records[i].UpdatedAt = morning, morning.Add(time.Minute)
		j.records = append(j.records, records[i])
	}
	return nil
}

func (j *journal) LoadMoves(_ context.Context, all bool) (list []topology.MoveRecord, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.records {
		if all || !r.Done {
			list = append(list, r)
		}
	}
	return list, j.err
}

func (j *journal) AddMoveOrder(_ context.Context, move int64, what string, who topology.Actor) (int64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.orders = append(j.orders, fmt.Sprintf("%s %d by %s", what, move, who.User))
	return int64(len(j.orders)), j.err
}

func (j *journal) MoveOrderAnswer(context.Context, int64) (bool, string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.silent, j.refusal, nil
}

func (j *journal) Status(context.Context) ([]rebalance.Status, error) { return j.live, nil }

func (j *journal) Preflight(context.Context, rebalance.Move) (*mover.Report, error) {
	return &j.report, nil
}

func (j *journal) OnNode(_ context.Context, node topology.Node, run func(topology.Query) error) error {
	return run(func(_ context.Context, sql string) ([][]string, error) {
		if j.rows == nil {
			return nil, errors.New("connection refused")
		}
		return j.rows(node, sql), nil
	})
}

// end sets the phase of a move, and what else change does.
func (j *journal) end(t *testing.T, i int, change func(m *rebalance.Move)) {
	t.Helper()
	m, err := rebalance.FromRecord(j.records[i])
	if err != nil {
		t.Fatal(err)
	}
	change(&m)
	r, err := m.Record()
	if err != nil {
		t.Fatal(err)
	}
	r.CreatedAt, r.UpdatedAt = j.records[i].CreatedAt, j.records[i].UpdatedAt
	j.records[i] = r
}

func newJournal(t *testing.T, log *bytes.Buffer) (*journal, *console) {
	t.Helper()
	j := &journal{desk: newDesk(t)}
	cfg := testConfig()
	cfg.Operator, cfg.Mover = j.desk, j
	cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	return j, startConsoleOf(t, cfg, j.desk)
}

// TestSchedules runs commands one after the other on a map of three ranges: s1 has a quarter and a half of the ring, s2 a quarter.
func TestSchedules(t *testing.T) {
	var log bytes.Buffer
	j, c := newJournal(t, &log)
	conn := connect(t, c, "root")
	for _, test := range []struct{ sql, want string }{
		{"SPLIT SHARD s1 TO s2", "  1 split s1 s2 1 37.5000"},
		{"MOVE RANGE 0x4000000000000000 TO s1", "  2 move s2 s1 1 25.0000"},
		{"MOVE RANGE -4611686018427387904 TO s1", "  3 move s2 s1 1 25.0000"},
		{"SPLIT RANGE 0x8000000000000000 AT +4611686018427387904 TO \"s2\"", "  4 split s1 s2 1 25.0000"},
		{"split range 0X8000000000000000 into 4 to s2 , s2,s2", "  5 split s1 s2 1 37.5000"},
		{"MOVE KEY users 42 TO s2", "  6 move s1 s2 1 50.0000"},
		{"ISOLATE users 42 TO s2", "  7 isolate s1 s2 1 0.0000"},
		{"MERGE RANGE 0x4000000000000000", "  8 merge s1 s2 1 25.0000"},
		{"REBALANCE", "  9 rebalance s1 s2 1 20.5000"},
		{"REBALANCE TOLERANCE 0.9", ""},
		{"SPLIT RANGE 0x8000000000000000", "8 split at c000000000000000      "},
		{"ISOLATE users 42 TO s1", "9 split at e63218bcfb84b17f; split at e63218bcfb84b180      "},
		{"DRAIN SHARD s2", "10 drain shard s2      ,   10 drain s2 s1 1 25.0000"},
		{"DRAIN SHARD s2", "  11 drain s2 s1 1 25.0000"},
		{"UNDRAIN SHARD s2", "11 activate shard s2"},
		{"REBALANCE CONSISTENT SLOTS 8", "  12 rebalance s1 s2 2 37.5000,   13 rebalance s2 s1 1 25.0000"},

		{"SPLIT SHARD s9 TO s2", `55000 there is no shard "s9"`},
		{"SPLIT SHARD s1 TO s9", `55000 there is no shard "s9"`},
		{"MOVE RANGE 0x01 TO s1", "55000 no key range starts at 0x0000000000000001"},
		{"MOVE KEY nowhere 1 TO s1", "42P01 there is no table public.nowhere"},
		{"ISOLATE users x TO s1", `22P02 "x" is not a key of type int, as public.users.id is`},
		{"MERGE RANGE 0x01", "55000 no two ranges meet at 0000000000000001"},
		{"DRAIN SHARD s9", `55000 there is no shard "s9"`},

		{"SPLIT s1 TO s2", "42601 SPLIT: SHARD or RANGE is missing"},
		{"SPLIT SHARD s1 TO", "42601 SPLIT: the name of a shard is missing"},
		{"SPLIT SHARD s1 TO s2,", "42601 SPLIT: the name of a shard is missing"},
		{"SPLIT SHARD s1 TO s2 s3", "42601 SPLIT: s3 is too much"},
		{"SPLIT SHARD s1 INTO 1 TO s2", `42601 SPLIT: "1" is not the number of parts, which is 2 or more`},
		{"SPLIT SHARD s1 BY ROWS", "42601 SPLIT: SIZE is missing"},
		{"MOVE RANGE 4000000000000000 TO s1", `42601 MOVE RANGE: "4000000000000000" is not the first hash of a range: write 0x before it if it is hexadecimal, and + if it is decimal`},
		{"MOVE RANGE c000000000000000 TO s1", `42601 MOVE RANGE: "c000000000000000" is not the first hash of a range: write 0x before it if it is hexadecimal`},
		{"MOVE RANGE 0x10000000000000000 TO s1", `42601 MOVE RANGE: "0x10000000000000000" is not the first hash of a range: 0x is followed by at most 16 hexadecimal digits`},
		{"MOVE RANGE 0x4000000000000000 s1", "42601 MOVE RANGE: TO shard is missing"},
		{"REBALANCE TOLERANCE 2", `42601 REBALANCE: "2" is not a tolerance, such as 0.1`},
		{"REBALANCE BY LOAD", "0A000 key ranges cannot be weighed by load: neither PostgreSQL nor a proxy counts it by key"},
		{"SPLIT SHARD s1 BY LOAD", "0A000 key ranges cannot be weighed by load: neither PostgreSQL nor a proxy counts it by key"},
		{"REBALANCE CONSISTENT SLOTS 1", "55000 topology: there must be at least as many slots as shards and at most 131072, not 1"},
		{"REBALANCE CONSISTENT SLOTS 0", `42601 REBALANCE: "0" is not the number of slots, which is 131072 at most`},
		{"REBALANCE CONSISTENT SLOTS 131073", `42601 REBALANCE: "131073" is not the number of slots, which is 131072 at most`},
		{"REBALANCE CONSISTENT BY SIZE", "42601 REBALANCE: BY is too much"},
		{"REBALANCE BY SIZE CONSISTENT", "42601 REBALANCE: CONSISTENT is too much"},
		{"BEGIN; REBALANCE", "25001 REBALANCE cannot run inside a transaction block"},
		{"ROLLBACK", ""},
	} {
		if got := run(t, conn, test.sql); got != test.want {
			t.Errorf("%s\n got  %q\n want %q", test.sql, got, test.want)
		}
	}
	if want := `msg="move added" user=root`; strings.Count(log.String(), want) != 13 {
		t.Errorf("%d lines %s in\n%s", strings.Count(log.String(), want), want, log.String())
	}
	if len(j.records) != 13 || j.records[0].Actor != "root" {
		t.Errorf("%d moves in the journal", len(j.records))
	}

	j.err = topology.ErrMoveOverlap
	j.behind = j.Snapshot().Epoch
	if got := run(t, conn, "MOVE RANGE 0x4000000000000000 TO s1"); got != "55000 some of these key hashes are on their way already" {
		t.Errorf("two moves of one range: %s", got)
	}
	j.behind = 99
	if got := run(t, conn, "REBALANCE"); !strings.HasPrefix(got, "40001 the topology has just changed: the catalog is at epoch 99") {
		t.Errorf("with an old map: %s", got)
	}
	j.behind, j.err = 0, errors.New("connection refused")
	if got := run(t, conn, "REBALANCE"); got != "57P03 connection refused" {
		t.Errorf("without the catalog: %s", got)
	}
	watcher := connect(t, c, "watcher")
	j.err = nil
	for sql, want := range map[string]string{
		"REBALANCE":    "42501 permission denied for REBALANCE",
		"MOVE ABORT 1": "42501 permission denied for MOVE ABORT",
		"VERIFY":       "42501 permission denied for VERIFY",
	} {
		if got := run(t, watcher, sql); got != want {
			t.Errorf("%s of a watcher: %s", sql, got)
		}
	}
	if got := run(t, connect(t, startConsole(t, testConfig()), "root"), "REBALANCE"); !strings.HasPrefix(got, "0A000 key ranges cannot be moved") {
		t.Errorf("without a catalog: %s", got)
	}
}

func TestPlan(t *testing.T) {
	j, c := newJournal(t, &bytes.Buffer{})
	users := topology.TableName{Schema: "public", Name: "users"}
	j.report = mover.Report{
		Tables:    []mover.TableReport{{Table: users, Bytes: 4e6, Rows: 100, MovingRows: 30, MovingBytes: 1_200_000}},
		Problems:  []mover.Problem{{Side: mover.Target, Table: users, Text: "there is no primary key", Hint: "add one"}, {Text: "slow", Warning: true}},
		Blockers:  []mover.Blocker{{PID: 7, User: "job", State: "idle in transaction", Age: time.Hour, Query: "UPDATE x"}},
		FreeSlots: [2]int{5, 0}, FreeSenders: [2]int{3, 3}, MaxSlotWALBytes: -1, BytesPerSecond: 100_000,
	}
	got := strings.Split(run(t, connect(t, c, "watcher"), "PLAN SPLIT RANGE 0x8000000000000000 TO s2"), ", ")
	for i, want := range []string{
		"move 1 s1 → s2 split: 1 range", "25.0000 % of the ring [c000000000000000,0000000000000000) 1200000 30 ",
		"table 1 public.users of 100 rows", "4.0 MB 1200000 30 ",
		"room 1 s1 5 replication slots and 3 WAL senders are free; the move takes one of each   ",
		"room 1 s2 0 replication slots and 3 WAL senders are free; the move takes one of each   ",
		"room 1 s2 1.2 MB on disk for the rows", "and about as much for the log   A server does not say how much of its disk is free.",
		"room 1 s1 keeps the log of what is written meanwhile: without a limit   ",
		"time 1  some 12s for the copy at 0.1 MB/s (the limit)", "and 12s of leases   ",
		"problem 1 s2", "public.users there is no primary key   add one",
		"warning 1 s1 slow   ",
		"blocker 1 s1 pid 7 on the source", "user job", "idle in transaction", "1h0m0s old: UPDATE x   The copy begins when it has ended.",
		"load  s1 75.00 % now", "50.00 % afterwards   ", "load  s2 25.00 % now", "50.00 % afterwards   ",
	} {
		if i >= len(got) || got[i] != want {
			t.Fatalf("part %d is not %q:\n%q", i, want, got)
		}
	}
	if len(j.records) > 0 || j.Snapshot().Epoch != 7 {
		t.Error("a plan has changed something")
	}
}

func TestShowMoves(t *testing.T) {
	if got := run(t, connect(t, startConsole(t, testConfig()), "watcher"), "SHOW MOVES"); got != "" {
		t.Errorf("without a catalog: %s", got)
	}
	j, c := newJournal(t, &bytes.Buffer{})
	root, conn := connect(t, c, "root"), connect(t, c, "watcher")
	for _, sql := range []string{"MOVE RANGE 0x4000000000000000 TO s1", "SPLIT SHARD s1 TO s2", "MOVE KEY users 42 TO s2"} {
		run(t, root, sql)
	}
	j.end(t, 0, func(m *rebalance.Move) {
		m.State, m.Task, m.Rows, m.Bytes, m.PauseAll, m.Error = rebalance.Cleaned, rebalance.NoTask, 12, 3_400_000, 45*time.Millisecond, ""
	})
	j.records[0].Done = true
	j.end(t, 1, func(m *rebalance.Move) { m.State, m.Task = rebalance.Copying, rebalance.TaskCopy })
	j.end(t, 2, func(m *rebalance.Move) {
		m.State, m.Task, m.Paused, m.Error, m.Blockers, m.Alarmed = rebalance.Streaming, rebalance.TaskBlockers, true, "no", []string{"pid 1", "pid 2"}, true
		m.Reverse = true
	})
	live, err := rebalance.FromRecord(j.records[1])
	if err != nil {
		t.Fatal(err)
	}
	live.Rows, live.Bytes = 100, 50_000_000
	j.live = []rebalance.Status{{Move: live, Lag: 7, Copied: 10, Chunks: 40, Copying: 20 * time.Second, Throttle: "at most 3.0 MB/s"}}
	const (
		first  = "1 move s2 s1 cleaned -   1 25.0000 100 12 3.4    45 1     root 2026-03-04 08:00:00 UTC 2026-03-04 08:01:00 UTC"
		second = "2 split s1 s2 copying copy   1 37.5000 23 100 50.0 2.5 7 1m0s  1 at most 3.0 MB/s    root 2026-03-04 08:00:00 UTC 2026-03-04 08:01:00 UTC"
		third  = "3 move s1 s2 streaming blockers yes yes 1 50.0000  0 0.0     1  stuck pid 1; pid 2 no root 2026-03-04 08:00:00 UTC 2026-03-04 08:01:00 UTC"
	)
	if got := run(t, conn, "SHOW MOVES"); got != second+", "+third {
		t.Errorf("got  %q", got)
	}
	// What another proxy tells has the numbers only.
	j.live[0].Move = rebalance.Move{ID: live.ID, Rev: -1, Rows: live.Rows, Bytes: live.Bytes}
	if got := run(t, conn, "SHOW MOVES"); got != second+", "+third {
		t.Errorf("got  %q", got)
	}
	if got := run(t, conn, "SHOW MOVES ALL"); got != first+", "+second+", "+third {
		t.Errorf("got  %q", got)
	}
	for id, want := range map[string]string{"1": "1 cleaned yes both shards had the same rows of the ranges", "2": "2 copying not yet both shards are compared once the target owns the ranges"} {
		if got := run(t, conn, "VERIFY MOVE "+id); got != want {
			t.Errorf("VERIFY MOVE %s: %s", id, got)
		}
	}
	j.err = errors.New("connection refused")
	if got := run(t, conn, "SHOW MOVES"); got != "57P03 connection refused" {
		t.Errorf("while the catalog is away: %s", got)
	}
	if got := run(t, conn, "SHOW MOVES 1"); got != "42601 SHOW MOVES: 1 is too much" {
		t.Errorf("too much: %s", got)
	}
}

// TestMoveAlarm holds that the metric goes up and down again, and tells of no move that has ended.
func TestMoveAlarm(t *testing.T) {
	var live []rebalance.Status
	registry := prometheus.NewRegistry()
	AddMoves(registry, func() []rebalance.Status { return live })
	url, _ := httpServer(t, HTTPConfig{Metrics: registry})
	for _, test := range []struct {
		move rebalance.Move
		want string
	}{
		{rebalance.Move{State: rebalance.FailedVerification, Alarmed: true}, "1 0 0"},
		{rebalance.Move{State: rebalance.Soak, Alarmed: true, ReverseLost: true}, "0 1 0"},
		{rebalance.Move{State: rebalance.Streaming, Alarmed: true}, "0 0 1"},
		{rebalance.Move{State: rebalance.Streaming}, "0 0 0"},
		{rebalance.Move{State: rebalance.Cleaned, Alarmed: true, ReverseLost: true}, "0 0 0"},
	} {
		live = []rebalance.Status{{Move: test.move}}
		_, body := get(t, url+"/metrics")
		var got []string
		for _, reason := range rebalance.Alarms() {
			_, after, _ := strings.Cut(body, "shardproxy_move_alarm{reason=\""+reason+"\"} ")
			value, _, _ := strings.Cut(after, "\n")
			got = append(got, value)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%v: %v, want %s", test.move.State, got, test.want)
		}
		if has := strings.Contains(body, `shardproxy_moves{state="`+test.move.State.String()); has == test.move.State.Terminal() {
			t.Errorf("%v: it is counted: %t", test.move.State, has)
		}
	}
}

func TestMoveOrders(t *testing.T) {
	var log bytes.Buffer
	j, c := newJournal(t, &log)
	conn := connect(t, c, "root")
	run(t, conn, "MOVE RANGE 0x4000000000000000 TO s1")
	for _, what := range []string{"pause", "RESUME", "finish", "reverse", "abort"} {
		if got, want := run(t, conn, "MOVE "+what+" 1"), "1 "+strings.ToLower(what)+" followed"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if got, want := strings.Join(j.orders, ", "), "pause 1 by root, resume 1 by root, finish 1 by root, reverse 1 by root, abort 1 by root"; got != want {
		t.Errorf("orders %s", got)
	}
	j.refusal = "it is paused already"
	if got := run(t, conn, "MOVE PAUSE 1"); got != "55000 move 1 does not follow the order pause: it is paused already" {
		t.Error(got)
	}
	if got := run(t, conn, "MOVE PAUSE 2"); got != "42704 there is no move 2" {
		t.Error(got)
	}
	if got := run(t, conn, "MOVE PAUSE one"); got != `42601 MOVE PAUSE: "one" is not the number of a move` {
		t.Error(got)
	}
	j.end(t, 0, func(m *rebalance.Move) { m.State = rebalance.Reversed })
	if got := run(t, conn, "MOVE ABORT 1"); got != "55000 move 1 has ended: it is reversed" {
		t.Error(got)
	}
	if n := strings.Count(log.String(), `msg="order for a move" user=root`); n != 8 {
		t.Errorf("%d orders were logged\n%s", n, log.String())
	}
}

func TestVerify(t *testing.T) {
	j, c := newJournal(t, &bytes.Buffer{})
	conn := connect(t, c, "root")
	if got := run(t, conn, "VERIFY SHARD s1"); !strings.HasPrefix(got, "57P03 not all rows could be read: shard s1: table public.events: connection refused") {
		t.Error(got)
	}
	var asked []string
	var mu sync.Mutex
	j.rows = func(node topology.Node, sql string) [][]string {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, node.Host+" "+sql)
		switch {
		case strings.Contains(sql, "DISTINCT"):
			return [][]string{{"7"}, {"8"}}
		case node.Host == "10.0.0.2" && strings.Contains(sql, `"users"`):
			return [][]string{{"5", "2", "1"}}
		}
		return [][]string{{"3", "0", "0"}}
	}
	for _, test := range []struct{ sql, want string }{
		{"VERIFY", "s1 public.events 3 0 0 , s1 public.users 3 0 0 , s2 public.events 3 0 0 , s2 public.users 5 2 1 7, 8"},
		{"VERIFY SHARD s2", "s2 public.events 3 0 0 , s2 public.users 5 2 1 7, 8"},
		{"VERIFY SHARD s9", `42704 there is no shard "s9"`},
		{"VERIFY RANGE 0x01", "55000 no key range starts at 0x0000000000000001"},
	} {
		if got := run(t, conn, test.sql); got != test.want {
			t.Errorf("%s: %s", test.sql, got)
		}
	}
	asked = nil
	run(t, conn, "VERIFY RANGE 0x4000000000000000")
	if len(asked) != 5 || !strings.Contains(asked[0], "'{-4611686018427387904,0}'") {
		t.Errorf("asked %q", asked)
	}
}
