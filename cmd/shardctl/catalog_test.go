package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

const clusterText = `
[cluster]
name = "shop"
database = "app"
[[shards]]
name = "s1"
nodes = [{host = "h1"}, {host = "h2", role = "replica"}]
[[shards]]
name = "s2"
nodes = [{host = "h3"}]
[tables]
explicit = ["orders.customer_id"]
`

// emptyDatabase gives its DSN and a connection.
func emptyDatabase(t *testing.T) (string, *pgx.Conn) {
	t.Helper()
	pg := pgtest.Shared(t)
	db := pg.CreateDatabase(t)
	return pg.DSN(db), pg.Connect(t, db)
}

// must runs a command that succeeds.
func must(t *testing.T, in string, args ...string) string {
	t.Helper()
	out, errOut, status := ctl(t, in, args...)
	if status != 0 || errOut != "" {
		t.Fatalf("%v: status %d, %s", args, status, errOut)
	}
	return out
}

func TestInitExportImport(t *testing.T) {
	first, conn := emptyDatabase(t)
	t.Setenv("SHARDCTL_CATALOG", first)
	file := filepath.Join(t.TempDir(), "cluster.toml")
	if err := os.WriteFile(file, []byte(clusterText), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, want := must(t, "", "init", "-f", file), "cluster shop created: epoch 1, 2 shards, 3 nodes, 2 ranges\n"; got != want {
		t.Errorf("init: %s", got)
	}
	var actor, origin string
	if err := conn.QueryRow(t.Context(), "SELECT actor, origin FROM shardproxy.changes").Scan(&actor, &origin); err != nil {
		t.Fatal(err)
	}
	if actor == "" || !strings.HasPrefix(origin, "shardctl") {
		t.Errorf("the log names %q from %q", actor, origin)
	}

	catalog, err := topology.OpenCatalog(first)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := catalog.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	changes := topology.Batch{topology.SetShardState{Name: "s1", State: topology.ShardDraining}, topology.SplitRange{At: 5}}
	if snap, err = catalog.Commit(t.Context(), snap, changes, topology.Actor{User: "dba", From: "test"}); err != nil {
		t.Fatal(err)
	}
	if got, want := must(t, clusterText, "init", "-f", "-"), "cluster shop is there already and was left alone: epoch 2, 2 shards, 3 nodes, 3 ranges\n"; got != want {
		t.Errorf("init again: %s", got)
	}

	exported := must(t, "", "export")
	second, _ := emptyDatabase(t)
	want := `[
  {"cluster": "shop", "created": true, "epoch": 2, "shards": 2, "nodes": 3, "ranges": 3}
]
`
	if got := must(t, exported, "import", "--catalog", second, "-f", "-", "--json"); got != want {
		t.Errorf("import: %s", got)
	}
	if got := must(t, "", "export", "--catalog", second); got != exported {
		t.Errorf("exported\n%s\nand after import\n%s", exported, got)
	}
	copied, err := topology.OpenCatalog(second)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := copied.Load(t.Context()); err != nil || got.Checksum() != snap.Checksum() || got.Epoch != snap.Epoch {
		t.Errorf("the imported catalog: %v, %v", got, err)
	}
}

func TestInitConsistent(t *testing.T) {
	dsn, _ := emptyDatabase(t)
	text := strings.Replace(clusterText, "[[shards]]", "placement = \"consistent\"\nslots = 256\n[[shards]]", 1)
	must(t, text, "init", "--catalog", dsn, "-f", "-")
	catalog, err := topology.OpenCatalog(dsn)
	if err != nil {
		t.Fatal(err)
	}
	snap, err := catalog.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, err := topology.PlanRanges([]string{"s1", "s2"}, 256)
	if err != nil {
		t.Fatal(err)
	}
	if len(snap.Ranges()) != len(want) || len(want) < 10 {
		t.Errorf("%d ranges, not %d", len(snap.Ranges()), len(want))
	}
}

// TestCatalogRefuses holds the message, which is one line, and that nothing is printed as if it were a result.
func TestCatalogRefuses(t *testing.T) {
	full, conn := emptyDatabase(t)
	must(t, clusterText, "init", "--catalog", full, "-f", "-")
	empty, _ := emptyDatabase(t)
	missing := strings.Replace(full, "/test_", "/nosuch_", 1)
	for _, test := range []struct{ name, in, args, want string }{
		{"another cluster", strings.Replace(clusterText, "shop", "bank", 1), "init -f - --catalog " + full, `the catalog holds the cluster "shop" already`},
		{"import of another cluster", strings.Replace(clusterText, "shop", "bank", 1), "import -f - --catalog " + full, `the catalog holds the cluster "shop" already`},
		{"keys of another shard", clusterText + "[[ranges]]\nstart = \"0000000000000000\"\nshard = \"s2\"\n", "import -f - --yes --catalog " + full, "no rows are moved by this: those from 0000000000000000 on from shard s1 to shard s2, and 1 parts of the ring in all; `shardctl move` moves them"},
		{"nothing to export", "", "export --catalog " + empty, "the database has no shardproxy catalog"},
		{"no such database", clusterText, "init -f - --catalog " + missing, `database "nosuch`},
		{"unknown key", "[cluster]\ncolour = 1\n", "init -f - --catalog " + empty, "standard input:2:1: unknown key cluster.colour"},
		{"bad cluster", "[cluster]\nname = \"x\"\n", "import -f - --catalog " + empty, "standard input: topology: a snapshot needs at least one shard"},
	} {
		out, errOut, status := ctl(t, test.in, strings.Fields(test.args)...)
		if status != exitError || out != "" || !strings.Contains(errOut, test.want) || strings.Count(errOut, "\n") != 1 {
			t.Errorf("%s: status %d, %s%s", test.name, status, errOut, out)
		}
	}
	if _, err := conn.Exec(t.Context(), "UPDATE shardproxy.nodes SET port = 1"); err != nil {
		t.Fatal(err)
	}
	if _, errOut, status := ctl(t, "", "export", "--catalog", full); status != exitError || !strings.Contains(errOut, "changed by hand") {
		t.Errorf("a damaged catalog: status %d, %s", status, errOut)
	}
}
