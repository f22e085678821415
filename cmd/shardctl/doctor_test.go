package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shardproxy/admin/admintest"
)

// The values of doctor.Status.
const (
	warning = 1
	broken  = 2
)

func TestDoctor(t *testing.T) {
	c := admintest.Start(t, testSnapshot(t), true)
	t.Setenv("SHARDCTL_DSN", c.DSN("watcher"))
	check := func(args, want, wantErr string, wantStatus int) {
		t.Helper()
		out, errOut, status := ctl(t, "", strings.Fields("doctor "+args)...)
		if diff := cmp.Diff(want, out); diff != "" {
			t.Errorf("%s\n%s", args, diff)
		}
		if errOut != wantErr || status != wantStatus {
			t.Errorf("%s: status %d, %q", args, status, errOut)
		}
	}
	check("", `catalog  ok  it answers

1 check: all is well
`, "", 0)
	check("--strict", "catalog  ok  it answers\n\n1 check: all is well\n", "", 0)

	c.Find("peers", warning, "p2", "is dead", "Look\nafter it.")
	mild := `catalog  ok       it answers
peers    warning  p2: is dead
                    Look after it.

2 checks: 0 errors and 1 warning
`
	check("", mild, "", 0)
	check("--strict", mild, "shardctl: the doctor has found 0 errors and 1 warning\n", 1)

	c.Find("schema", broken, "s2, s3", "table public.a is missing", "Make it.")
	c.Find("schema", broken, "s2", "table public.b\n is missing", "Make it.")
	c.Find("schema", warning, "", "something", "")
	check("", `catalog  ok       it answers
peers    warning  p2: is dead
                    Look after it.
schema   error    s2, s3: table public.a is missing
         error    s2: table public.b is missing
                    Make it.
         warning  something

3 checks: 2 errors and 2 warnings
`, "shardctl: the doctor has found 2 errors and 2 warnings\n", 1)
	check("--json", `[
  {"check": "catalog", "subject": null, "status": "ok", "detail": "it answers", "hint": null},
  {"check": "peers", "subject": "p2", "status": "warning", "detail": "is dead", "hint": "Look\nafter it."},
  {"check": "schema", "subject": "s2, s3", "status": "error", "detail": "table public.a is missing", "hint": "Make it."},
  {"check": "schema", "subject": "s2", "status": "error", "detail": "table public.b\n is missing", "hint": "Make it."},
  {"check": "schema", "subject": null, "status": "warning", "detail": "something", "hint": null}
]
`, "shardctl: the doctor has found 2 errors and 2 warnings\n", 1)
	check("--deep", "", "shardctl: permission denied for DOCTOR DEEP (SQLSTATE 42501). It needs the role admin; user \"watcher\" has stats.\n", 1)
	check("now", "", "shardctl: the form is `shardctl doctor [flags]`; see `shardctl doctor --help`\n", 2)
	t.Setenv("SHARDCTL_DSN", c.DSN("admin"))
	if out, _, _ := ctl(t, "", "doctor", "--deep"); !strings.Contains(out, "all rows are where the map has them") {
		t.Errorf("--deep: %s", out)
	}
}
