package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shardproxy/admin/admintest"
	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

var update = flag.Bool("update", false, "write testdata/commands.txt anew")

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// ctl runs shardctl.
func ctl(t testing.TB, in string, args ...string) (out, errOut string, status int) {
	t.Helper()
	var o, e bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(in), &o, &e)
	return o.String(), e.String(), status
}

// testSnapshot has two shards, of which one has a replica and half of the ring in two ranges, and tables that the rules
// place in every way.
func testSnapshot(t testing.TB) *topology.Snapshot {
	t.Helper()
	public := func(n string) topology.TableName { return topology.TableName{Schema: "public", Name: n} }
	node := func(host string, role topology.Role) topology.Node {
		return topology.Node{Host: host, Port: 5432, Database: "app", Role: role}
	}
	s, err := topology.New(topology.Content{
		Cluster: "shop", Epoch: 7,
		Shards: []topology.Shard{
			{Name: "s1", Nodes: []topology.Node{node("10.0.0.1", topology.Primary), node("10.0.1.1", topology.Replica)}},
			{Name: "s2", Nodes: []topology.Node{node("10.0.0.2", topology.Primary)}},
		},
		Ranges: []topology.KeyRange{{Start: 0, End: 1 << 62, Shard: 0}, {Start: 1 << 62, End: 3 << 62, Shard: 1}, {Start: 3 << 62, Shard: 0}},
		Rules: topology.KeyRules{
			Explicit: map[topology.TableName]string{public("orders"): "customer_id"}, Reference: map[topology.TableName]bool{public("plans"): true},
			Columns: []string{"user_id"}, Named: map[topology.TableName]string{{Name: "users"}: "id"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	schema := &topology.Schema{Rules: s.Rules, Tables: map[topology.TableName]*topology.Table{}}
	for _, table := range []*topology.Table{
		{TableName: public("users"), Kind: topology.Sharded, KeyType: topology.KeyInt, Columns: []topology.Column{{Name: "id", Type: 20}}},
		{TableName: public("Names"), Kind: topology.Sharded, KeyType: topology.KeyText, Columns: []topology.Column{{Name: "user_id", Type: 25}}},
		{TableName: public("plans"), Kind: topology.Reference, Key: -1, Columns: []topology.Column{{Name: "id", Type: 23}}},
		{TableName: public("odd"), Kind: topology.Sharded, Key: -1, Problem: "no rule names\na shard key"},
	} {
		schema.Tables[table.TableName] = table
	}
	return s.WithSchema(schema)
}

// TestCommands compares what commands print with testdata/commands.txt: a line of standard error begins with "! ", and an
// exit status other than 0 is in a line of its own. The commands run one after the other; @admin and the like are DSNs.
func TestCommands(t *testing.T) {
	heard := time.Date(2026, 3, 4, 8, 0, 0, 0, time.UTC)
	c := admintest.Start(t, testSnapshot(t), true,
		topology.Peer{Name: "p2", Addr: "10.0.0.9:7946", Map: topology.MapState{Epoch: 7, Checksum: 1}, LastHeard: heard, RTT: time.Millisecond},
		topology.Peer{Name: "p3", Addr: "10.0.0.8:7946", Status: topology.PeerDead, Map: topology.MapState{Epoch: 6, Checksum: 2}},
	)
	c.Busy("s2")
	fromFile := admintest.Start(t, testSnapshot(t), false)
	t.Setenv("SHARDCTL_DSN", c.DSN("admin"))
	t.Setenv("SHARDCTL_CATALOG", "")
	dsns := strings.NewReplacer("@watcher", c.DSN("watcher"), "@nobody", c.DSN("nobody"), "@file", fromFile.DSN("admin"),
		"@closed", "postgres://app@127.0.0.1:1/app?sslmode=disable", "@tls", strings.Replace(c.DSN("admin"), "disable", "require", 1))

	const path = "testdata/commands.txt"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	commands := 0
	for line := range strings.Lines(string(text)) {
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ shardctl")
		if !ok {
			if strings.HasPrefix(line, "#") {
				b.WriteString(line)
			}
			continue
		}
		commands++
		var args []string
		for _, arg := range strings.Fields(command) {
			args = append(args, dsns.Replace(arg))
		}
		out, errOut, status := ctl(t, "", args...)
		b.WriteString(line)
		b.WriteString(out)
		for said := range strings.Lines(errOut) {
			b.WriteString("! " + said)
		}
		if status != 0 {
			fmt.Fprintf(&b, "exit status %d\n", status)
		}
		if lines := strings.Count(errOut, "\n"); status != 0 && (lines != 1 || out != "") {
			t.Errorf("%s: an error is one line of standard error, not\n%s%s", command, errOut, out)
		}
		b.WriteByte('\n')
	}
	got := strings.ReplaceAll(b.String(), c.Address, "ADDRESS")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(text), got); diff != "" {
		t.Errorf("(-file +now; -update writes it)\n%s", diff)
	}
	if commands < 40 {
		t.Errorf("only %d commands were tried", commands)
	}
}

func TestCompletion(t *testing.T) {
	c := admintest.Start(t, testSnapshot(t), true)
	t.Setenv("SHARDCTL_DSN", c.DSN("watcher"))
	for args, want := range map[string]string{
		"shard drain ":   "s1\ns2\n:4\n",
		"node add s1 ":   ":4\n",
		"locate ":        ":4\n",
		"shard un":       "undrain\tTake drain back\n:4\n",
		"pause --shard ": "s1\ns2\n:4\n",
		"table add --re": "--reference\ta full copy on every shard\n:4\n",
	} {
		words := strings.Split("__complete "+args, " ")
		if out, _, status := ctl(t, "", words...); out != want || status != 0 {
			t.Errorf("%s: %q, status %d", args, out, status)
		}
	}
	if out, _, status := ctl(t, "", "completion", "bash"); status != 0 || !strings.Contains(out, "__shardctl") {
		t.Errorf("no completion for bash: %d", status)
	}
}

// TestHelp holds that each command says what it is for, and that those with arguments or flags of their own say how.
func TestHelp(t *testing.T) {
	for _, words := range []string{
		"", "init", "shard add", "table add", "locate", "export", "explain", "pause", "resume", "reconnect", "kill", "reload", "config", "set", "shutdown",
	} {
		out, _, status := ctl(t, "", append(strings.Fields(words), "--help")...)
		if status != 0 || !strings.Contains(out, "Examples:\n  shardctl "+words) || !strings.Contains(out, "--dsn") {
			t.Errorf("%s --help: status %d\n%s", words, status, out)
		}
	}
	if out, _, status := ctl(t, "", "--version"); status != 0 || !strings.HasPrefix(out, "shardctl version ") {
		t.Errorf("--version: %q", out)
	}
}
