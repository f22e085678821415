package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"shardproxy/e2e/harness"
)

const shardCount = 4

// What all tests share; each test uses tables of its own. cluster is nil where SHARDPROXY_E2E_DSN
// stands in for it, and tests that ask the shards are skipped then.
var (
	proxyBin string
	cluster  *harness.Cluster
	plainDSN string
	proxyDSN string
)

// keyTables are the tables whose key no default rule finds.
var keyTables = []string{"pgbench_accounts.aid", "pgbench_branches.bid", "pgbench_tellers.tid", "pgbench_history.aid"}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // a cold build of the SQL grammar takes half a minute
	defer cancel()
	var plain *harness.Plain
	defer func() { err = stop(err, plain) }()

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		if plain, err = harness.StartPlain(ctx); err == nil {
			plainDSN = plain.DSN()
		}
		return err
	})
	if proxyDSN = os.Getenv("SHARDPROXY_E2E_DSN"); proxyDSN == "" {
		dir, err := harness.TempDir()
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		group.Go(func() error { return startCluster(ctx, dir) })
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

func startCluster(ctx context.Context, dir string) (err error) {
	if proxyBin, err = harness.Build(ctx, dir); err != nil {
		return err
	}
	options := harness.Options{Binary: proxyBin, Shards: shardCount}
	for _, table := range keyTables {
		options.Args = append(options.Args, "--table", table)
	}
	cluster, err = harness.StartCluster(ctx, options)
	if err == nil {
		proxyDSN = cluster.DSN()
	}
	return err
}

func stop(err error, plain *harness.Plain) error {
	if cluster != nil {
		if stopErr := cluster.Stop(); err == nil {
			err = stopErr
		}
	}
	if plain != nil {
		if stopErr := plain.Stop(); err == nil {
			err = stopErr
		}
	}
	return err
}

// needCluster skips a test that asks shards or processes where there are none to ask.
func needCluster(t *testing.T) *harness.Cluster {
	t.Helper()
	if cluster == nil {
		t.Skip("SHARDPROXY_E2E_DSN is set: there is no cluster of ours to look into")
	}
	return cluster
}

// startProxy starts a further proxy with settings of its own before the shards of c. It ends with the test.
func startProxy(t *testing.T, c *harness.Cluster, settings string) *harness.Proxy {
	t.Helper()
	p, err := c.StartProxy(t.Context(), proxyBin, keyTables, settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}
