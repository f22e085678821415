package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"shardproxy/topology"
)

// minimal is a file that Check accepts.
const minimal = `cluster.service_user = "svc"
[[shards]]
name = "a"
nodes = [{host = "h1"}]
[[shards]]
name = "b"
nodes = [{host = "h2", port = 5433, database = "other"}, {host = "h3", role = "replica"}]
`

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := parse("f.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestMinimal(t *testing.T) {
	c := mustParse(t, minimal)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	shards, ranges, err := c.Topology()
	if err != nil {
		t.Fatal(err)
	}
	want := []topology.Shard{
		{Name: "a", Nodes: []topology.Node{{Host: "h1", Port: 5432, Database: "app"}}},
		{Name: "b", Nodes: []topology.Node{
			{Host: "h2", Port: 5433, Database: "other"},
			{Host: "h3", Port: 5432, Database: "app", Role: topology.Replica},
		}},
	}
	if diff := cmp.Diff(want, shards); diff != "" {
		t.Errorf("shards (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(topology.EqualRanges(2), ranges); diff != "" {
		t.Errorf("ranges (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Default().Auth.Rules, c.Auth.Rules); diff != "" {
		t.Errorf("auth.rules are not the default:\n%s", diff)
	}
	if c.Pool != Default().Pool {
		t.Errorf("pool is not the default: %+v", c.Pool)
	}
}

func TestRulesReplaceDefault(t *testing.T) {
	c := mustParse(t, minimal+"[[auth.rules]]\nmethod = \"trust\"\naddress = \"127.0.0.1\"\n")
	want := []AuthRule{{Type: "host", Database: "all", User: "all", Address: "127.0.0.1", Method: "trust"}}
	if diff := cmp.Diff(want, c.Auth.Rules); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if c := mustParse(t, "[auth]\nrules = []\n[tables]\ncolumns = []"); len(c.Auth.Rules) != 0 || len(c.Tables.Columns) != 0 {
		t.Errorf("an empty list gave %v and %v", c.Auth.Rules, c.Tables.Columns)
	}
	if c := mustParse(t, "[tables]\ncolumns = [\"x\"]"); !slices.Equal(c.Tables.Columns, []string{"x"}) {
		t.Errorf("columns of the file did not replace the default: %v", c.Tables.Columns)
	}
}

func TestPrimaryFirst(t *testing.T) {
	c := mustParse(t, "[[shards]]\nname = \"a\"\nnodes = [{host = \"r\", role = \"replica\"}, {host = \"p\"}]")
	shards, _, err := c.Topology()
	if err != nil {
		t.Fatal(err)
	}
	if shards[0].Nodes[0].Host != "p" || shards[0].Nodes[1].Host != "r" {
		t.Errorf("%v", shards[0].Nodes)
	}
}

func TestExplicitRanges(t *testing.T) {
	c := mustParse(t, minimal+`
[[ranges]]
start = "0x4000000000000000"
shard = "a"
[[ranges]]
start = "0000000000000000"
end = "4000000000000000"
shard = "b"
`)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	_, ranges, err := c.Topology()
	if err != nil {
		t.Fatal(err)
	}
	want := []topology.KeyRange{{Start: 0, End: 1 << 62, Shard: 1}, {Start: 1 << 62, End: 0, Shard: 0}}
	if diff := cmp.Diff(want, ranges); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestKeyRules(t *testing.T) {
	c := mustParse(t, `[tables]
explicit = ["projects.creator_user_id", "billing.invoices.account", "\"odd.name\".\"a\"\"b\""]
reference = ["plans", "billing.taxes"]
named = ["people.id", "s.people.key"]
unlisted = "refuse"`)
	got, err := c.KeyRules()
	if err != nil {
		t.Fatal(err)
	}
	want := topology.KeyRules{
		Explicit: map[topology.TableName]string{
			{Schema: "public", Name: "projects"}:  "creator_user_id",
			{Schema: "billing", Name: "invoices"}: "account",
			{Schema: "public", Name: "odd.name"}:  `a"b`,
		},
		Reference: map[topology.TableName]bool{
			{Schema: "public", Name: "plans"}:  true,
			{Schema: "billing", Name: "taxes"}: true,
		},
		Columns: []string{"user_id", "creator_user_id"},
		Named: map[topology.TableName]string{
			{Name: "people"}:              "id",
			{Schema: "s", Name: "people"}: "key",
		},
		RefuseUnlisted: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	rules, err := Default().KeyRules()
	if err != nil {
		t.Fatal(err)
	}
	want = topology.DefaultKeyRules()
	want.Explicit, want.Reference = rules.Explicit, rules.Reference
	if diff := cmp.Diff(want, rules); diff != "" {
		t.Errorf("the default is not topology's (-want +got):\n%s", diff)
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown key", "[pool]\nmode = \"session\"\n  size = 3\n", "f.toml:3:3: unknown key pool.size"},
		{"unknown keys", "[pool]\nsize = 3\n[pol]\nx = 1", "f.toml:2:1: unknown key pool.size\nf.toml:3:2: unknown key pol"},
		{"unknown key in a list", "[[shards]]\nname = \"a\"\nnodes = [{host = \"h\", prt = 1}]", "f.toml:3:23: unknown key shards[0].nodes[0].prt"},
		{"syntax", "[pool]\nmode = session\n", "f.toml:2:8: "},
		{"wrong type", "[pool]\nsize_max = \"many\"\n", "f.toml:2:12: "},
		{"unknown table", "[listen]\n[listen.tls.x]\ncert = 1", "f.toml:2:2: unknown key listen.tls.x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parse("f.toml", []byte(test.text))
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("%v\nwant %s", err, test.want)
			}
		})
	}
}

// TestCheckReports holds that each wrong value is reported once, by key and line, and nothing else is.
func TestCheckReports(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"no shards", "[[users]]\nname = \"u\"", "f.toml: shards: there are none"},
		{"pool mode", minimal + "[pool]\nmode = \"statement\"", `f.toml:9: pool.mode: "statement" is not one of transaction, session`},
		{"pool sizes", minimal + "[pool]\nsize_max = 5\nsize_min = 6", "f.toml:10: pool.size_min: 6 is not between 0 and 5"},
		{"budget", minimal + "[pool]\nmax_backends = 3", "f.toml:8: pool.size_max: 20 is not between 1 and 3"},
		{"timeout", minimal + "[pool]\nacquire_timeout = \"0s\"", "f.toml:9: pool.acquire_timeout: must be above zero"},
		{"negative timeout", minimal + "[pool]\nlifetime = \"-1s\"", "f.toml:9: pool.lifetime: -1s is below zero"},
		{"duration without a unit", minimal + "[pool]\nlifetime = \"5\"", "f.toml:9: pool.lifetime: is not a duration"},
		{"duration as a number", minimal + "[pool]\nacquire_timeout = 0", "f.toml:9: pool.acquire_timeout: is not a duration"},
		{"address", minimal + "[listen]\naddresses = [\"localhost:1\", \"nonsense\"]", "f.toml:9: listen.addresses[1]: \"nonsense\" is not an address"},
		{"no address", minimal + "[listen]\naddresses = []", "f.toml:9: listen.addresses: is empty"},
		{"tls without a certificate", minimal + "[listen]\ntls_require = true", "f.toml:8: listen.tls_cert: is missing"},
		{"tls key alone", minimal + "[listen]\ntls_key = \"k\"", "f.toml:8: listen.tls_cert: is missing, but listen.tls_key is set"},
		{"tls pair is not there", minimal + "[listen]\ntls_cert = \"no/c\"\ntls_key = \"k\"", "f.toml:9: listen.tls_cert: open no/c"},
		{"rule address", minimal + "[[auth.rules]]\n[[auth.rules]]\naddress = \"10.0.0.0/99\"", `f.toml:10: auth.rules[1].address: "10.0.0.0/99" is not`},
		{"rule method", minimal + "[[auth.rules]]\nmethod = \"gss\"", `f.toml:9: auth.rules[0].method: "gss" is not one of`},
		{"cert rule", minimal + "[[auth.rules]]\nmethod = \"cert\"", "f.toml:9: auth.rules[0].method: cert needs a rule of type hostssl"},
		{"rule users", minimal + "[[auth.rules]]\nuser = \"a,\"", `f.toml:9: auth.rules[0].user: "a," has an empty name`},
		{"local address", minimal + "[[auth.rules]]\ntype = \"local\"\naddress = \"all\"", "f.toml:10: auth.rules[0].address: a rule of type local"},
		{"auth query", minimal + "[auth]\nquery = \"SELECT 1\"\nquery_user = \"u\"", "f.toml:9: auth.query: has no $1"},
		{"user twice", minimal + "[[users]]\nname = \"u\"\n[[users]]\nname = \"u\"", `f.toml:11: users[1].name: user "u" is listed twice`},
		{"broken verifier", minimal + "[[users]]\nname = \"u\"\nsecret = \"SCRAM-SHA-256$4096:x\"", "f.toml:10: users[0].secret: begins like a SCRAM verifier"},
		{"verifier towards nodes", minimal + "[[users]]\nname = \"u\"\nserver_password = \"md5" + strings.Repeat("0", 32) + "\"", "f.toml:10: users[0].server_password: is a verifier"},
		{
			"a role with two passwords", minimal + "[[users]]\nname = \"r\"\nsecret = \"x\"\n[[users]]\nname = \"u\"\nserver_user = \"r\"\nserver_password = \"y\"",
			`f.toml:14: users[1].server_password: role "r" of the nodes has another password in users[0].server_password`,
		},
		{"nobody to serve", "[[shards]]\nname = \"a\"\nnodes = [{host = \"h\"}]", "f.toml: cluster.service_user: is missing"},
		{"database of the console", "cluster.database = \"shardproxy\"\n" + minimal, "f.toml:1: cluster.database:"},
		{"shard twice", minimal + "[[shards]]\nname = \"a\"\nnodes = [{host = \"h9\"}]", `f.toml:9: shards[2].name: shard "a" is listed twice`},
		{"two primaries", "cluster.service_user = \"s\"\n[[shards]]\nname = \"a\"\nnodes = [{host = \"h1\"}, {host = \"h2\"}]", "f.toml:4: shards[0].nodes: has 2 primaries"},
		{"nodes as tables", "cluster.service_user = \"s\"\n[[shards]]\nname = \"a\"\n[[shards.nodes]]\nhost = \"h\"\n[[shards.nodes]]\nhost = \"i\"\nport = 7\nrole = \"other\"", `f.toml:9: shards[0].nodes[1].role: "other" is not one of primary, replica`},
		{"node twice", minimal + "[[shards]]\nname = \"c\"\nnodes = [{host = \"h1\"}]", `f.toml:10: shards[2].nodes[0]: is also a node of shard "a"`},
		{"node without a host", "cluster.service_user = \"s\"\n[[shards]]\nname = \"a\"\nnodes = [\n {port = 1},\n]", "f.toml:5: shards[0].nodes[0].host: is missing"},
		{"range border", minimal + "[[ranges]]\nstart = \"8\"\nshard = \"a\"", `f.toml:9: ranges[0].start: "8" is not 16 hexadecimal digits`},
		{"range of no shard", minimal + "[[ranges]]\nstart = \"0000000000000000\"\nshard = \"z\"", `f.toml:10: ranges[0].shard: "z" is not one of the shards`},
		{"gap", minimal + "[[ranges]]\nstart = \"0000000000000001\"\nshard = \"a\"", "f.toml:8: ranges: in order of their start, counted from 0: range 0"},
		{"table name", minimal + "[tables]\nexplicit = [\"a.b.c.d\"]", "f.toml:9: tables.explicit[0]: \"a.b.c.d\" is not of the form"},
		{"table name empty", minimal + "[tables]\nreference = [\"\"]", "f.toml:9: tables.reference[0]: \"\" is not a name"},
		{"table twice", minimal + "[tables]\nexplicit = [\"t.a\", \"public.t.b\"]", "f.toml:9: tables.explicit: a table is listed twice"},
		{"table of both kinds", minimal + "[tables]\nexplicit = [\"t.a\"]\nreference = [\"t\"]", "f.toml:10: tables.reference[0]: table public.t is in tables.explicit too"},
		{"unlisted", minimal + "[tables]\nunlisted = \"ignore\"", "f.toml:9: tables.unlisted:"},
		{"limits", minimal + "[limits]\nparser_tokens = 100000", "f.toml:9: limits.parser_tokens: 100000 is not between 100 and 2500"},
		{"sslmode", minimal + "[server_tls]\nsslmode = \"verify-full\"", "f.toml:8: server_tls.root_cert: is missing"},
		{"system roots", minimal + "[server_tls]\nsslmode = \"verify-ca\"\nroot_cert = \"system\"", `f.toml:10: server_tls.root_cert: "system" needs sslmode verify-full`},
		{"log", minimal + "[log]\nlevel = \"loud\"", "f.toml:9: log.level:"},
		{"dotted keys", "log.format = \"xml\"\n" + minimal, "f.toml:1: log.format:"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			problems := mustParse(t, test.text).Check()
			if len(problems) != 1 || !strings.HasPrefix(problems[0].String(), test.want) {
				t.Errorf("%v\nwant %s", problems, test.want)
			}
		})
	}
}

