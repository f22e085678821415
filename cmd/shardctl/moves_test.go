package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shardproxy/admin/admintest"
)

func TestMoves(t *testing.T) {
	c := admintest.Start(t, testSnapshot(t), true)
	t.Setenv("SHARDCTL_DSN", c.DSN("admin"))
	run := func(args, want, wantErr string, wantStatus int) {
		t.Helper()
		out, errOut, status := ctl(t, "", strings.Fields(args)...)
		if diff := cmp.Diff(want, out); diff != "" {
			t.Errorf("%s\n%s", args, diff)
		}
		if errOut != wantErr || status != wantStatus {
			t.Errorf("%s: status %d, %q", args, status, errOut)
		}
	}
	run("split s1 --to s2 --plan", `move 1     s1 → s2: split: 1 range, 25.0000 % of the ring [c000000000000000,0000000000000000)      30 rows, 1.2 MB move
  table    public.users: of 100 rows, 4.0 MB                                                       30 rows, 1.2 MB move
  room     s1: 5 replication slots and 3 WAL senders are free; the move takes one of each
  room     s2: 6 replication slots and 4 WAL senders are free; the move takes one of each
  room     s2: 1.2 MB on disk for the rows, and about as much for the log
             A server does not say how much of its disk is free.
  room     s1: keeps the log of what is written meanwhile: without a limit
  time     some 0s for the copy at 20.0 MB/s (without a limit; servers differ), and 12s of leases
  problem  s2, public.users: there is no primary key
             add one
load       s1: 50.00 % now, 25.00 % afterwards
load       s2: 50.00 % now, 75.00 % afterwards
`, "", 0)
	run("moves", "ID  KIND  SOURCE  TARGET  PHASE  BACK  PAUSED  PERCENT  ROWS  MB  MB_PER_S  LAG_BYTES  ETA  PAUSE_MS  THROTTLE  ALARM  BLOCKERS  ERROR\n", "", 0)
	run("split s1 --to s2", "move 1: split, 1 range, 25.0000 % of the ring, from s1 to s2\n", "", 0)
	run("moves pause 1", "move 1: pause followed\n", "", 0)
	run("reverse 1", "", "shardctl: move 1 does not follow the order reverse: it is copying (SQLSTATE 55000). SHOW MOVES ALL tells how far it is.\n", 1)
	run("abort 1", "move 1: abort followed\n", "", 0)
	run("abort 1", "", "shardctl: move 1 has ended: it is aborted (SQLSTATE 55000). SHOW MOVES lists those that go on.\n", 1)
	run("finish 9", "", "shardctl: there is no move 9 (SQLSTATE 42704). SHOW MOVES ALL lists them.\n", 1)
	run("split 0x4000000000000000 --into 3 --to s1 --wait", `move 2: split, 1 range, 33.3333 % of the ring, from s2 to s1
ID  KIND   SOURCE  TARGET  PHASE  BACK  PAUSED  PERCENT  ROWS  MB   MB_PER_S  LAG_BYTES  ETA  PAUSE_MS  THROTTLE  ALARM  BLOCKERS  ERROR
2   split  s2      s1      soak   -     -       100      0     0.0  -         -          -    -         -         -      -         -
`, "", 0)
	run("verify --move 2", "id        2\nphase     soak\nverified  yes\ndetail    both shards had the same rows of the ranges\n", "", 0)
	run("move --table users --key 42 --to s2 --wait --finish", `move 3: move, 1 range, 25.0000 % of the ring, from s1 to s2
ID  KIND  SOURCE  TARGET  PHASE    BACK  PAUSED  PERCENT  ROWS  MB   MB_PER_S  LAG_BYTES  ETA  PAUSE_MS  THROTTLE  ALARM  BLOCKERS  ERROR
3   move  s1      s2      cleaned  -     -       100      0     0.0  -         -          -    -         -         -      -         -
`, "", 0)
	run("merge 0x4000000000000000", "move 4: merge, 1 range, 25.0000 % of the ring, from s1 to s2\n", "", 0)
	run("isolate --table users --key 42 --to s1", "epoch 8: split at e63218bcfb84b17f; split at e63218bcfb84b180\n", "", 0)
	run("isolate --table users --key 43 --to s9", "", "shardctl: there is no shard \"s9\" (SQLSTATE 55000). SHOW RANGES and SHOW SHARDS tell what there is.\n", 1)
	run("rebalance --tolerance 0.05", "", "shardctl: notice: nothing is to be done\n", 0)
	run("rebalance --wait --json", "[]\n", "shardctl: notice: nothing is to be done\n", 0)
	run("shard drain s2", "epoch 9: drain shard s2\nmove 5: drain, 1 range, 50.0000 % of the ring, from s2 to s1\n", "", 0)
	c.FailMoves("the disk\nis full")
	run("move 0x4000000000000000 --to s1 --wait", `move 6: move, 1 range, 50.0000 % of the ring, from s2 to s1
ID  KIND  SOURCE  TARGET  PHASE    BACK  PAUSED  PERCENT  ROWS  MB   MB_PER_S  LAG_BYTES  ETA  PAUSE_MS  THROTTLE  ALARM  BLOCKERS  ERROR
6   move  s2      s1      aborted  -     -       -        0     0.0  -         -          -    -         -         -      -         the disk is full
`, "shardctl: move 6 was aborted: the disk is full\n", 1)
}

