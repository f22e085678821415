package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// faultLoad is clients of all proxies who work until they are stopped: two of each count rows of all shards up, and one
// takes from a row of one shard what it gives to a row of another, in one transaction.
type faultLoad struct {
	keys   []int   // one of each shard
	pairs  [][]int // of each proxy: two of different shards
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex // guards the fields below
	done      [][]int    // by proxy and shard: acknowledged
	transfers int
	maybe     []int          // by shard: statements whose outcome the client was not told
	errors    map[string]int // by SQLSTATE, or "lost" for a connection that broke
	first     map[string]string
}

// startLoad lets two clients of each proxy work.
func startLoad(t *testing.T, c *faultCluster) *faultLoad {
	t.Helper()
	l := &faultLoad{errors: make(map[string]int), first: make(map[string]string), maybe: make([]int, shardCount)}
	h := c.harnessShards()
	for shard := range shardCount {
		l.keys = append(l.keys, keyOn(t, h, shard, 5))
	}
	for i := range c.proxies {
		l.pairs = append(l.pairs, []int{keyOn(t, h, i, 10+i), keyOn(t, h, i+1, 10+i)})
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	for i, p := range c.proxies {
		l.done = append(l.done, make([]int, shardCount))
		for worker := range 2 {
			l.wg.Go(func() {
				round := worker
				l.work(ctx, p.DSN, func(conn *pgconn.PgConn) {
					round++
					l.count(ctx, conn, i, round%shardCount)
				})
			})
		}
		l.wg.Go(func() { l.work(ctx, p.DSN, func(conn *pgconn.PgConn) { l.transfer(ctx, conn, l.pairs[i]) }) })
	}
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *faultLoad) stop() {
	l.cancel()
	l.wg.Wait()
}

// work gives do a connection again and again, another one when it has broken.
func (l *faultLoad) work(ctx context.Context, dsn string, do func(conn *pgconn.PgConn)) {
	for ctx.Err() == nil {
		connecting, cancel := context.WithTimeout(ctx, 5*time.Second)
		conn, err := pgconn.Connect(connecting, dsn)
		cancel()
		if err != nil {
			l.failed(err, -1)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond): // of a client that tries again
			}
			continue
		}
		for ctx.Err() == nil && !conn.IsClosed() {
			do(conn)
		}
		_ = conn.Close(context.Background())
	}
}

