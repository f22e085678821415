package config

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shardproxy/topology"
)

func parseCluster(t *testing.T, text string) *topology.Snapshot {
	t.Helper()
	s, err := ParseCluster("f.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const twoShards = `
[[shards]]
name = "b"
nodes = [{host = "h1"}, {host = "h2", port = 1, database = "d", role = "replica"}]
[[shards]]
name = "a"
nodes = [{host = "h3"}]
`

func TestParseCluster(t *testing.T) {
	s := parseCluster(t, "[cluster]\nname = \"shop\"\ndatabase = \"db\"\n"+twoShards)
	want := topology.File{
		Cluster: topology.FileCluster{Name: "shop", Epoch: 1},
		Shards: []topology.FileShard{
			{Name: "b", Nodes: []topology.FileNode{{Host: "h1", Port: 5432, Database: "db", Role: "primary"}, {Host: "h2", Port: 1, Database: "d", Role: "replica"}}},
			{Name: "a", Nodes: []topology.FileNode{{Host: "h3", Port: 5432, Database: "db", Role: "primary"}}},
		},
		Ranges: []topology.FileRange{
			{Start: "0000000000000000", End: "8000000000000000", Shard: "b"},
			{Start: "8000000000000000", Shard: "a"},
		},
		Tables: topology.FileTables{Columns: []string{"user_id", "creator_user_id"}, Named: []string{"users.id"}, Unlisted: "reference"},
	}
	if diff := cmp.Diff(want, s.File()); diff != "" {
		t.Error(diff)
	}
}

// TestParseClusterOfProxy holds that the configuration of a proxy is a cluster file, with the same meaning.
func TestParseClusterOfProxy(t *testing.T) {
	const example = "../../configs/example-4-shards.toml"
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(example)
	if err != nil {
		t.Fatal(err)
	}
	shards, ranges, err := c.Topology()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := c.KeyRules()
	if err != nil {
		t.Fatal(err)
	}
	want, err := topology.New(topology.Content{Cluster: c.Cluster.Name, Epoch: 1, Shards: shards, Ranges: ranges, Rules: rules})
	if err != nil {
		t.Fatal(err)
	}
	got := parseCluster(t, string(text))
	if diff := cmp.Diff(want.Content(), got.Content()); diff != "" {
		t.Error(diff)
	}
}

func TestParseClusterConsistent(t *testing.T) {
	s := parseCluster(t, "[cluster]\nplacement = \"consistent\"\nslots = 64\n"+twoShards)
	want, err := topology.PlanRanges([]string{"b", "a"}, 64)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, s.Ranges()); diff != "" || len(want) < 4 {
		t.Errorf("%d ranges\n%s", len(want), diff)
	}
	if n := len(parseCluster(t, "[cluster]\nplacement = \"consistent\"\n"+twoShards).Ranges()); n < 1000 {
		t.Errorf("%d ranges of the usual number of slots", n)
	}
	if n := len(parseCluster(t, "[cluster]\nplacement = \"equal\"\n"+twoShards).Ranges()); n != 2 {
		t.Errorf("%d equal ranges", n)
	}
}

// TestFormatCluster holds that nothing is lost on the way through a file, empty rules included.
func TestFormatCluster(t *testing.T) {
	name := func(schema, table string) topology.TableName { return topology.TableName{Schema: schema, Name: table} }
	node := func(host string, role topology.Role) topology.Node {
		return topology.Node{Host: host, Port: 5433, Database: "app", Role: role}
	}
	content := topology.Content{
		Cluster: "shop \"1\"", Epoch: 42, Ranges: topology.EqualRanges(2),
		Shards: []topology.Shard{
			{Name: "s1", Nodes: []topology.Node{node("::1", topology.Primary), node("/run/pg", topology.Replica)}},
			{Name: "s2", Nodes: []topology.Node{node("h", topology.Primary)}, State: topology.ShardDraining},
		},
	}
	for _, rules := range []topology.KeyRules{
		{},
		topology.DefaultKeyRules(),
		{
			Explicit:  map[topology.TableName]string{name("public", "a.b"): `c"`, name("X", "é"): "id"},
			Reference: map[topology.TableName]bool{name("public", "plans"): true},
			Named:     map[topology.TableName]string{name("", "users"): "id"}, RefuseUnlisted: true,
		},
	} {
		content.Rules = rules
		want, err := topology.New(content)
		if err != nil {
			t.Fatal(err)
		}
		text, err := FormatCluster(want)
		if err != nil {
			t.Fatal(err)
		}
		got := parseCluster(t, string(text))
		if got.Checksum() != want.Checksum() || got.Epoch != 42 {
			t.Errorf("epoch %d, another content after\n%s", got.Epoch, text)
		}
	}
}

func TestParseClusterRefuses(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"[cluster]\ncolour = 1\n" + twoShards, "f.toml:2:1: unknown key cluster.colour"},
		{"[[shards]]\nname = \"a\"\nnodes = [{hots = \"h\"}]", "f.toml:3:11: unknown key shards[0].nodes[0].hots"},
		{"[cluster\n", "f.toml:1:"},
		{"[cluster]\nplacement = \"random\"\n" + twoShards, `f.toml: cluster.placement: "random" is neither "equal" nor "consistent"`},
		{"[cluster]\nslots = 5\n" + twoShards, `f.toml: cluster.slots is only for placement = "consistent"`},
		{"[cluster]\nplacement = \"consistent\"\nslots = 1\n" + twoShards, "f.toml: topology: there must be at least as many slots as shards"},
		{"[cluster]\nplacement = \"consistent\"\n[[ranges]]\nstart = \"0000000000000000\"\nend = \"\"\nshard = \"a\"\n" + twoShards, "f.toml: the file has ranges"},
		{"[[ranges]]\nstart = \"0000000000000000\"\nend = \"8000000000000000\"\nshard = \"a\"\n" + twoShards, "f.toml: topology: the last range ends at 8000000000000000"},
		{twoShards + twoShards, `f.toml: topology: there are two shards "a"`},
		{"[cluster]\nplacement = \"consistent\"\n" + twoShards + twoShards, `f.toml: topology: shard "b" is listed twice`},
		{"", "f.toml: topology: a snapshot needs at least one shard"},
	} {
		if _, err := ParseCluster("f.toml", []byte(test.text)); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s\n%v, want %s", test.text, err, test.want)
		}
	}
}
