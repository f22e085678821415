package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shardproxy/fence"
	"shardproxy/topology"
	"shardproxy/wire"
)

// fixedFences answers what it is told to.
type fixedFences struct{ installed, checked []fence.Result }

func (f fixedFences) Install(context.Context) []fence.Result { return f.installed }
func (f fixedFences) Check(context.Context) []fence.Result   { return f.checked }

func TestFence(t *testing.T) {
	users := topology.TableName{Schema: "public", Name: "users"}
	cfg := testConfig()
	var log bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	cfg.Fences = fixedFences{
		installed: []fence.Result{
			{Shard: "s1", Epoch: 7, Tables: 3, Changed: true},
			{Shard: "s2", Epoch: 5, Tables: 3},
			{Shard: "s3", Err: errors.New("away")},
			{Shard: "s4", Epoch: 7, Tables: 3, Changed: true, Problems: []fence.Problem{{Table: users, What: "is odd", Hint: "look"}}},
		},
		checked: []fence.Result{
			{Shard: "s1", Epoch: 7, Tables: 3},
			{Shard: "s2", Tables: 2, Problems: []fence.Problem{{What: "there is none", Hint: "make one"}, {Table: users, What: "is odd"}}},
		},
	}
	c := startConsole(t, cfg)
	watcher, root := connect(t, c, "watcher"), connect(t, c, "root")
	lines := func(s string) []string { return strings.Split(s, ", ") }
	want := []string{
		"s1 7 3 installed  ", "s2 5 3 ok  ", "s3  0 failed away Repeat the command; look at the rights of the service user.",
		"s4 7 3 problem public.users: is odd look",
	}
	if diff := cmp.Diff(want, lines(run(t, root, "fence install;"))); diff != "" {
		t.Error(diff)
	}
	line := fmt.Sprintf(`msg="fences installed" user=root from=%s shards=4 changed=2 failed=1 problems=1`, root.Conn().LocalAddr())
	if !strings.Contains(log.String(), line) {
		t.Errorf("no line %s in\n%s", line, log.String())
	}
	want = []string{"s1 7 3 ok  ", "s2  2 problem there is none make one", "s2  2 problem public.users: is odd "}
	if diff := cmp.Diff(want, lines(run(t, watcher, "FENCE CHECK"))); diff != "" {
		t.Error(diff)
	}
	for sql, want := range map[string]string{
		"FENCE INSTALL":      "42501 permission denied for FENCE INSTALL",
		"FENCE CHECK s1":     "42601 FENCE CHECK: s1 is too much",
		"BEGIN; FENCE CHECK": strings.Join([]string{"s1 7 3 ok  ", "s2  2 problem there is none make one", "s2  2 problem public.users: is odd "}, ", "),
	} {
		if got := run(t, watcher, sql); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	if got := run(t, root, "BEGIN; FENCE INSTALL"); got != "25001 FENCE INSTALL cannot run inside a transaction block" {
		t.Errorf("in a transaction block: %s", got)
	}
	for _, sql := range []string{"FENCE INSTALL", "FENCE CHECK"} {
		_, err := connect(t, startConsole(t, testConfig()), "root").Exec(testContext(t), sql).ReadAll()
		wantError(t, err, "ERROR", wire.CodeFeatureNotSupported)
	}
}

// slowFences work until their context ends.
type slowFences struct{ started, ended chan struct{} }

func (f slowFences) Install(ctx context.Context) []fence.Result { return f.Check(ctx) }

func (f slowFences) Check(ctx context.Context) []fence.Result {
	close(f.started)
	<-ctx.Done()
	close(f.ended)
	return []fence.Result{{Shard: "s1", Err: ctx.Err()}}
}

// TestFenceEndsWithItsClient holds that nobody works on for a client that has left.
func TestFenceEndsWithItsClient(t *testing.T) {
	cfg := testConfig()
	slow := slowFences{make(chan struct{}), make(chan struct{})}
	cfg.Fences = slow
	conn := connect(t, startConsole(t, cfg), "watcher")
	go func() {
		<-slow.started
		conn.Conn().Close()
	}()
	if _, err := conn.Exec(testContext(t), "FENCE CHECK").ReadAll(); err == nil {
		t.Error("the client had an answer")
	}
	select {
	case <-slow.ended:
	case <-testContext(t).Done():
		t.Error("it goes on")
	}
}
