package devcluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"shardproxy/internal/config"
	"shardproxy/internal/devcluster"
	"shardproxy/internal/postgres"
	"shardproxy/topology"
)

// TestMain also is the process that TestStartAfterKill kills: with helperDir set, the test binary runs a
// cluster there until it is ended.
func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		helper(dir)
	}
	goleak.VerifyTestMain(m)
}

const (
	helperDir       = "SHARDPROXY_DEVCLUSTER_HELPER"
	helperEphemeral = "SHARDPROXY_DEVCLUSTER_EPHEMERAL"
)

func helper(dir string) {
	c, err := devcluster.Start(context.Background(), devcluster.Options{
		Dir: dir, Shards: 1, Replicas: 1, Ephemeral: os.Getenv(helperEphemeral) != "",
	})
	if err == nil {
		err = c.WriteDevJSON(nil)
	}
	fmt.Println("started:", err) // the line that the test waits for
	select {}
}

func start(t *testing.T, o devcluster.Options) *devcluster.Cluster {
	t.Helper()
	from := time.Now()
	c, err := devcluster.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d shards on %d servers after %v", len(c.Shards), c.Servers, time.Since(from).Round(time.Millisecond))
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func newDir(t *testing.T) string {
	t.Helper()
	dir, err := postgres.TempDir("shardproxy-devclustertest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "dev")
}

type devFile struct {
	Proxies []devcluster.ProxyInfo
	Catalog string
	Shards  []struct {
		Name  string
		Nodes []struct {
			Role, DSN string
			PID       int
		}
	}
}

func readDevJSON(t *testing.T, dir string) (f devFile) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

func ask[T any](t *testing.T, conn *pgx.Conn, sql string) (v T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func mustExec(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// await asks until the answer is true.
func await(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for done := false; !done; {
		if err := conn.QueryRow(ctx, sql).Scan(&done); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
}

// checkConfig reads the proxy's configuration back, and the catalog that it names.
func checkConfig(t *testing.T, c *devcluster.Cluster) {
	accounts, countries := topology.TableName{Schema: "public", Name: "pgbench_accounts"}, topology.TableName{Schema: "public", Name: "countries"}
	for range 2 { // the second time finds it as it is
		err := c.SyncCatalog(t.Context(), map[topology.TableName]string{accounts: "aid"}, []topology.TableName{countries})
		if err != nil {
			t.Fatal(err)
		}
	}
	path, err := c.WriteConfig(devcluster.ProxyConfig{
		Name: "shardproxy.toml", Listen: "127.0.0.1:6432", HTTP: "127.0.0.1:9932", Gossip: "127.0.0.1:7001", Peers: []string{"127.0.0.1:7002"},
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	catalog, err := topology.OpenCatalog(cfg.Catalog.DSN.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	s, err := catalog.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c.Shards, s.Shards); diff != "" || s.Cluster != cfg.Cluster.Name {
		t.Errorf("cluster %q %s", s.Cluster, diff)
	}
	if s.Epoch != 1 || s.Rules.Explicit[accounts] != "aid" || !s.Rules.Reference[countries] {
		t.Errorf("epoch %d, rules %+v", s.Epoch, s.Rules)
	}
	if len(cfg.Users) != 1 || cfg.Users[0].Name != "app" || cfg.Users[0].Secret.Reveal() != "app" {
		t.Errorf("users %v", cfg.Users)
	}
}

func TestFourShardsWithReplicas(t *testing.T) {
	dir := newDir(t)
	c := start(t, devcluster.Options{Dir: dir, Replicas: -1, Ephemeral: true})
	if err := c.WriteDevJSON([]devcluster.ProxyInfo{devcluster.NewProxyInfo("127.0.0.1", 6432, "127.0.0.1:9932", 42)}); err != nil {
		t.Fatal(err)
	}
	f := readDevJSON(t, dir)
	want := []devcluster.ProxyInfo{{
		DSN:   "postgres://app:app@127.0.0.1:6432/app?sslmode=disable",
		Admin: "postgres://app:app@127.0.0.1:6432/shardproxy?sslmode=disable",
		HTTP:  "http://127.0.0.1:9932", PID: 42,
	}}
	if diff := cmp.Diff(want, f.Proxies); diff != "" {
		t.Error(diff)
	}
	mustExec(t, connect(t, f.Catalog), "CREATE SCHEMA IF NOT EXISTS shardproxy")
	if len(f.Shards) != 4 {
		t.Fatalf("%d shards", len(f.Shards))
	}
	for i, s := range f.Shards {
		if s.Name != fmt.Sprintf("s%d", i+1) || len(s.Nodes) != 2 || s.Nodes[0].Role != "primary" || s.Nodes[1].Role != "replica" {
			t.Fatalf("shard %d is %+v", i, s)
		}
		primary, replica := connect(t, s.Nodes[0].DSN), connect(t, s.Nodes[1].DSN)
		if got := ask[string](t, primary, "SELECT current_database() || ' ' || current_user"); got != "app app" {
			t.Errorf("%s: connected as %s", s.Name, got)
		}
		if got := ask[string](t, primary, "SHOW wal_level"); got != "logical" {
			t.Errorf("%s: wal_level %s", s.Name, got)
		}
		mustExec(t, primary, "CREATE TABLE users (id bigint PRIMARY KEY)")
		mustExec(t, primary, "INSERT INTO users VALUES (1)")
		await(t, replica, "SELECT to_regclass('users') IS NOT NULL")
		await(t, replica, "SELECT count(*) = 1 FROM users")
		if !ask[bool](t, replica, "SELECT pg_is_in_recovery()") {
			t.Errorf("%s: the replica is none", s.Name)
		}
		if !runs(s.Nodes[0].PID) {
			t.Errorf("%s: no process %d", s.Name, s.Nodes[0].PID)
		}
	}
	t.Run("a wrong password is refused", func(t *testing.T) {
		conn, err := pgx.Connect(t.Context(), strings.Replace(f.Shards[0].Nodes[0].DSN, "app:app", "app:wrong", 1))
		if err == nil {
			conn.Close(t.Context())
			t.Error("it was let in")
		}
	})
	t.Run("a second cluster in the same folder is refused", func(t *testing.T) {
		_, err := devcluster.Start(t.Context(), devcluster.Options{Dir: dir, Ephemeral: true})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("runs in %s already (process %d)", dir, os.Getpid())) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("the proxy's configuration is understood", func(t *testing.T) { checkConfig(t, c) })
	t.Run("an ephemeral cluster leaves nothing", func(t *testing.T) {
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: %v", dir, err)
		}
		if runs(f.Shards[0].Nodes[0].PID) {
			t.Error("a server still runs")
		}
	})
}

func TestManyShardsShareServers(t *testing.T) {
	c := start(t, devcluster.Options{Shards: 64, Servers: 2, Replicas: 0, Ephemeral: true})
	if len(c.Shards) != 64 {
		t.Fatalf("%d shards", len(c.Shards))
	}
	type place struct {
		port     int
		database string
	}
	places := map[place]string{}
	ports := map[int]int{}
	for _, s := range c.Shards {
		n := s.Nodes[0]
		p := place{n.Port, n.Database}
		if other, taken := places[p]; taken {
			t.Errorf("%s and %s are both in %v", s.Name, other, p)
		}
		places[p] = s.Name
		ports[n.Port]++
	}
	if len(ports) != 2 || ports[c.Shards[0].Nodes[0].Port] != 32 {
		t.Errorf("shards by port: %v", ports)
	}
	last := c.Shards[63].Nodes[0]
	conn := connect(t, postgres.DSN("app", "app", last.Host, last.Port, last.Database))
	mustExec(t, conn, "CREATE TABLE t (a int)")
	if limit := ask[int](t, conn, "SELECT current_setting('max_connections')::int"); limit < 32*30 {
		t.Errorf("max_connections %d is too few for 32 databases", limit)
	}
}

// startHelper runs a cluster in another process, which kill ends without giving it a chance to clean up.
func startHelper(t *testing.T, dir string, env ...string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), helperDir+"="+dir), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "started: <nil>\n" {
		t.Fatalf("helper: %s", line)
	}
	return kill
}

// runs says whether the process lives. (The init of a container may leave zombies, which kill(pid, 0) counts.)
func runs(pid int) bool {
	_, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return err == nil
}

func TestEphemeralClusterAfterKill(t *testing.T) {
	dir := newDir(t)
	kill := startHelper(t, dir, helperEphemeral+"=1")
	before := readDevJSON(t, dir)
	mustExec(t, connect(t, before.Shards[0].Nodes[0].DSN), "CREATE TABLE t (a int)")
	kill()
	for _, n := range before.Shards[0].Nodes {
		for deadline := time.Now().Add(20 * time.Second); runs(n.PID); {
			if time.Now().After(deadline) {
				t.Fatalf("the %s outlives the process that it belongs to", n.Role)
			}
			runtime.Gosched()
		}
	}
	c := start(t, devcluster.Options{Dir: dir, Shards: 1, Replicas: 0, Ephemeral: true})
	n := c.Shards[0].Nodes[0]
	if ask[bool](t, connect(t, postgres.DSN("app", "app", n.Host, n.Port, n.Database)), "SELECT to_regclass('t') IS NOT NULL") {
		t.Error("the new cluster has the old one's table")
	}
}

func TestStartAfterKill(t *testing.T) {
	dir := newDir(t)
	kill := startHelper(t, dir)
	before := readDevJSON(t, dir)
	mustExec(t, connect(t, before.Shards[0].Nodes[0].DSN), "CREATE TABLE t AS SELECT 7 AS a")
	kill()
	orphan := before.Shards[0].Nodes[0].PID
	if !runs(orphan) {
		t.Fatal("the server did not survive the helper, so this test proves nothing")
	}

	c := start(t, devcluster.Options{Dir: dir, Replicas: -1})
	if !c.Found {
		t.Error("the data was made anew")
	}
	if runs(orphan) {
		t.Error("the old server still runs")
	}
	if _, err := os.Stat(filepath.Join(dir, "dev.json")); !os.IsNotExist(err) {
		t.Errorf("the old dev.json is still there: %v", err)
	}
	if err := c.WriteDevJSON(nil); err != nil {
		t.Fatal(err)
	}
	after := readDevJSON(t, dir)
	if got, want := after.Shards[0].Nodes[0].DSN, before.Shards[0].Nodes[0].DSN; got != want {
		t.Errorf("the DSN was %s and is %s", want, got)
	}
	primary, replica := connect(t, after.Shards[0].Nodes[0].DSN), connect(t, after.Shards[0].Nodes[1].DSN)
	if got := ask[int](t, primary, "SELECT a FROM t"); got != 7 {
		t.Errorf("read %d", got)
	}
	mustExec(t, primary, "INSERT INTO t VALUES (8)")
	await(t, replica, "SELECT count(*) = 2 FROM t")

	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	t.Run("another shape is refused", func(t *testing.T) {
		_, err := devcluster.Start(t.Context(), devcluster.Options{Dir: dir, Shards: 2, Replicas: -1})
		if err == nil || !strings.Contains(err.Error(), "holds a cluster with 1 shards, not 2") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("half-made data is made again", func(t *testing.T) {
		if err := os.Remove(filepath.Join(dir, "server1", "replica1.complete")); err != nil {
			t.Fatal(err)
		}
		c := start(t, devcluster.Options{Dir: dir, Replicas: -1})
		n := c.Shards[0].Nodes[1]
		if got := ask[int](t, connect(t, postgres.DSN("app", "app", n.Host, n.Port, n.Database)), "SELECT count(*) FROM t"); got != 2 {
			t.Errorf("the new replica has %d rows", got)
		}
	})
}

func TestOptionsAreChecked(t *testing.T) {
	busy := newDir(t)
	if err := os.MkdirAll(filepath.Join(busy, "precious"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		options devcluster.Options
		want    string
	}{
		"no folder":             {devcluster.Options{}, "no folder"},
		"too many shards":       {devcluster.Options{Ephemeral: true, Shards: 1001}, "1 to 1000"},
		"more servers":          {devcluster.Options{Ephemeral: true, Shards: 2, Servers: 3}, "would be empty"},
		"too many replicas":     {devcluster.Options{Ephemeral: true, Replicas: 5}, "at most 4"},
		"somebody else's files": {devcluster.Options{Dir: busy}, "is not empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := devcluster.Start(t.Context(), c.options)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(busy, "precious")); err != nil {
		t.Errorf("somebody else's files: %v", err)
	}
}
