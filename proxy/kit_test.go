package proxy

import (
	"bytes"
	"context"
	"errors"
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
		Cluster: "kit", Database: "app", Shards: snapShards, Ranges: topology.EqualRanges(kitShards), Rules: topology.DefaultKeyRules(),
		Service: app, Access: wire.Rules{rule}, MaxClients: 1000, MaxUnauthenticated: 1000,
		Users: map[string]*User{
			"app": app, "plain": {Name: "plain", ServerUser: "plain"},
			"pooled": {Name: "pooled", ServerUser: k.super, Pooling: SessionPooling},
			"two":    {Name: "two", ServerUser: k.super, MaxConnections: 2},
		},
		ServerTLS: noTLS, ConnectTimeout: 5 * time.Second,
		Pools:  backend.Limits{Max: 10, Total: 100, Wait: 5 * time.Second, CheckAfter: time.Hour, Statements: 100},
		Router: router.Config{CacheEntries: 1000, MaxTokens: 2000, MaxBytes: 1 << 20}, MessageBytes: 16 << 20, QueryBytes: 1 << 20,
		PreparedStatements: 100, Log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, f := range change {
		f(&cfg)
	}
	k.srv, err = NewServer(cfg)
	if err != nil {
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
	return k
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

// client is a raw client.
type client struct {
	t    *testing.T
	conn net.Conn
	f    *pgproto3.Frontend
	pid  uint32
	key  []byte
}

// dial connects; params are pairs beside user and database.
func (k *kit) dial(user string, params ...string) (*client, string) {
	k.t.Helper()
	conn, err := net.Dial("tcp", k.addr)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = conn.Close() })
	c := &client{t: k.t, conn: conn, f: pgproto3.NewFrontend(conn, conn)}
	m := &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": user, "database": "app"}}
	for i := 0; i < len(params); i += 2 {
		m.Parameters[params[i]] = params[i+1]
	}
	return c, c.roundTrip(m)
}

func (k *kit) connect(params ...string) *client {
	k.t.Helper()
	return k.connectAs("app", params...)
}

func (k *kit) connectAs(user string, params ...string) *client {
	k.t.Helper()
	c, greeting := k.dial(user, params...)
	if greeting != "R Z:I" {
		k.t.Fatalf("login: %s", greeting)
	}
	return c
}

func (c *client) send(messages ...pgproto3.FrontendMessage) {
	c.t.Helper()
	for _, m := range messages {
		c.f.Send(m)
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(patience))
	if err := c.f.Flush(); err != nil {
		c.t.Logf("send: %v", err)
	}
}

// next gives the next message in short form, "" for those that do not matter, "EOF" at the end.
func (c *client) next() string {
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	m, err := c.f.Receive()
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "HANGS"
		}
		return "EOF"
	}
	switch m := m.(type) {
	case *pgproto3.ParameterStatus:
		return ""
	case *pgproto3.BackendKeyData:
		c.pid, c.key = m.ProcessID, bytes.Clone(m.SecretKey)
		return ""
	case *pgproto3.AuthenticationOk:
		return "R"
	case *pgproto3.ParseComplete:
		return "1"
	case *pgproto3.BindComplete:
		return "2"
	case *pgproto3.CloseComplete:
		return "3"
	case *pgproto3.NoData:
		return "n"
	case *pgproto3.ParameterDescription:
		return "t"
	case *pgproto3.RowDescription:
		return "T"
	case *pgproto3.PortalSuspended:
		return "s"
	case *pgproto3.EmptyQueryResponse:
		return "I"
	case *pgproto3.CopyInResponse:
		return "G"
	case *pgproto3.CopyOutResponse:
		return "H"
	case *pgproto3.CopyDone:
		return "c"
	case *pgproto3.CopyData:
		return "d:" + strings.TrimSpace(string(m.Data))
	case *pgproto3.NotificationResponse:
		return "A:" + m.Payload
	case *pgproto3.DataRow:
		v := make([]string, len(m.Values))
		for i := range v {
			v[i] = string(m.Values[i])
			if len(v[i]) > 100 {
				v[i] = fmt.Sprintf("%d bytes", len(v[i]))
			}
		}
		return "D:" + strings.Join(v, ",")
	case *pgproto3.CommandComplete:
		return "C:" + string(m.CommandTag)
	case *pgproto3.ErrorResponse:
		c.t.Logf("error: %s %s: %s (%s) %s", m.Severity, m.Code, m.Message, m.Detail, m.Hint)
		return "E:" + m.Code
	case *pgproto3.NoticeResponse:
		return "N:" + m.Code
	case *pgproto3.ReadyForQuery:
		return "Z:" + string(m.TxStatus)
	}
	return fmt.Sprintf("%T", m)
}

