package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"shardproxy/e2e/harness"
	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

const (
	manyShards   = 256
	manyServers  = 4
	manyBudget   = 64      // pool.max_backends of the proxy: a quarter of the shards
	manyAccounts = 100_000 // of pgbench at scale 1
	manyClients  = 32
	manyReads    = 40 // of each client of pgbench: most of them cost a new backend, of which two cores make 250 a second
	manyService  = 32 // connections for the proxy's own work come on top
	manyEnding   = 4  // backends that their servers still show for a moment after they were closed
)

// manyHBA asks clients' roles for passwords, as in production: each new backend costs a login.
const manyHBA = `host all postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
`

// manyTables are pgbench's own, with the balance of each account telling where it must be; the rows come by the proxy.
const manyTables = `
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE pgbench_tellers (tid int PRIMARY KEY, bid int, tbalance int, filler char(84));
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84)) WITH (fillfactor = 100);
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));
INSERT INTO pgbench_branches VALUES (1, 0);
INSERT INTO pgbench_tellers SELECT i, 1, 0 FROM generate_series(1, 10) i;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app`

// TestManyShards reads accounts from 256 shards, databases on four servers, by a proxy that may hold 64 backends at a time.
func TestManyShards(t *testing.T) {
	needCluster(t)
	from := time.Now()
	step := func(what string) {
		t.Logf("%-28s %v", what, time.Since(from).Round(time.Millisecond))
		from = time.Now()
	}
	servers, shards := manyDatabases(t)
	step("256 databases")
	c := &harness.Cluster{Dev: harness.Dev{Shards: shards}}
	p := startProxy(t, c, fmt.Sprintf("[pool]\nmax_backends = %d\n[cluster]\nservice_user = \"service\"\nservice_password = \"service\"", manyBudget))
	step("the proxy starts")

	// Nothing is opened for a shard before it is used.
	console := connect(t, strings.Replace(p.DSN, "/app?", "/shardproxy?", 1))
	if got := pooledShards(t, console); len(got) != 0 {
		t.Errorf("pools of %v before any statement", got)
	}
	keys := manyKeys()
	first := connect(t, p.DSN)
	for _, shard := range []int{200, 7, 91} {
		first.mustf(t, "SELECT abalance FROM pgbench_accounts WHERE aid = %d", keys[shard][0])
	}
	if got, want := pooledShards(t, console), []string{"s008", "s092", "s201"}; !slices.Equal(got, want) {
		t.Errorf("pools of %v after statements on %v", got, want)
	}

	// What needs more backends at a time than there may be is refused at once, and nobody else has to wait for it.
	line, failed := first.simple(&entry{sql: "UPDATE pgbench_accounts SET bid = 2"}).failed()
	if !failed || !strings.HasPrefix(line, "error ERROR 53300 ") || !strings.Contains(line, "256 shards at the same time") {
		t.Errorf("an update on all shards: %q", line)
	}
	if got := pooledShards(t, console); len(got) != 3 {
		t.Errorf("pools of %v after a statement that was refused", got)
	}

	stop := watchBackends(t, servers)
	fillAccounts(t, p.DSN, keys)
	step("100,000 accounts by INSERT")
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement} {
		readAccounts(t, p.DSN, keys, mode)
		step("keys of all shards, " + mode.String())
	}
	if got := pooledShards(t, console); len(got) != manyShards {
		t.Errorf("pools of %d shards after keys of all were read", len(got))
	}
	var group errgroup.Group
	for range 2 { // each takes a quarter of the backends at a time
		group.Go(func() error {
			conn, err := pgconn.Connect(t.Context(), p.DSN)
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(t.Context()))
			rows, err := conn.Exec(t.Context(), "SELECT aid FROM pgbench_accounts WHERE aid % 1000 = 7").ReadAll()
			if err == nil && len(rows[0].Rows) != manyAccounts/1000 {
				err = fmt.Errorf("%d rows, want %d", len(rows[0].Rows), manyAccounts/1000)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Errorf("a read of all shards: %v", err)
	}
	step("2 reads of all shards")
	for _, mode := range []string{"simple", "prepared"} {
		out := pgbenchAt(t, p.DSN, "-S", "-n", "-M", mode, "-c", strconv.Itoa(manyClients), "-j", "2", "-t", strconv.Itoa(manyReads))
		if want := fmt.Sprintf("actually processed: %d/%[1]d\nnumber of failed transactions: 0 ", manyReads*manyClients); !strings.Contains(out, want) {
			t.Errorf("pgbench -S -M %s says\n%s", mode, out)
		}
		step("pgbench -S -M " + mode)
	}
	most, service := stop()
	t.Logf("at most %d backends for clients and %d for the proxy's own work at a time", most, service)
	if most > manyBudget+manyEnding {
		t.Errorf("%d backends at a time, more than max_backends = %d", most, manyBudget)
	}
	if most < manyBudget/2 {
		t.Errorf("at most %d backends were seen at a time: the budget was not used", most)
	}
	if service > manyService+manyEnding {
		t.Errorf("%d connections for the proxy's own work, more than %d", service, manyService)
	}
}

// manyDatabases makes the shards: copies of a template on each server.
func manyDatabases(t *testing.T) (servers []*pgtest.Server, shards []harness.Shard) {
	t.Helper()
	shards = make([]harness.Shard, manyShards)
	for range manyServers {
		servers = append(servers, pgtest.Start(t, pgtest.Options{HBA: manyHBA, Settings: map[string]string{
			// Room for a whole budget on one server, and for those that are ending.
			"max_connections": strconv.Itoa(3 * manyBudget), "max_prepared_transactions": "0", "autovacuum": "off",
		}}))
	}
	var group errgroup.Group
	for i, server := range servers {
		server.Exec(t, "postgres", "CREATE ROLE app LOGIN PASSWORD 'app'; CREATE ROLE service LOGIN PASSWORD 'service'; GRANT pg_read_all_data TO service")
		server.Exec(t, "postgres", "CREATE DATABASE shard OWNER app")
		server.Exec(t, "shard", manyTables)
		conn := server.Connect(t, "postgres")
		group.Go(func() error {
			for n := i; n < manyShards; n += manyServers {
				name := fmt.Sprintf("s%03d", n+1)
				shards[n] = harness.Shard{Name: name, Nodes: []harness.Node{{Role: "primary", DSN: server.DSNAs("app", "app", name)}}}
				// Copying files beats copying pages through the WAL, which is PostgreSQL's default, by a factor of two.
				if _, err := conn.Exec(t.Context(), "CREATE DATABASE "+name+" TEMPLATE shard STRATEGY file_copy"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return servers, shards
}

// manyKeys gives the account numbers of each shard.
func manyKeys() [][]int {
	ranges := topology.EqualRanges(manyShards)
	keys := make([][]int, manyShards)
	for aid := 1; aid <= manyAccounts; aid++ {
		hash := topology.HashInt(int64(aid))
		i, found := slices.BinarySearchFunc(ranges, hash, func(r topology.KeyRange, h topology.KeyHash) int {
			switch {
			case h < r.Start:
				return 1
			case h >= r.End && r.End != 0:
				return -1
			}
			return 0
		})
		if !found {
			panic("the ranges do not cover the ring")
		}
		keys[i] = append(keys[i], aid)
	}
	return keys
}

// balance of an account, so that a row read proves from which shard it came.
func balance(shard, aid int) int { return 1000*shard + aid%1000 }

// fillAccounts inserts the rows of each shard by one statement, from many clients at a time.
func fillAccounts(t *testing.T, dsn string, keys [][]int) {
	t.Helper()
	each(t, dsn, pgx.QueryExecModeSimpleProtocol, func(ctx context.Context, conn *pgx.Conn, worker int) error {
		for shard := worker; shard < manyShards; shard += manyClients {
			var b strings.Builder
			for i, aid := range keys[shard] {
				fmt.Fprintf(&b, "%s(%d, 1, %d, '')", []string{", ", ""}[min(i, 1)^1], aid, balance(shard, aid))
			}
			if _, err := conn.Exec(ctx, "INSERT INTO pgbench_accounts VALUES "+b.String()); err != nil {
				return fmt.Errorf("shard %d: %w", shard, err)
			}
		}
		return nil
	})
}

// readAccounts reads some keys of every shard, in an order that has nothing to do with the shards, and looks at each row.
func readAccounts(t *testing.T, dsn string, keys [][]int, mode pgx.QueryExecMode) {
	t.Helper()
	type key struct{ shard, aid int }
	var all []key
	for shard, list := range keys {
		for _, aid := range list[:4] {
			all = append(all, key{shard, aid})
		}
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	each(t, dsn, mode, func(ctx context.Context, conn *pgx.Conn, worker int) error {
		for i := worker; i < len(all); i += manyClients {
			var got int
			if err := conn.QueryRow(ctx, "SELECT abalance FROM pgbench_accounts WHERE aid = $1", all[i].aid).Scan(&got); err != nil {
				return fmt.Errorf("account %d of shard %d: %w", all[i].aid, all[i].shard, err)
			}
			if want := balance(all[i].shard, all[i].aid); got != want {
				return fmt.Errorf("account %d of shard %d has %d, want %d", all[i].aid, all[i].shard, got, want)
			}
		}
		return nil
	})
}

// each runs work with many clients at a time.
func each(t *testing.T, dsn string, mode pgx.QueryExecMode, work func(ctx context.Context, conn *pgx.Conn, worker int) error) {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = mode
	group, ctx := errgroup.WithContext(t.Context())
	for worker := range manyClients {
		group.Go(func() error {
			conn, err := pgx.ConnectConfig(ctx, config)
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			return work(ctx, conn, worker)
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}

// pooledShards gives the shards of SHOW POOLS.
func pooledShards(t *testing.T, console *session) (shards []string) {
	t.Helper()
	tr := console.must(t, "SHOW POOLS")
	for _, line := range tr.lines {
		if row, ok := strings.CutPrefix(line, "row "); ok {
			cells := strings.Split(row, " | ")
			shards = append(shards, strings.Trim(cells[len(cells)-2], `"`))
		}
	}
	slices.Sort(shards)
	return shards
}

// watchBackends samples how many backends of each role the servers have together, until stop, which gives the most of each.
func watchBackends(t *testing.T, servers []*pgtest.Server) (stop func() (clients, service int)) {
	t.Helper()
	var conns []*pgconn.PgConn
	for _, s := range servers {
		conns = append(conns, s.Connect(t, "postgres").PgConn())
	}
	var clients, service atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	sample := func() error {
		var now [2]int64
		for _, conn := range conns {
			rows, err := conn.Exec(context.WithoutCancel(ctx), "SELECT count(*) FILTER (WHERE usename = 'app'), count(*) FILTER (WHERE usename = 'service') FROM pg_stat_activity").ReadAll()
			if err != nil {
				return err
			}
			for i := range now {
				n, err := strconv.ParseInt(string(rows[0].Rows[0][i]), 10, 64)
				if err != nil {
					return err
				}
				now[i] += n
			}
		}
		clients.Store(max(clients.Load(), now[0]))
		service.Store(max(service.Load(), now[1]))
		return nil
	}
	go func() {
		for {
			err := sample()
			if err != nil {
				ended <- err
				return
			}
			select {
			case <-ctx.Done():
				ended <- ctx.Err()
				return
			case <-time.After(20 * time.Millisecond): // a sample, not a wait
			}
		}
	}()
	return func() (int, int) {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		return int(clients.Load()), int(service.Load())
	}
}
