package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shardproxy/topology"
)

// TestImportIntoCluster makes a cluster like a file, step by step.
func TestImportIntoCluster(t *testing.T) {
	dsn, conn := emptyDatabase(t)
	t.Setenv("SHARDCTL_CATALOG", dsn)
	file := filepath.Join(t.TempDir(), "cluster.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(clusterText)
	if got, want := must(t, "", "import", "-f", file), "cluster shop created: epoch 1, 2 shards, 3 nodes, 2 ranges\n"; got != want {
		t.Errorf("into an empty catalog: %s", got)
	}
	if got, want := must(t, "", "import", "-f", file, "--yes"), "cluster shop at epoch 1 is like the file\n"; got != want {
		t.Errorf("the same again: %s", got)
	}
	if got := must(t, "", "import", "-f", file, "--json"); got != "[]\n" {
		t.Errorf("the same again: %s", got)
	}
	edited := strings.Replace(clusterText, `{host = "h2", role = "replica"}`, `{host = "h5", role = "replica"}`, 1)
	edited = strings.Replace(edited, "[tables]", "[[shards]]\nname = \"s3\"\nnodes = [{host = \"h4\"}]\n[tables]\nreference = [\"plans\"]", 1)
	write(edited)
	const changes = `  remove node h2:5432/app from shard s1
  add replica h5:5432/app to shard s1
  add shard s3 (primary h4:5432/app)
  make public.plans a reference table
`
	const warning = "shardctl: warning: rows that tables have already stay where they are, and are looked for where the new rules place them\n"
	for range 2 { // nothing is changed by it
		out, errOut, status := ctl(t, "", "import", "-f", file)
		want := "cluster shop at epoch 1, to be changed:\n" + changes + "Nothing was changed yet: --yes makes these changes, in one epoch.\n"
		if status != 0 || out != want || errOut != warning {
			t.Errorf("status %d\n%s%s", status, errOut, out)
		}
	}
	out, _, status := ctl(t, "", "import", "-f", file, "--yes")
	if want := "cluster shop at epoch 2, which these changes have made:\n" + changes; status != 0 || out != want {
		t.Errorf("status %d\n%s", status, out)
	}
	var what string
	if err := conn.QueryRow(t.Context(), "SELECT what FROM shardproxy.changes WHERE epoch = 2").Scan(&what); err != nil || !strings.HasPrefix(what, "remove node h2") {
		t.Errorf("the log says %q, %v", what, err)
	}

	// A file that was exported before goes back, and says so; --json tells the same.
	exported := must(t, "", "export")
	catalog, err := topology.OpenCatalog(dsn)
	if err != nil {
		t.Fatal(err)
	}
	have, err := catalog.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err = catalog.Commit(t.Context(), have, topology.SplitRange{At: 5}, topology.Actor{User: "dba"}); err != nil {
		t.Fatal(err)
	}
	out, errOut, status := ctl(t, exported, "import", "-f", "-", "--json", "--yes")
	if status != 0 || out != "[\n  {\"epoch\": 4, \"change\": \"merge at 0000000000000005\", \"made\": true}\n]\n" ||
		errOut != "shardctl: warning: the file is of epoch 2, the catalog is at epoch 3: what was changed in between is taken back\n" {
		t.Errorf("status %d\n%s%s", status, errOut, out)
	}
	if got := must(t, "", "export"); strings.Replace(got, "epoch = 4", "epoch = 2", 1) != exported {
		t.Errorf("exported\n%s\nand after import\n%s", exported, got)
	}

	// Ranges that a file does not name are left alone, also where they are not equal any more.
	if have, err = catalog.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err = catalog.Commit(t.Context(), have, topology.MoveRange{Start: 0, End: 9, Shard: "s3"}, topology.Actor{User: "dba"}); err != nil {
		t.Fatal(err)
	}
	if got, want := must(t, "", "import", "-f", file), "cluster shop at epoch 5 is like the file\n"; got != want {
		t.Error(got)
	}
	if _, errOut, status := ctl(t, exported, "import", "-f", "-", "--yes"); status != exitError || !strings.Contains(errOut, "from shard s3 to shard s1") {
		t.Errorf("keys that were moved: status %d, %s", status, errOut)
	}
}

func TestMigrateOnly(t *testing.T) {
	dsn, conn := emptyDatabase(t)
	t.Setenv("SHARDCTL_CATALOG", dsn)
	if got := must(t, "", "init", "--migrate-only"); !strings.HasPrefix(got, "the catalog is of version ") || !strings.HasSuffix(got, " now, it was of version 0\n") {
		t.Error(got)
	}
	if got := must(t, "", "init", "--migrate-only"); !strings.HasSuffix(got, " already\n") {
		t.Error(got)
	}
	if got := must(t, "", "init", "--migrate-only", "--json"); !strings.HasPrefix(got, "[\n  {\"from\": ") {
		t.Error(got)
	}
	var clusters int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM shardproxy.meta").Scan(&clusters); err != nil || clusters != 0 {
		t.Errorf("%d clusters, %v", clusters, err)
	}
	if _, errOut, status := ctl(t, clusterText, "init", "--migrate-only", "-f", "-"); status != exitUsage || !strings.Contains(errOut, "it takes no file") {
		t.Errorf("with a file: %d, %s", status, errOut)
	}
	must(t, clusterText, "init", "-f", "-")
	if got := must(t, "", "init", "--migrate-only"); !strings.HasSuffix(got, " already\n") {
		t.Error(got)
	}
	if _, err := conn.Exec(t.Context(), "INSERT INTO shardproxy.catalog_version (version, file) VALUES (999, 'later')"); err != nil {
		t.Fatal(err)
	}
	if _, errOut, status := ctl(t, "", "init", "--migrate-only"); status != exitError || !strings.Contains(errOut, "use a newer shardproxy") {
		t.Errorf("a catalog of a later version: %d, %s", status, errOut)
	}
}
