package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"shardproxy/internal/postgres"
)

// pgbench runs pgbench against the proxy and gives what it printed.
func pgbench(t *testing.T, args ...string) string {
	t.Helper()
	return pgbenchAt(t, proxyDSN, args...)
}

// pgbenchAt is pgbench against any server.
func pgbenchAt(t *testing.T, dsn string, args ...string) string {
	t.Helper()
	out, err := runPgbench(t.Context(), dsn, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// runPgbench is pgbenchAt where it may fail. What it has printed is also there with an error, and in it.
func runPgbench(ctx context.Context, dsn string, args ...string) (string, error) {
	path, err := exec.LookPath("pgbench")
	if err != nil {
		bin, err := postgres.Find()
		if err != nil {
			return "", err
		}
		path = filepath.Join(bin.Dir, "pgbench")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, append(args, dsn)...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("pgbench %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

// TestPgbench initialises pgbench's tables through the proxy with aid as the key of its accounts, and runs
// its point reads with 64 clients in each of its modes. No transaction may fail.
func TestPgbench(t *testing.T) {
	const accounts, clients, transactions = 100_000, 64, 60
	pgbench(t, "-i", "-q")
	if c := cluster; c != nil {
		total := 0
		for i, shard := range c.Shards {
			rows := onShard(t, shard, "SELECT count(*), count(*) FILTER (WHERE "+
				shardOf("hashint8extended(aid, "+hashSeed+")")+" <> "+strconv.Itoa(i)+") FROM pgbench_accounts")
			n, _ := strconv.Atoi(rows[0][0])
			total += n
			if rows[0][1] != "0" || n < accounts/shardCount*9/10 {
				t.Errorf("shard %s holds %s accounts, %s of them of other shards", shard.Name, rows[0][0], rows[0][1])
			}
		}
		if total != accounts {
			t.Errorf("the shards hold %d accounts, want %d", total, accounts)
		}
	}
	for _, mode := range []string{"simple", "extended", "prepared"} {
		t.Run(mode, func(t *testing.T) {
			out := pgbench(t, "-S", "-M", mode, "-c", strconv.Itoa(clients), "-j", "2", "-t", strconv.Itoa(transactions))
			wantProcessed(t, out, clients*transactions)
		})
	}
}

// wantProcessed wants that pgbench has had all of its transactions processed, and none failed.
func wantProcessed(t *testing.T, out string, all int) {
	t.Helper()
	for _, want := range []string{
		fmt.Sprintf("number of transactions actually processed: %d/%d", all, all),
		"number of failed transactions: 0 (0.000%)",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
