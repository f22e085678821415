package drivers

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"shardproxy/e2e/harness"
)

// dsn is the proxy that all suites connect to; each suite uses tables of its own.
var dsn string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if dsn = os.Getenv("SHARDPROXY_E2E_DSN"); dsn != "" {
		return m.Run(), nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // a cold build of the SQL grammar takes half a minute
	defer cancel()
	dir, err := harness.TempDir()
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	bin, err := harness.Build(ctx, dir)
	if err != nil {
		return 0, err
	}
	cluster, err := harness.StartCluster(ctx, harness.Options{Binary: bin, Shards: 4})
	if err != nil {
		return 0, err
	}
	defer func() {
		if stopErr := cluster.Stop(); err == nil {
			err = stopErr
		}
	}()
	dsn = cluster.DSN()
	return m.Run(), nil
}
