package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"shardproxy/e2e/harness"
)

// TestTopologyIsShared changes the map through one of three proxies. All go by it, with one of them killed, and with the
// catalog gone: then nothing can be changed, but all is served, also by a proxy that starts.
func TestTopologyIsShared(t *testing.T) {
	needCluster(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c, err := harness.StartCluster(ctx, harness.Options{Binary: proxyBin, Shards: shardCount, Args: []string{"--proxies", "3"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}()
	console := func(i int) *session { return connect(t, c.Proxies[i].Admin) }
	epochs := func(proxies ...int) string {
		var all []string
		for _, i := range proxies {
			all = append(all, firstColumn(console(i).must(t, "SHOW EPOCH")))
		}
		return strings.Join(all, " ")
	}
	if got := epochs(0, 1, 2); got != "1 1 1" {
		t.Fatalf("epochs %s at the start", got)
	}
	console(0).must(t, "ADD TABLE topo_orders.customer")
	waitFor(t, "all proxies are at epoch 2", func() bool { return epochs(0, 1, 2) == "2 2 2" })

	// A table made through one proxy is sharded by the new rule for the others too.
	connect(t, c.Proxies[1].DSN).must(t, "CREATE TABLE topo_orders (id int, customer bigint)")
	for i := range 12 {
		connect(t, c.Proxies[i%3].DSN).mustf(t, "INSERT INTO topo_orders VALUES (%d, %d)", i, i)
	}
	spread := 0
	for _, shard := range c.Shards {
		n, err := strconv.Atoi(onShard(t, shard, "SELECT count(*) FROM topo_orders")[0][0])
		if err != nil {
			t.Fatal(err)
		}
		if n == 12 {
			t.Errorf("shard %s has all rows", shard.Name)
		}
		spread += n
	}
	if spread != 12 {
		t.Errorf("%d rows on all shards, want 12", spread)
	}

	// One proxy is killed; a change reaches the other.
	kill(t, c.Proxies[2].PID)
	console(1).must(t, "ADD REFERENCE topo_plans")
	waitFor(t, "both proxies are at epoch 3", func() bool { return epochs(0, 1) == "3 3" })

	// The catalog is killed; the proxy that was down starts by its file.
	kill(t, catalogPID(t, c))
	again, err := c.StartAgain(ctx, proxyBin, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := again.Stop(); err != nil {
			t.Error(err)
		}
	}()
	for i := range c.Proxies {
		s := connect(t, c.Proxies[i].DSN)
		s.mustf(t, "INSERT INTO topo_orders VALUES (100, %d)", 100+i)
		s.mustf(t, "SELECT id FROM topo_orders WHERE customer = %d", 100+i)
	}
	waitFor(t, "the restarted proxy has heard of epoch 3 from its peers", func() bool { return epochs(2) == "3" })
	if line, failed := console(0).simple(&entry{sql: "ADD REFERENCE topo_late"}).failed(); !failed {
		t.Errorf("a change without the catalog: %s", line)
	}
	waitFor(t, "readyz says that the catalog is away", func() bool {
		return strings.Contains(get(t, c.Proxies[2].HTTP+"/readyz"), "catalog")
	})
}

// firstColumn is the first column of the first row of an answer.
func firstColumn(tr *transcript) string {
	for _, line := range append(tr.lines, tr.rows...) {
		if row, ok := strings.CutPrefix(line, `row "`); ok {
			value, _, _ := strings.Cut(row, `"`)
			return value
		}
	}
	return ""
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// catalogPID is the postmaster of the cluster's catalog.
func catalogPID(t *testing.T, c *harness.Cluster) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(c.Dir, "catalog", "*", "postmaster.pid"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(text), &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url) //nolint:gosec,noctx // a URL of ours
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