func TestSecretsDoNotShow(t *testing.T) {
	const secret = "hunter2"
	c := mustParse(t, minimal+"[auth]\nquery_password = \""+secret+"\"\n[[users]]\nname = \"u\"\nsecret = \""+secret+"\"\nserver_password = \""+secret+"\"")
	if c.Users[0].Secret.Reveal() != secret || c.Users[0].ServerPassword.Reveal() != secret {
		t.Fatal("the secret was not read")
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c, "secret", c.Users[0].Secret)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c, "secret", c.Users[0].Secret)
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	hex := fmt.Sprintf("%x", secret)
	for _, out := range []string{
		fmt.Sprintf("%v %+v %#v", *c, *c, *c), fmt.Sprintf("%s %q %x", c.Users[0].Secret, c.Users[0].Secret, c.Users[0].Secret),
		string(asJSON), log.String(),
	} {
		if strings.Contains(out, secret) || strings.Contains(out, hex) {
			t.Errorf("the secret shows in %s", out)
		}
	}
	_, err = parse("f.toml", []byte("[[users]]\nsecret = \"hunter2\"\nsecret2 = \"hunter2\"\n"))
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("the secret shows in %v", err)
	}
	_, err = parse("f.toml", []byte("[[users]]\nsecret = hunter2\n"))
	if err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("the secret shows in %v", err)
	}
}

