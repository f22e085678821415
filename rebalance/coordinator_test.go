package rebalance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"shardproxy/fence"
	"shardproxy/internal/pgtest"
	"shardproxy/rebalance/mover"
	"shardproxy/topology"
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

// cluster is a catalog and two shards, databases of one server, with a keeper but without proxies.
type cluster struct {
	t         *testing.T
	pg        *pgtest.Server // of the catalog
	servers   sync.Map       // of the shards: port → *pgtest.Server
	db        [2]string
	catalog   *topology.Catalog
	catalogDB string
	keeper    *topology.Keeper
	schema    *topology.Schema
	limits    atomic.Pointer[CopyLimits]  // nil: none
	leader    atomic.Pointer[Coordinator] // the last one
}

const clusterTables = `CREATE TABLE users (user_id bigint PRIMARY KEY, v int NOT NULL);
	CREATE TABLE notes (user_id bigint REFERENCES users, n int, body text, PRIMARY KEY (user_id, n));
	CREATE TABLE plans (id int PRIMARY KEY)`

func newCluster(t *testing.T) *cluster {
	t.Helper()
	return newClusterOn(t, [2]*pgtest.Server{pgtest.Shared(t), pgtest.Shared(t)})
}

// newClusterOn has its shards on these servers.
func newClusterOn(t *testing.T, on [2]*pgtest.Server) *cluster {
	t.Helper()
	c := &cluster{t: t, pg: pgtest.Shared(t)}
	content := topology.Content{Cluster: "c", Epoch: 1, Ranges: topology.EqualRanges(2), Rules: topology.DefaultKeyRules()}
	content.Rules.Reference = map[topology.TableName]bool{{Schema: "public", Name: "plans"}: true}
	for i := range c.db {
		c.db[i] = on[i].CreateDatabase(t)
		on[i].Exec(t, c.db[i], clusterTables)
		c.servers.Store(on[i].Port, on[i])
		content.Shards = append(content.Shards, topology.Shard{
			Name: fmt.Sprintf("s%d", i+1), Nodes: []topology.Node{{Host: on[i].Host, Port: on[i].Port, Database: c.db[i]}},
		})
	}
	snap, err := topology.New(content)
	if err != nil {
		t.Fatal(err)
	}
	c.catalogDB = c.pg.CreateDatabase(t)
	if c.catalog, err = topology.OpenCatalog(c.pg.DSN(c.catalogDB)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.catalog.Init(t.Context(), snap, topology.Actor{User: "dba"}); err != nil {
		t.Fatal(err)
	}
	c.keeper = topology.NewKeeper(topology.KeeperConfig{Catalog: c.catalog, Cluster: "c", Log: c.log()}, func(*topology.Snapshot) {})
	if err := c.keeper.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn := on[0].Connect(t, c.db[0])
	if c.schema, err = topology.LoadSchema(t.Context(), c.query(conn, "SET search_path = pg_catalog"), content.Rules); err != nil {
		t.Fatal(err)
	}
	return c
}

// on is the primary of a shard by the map.
func (c *cluster) on(shard int) *pgtest.Server {
	return c.server(c.keeper.Snapshot().Shards[shard].Nodes[0])
}

func (c *cluster) server(n topology.Node) *pgtest.Server {
	s, _ := c.servers.Load(n.Port)
	return s.(*pgtest.Server)
}

func (c *cluster) dsn(n topology.Node) string { return c.server(n).DSN(n.Database) }

// query is a topology.Query on conn, on which first has run.
func (c *cluster) query(conn *pgx.Conn, first string) topology.Query {
	s := &side{name: "test", config: conn.Config(), conn: conn}
	if _, err := s.query(c.t.Context(), first); err != nil {
		c.t.Fatal(err)
	}
	return s.query
}

func (c *cluster) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{c.t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// coordinate runs a coordinator until the function it gives is called.
func (c *cluster) coordinate(name string) (stop func()) {
	_, stop = c.coordinator(name)
	return stop
}

func (c *cluster) coordinator(name string) (coordinator *Coordinator, stop func()) {
	coordinator = NewCoordinator(CoordinatorConfig{
		Name: name, Cluster: "c", Catalog: c.catalog, Keeper: c.keeper, Schema: func() *topology.Schema { return c.schema },
		DSN: c.dsn, Log: c.log(), Limits: func() (l CopyLimits) {
			if set := c.limits.Load(); set != nil {
				l = *set
			}
			return l
		},
	})
	c.leader.Store(coordinator)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = coordinator.Run(ctx) })
	return coordinator, sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
}