func (l *faultLoad) count(ctx context.Context, conn *pgconn.PgConn, proxy, shard int) {
	_, err := conn.Exec(context.WithoutCancel(ctx), fmt.Sprintf("UPDATE fault_load SET n = n + 1 WHERE user_id = %d", l.keys[shard])).ReadAll()
	if err != nil {
		l.failed(err, shard)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[proxy][shard]++
}

func (l *faultLoad) transfer(ctx context.Context, conn *pgconn.PgConn, keys []int) {
	for _, sql := range []string{
		"BEGIN",
		fmt.Sprintf("UPDATE fault_pair SET n = n + 1 WHERE user_id = %d", keys[0]),
		fmt.Sprintf("UPDATE fault_pair SET n = n - 1 WHERE user_id = %d", keys[1]),
		"COMMIT",
	} {
		if _, err := conn.Exec(context.WithoutCancel(ctx), sql).ReadAll(); err != nil {
			l.failed(err, -1)
			if !conn.IsClosed() {
				_, _ = conn.Exec(context.WithoutCancel(ctx), "ROLLBACK").ReadAll() // the next one begins anew in any case
			}
			return
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.transfers++
}

func (l *faultLoad) failed(err error, shard int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	code := "lost"
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		code = pg.Code
	}
	l.errors[code]++
	if l.first[code] == "" {
		l.first[code] = err.Error()
	}
	if shard >= 0 {
		l.maybe[shard]++
	}
}

// progress waits until each of the proxies has written on each of the shards again, several times.
func (l *faultLoad) progress(t *testing.T, what string, proxies, shards []int) {
	t.Helper()
	snapshot := func() (list []int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, i := range proxies {
			for _, shard := range shards {
				list = append(list, l.done[i][shard])
			}
		}
		return list
	}
	from := snapshot()
	waitFor(t, what, func() bool {
		for i, n := range snapshot() {
			if n < from[i]+5 {
				return false
			}
		}
		return true
	})
}

// testKilledUnderLoad kills each process of the cluster in turn, and starts it again. Nobody but its own clients notices,
// what clients are told is in the manual, and nothing that was acknowledged is lost.
func testKilledUnderLoad(t *testing.T, c *faultCluster) {
	s := connect(t, c.proxies[0].DSN)
	s.must(t, "CREATE TABLE fault_load (user_id bigint PRIMARY KEY, n int)")
	s.must(t, "CREATE TABLE fault_pair (user_id bigint PRIMARY KEY, n int)")
	for _, table := range []string{"fault_load", "fault_pair"} {
		var rows []string
		for key := range 200 {
			rows = append(rows, fmt.Sprintf("(%d, 0)", key))
		}
		s.mustf(t, "INSERT INTO %s VALUES %s", table, strings.Join(rows, ", "))
	}
	l := startLoad(t, c)
	proxies, shards := []int{0, 1, 2}, []int{0, 1, 2, 3}
	without := func(list []int, i int) []int {
		return slices.DeleteFunc(slices.Clone(list), func(n int) bool { return n == i })
	}
	l.progress(t, "all work", proxies, shards)
	if len(l.errors) > 0 {
		t.Fatalf("errors before anything was killed: %v", l.first)
	}
	for i := range proxies {
		name := "proxy " + c.proxies[i].name
		c.proxies[i].kill(t)
		l.progress(t, "the others work without "+name, without(proxies, i), shards)
		c.proxies[i].start(t)
		l.progress(t, name+" works again", proxies, shards)
	}
	for i, server := range c.shards {
		name := fmt.Sprintf("shard s%d", i+1)
		if err := server.Kill(); err != nil {
			t.Fatal(err)
		}
		l.progress(t, "all work on the others without "+name, proxies, without(shards, i))
		if err := server.Restart(); err != nil {
			t.Fatal(err)
		}
		l.progress(t, name+" works again", proxies, shards)
	}
	if err := c.catalog.Kill(); err != nil {
		t.Fatal(err)
	}
	l.progress(t, "all work without the catalog", proxies, shards)
	if err := c.catalog.Restart(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "all is well", func() bool {
		for i, p := range c.proxies {
			if get(t, p.HTTP+"/readyz") != "ready\n" || c.alivePeers(t, i) != 2 {
				return false
			}
		}
		return true
	})
	l.stop()
	codes := documented(t)
	for code, n := range l.errors {
		t.Logf("%5d × %s: %s", n, code, l.first[code])
		if code != "lost" && !codes[code] {
			t.Errorf("clients were told %s, which the manual does not know: %s", code, l.first[code])
		}
	}
	s = connect(t, c.proxies[0].DSN)
	for shard, key := range l.keys {
		acknowledged := l.done[0][shard] + l.done[1][shard] + l.done[2][shard]
		n, err := strconv.Atoi(firstColumn(s.mustf(t, "SELECT n FROM fault_load WHERE user_id = %d", key)))
		if err != nil || n < acknowledged || n > acknowledged+l.maybe[shard] {
			t.Errorf("shard %d: counted to %d (%v), but %d were acknowledged and %d may have been done", shard, n, err, acknowledged, l.maybe[shard])
		}
	}
	waitFor(t, "recovery has ended what the dead had prepared", func() bool {
		return onShards(t, c.harnessShards(), "SELECT count(*) FROM pg_prepared_xacts") == 0
	})
	if got := onShards(t, c.harnessShards(), "SELECT coalesce(sum(n), 0) FROM fault_pair"); got != 0 || l.transfers < 10 {
		t.Errorf("half a transfer is %d too much, after %d transfers", got, l.transfers)
	}
}
