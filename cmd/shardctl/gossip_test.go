package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shardproxy/admin/admintest"
	"shardproxy/topology"
)

// TestGossipKeys rotates the key of a console in memory. The key is read from a file, and printed nowhere.
func TestGossipKeys(t *testing.T) {
	c := admintest.Start(t, testSnapshot(t), true, topology.Peer{Name: "p2"}, topology.Peer{Name: "p3", Status: topology.PeerDead})
	t.Setenv("SHARDCTL_DSN", c.DSN("admin"))
	const key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	const first, second = "e4709ce333100157", "ac88ccacd16a45d5"
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const dead = "! shardctl: warning: peer p3 is dead for this proxy and was not told. If it only is cut off, restart it with the same gossip.keys as the others.\n"
	for _, test := range []struct {
		in, args string
		status   int
		want     string
	}{
		{"", "gossip keys list", 0, "PEER  FINGERPRINT       IN_USE  ERROR\np1    " + first + "  yes     -\np2    " + first + "  yes     -\n"},
		{key, "gossip keys add -f - --json", 0, dead + `[
  {"peer": "p1", "fingerprint": "` + first + `", "in_use": "yes", "error": null},
  {"peer": "p1", "fingerprint": "` + second + `", "in_use": "no", "error": null},
  {"peer": "p2", "fingerprint": "` + first + `", "in_use": "yes", "error": null},
  {"peer": "p2", "fingerprint": "` + second + `", "in_use": "no", "error": null}
]
`},
		{"", "gossip keys use " + second, 0, dead + "PEER  FINGERPRINT       IN_USE  ERROR\np1    " + second + "  yes     -\np1    " + first + "  no      -\np2    " + second + "  yes     -\np2    " + first + "  no      -\n"},
		{"", "gossip keys remove " + second, 1, "! shardctl: gossip: nothing was done: p1 uses the key (SQLSTATE 55000). First GOSSIP KEY ADD, then GOSSIP KEY USE, then GOSSIP KEY REMOVE of the old key, each until SHOW GOSSIP KEYS has no errors.\n"},
		{"", "gossip keys remove " + first, 0, dead + "PEER  FINGERPRINT       IN_USE  ERROR\np1    " + second + "  yes     -\np2    " + second + "  yes     -\n"},
		{"", "gossip keys use nonsense", 1, "! shardctl: gossip: the key is not in the ring; add it first (SQLSTATE 55000). SHOW GOSSIP KEYS lists the fingerprints.\n"},
		{"", "gossip keys add", 2, "! shardctl: -f is missing: the file with the key; see `shardctl gossip keys add --help`\n"},
		{"", "gossip keys add " + key, 2, "! shardctl: the form is `shardctl gossip keys add -f FILE [flags]`; see `shardctl gossip keys add --help`\n"},
		{"short", "gossip keys add -f -", 1, "! shardctl: GOSSIP KEY ADD: the key is not the base64 of 16, 24 or 32 bytes (SQLSTATE 42601). The form is GOSSIP KEY ADD 'key'.\n"},
		{"", "gossip keys", 2, "! shardctl: a command is missing behind shardctl gossip keys; see `shardctl gossip keys --help`\n"},
		{"", "gossip keys list --dsn " + c.DSN("watcher"), 0, "PEER  FINGERPRINT       IN_USE  ERROR\np1    " + second + "  yes     -\np2    " + second + "  yes     -\n"},
	} {
		out, errOut, status := ctl(t, test.in, strings.Fields(test.args)...)
		got := ""
		for line := range strings.Lines(errOut) {
			got += "! " + line
		}
		if got += out; got != test.want || status != test.status || strings.Contains(got, key) {
			t.Errorf("%s: status %d\n got %s\nwant %s", test.args, status, got, test.want)
		}
	}
	if got := must(t, "", "gossip", "keys", "list"); !strings.Contains(got, second) {
		t.Error(got)
	}
	if out, _, _ := ctl(t, "", "__complete", "gossip", "keys", "use", ""); out != second+"\n:4\n" {
		t.Errorf("completion: %q", out)
	}
	alone := admintest.Start(t, testSnapshot(t), false)
	if _, errOut, status := ctl(t, "", "gossip", "keys", "list", "--dsn", alone.DSN("admin")); status != exitError || !strings.Contains(errOut, "runs without gossip") {
		t.Errorf("without gossip: %d, %s", status, errOut)
	}
	if out := must(t, "", "gossip", "keys", "--help"); !strings.Contains(out, "openssl rand -base64 32") {
		t.Error(out)
	}
}
