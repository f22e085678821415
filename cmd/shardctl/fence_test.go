package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shardproxy/admin/admintest"
	"shardproxy/fence"
	"shardproxy/topology"
)

func TestFence(t *testing.T) {
	c := admintest.Start(t, testSnapshot(t), true)
	t.Setenv("SHARDCTL_DSN", c.DSN("admin"))
	run := func(args, want, wantErr string, wantStatus int) {
		t.Helper()
		out, errOut, status := ctl(t, "", strings.Fields("fence "+args)...)
		if diff := cmp.Diff(want, out); diff != "" {
			t.Errorf("%s\n%s", args, diff)
		}
		if errOut != wantErr || status != wantStatus {
			t.Errorf("%s: status %d, %q", args, status, errOut)
		}
	}
	none := fence.Problem{What: "the shard has no fence", Hint: "shardctl fence install makes it."}
	odd := fence.Problem{Table: topology.TableName{Schema: "public", Name: "users"}, What: "trigger x is disabled", Hint: "Mend it."}
	c.Fence(
		fence.Result{Shard: "s1", Tables: 3, Problems: []fence.Problem{none}},
		fence.Result{Shard: "s2", Epoch: 5, Tables: 3, Problems: []fence.Problem{odd, odd}},
		fence.Result{Shard: "s3", Epoch: 7, Tables: 3},
	)
	run("check", `SHARD  EPOCH  TABLES  STATUS   PROBLEM                              HINT
s1     -      3       problem  the shard has no fence               shardctl fence install makes it.
s2     5      3       problem  public.users: trigger x is disabled  Mend it.
s2     5      3       problem  public.users: trigger x is disabled  Mend it.
s3     7      3       ok       -                                    -
`, "shardctl: 2 of 3 shards have no fence as the map wants it\n", 1)
	run("install", `SHARD  EPOCH  TABLES  STATUS     PROBLEM  HINT
s1     7      3       installed  -        -
s2     7      3       installed  -        -
s3     7      3       ok         -        -
`, "", 0)
	run("install --json", `[
  {"shard": "s1", "epoch": 7, "tables": 3, "status": "ok", "problem": null, "hint": null},
  {"shard": "s2", "epoch": 7, "tables": 3, "status": "ok", "problem": null, "hint": null},
  {"shard": "s3", "epoch": 7, "tables": 3, "status": "ok", "problem": null, "hint": null}
]
`, "", 0)
	c.Fence(fence.Result{Shard: "s1", Err: errors.New("shard s1: connection\nrefused")})
	run("check --json", `[
  {"shard": "s1", "epoch": null, "tables": 0, "status": "failed", "problem": "shard s1: connection\nrefused", "hint": "Repeat the command; look at the rights of the service user."}
]
`, "shardctl: 1 of 1 shards has no fence as the map wants it\n", 1)

	t.Setenv("SHARDCTL_DSN", c.DSN("watcher"))
	run("install", "", "shardctl: permission denied for FENCE INSTALL (SQLSTATE 42501). It needs the role admin; user \"watcher\" has stats.\n", 1)
	run("mend", "", "shardctl: there is no command \"mend\"; see `shardctl fence --help`\n", 2)
	run("check s1", "", "shardctl: the form is `shardctl fence check [flags]`; see `shardctl fence check --help`\n", 2)
	for _, words := range []string{"fence install", "fence check"} {
		if out, _, status := ctl(t, "", append(strings.Fields(words), "--help")...); status != 0 || !strings.Contains(out, "Examples:\n  shardctl "+words) {
			t.Errorf("%s --help: status %d\n%s", words, status, out)
		}
	}
}