// add puts a move in the journal.
func (c *cluster) add(m Move) int64 {
	c.t.Helper()
	record, err := m.Record()
	if err != nil {
		c.t.Fatal(err)
	}
	records := []topology.MoveRecord{record}
	if err := c.catalog.AddMoves(c.t.Context(), records); err != nil {
		c.t.Fatal(err)
	}
	return records[0].ID
}

// await waits until a move is in one of these states.
func (c *cluster) await(id int64, states ...State) Move {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		records, err := c.catalog.LoadMoves(c.t.Context(), true)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, r := range records {
			if r.ID != id {
				continue
			}
			m, err := FromRecord(r)
			if err != nil {
				c.t.Fatal(err)
			}
			for _, s := range states {
				if m.State == s {
					return m
				}
			}
			if m.State.Terminal() || time.Now().After(end) {
				c.t.Fatalf("move %d is %v (%v): %s", id, m.State, m.Task, m.Error)
			}
		}
	}
}

func (c *cluster) order(id int64, o Order) {
	c.t.Helper()
	if _, err := c.catalog.AddMoveOrder(c.t.Context(), id, o.String(), topology.Actor{User: "dba"}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) one(shard int, sql string) string {
	c.t.Helper()
	var v string
	if err := c.on(shard).Connect(c.t, c.db[shard]).QueryRow(c.t.Context(), sql).Scan(&v); err != nil {
		c.t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// leftovers must be none when all moves have ended.
func (c *cluster) leftovers() {
	c.t.Helper()
	if n := len(c.keeper.Snapshot().Moving()); n > 0 {
		c.t.Errorf("the map tells of %d moves", n)
	}
	for i := range c.db {
		const slots = "SELECT count(*)::text FROM pg_replication_slots WHERE database = current_database()"
		if n := c.one(i, slots); n != "0" {
			c.t.Errorf("shard s%d: %s replication slots are left", i+1, n)
		}
		if left, err := mover.Leftovers(c.t.Context(), c.on(i).Connect(c.t, c.db[i])); err != nil || len(left) > 0 {
			c.t.Errorf("shard s%d: left over: %+v %v", i+1, left, err)
		}
		st := fence.StateOf(c.keeper.Snapshot(), topology.ShardID(i))
		problems, err := fence.Check(c.t.Context(), c.query(c.on(i).Connect(c.t, c.db[i]), "SELECT 1"), st, fence.Tables(c.schema))
		if err != nil || len(problems) > 0 {
			c.t.Errorf("fence of shard s%d: %v %v", i+1, problems, err)
		}
	}
}

// fill gives each shard the rows it owns of n users.
func (c *cluster) fill(n int) {
	c.t.Helper()
	for i := range c.db {
		borders := []string{"< 0", ">= 0"}
		c.on(i).Exec(c.t, c.db[i], fmt.Sprintf(`INSERT INTO users SELECT i, 0 FROM generate_series(1, %d) i WHERE hashint8extended(i, 8816678312871386365) %s;
			INSERT INTO notes SELECT user_id, n, repeat('x', n) FROM users, generate_series(1, 3) n`, n, borders[i]))
	}
}

// TestMoveOfHalfAShard moves a quarter of the ring there, and everything is where it belongs in the end.
func TestMoveOfHalfAShard(t *testing.T) {
	c := newCluster(t)
	c.fill(2000)
	defer c.coordinate("p1")()
	m, err := NewMove(KindMove, "s1", "s2", []Range{{Start: 0, End: 1 << 62}}, "dba")
	if err != nil {
		t.Fatal(err)
	}
	id := c.add(m)
	moved := c.await(id, Soak)
	if moved.Pause <= 0 || moved.Pause > HoldBudget {
		t.Errorf("clients waited %v", moved.Pause)
	}
	t.Logf("clients waited %v", moved.Pause)
	c.order(id, OrderFinish)
	c.await(id, Cleaned)
	for i, want := range []string{"t", "t"} {
		const all = "SELECT (bool_and(shardproxy.owns(hashint8extended(user_id, 8816678312871386365))) AND count(*) > 0)::text FROM "
		if got := c.one(i, all+"users"); got[:1] != want {
			t.Errorf("shard s%d has users that it does not own", i+1)
		}
		if got := c.one(i, all+"notes"); got[:1] != want {
			t.Errorf("shard s%d has notes that it does not own", i+1)
		}
	}
	var users int
	for i := range c.db {
		var n int
		_, _ = fmt.Sscan(c.one(i, "SELECT count(*)::text FROM users"), &n)
		users += n
	}
	if users != 2000 {
		t.Errorf("%d users are left", users)
	}
	c.leftovers()
}

// writers change users of their own over the shard that owns them by the map, as a proxy would: stamped with the map's epoch, not while
// their key is held, and again where the fence has refused. They know what they were promised.
type writers struct {
	c      *cluster
	stop   context.CancelFunc
	wg     sync.WaitGroup
	counts []int // by user: acknowledged increments
	doubts []int // by user: that may have been done, as the server went away
}

const writersUsers = 64

func (c *cluster) write() *writers {
	ctx, cancel := context.WithCancel(context.Background())
	w := &writers{c: c, stop: cancel, counts: make([]int, writersUsers+1), doubts: make([]int, writersUsers+1)}
	c.t.Cleanup(func() { // where the test fails before check
		cancel()
		w.wg.Wait()
	})
	const each = writersUsers / 4
	for i := range 4 {
		w.wg.Go(func() {
			var conns [2]*pgx.Conn
			defer func() {
				for _, conn := range conns {
					if conn != nil {
						_ = conn.Close(context.Background())
					}
				}
			}()
			for n := 0; ctx.Err() == nil; n++ {
				user := i*each + n%each + 1
				switch w.increment(&conns, user) {
				case done:
					w.counts[user]++
				case doubtful:
					w.doubts[user]++
				}
			}
		})
	}
	return w
}

// outcome of an increment.
type outcome int

const (
	undone outcome = iota
	done
	doubtful // the server went away
)

func (w *writers) increment(conns *[2]*pgx.Conn, user int) outcome {
	snap := w.c.keeper.Snapshot()
	h := topology.HashInt(int64(user))
	if snap.Held(h) {
		time.Sleep(time.Millisecond)
		return undone
	}
	shard := snap.Owner(h)
	node := snap.Shards[shard].Nodes[0]
	if conn := conns[shard]; conn != nil && (conn.IsClosed() || int(conn.Config().Port) != node.Port) {
		_ = conn.Close(context.Background())
		conns[shard] = nil
	}
	if conns[shard] == nil {
		conn, err := pgx.Connect(context.Background(), w.c.dsn(node))
		if err != nil { // it was killed
			time.Sleep(10 * time.Millisecond)
			return undone
		}
		conns[shard] = conn
	}
	sql := fmt.Sprintf("SET shardproxy.epoch = %d; UPDATE users SET v = v + 1 WHERE user_id = %d", snap.Stamp(), user)
	results, err := conns[shard].PgConn().Exec(context.Background(), sql).ReadAll()
	if err != nil {
		var pg *pgconn.PgError
		switch {
		case !errors.As(err, &pg), pg.Code[:2] == "57":
			return doubtful
		case pg.Code != "40001" && pg.Code != "23514" && pg.Code != "25006": // a replica that is not promoted yet
			w.c.t.Error(err)
		}
		return undone
	}
	if n := results[len(results)-1].CommandTag.RowsAffected(); n != 1 {
		w.c.t.Errorf("epoch %d: user %d is not on shard s%d", snap.Epoch, user, shard+1)
		return undone
	}
	return done
}

// check ends the writers and compares what they were promised with what is there.
func (w *writers) check() {
	w.c.t.Helper()
	w.stop()
	w.wg.Wait()
	total := 0
	for user := 1; user <= writersUsers; user++ {
		shard := int(w.c.keeper.Snapshot().Owner(topology.HashInt(int64(user))))
		got, least := -1, w.counts[user]
		_, _ = fmt.Sscan(w.c.one(shard, fmt.Sprintf("SELECT coalesce(max(v), -1)::text FROM users WHERE user_id = %d", user)), &got)
		if got < least || got > least+w.doubts[user] {
			w.c.t.Errorf("user %d on shard s%d: %d increments, %d were acknowledged and %d are in doubt", user, shard+1, got, least, w.doubts[user])
		}
		total += w.counts[user]
	}
	w.c.t.Logf("%d increments", total)
}

func quarter(t *testing.T) Move {
	t.Helper()
	m, err := NewMove(KindMove, "s1", "s2", []Range{{Start: 0, End: 1 << 62}}, "dba")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMoveThereAndBack gives the ranges back while writers go on.
func TestMoveThereAndBack(t *testing.T) {
	c := newCluster(t)
	c.fill(2000)
	defer c.coordinate("p1")()
	w := c.write()
	id := c.add(quarter(t))
	c.await(id, Soak)
	if err := c.soaked(id); err != nil {
		t.Error(err)
	}
	c.order(id, OrderReverse)
	back := c.await(id, Reversed)
	t.Logf("clients waited %v in all", back.PauseAll)
	w.check()
	if snap := c.keeper.Snapshot(); len(snap.Ranges()) != 2 || snap.Owner(0) != 0 {
		t.Errorf("ranges: %v", snap.Ranges())
	}
	c.leftovers()
}

// soaked is an error where the stream back is broken.
func (c *cluster) soaked(id int64) error {
	if m := c.await(id, Soak); m.ReverseLost || m.Alarmed || m.Unverified {
		return fmt.Errorf("the move is not sound: %s", m.Error)
	}
	return nil
}

// TestMoveSurvivesItsCoordinators ends one coordinator after the other, at moments that nobody chose.
func TestMoveSurvivesItsCoordinators(t *testing.T) {
	c := newCluster(t)
	c.fill(2000)
	w := c.write()
	id := c.add(quarter(t))
	ended := func() bool {
		records, err := c.catalog.LoadMoves(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		return len(records) == 0
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	finished := false
	for i := 0; !ended(); i++ {
		if i == 30 {
			t.Fatal("the move does not end")
		}
		stop := c.coordinate(fmt.Sprintf("p%d", i))
		last := time.Duration(random.IntN(int(time.Second)))
		if i%2 == 1 { // long enough for a lease to be waited for
			last += LeaseWait + time.Second
		}
		time.Sleep(last)
		records, err := c.catalog.LoadMoves(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if len(records) == 1 && records[0].Phase == Soak.String() && !finished {
			c.order(id, OrderFinish)
			finished = true
		}
		stop()
	}
	w.check()
	c.leftovers()
}

// TestMoveIsAborted leaves nothing.
func TestMoveIsAborted(t *testing.T) {
	c := newCluster(t)
	c.fill(20_000)
	defer c.coordinate("p1")()
	w := c.write()
	id := c.add(quarter(t))
	c.await(id, Prepared, Copying, Streaming)
	c.order(id, OrderAbort)
	c.await(id, Aborted)
	w.check()
	c.leftovers()
	if n := c.one(1, "SELECT count(*)::text FROM users WHERE NOT shardproxy.owns(hashint8extended(user_id, 8816678312871386365))"); n != "0" {
		t.Errorf("%s copied users are left", n)
	}
}