func TestUserFile(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "users.txt"), "; a comment\n\n\"app\" \"from \"\"file\"\"\"\n\"listed\" \"not used\" \"\"\n\"half\"\t\"filled in\"\n")
	path := filepath.Join(dir, "f.toml")
	write(t, path, minimal+"[auth]\nuser_file = \"users.txt\"\n[[users]]\nname = \"listed\"\nsecret = \"mine\"\n[[users]]\nname = \"half\"\npool_mode = \"session\"\n")
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []User{
		{Name: "listed", Secret: "mine"},
		{Name: "half", Secret: "filled in", PoolMode: "session"},
		{Name: "app", Secret: `from "file"`},
	}
	if diff := cmp.Diff(want, c.Users, exact); diff != "" {
		t.Errorf("differ:\n%s", diff)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestUserListErrors(t *testing.T) {
	for text, want := range map[string]string{
		"\"a\" \"b\"\na b\n":       `u.txt:2: expected "user" "secret"`,
		"\"a\"\n":                  `u.txt:1: expected "user" "secret"`,
		"\"a\" \"hunter2\n":        "u.txt:1: a double quote is not closed",
		"\"\" \"b\"":               "u.txt:1: the user name is empty",
		"\"a\" \"b\"\n\"a\" \"c\"": `u.txt:2: user "a" is listed twice`,
	} {
		_, err := parseUserList("u.txt", text)
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	if _, err := Load("no/such/file.toml"); err == nil {
		t.Error("a file that is not there was loaded")
	}
	path := filepath.Join(t.TempDir(), "f.toml")
	write(t, path, "[auth]\nuser_file = \"missing.txt\"")
	if _, err := Load(path); err == nil || !strings.HasPrefix(err.Error(), path+":2: auth.user_file: open ") {
		t.Errorf("%v", err)
	}
}

func TestExample(t *testing.T) {
	c, err := Load("../../configs/example-4-shards.toml")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	if len(c.Shards) != 4 || c.Pool.AcquireTimeout.Duration != 10*time.Second {
		t.Errorf("%d shards, acquire timeout %v", len(c.Shards), c.Pool.AcquireTimeout)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