// answer reads up to a message that begins with one of ends, or to the end.
func (c *client) answer(ends ...string) string {
	c.t.Helper()
	var list []string
	for {
		m := c.next()
		if m != "" {
			list = append(list, m)
		}
		if m == "EOF" || m == "HANGS" {
			return strings.Join(list, " ")
		}
		for _, e := range ends {
			if m != "" && strings.HasPrefix(m, e) {
				return strings.Join(list, " ")
			}
		}
	}
}

func (c *client) roundTrip(messages ...pgproto3.FrontendMessage) string {
	c.t.Helper()
	c.send(messages...)
	return c.answer("Z")
}

func (c *client) query(sql string) string {
	c.t.Helper()
	return c.roundTrip(&pgproto3.Query{String: sql})
}

// want runs a simple query and compares the answer.
func (c *client) want(sql, want string) {
	c.t.Helper()
	if got := c.query(sql); got != want {
		c.t.Errorf("%s\n got: %s\nwant: %s", sql, got, want)
	}
}

// value gives the one value that a query answers with.
func (c *client) value(sql string) string {
	c.t.Helper()
	got := c.query(sql)
	for _, m := range strings.Split(got, " ") {
		if v, ok := strings.CutPrefix(m, "D:"); ok {
			return v
		}
	}
	return got
}

func (c *client) wantPipe(want string, messages ...pgproto3.FrontendMessage) {
	c.t.Helper()
	if got := c.roundTrip(messages...); got != want {
		c.t.Errorf("pipeline\n got: %s\nwant: %s", got, want)
	}
}

func (c *client) bye() {
	c.send(&pgproto3.Terminate{})
	_ = c.conn.Close()
}

// reset closes the connection by RST.
func (c *client) reset() {
	_ = c.conn.(*net.TCPConn).SetLinger(0)
	_ = c.conn.Close()
}

func parse(name, sql string) pgproto3.FrontendMessage { return &pgproto3.Parse{Name: name, Query: sql} }

func bind(portal, statement string, params ...any) pgproto3.FrontendMessage {
	m := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: statement}
	for _, p := range params {
		if p == nil {
			m.Parameters = append(m.Parameters, nil)
		} else {
			m.Parameters = append(m.Parameters, fmt.Append(nil, p))
		}
	}
	return m
}

func execute(portal string, rows uint32) pgproto3.FrontendMessage {
	return &pgproto3.Execute{Portal: portal, MaxRows: rows}
}

var (
	syncM  pgproto3.FrontendMessage = &pgproto3.Sync{}
	flushM pgproto3.FrontendMessage = &pgproto3.Flush{}
)

// run is Parse, Bind and Execute of an unnamed statement.
func run(sql string, params ...any) []pgproto3.FrontendMessage {
	return []pgproto3.FrontendMessage{parse("", sql), bind("", "", params...), execute("", 0)}
}

func join(lists ...[]pgproto3.FrontendMessage) (all []pgproto3.FrontendMessage) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return append(all, syncM)
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

// middleman passes bytes between the proxy and a shard and can do harm on the way.
type middleman struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	links   map[*link]struct{}
	rules   []*midRule
	refuse  bool
	stalled chan struct{} // not nil: nothing passes until it is closed
	delay   time.Duration // of every chunk from the shard
}

