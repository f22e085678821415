package e2e

import (
	"bytes"
	"context"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/e2e/harness"
	"shardproxy/internal/postgres"
)

// shardctl runs the program and gives what it prints with its exit status.
type shardctl struct{ path string }

func buildShardctl(t *testing.T) shardctl {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shardctl")
	mod, err := exec.CommandContext(t.Context(), "go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/shardctl")
	build.Dir = filepath.Dir(strings.TrimSpace(string(mod)))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return shardctl{path}
}

func (s shardctl) run(t *testing.T, dsn string, args ...string) (out string, status int) {
	t.Helper()
	var b bytes.Buffer
	cmd := exec.CommandContext(t.Context(), s.path, args...)
	cmd.Env = append(os.Environ(), "SHARDCTL_DSN="+dsn)
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return b.String(), cmd.ProcessState.ExitCode()
}

// TestDoctor asks the doctor of a healthy cluster, then breaks one thing after the other behind the proxies' backs. Each must
// be named, and make the exit status what it should be.
func TestDoctor(t *testing.T) {
	needCluster(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c, err := harness.StartCluster(ctx, harness.Options{
		Binary: proxyBin, Shards: shardCount, Args: []string{"--servers", "2", "--replicas", "1", "--proxies", "2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}()
	ctl := buildShardctl(t)
	doctor := func(args ...string) (string, int) {
		t.Helper()
		return ctl.run(t, c.Proxies[0].Admin, append([]string{"doctor"}, args...)...)
	}
	want := func(status int, what string, args ...string) {
		t.Helper()
		var out string
		var got int
		waitFor(t, "the doctor says "+what, func() bool { // what gossip and replication have to tell takes a moment
			out, got = doctor(args...)
			return got == status && strings.Contains(out, what)
		})
		if t.Failed() {
			t.Logf("status %d\n%s", got, out)
		}
	}

	s := connect(t, c.Proxies[0].DSN)
	s.must(t, "CREATE TABLE doc_users (user_id bigint PRIMARY KEY, name text)")
	s.must(t, "CREATE INDEX doc_name ON doc_users (name)")
	s.must(t, "CREATE TABLE doc_plans (code text PRIMARY KEY)")
	for i := range 20 {
		s.mustf(t, "INSERT INTO doc_users VALUES (%d, 'n')", i)
	}
	s.must(t, "INSERT INTO doc_plans VALUES ('a'), ('b')")
	want(0, "all rows of 1 sharded table are where the map has them", "--deep")
	want(0, "4 shards have the same schema")
	out, status := doctor("--json")
	if status != 0 || !strings.Contains(out, `"check": "replicas", "subject": null, "status": "ok", "detail": "4 replicas answer`) {
		t.Errorf("status %d\n%s", status, out)
	}
	connect(t, c.Proxies[1].Admin).must(t, "DOCTOR")

	// What is done past the fence, where there is one, is done as replication does it.
	const past = "SET session_replication_role = replica; "
	foreign := keyOn(t, c, 2, 0)
	for _, test := range []struct {
		shard             int
		sql, undo, status string
		want              string
		deep              bool
	}{
		{1, "ALTER TABLE doc_users ADD age int", "ALTER TABLE doc_users DROP age", "error", "s2: column age of public.doc_users is not on s1", false},
		{2, "DROP INDEX doc_name", "CREATE INDEX doc_name ON doc_users (name)", "error", "s3: index doc_name of public.doc_users is missing", false},
		{2, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'doc_name'::regclass", "UPDATE pg_index SET indisvalid = true WHERE indexrelid = 'doc_name'::regclass", "error", "index doc_name of public.doc_users is invalid here, valid on s1", false},
		{3, "GRANT SELECT ON doc_plans TO pg_monitor", "REVOKE ALL ON doc_plans FROM pg_monitor", "warning", "s4: privilege SELECT of pg_monitor on table public.doc_plans is not on s1", false},
		{1, "CREATE PUBLICATION shardproxy_move_4711 FOR TABLE doc_users", "DROP PUBLICATION shardproxy_move_4711", "warning", "s2: publication shardproxy_move_4711 belongs to no move that is under way", false},
		{1, past + "INSERT INTO doc_users VALUES (" + strconv.Itoa(foreign) + ")", past + "DELETE FROM doc_users WHERE user_id = " + strconv.Itoa(foreign), "error", "s2: public.doc_users has 1 row of keys that the shard does not own", true},
		{3, past + "DELETE FROM doc_plans WHERE code = 'a'", past + "INSERT INTO doc_plans VALUES ('a')", "error", "s4: public.doc_plans has 1 row here, 2 on s1", true},
	} {
		var args []string
		if test.deep {
			args = []string{"--deep"}
		}
		onShardAsSuper(t, c.Shards[test.shard], test.sql)
		code := map[string]int{"error": 1, "warning": 0}[test.status]
		want(code, test.want, args...)
		if test.status == "warning" {
			want(1, test.want, append(args, "--strict")...)
		}
		onShardAsSuper(t, c.Shards[test.shard], test.undo)
	}
	want(0, "all rows of 1 sharded table are where the map has them", "--deep")

	kill(t, c.Proxies[1].PID)
	want(0, "the peer at ")
	kill(t, catalogPID(t, c))
	want(1, "the catalog cannot be read")
	for _, node := range c.Shards[3].Nodes {
		if node.Role == "replica" {
			kill(t, node.PID) // which s3 has too
		}
	}
	want(1, "s4 127.0.0.1:")
	kill(t, c.Shards[0].Primary().PID) // and of s2
	want(1, "s1, s2: the primary 127.0.0.1:")
	out, _ = doctor()
	if !strings.Contains(out, "18 settings are the same on 2 shards") {
		t.Errorf("the other shards were not looked at\n%s", out)
	}
}

// onShardAsSuper runs statements on a shard as its superuser, which a dev cluster lets in from this machine.
func onShardAsSuper(t *testing.T, shard harness.Shard, sql string) {
	t.Helper()
	dsn, err := url.Parse(shard.Primary().DSN)
	if err != nil {
		t.Fatal(err)
	}
	dsn.User = url.User(postgres.Superuser)
	conn, err := pgconn.Connect(t.Context(), dsn.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("shard %s: %s: %v", shard.Name, sql, err)
	}
}
