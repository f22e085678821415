package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"shardproxy/backend"
	"shardproxy/internal/pgtest"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

const (
	kitShards = 3
	patience  = 3 * time.Second // for what should come at once
)

// shardDatabases are made once; each kit empties them.
var shardDatabases = sync.OnceValue(func() []string {
	names := make([]string, kitShards)
	for i := range names {
		names[i] = fmt.Sprintf("shard_%d", i+1)
	}
	return names
})

var madeDatabases bool

// kit is a proxy in this process before three databases of one PostgreSQL, with a middleman before each of them.
type kit struct {
	t     *testing.T
	pg    *pgtest.Server
	super string
	srv   *Server
	addr  string
	mid   []*middleman
	cfg   Config
	stop  func()
}

// kitSchema is what every shard holds.
const kitSchema = `CREATE TABLE t (user_id bigint PRIMARY KEY, v text);
CREATE TABLE r (id int PRIMARY KEY, v text)`

func newKit(t *testing.T, change ...func(*Config)) *kit {
	t.Helper()
	k := &kit{t: t, pg: pgtest.Shared(t)}
	parsed, err := pgconn.ParseConfig(k.pg.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	k.super = parsed.User
	if !madeDatabases {
		for _, db := range shardDatabases() {
			k.pg.Exec(t, "postgres", "CREATE DATABASE "+db)
		}
		k.pg.Exec(t, "postgres", "CREATE ROLE plain LOGIN; CREATE ROLE lent; GRANT lent TO plain")
		madeDatabases = true
	}
	snapShards := make([]topology.Shard, kitShards)
	for i, db := range shardDatabases() {
		k.pg.Exec(t, db, "DROP SCHEMA IF EXISTS shardproxy CASCADE")
		k.pg.Exec(t, db, "DROP SCHEMA IF EXISTS other CASCADE")
		k.pg.Exec(t, db, "DROP SCHEMA public CASCADE")
		k.pg.Exec(t, db, "CREATE SCHEMA public; GRANT ALL ON SCHEMA public TO PUBLIC")
		k.pg.Exec(t, db, kitSchema)
		k.pg.Exec(t, db, "GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC")
		m := newMiddleman(t, fmt.Sprintf("%s:%d", k.pg.Host, k.pg.Port))
		k.mid = append(k.mid, m)
		snapShards[i] = topology.Shard{Name: fmt.Sprintf("s%d", i+1), Nodes: []topology.Node{{Host: "127.0.0.1", Port: m.port(), Database: db}}}
	}
	rule, err := wire.ParseRule("host all all all trust")
	if err != nil {
		t.Fatal(err)
	}
	noTLS, err := wire.LoadClientTLS(wire.ClientTLSFiles{Mode: wire.SSLDisable})
	if err != nil {
		t.Fatal(err)
	}
	app := &User{Name: "app", ServerUser: k.super}
	cfg := Config{
		Fixed: Fixed{
			Cluster: "kit", Database: "app", Topology: kitTopology(t, snapShards),
			Router: router.Config{CacheEntries: 1000, MaxTokens: 2000, MaxBytes: 1 << 20},
			Log:    slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
		},
		Live: Live{
			Service: app, Access: wire.Rules{rule}, MaxClients: 1000, MaxUnauthenticated: 1000,
			Users: map[string]*User{
				"app": app, "plain": {Name: "plain", ServerUser: "plain"},
				"pooled": {Name: "pooled", ServerUser: k.super, Pooling: SessionPooling},
				"two":    {Name: "two", ServerUser: k.super, MaxConnections: 2},
			},
			ServerTLS: noTLS, ConnectTimeout: 5 * time.Second,
			Pools:        backend.Limits{Max: 10, Total: 100, Wait: 5 * time.Second, CheckAfter: time.Hour, Statements: 100},
			MessageBytes: 16 << 20, QueryBytes: 1 << 20, PreparedStatements: 100, FinishBytes: 1 << 20, FinishRows: 10_000,
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	k.run(cfg)
	return k
}

// beside is another proxy before the same shards.
func (k *kit) beside(change func(*Config)) *kit {
	k.t.Helper()
	other := &kit{t: k.t, pg: k.pg, super: k.super}
	cfg := k.cfg
	change(&cfg)
	other.run(cfg)
	return other
}

func (k *kit) run(cfg Config) {
	t := k.t
	t.Helper()
	k.cfg = cfg
	var err error
	if k.srv, err = NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := k.srv.Start(ctx); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k.addr = listener.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() { _ = k.srv.Serve(ctx, listener) })
	wg.Go(func() { _ = k.srv.Run(ctx) })
	k.stop = sync.OnceFunc(func() {
		_ = listener.Close()
		drain, done := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer done()
		_ = k.srv.Shutdown(drain)
		cancel()
		wg.Wait()
		for _, m := range k.mid {
			m.close()
		}
		k.rollbackAllPrepared()
	})
	t.Cleanup(k.stop)
}

// testLog passes what the proxy logs to the test.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (k *kit) rollbackAllPrepared() {
	for i, db := range shardDatabases() {
		for _, gid := range k.ask(i, "SELECT gid FROM pg_prepared_xacts WHERE database = '"+db+"'") {
			k.ask(i, "ROLLBACK PREPARED '"+gid+"'")
		}
	}
}

// keyOn is the n-th key that shard owns.
func (k *kit) keyOn(shard, n int) int64 {
	for key := int64(1); ; key++ {
		if k.srv.Snapshot().Owner(topology.HashInt(key)) == topology.ShardID(shard) {
			if n == 0 {
				return key
			}
			n--
		}
	}
}

// ask gives the first column of a query on the shard itself.
func (k *kit) ask(shard int, sql string) []string {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := pgconn.Connect(ctx, k.pg.DSN(shardDatabases()[shard]))
	if err != nil {
		k.t.Fatal(err)
	}
	defer c.Close(ctx)
	results, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		k.t.Fatalf("%s: %v", sql, err)
	}
	var list []string
	for _, row := range results[len(results)-1].Rows {
		list = append(list, string(row[0]))
	}
	return list
}