type link struct{ near, far net.Conn }

func (l *link) cut() {
	_ = l.near.Close()
	_ = l.far.Close()
}

// midRule acts once, on the first bytes to the shard that contain text.
type midRule struct {
	text string
	act  harm
	done chan struct{} // closed when it has acted
}

type harm int

const (
	cutBefore harm = iota // the bytes do not reach the shard
	cutAfter              // they do, its answer does not reach the proxy
)

func newMiddleman(t *testing.T, target string) *middleman {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &middleman{target: target, listener: l, links: make(map[*link]struct{})}
	m.wg.Go(m.serve)
	return m
}

func (m *middleman) port() int { return m.listener.Addr().(*net.TCPAddr).Port }

func (m *middleman) close() {
	_ = m.listener.Close()
	m.resume()
	m.cut()
	m.wg.Wait()
}

func (m *middleman) serve() {
	for {
		near, err := m.listener.Accept()
		if err != nil {
			return
		}
		m.mu.Lock()
		refuse := m.refuse
		m.mu.Unlock()
		far, err := net.Dial("tcp", m.target)
		if err != nil || refuse {
			_ = near.Close()
			if err == nil {
				_ = far.Close()
			}
			continue
		}
		l := &link{near, far}
		m.mu.Lock()
		m.links[l] = struct{}{}
		m.mu.Unlock()
		m.wg.Go(func() { m.up(l) })
		m.wg.Go(func() { m.down(l) })
	}
}

func (m *middleman) gone(l *link) {
	l.cut()
	m.mu.Lock()
	delete(m.links, l)
	m.mu.Unlock()
}

func (m *middleman) pause() time.Duration {
	m.mu.Lock()
	stalled, delay := m.stalled, m.delay
	m.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
	return delay
}

// up carries what the proxy says.
func (m *middleman) up(l *link) {
	defer m.gone(l)
	buf := make([]byte, 256<<10)
	for {
		n, err := l.near.Read(buf)
		if err != nil {
			return
		}
		m.pause()
		r := m.match(buf[:n])
		if r != nil && r.act == cutBefore {
			l.cut()
			close(r.done)
			return
		}
		if r != nil { // its answer must not pass: down sees a closed connection
			_ = l.near.Close()
		}
		if _, err := l.far.Write(buf[:n]); err != nil {
			return
		}
		if r != nil {
			_ = l.far.(*net.TCPConn).CloseWrite() // the shard does what it was told, then sees the end
			_ = l.far.SetReadDeadline(time.Now().Add(patience))
			_, _ = io.Copy(io.Discard, l.far)
			close(r.done)
			return
		}
	}
}

// down carries what the shard says.
func (m *middleman) down(l *link) {
	buf := make([]byte, 64<<10)
	for {
		n, err := l.far.Read(buf)
		if err != nil {
			_ = l.near.Close()
			return
		}
		if d := m.pause(); d > 0 {
			time.Sleep(d)
		}
		if _, err := l.near.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (m *middleman) match(p []byte) *midRule {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, r := range m.rules {
		if bytes.Contains(p, []byte(r.text)) {
			m.rules = append(m.rules[:i:i], m.rules[i+1:]...)
			return r
		}
	}
	return nil
}

// on arms a rule.
func (m *middleman) on(text string, act harm) *midRule {
	r := &midRule{text: text, act: act, done: make(chan struct{})}
	m.mu.Lock()
	m.rules = append(m.rules, r)
	m.mu.Unlock()
	return r
}

// cut ends all connections.
func (m *middleman) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for l := range m.links {
		l.cut()
	}
}

func (m *middleman) stall() {
	m.mu.Lock()
	m.stalled = make(chan struct{})
	m.mu.Unlock()
}

func (m *middleman) resume() {
	m.mu.Lock()
	if m.stalled != nil {
		close(m.stalled)
		m.stalled = nil
	}
	m.mu.Unlock()
}

func (m *middleman) refuseAll(yes bool) {
	m.mu.Lock()
	m.refuse = yes
	m.mu.Unlock()
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