func TestVerifyCommand(t *testing.T) {
	c := admintest.Start(t, testSnapshot(t), true)
	t.Setenv("SHARDCTL_DSN", c.DSN("admin"))
	out, errOut, status := ctl(t, "", "verify")
	if !strings.HasSuffix(out, "\n40 rows in place, 0 rows of moves that go on\n") || errOut != "" || status != 0 {
		t.Errorf("all in place: status %d\n%s%s", status, out, errOut)
	}
	c.Misplace("4711")
	out, errOut, status = ctl(t, "", "verify", "s1")
	if !strings.Contains(out, "public.users  10    1          0       4711\n") || errOut != "shardctl: 1 row is misplaced\n" || status != 1 {
		t.Errorf("one is not: status %d\n%s%s", status, out, errOut)
	}
}

// TestMovesUsage holds that a wrong command line is told in one line, and that nothing is asked of the proxy.
func TestMovesUsage(t *testing.T) {
	t.Setenv("SHARDCTL_DSN", "postgres://app@127.0.0.1:1/app?sslmode=disable")
	for args, want := range map[string]string{
		"split":                                  "the form is `shardctl split",
		"split s1 --to s2 --finish":              "--finish goes with --wait",
		"split s1 --to s2 --plan --wait":         "--finish goes with --wait",
		"move 0x1":                               "--to is missing",
		"move --to s1":                           "the form is `shardctl move",
		"move 0x1 --table users --key 1 --to s1": "a range or a key is moved, not both",
		"isolate --table a.b.c --key 1 --to s1":  "",
		"rebalance --slots 8":                    "--slots goes with --consistent",
		"rebalance --consistent --by-size":       "--slots goes with --consistent",
		"rebalance --consistent --tolerance 0.1": "--slots goes with --consistent",
		"abort one":                              "is not the number of a move",
		"verify s1 --move 1":                     "a move has its shards and ranges already",
		"moves pause":                            "the form is `shardctl moves pause",
		"moves begin":                            "there is no command \"begin\"",
	} {
		out, errOut, status := ctl(t, "", strings.Fields(args)...)
		if status != exitUsage || out != "" || strings.Count(errOut, "\n") != 1 || !strings.Contains(errOut, want) {
			t.Errorf("%s: status %d\n%s%s", args, status, out, errOut)
		}
	}
	for _, words := range []string{"split", "move", "isolate", "merge", "rebalance", "moves", "abort", "reverse", "finish", "verify", "shard drain", "moves pause", "moves resume"} {
		out, _, status := ctl(t, "", append(strings.Fields(words), "--help")...)
		if status != 0 || !strings.Contains(out, "Examples:\n  shardctl "+words) || !strings.Contains(out, "Exit status:") && words != "moves" {
			t.Errorf("%s --help: status %d\n%s", words, status, out)
		}
	}
}