// on1 and its like run a statement on that shard, whatever it is.
const (
	on1 = "/* shardproxy: shard=s1 */ "
	on2 = "/* shardproxy: shard=s2 */ "
	on3 = "/* shardproxy: shard=s3 */ "
)

func (k *kit) count(shard int, sql string) int { return len(k.ask(shard, sql)) }

// rowsOf tells for each shard how many rows of t it has.
func (k *kit) rowsOf(where string) (n [kitShards]int) {
	for i := range n {
		n[i] = k.count(i, "SELECT user_id FROM t WHERE "+where)
	}
	return n
}

func (k *kit) prepared() int {
	return k.count(0, "SELECT gid FROM pg_prepared_xacts")
}

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// atRest waits until no backend is in a session's hands.
func (k *kit) atRest() {
	k.t.Helper()
	waitFor(k.t, "backends come back to their pools", func() bool {
		used, open := 0, 0
		for _, p := range k.srv.Pools() {
			used += p.Used
			open += p.Idle
		}
		return used == 0 && open == k.srv.pools.Open()
	})
}

// cancel sends a CancelRequest and returns when the proxy has dealt with it.
func (k *kit) cancel(c *client) {
	k.t.Helper()
	conn, err := net.Dial("tcp", k.addr)
	if err != nil {
		k.t.Fatal(err)
	}
	defer conn.Close()
	b, err := (&pgproto3.CancelRequest{ProcessID: c.pid, SecretKey: c.key}).Encode(nil)
	if err != nil {
		k.t.Fatal(err)
	}
	_, _ = conn.Write(b)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	_, _ = io.Copy(io.Discard, conn)
}

// running counts statements on all shards that contain text, those of the asker left out.
func (k *kit) running(text string) int {
	return k.count(0, "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%"+text+"%'")
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// waitFor2 waits for what takes longer by design.
func waitFor2(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * recoverAfter); !cond(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// kitTopology is the map of the kit: equal ranges in the order of the shards.
func kitTopology(t testing.TB, shards []topology.Shard) *topology.Snapshot {
	t.Helper()
	s, err := topology.New(topology.Content{
		Cluster: "kit", Epoch: 1, Shards: shards, Ranges: topology.EqualRanges(len(shards)), Rules: topology.DefaultKeyRules(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
