package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/fence"
	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// schema is what every shard holds.
const schema = `
	CREATE TABLE users (id bigint PRIMARY KEY, name text);
	CREATE TABLE notes (user_id uuid NOT NULL, n int, PRIMARY KEY (user_id, n));
	CREATE TABLE tags (user_id varchar(20) PRIMARY KEY);
	CREATE TABLE plans (code text PRIMARY KEY, price numeric);
	INSERT INTO plans VALUES ('a', 1.5), ('b', 2);`

// clinic is a cluster whose shards are databases of the shared server, with a doctor.
type clinic struct {
	t         *testing.T
	pg        *pgtest.Server
	databases []string
	cfg       Config
	snap      *topology.Snapshot
}

func newClinic(t *testing.T, shards int) *clinic {
	t.Helper()
	c := &clinic{t: t, pg: pgtest.Shared(t)}
	content := topology.Content{Cluster: "shop", Epoch: 7, Ranges: topology.EqualRanges(shards), Rules: topology.DefaultKeyRules()}
	for i := range shards {
		db := c.pg.CreateDatabase(t)
		c.pg.Exec(t, db, schema)
		c.databases = append(c.databases, db)
		node := topology.Node{Host: c.pg.Host, Port: c.pg.Port, Database: db, Role: topology.Primary}
		content.Shards = append(content.Shards, topology.Shard{Name: fmt.Sprintf("s%d", i+1), Nodes: []topology.Node{node}})
	}
	c.cfg = Config{Cluster: "shop", SecondLook: time.Millisecond, OnNode: onNode, Snapshot: func() *topology.Snapshot { return c.snap }}
	c.publish(content)
	for _, r := range fence.InstallAll(t.Context(), c.snap, c.onShard) {
		if r.Err != nil || len(r.Problems) > 0 {
			t.Fatalf("%+v", r)
		}
	}
	return c
}

// publish puts a map in force, with the schema of its first shard.
func (c *clinic) publish(content topology.Content) {
	c.t.Helper()
	snap, err := topology.New(content)
	if err != nil {
		c.t.Fatal(err)
	}
	s, err := topology.LoadSchemaConn(c.t.Context(), c.pg.Connect(c.t, c.databases[0]), snap.Rules)
	if err != nil {
		c.t.Fatal(err)
	}
	c.snap = snap.WithSchema(s)
}

func (c *clinic) content() topology.Content {
	return topology.Content{Cluster: c.snap.Cluster, Epoch: c.snap.Epoch, Shards: c.snap.Shards, Ranges: c.snap.Ranges(), Rules: c.snap.Rules}
}

func (c *clinic) onShard(ctx context.Context, shard topology.ShardID, f func(topology.Query) error) error {
	return onNode(ctx, c.snap.Shards[shard].Nodes[0], f)
}

// onNode connects as the superuser, unless the database is of the form database@role.
func onNode(ctx context.Context, node topology.Node, f func(topology.Query) error) error {
	user := "postgres"
	if database, role, ok := strings.Cut(node.Database, "@"); ok {
		node.Database, user = database, role
	}
	conn, err := pgconn.Connect(ctx, fmt.Sprintf("postgres://%s@%s:%d/%s?sslmode=disable", user, node.Host, node.Port, node.Database))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f(func(ctx context.Context, sql string) ([][]string, error) {
		results, err := conn.Exec(ctx, sql).ReadAll()
		var rows [][]string
		for _, r := range results {
			for _, values := range r.Rows {
				row := make([]string, len(values))
				for i, v := range values {
					row[i] = string(v)
				}
				rows = append(rows, row)
			}
		}
		return rows, err
	})
}

// examine gives the findings as lines, but for hints; those that are well only with well set. Every other one needs a hint.
func (c *clinic) examine(deep, well bool) string {
	c.t.Helper()
	found, err := New(c.cfg).Examine(c.t.Context(), deep)
	if err != nil {
		c.t.Fatal(err)
	}
	var lines []string
	for _, f := range found {
		if f.Status != OK && f.Hint == "" {
			c.t.Errorf("no hint: %v", f)
		}
		if well || f.Status != OK {
			lines = append(lines, fmt.Sprintf("%s %v [%s] %s", f.Check, f.Status, f.Subject, f.Detail))
		}
	}
	return strings.ReplaceAll(strings.Join(lines, "\n"), fmt.Sprint(c.pg.Port), "PORT")
}

func TestWell(t *testing.T) {
	c := newClinic(t, 3)
	c.cfg.Connections = func(shards int) int { return 10 * shards }
	c.cfg.Catalog = &Catalog{
		Load:    func(context.Context) (*topology.Snapshot, error) { return c.snap, nil },
		Trouble: func() string { return "" },
		Moves:   func(context.Context) ([]topology.MoveRecord, error) { return nil, nil },
	}
	c.cfg.Peers = func() []topology.Peer {
		return []topology.Peer{
			{Name: "p2", Map: topology.MapState{Epoch: 7, Checksum: c.snap.Checksum()}},
			{Name: "p3", Status: topology.PeerLeft},
		}
	}
	want := `catalog ok [] it answers, its content is sound, and this proxy is at its epoch 7
peers ok [] 1 other proxy at epoch 7, as this one
primaries ok [] 3 primaries answer and take writes
replicas ok [] 0 replicas answer and are in recovery
settings ok [] encoding, collation and 18 settings are the same on 3 shards
schema ok [] 3 shards have the same schema
fences ok [] 3 fences are as the map wants it
tables ok [] 4 tables are placed
commits ok [] nothing is left of commits over several shards
moves ok [] 0 moves are under way; nothing is left of others`
	if diff := cmp.Diff(want, c.examine(false, true)); diff != "" {
		t.Error(diff)
	}
	want += `
reference tables ok [] 1 reference table has the same rows on all shards
placement ok [] all rows of 3 sharded tables are where the map has them`
	if diff := cmp.Diff(want, c.examine(true, true)); diff != "" {
		t.Error(diff)
	}
}

// TestFindings breaks one thing at a time on a shard.
func TestFindings(t *testing.T) {
	c := newClinic(t, 3)
	c.pg.Exec(t, "postgres", "CREATE ROLE doctor_plain LOGIN")
	key := int64(1)
	for c.snap.Owner(topology.HashInt(key)) != 0 {
		key++
	}
	foreign := fmt.Sprint(key)
	for _, test := range []struct {
		name, sql, undo string
		want            string
	}{
		{
			"drift", "ALTER TABLE users ADD age int; GRANT SELECT ON users TO pg_monitor", "ALTER TABLE users DROP age; REVOKE ALL ON users FROM pg_monitor",
			"schema error [s2] column age of public.users is not on s1\nschema warning [s2] privilege SELECT of pg_monitor on table public.users is not on s1",
		},
		{"no fence", "ALTER TABLE users DISABLE TRIGGER shardproxy_epoch", "ALTER TABLE users ENABLE TRIGGER shardproxy_epoch", "fences error [s2] public.users: trigger shardproxy_epoch is disabled, or enabled otherwise than by default"},
		{
			"settings", "ALTER DATABASE %s SET TimeZone = 'Asia/Tokyo'; ALTER DATABASE %s SET search_path = other", "ALTER DATABASE %s RESET ALL",
			"settings warning [s2] TimeZone is Asia/Tokyo here, UTC on s1\nsettings warning [s2] search_path is other here, \"$user\", public on s1",
		},
		{
			"records", `CREATE TABLE shardproxy.commits (gid text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), aborted boolean NOT NULL DEFAULT false, participants text[]);
				INSERT INTO shardproxy.commits (gid, at, aborted) VALUES ('a', now(), false), ('b', now() - interval '1 hour', false), ('c', now() - interval '1 hour', true), ('d', now() - interval '2 days', true), ('e', now() - interval '2 days', true)`,
			"DROP TABLE shardproxy.commits",
			"commits warning [s2] 1 decision is in shardproxy.commits older than 10 minutes\ncommits warning [s2] 2 tombstones are in shardproxy.commits older than 1 day",
		},
		{
			"slot", "SELECT pg_create_logical_replication_slot('shardproxy_move_7', 'pgoutput'); CREATE PUBLICATION shardproxy_move_8 FOR TABLE users", "SELECT pg_drop_replication_slot('shardproxy_move_7'); DROP PUBLICATION shardproxy_move_8",
			"moves warning [s2] publication shardproxy_move_8 belongs to no move that is under way\nmoves warning [s2] replication slot shardproxy_move_7 belongs to no move that is under way, and keeps SIZE of WAL",
		},
		{"reference rows", "UPDATE plans SET price = 3 WHERE code = 'a'", "UPDATE plans SET price = 1.5 WHERE code = 'a'", "reference tables error [s2] public.plans has other rows here than on s1"},
		{"reference count", "DELETE FROM plans WHERE code = 'a'", "INSERT INTO plans VALUES ('a', 1.5)", "reference tables error [s2] public.plans has 1 row here, 2 on s1"},
		{
			"misplaced", "SET session_replication_role = replica; INSERT INTO users VALUES (" + foreign + ")",
			"SET session_replication_role = replica; DELETE FROM users",
			"placement error [s2] public.users has 1 row of keys that the shard does not own",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			db := c.databases[1]
			run := func(sql string) {
				c.pg.Exec(t, db, "SET shardproxy.epoch = 1000; SET search_path = public;"+strings.ReplaceAll(sql, "%s", db))
			}
			run(test.sql)
			got := c.examine(true, false)
			run(test.undo)
			if strings.Contains(test.want, "SIZE") {
				if i, j := strings.Index(got, "keeps "), strings.Index(got, " of WAL"); i > 0 && j > i {
					got = got[:i] + "keeps SIZE" + got[j:]
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := c.examine(true, false); got != "" {
		t.Errorf("all is undone: %s", got)
	}
	t.Run("prepared", func(t *testing.T) { // which cannot be made to look old
		c.pg.Exec(t, c.databases[2], "BEGIN; CREATE TABLE x (); PREPARE TRANSACTION 'shardproxy:shop:s1:1:s3'")
		defer c.pg.Exec(t, c.databases[2], "ROLLBACK PREPARED 'shardproxy:shop:s1:1:s3'")
		if got := c.examine(false, false); got != "" {
			t.Errorf("a commit that is under way: %s", got)
		}
	})
	t.Run("rights", func(t *testing.T) { // of a role that may do nothing
		content := c.content()
		for i := range content.Shards {
			content.Shards[i].Nodes[0].Database += "@doctor_plain"
		}
		c.publish(content)
		want := `reference tables warning [s1, s2, s3] the rows of public.plans could not be read: ERROR: permission denied for table plans (SQLSTATE 42501)
placement warning [s1, s2, s3] the rows of public.notes could not be read: ERROR: permission denied for table notes (SQLSTATE 42501)
placement warning [s1, s2, s3] the rows of public.tags could not be read: ERROR: permission denied for table tags (SQLSTATE 42501)
placement warning [s1, s2, s3] the rows of public.users could not be read: ERROR: permission denied for table users (SQLSTATE 42501)`
		if diff := cmp.Diff(want, c.examine(true, false)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestUnfenced: without any fence there is one line, and with some of them they are missing elsewhere.
func TestUnfenced(t *testing.T) {
	c := newClinic(t, 3)
	c.pg.Exec(t, c.databases[2], "DROP SCHEMA shardproxy CASCADE")
	if got, want := c.examine(false, false), "fences error [s3] the shard has no fence"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for _, db := range c.databases[:2] {
		c.pg.Exec(t, db, "DROP SCHEMA shardproxy CASCADE")
	}
	if got, want := c.examine(false, false), "fences warning [] no shard has a fence"; !strings.HasPrefix(got, want) || strings.Contains(got, "\n") {
		t.Errorf("%s, want %s", got, want)
	}
	if got := c.examine(false, true); strings.Contains(got, "fences ok") {
		t.Errorf("well and not well: %s", got)
	}
}

// TestTables looks at what the schema itself has wrong.
func TestTables(t *testing.T) {
	c := newClinic(t, 2)
	for _, db := range c.databases {
		c.pg.Exec(t, db, `CREATE TABLE orders (id serial PRIMARY KEY, user_id bigint NOT NULL, code text UNIQUE, UNIQUE (user_id, code), UNIQUE (code) INCLUDE (user_id));
			CREATE UNIQUE INDEX by_lower ON orders (lower(code));
			CREATE TABLE bare (user_id bigint); CREATE TABLE loose (note text);
			CREATE TABLE parts (user_id bigint, at date, PRIMARY KEY (user_id, at)) PARTITION BY RANGE (at);
			CREATE TABLE parts_1 PARTITION OF parts DEFAULT; CREATE UNIQUE INDEX ON parts_1 (at);
			CREATE TABLE odd (user_id jsonb PRIMARY KEY)`)
	}
	c.publish(c.content())
	c.examine(false, false)
	got := c.examine(false, false)
	var tables []string
	for line := range strings.Lines(got) {
		if strings.HasPrefix(line, "tables") {
			tables = append(tables, strings.TrimSpace(line))
		}
	}
	want := []string{
		"tables error [public.odd] its rows cannot be placed: shard key public.odd.user_id: type OID 3802 cannot be a shard key; smallint, integer, bigint, text, varchar and uuid can",
		"tables warning [public.bare] has no primary key: without another replica identity its rows cannot be moved to another shard",
		"tables warning [public.orders] unique index by_lower lacks the shard key user_id: each shard keeps it for its own rows only",
		"tables warning [public.orders] unique index orders_code_key lacks the shard key user_id: each shard keeps it for its own rows only",
		"tables warning [public.orders] unique index orders_code_user_id_key lacks the shard key user_id: each shard keeps it for its own rows only",
		"tables warning [public.orders] unique index orders_pkey lacks the shard key user_id: each shard keeps it for its own rows only",
	}
	if diff := cmp.Diff(want, tables); diff != "" {
		t.Error(diff)
	}
}

// TestUnreachable: a shard that refuses and one that says nothing are a line each, and do not hold up the rest.
func TestUnreachable(t *testing.T) {
	c := newClinic(t, 4)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts; nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing.Close()
	content := c.content()
	content.Shards[0].Nodes[0].Port = refusing.Addr().(*net.TCPAddr).Port
	content.Shards[2].Nodes[0].Port = silent.Addr().(*net.TCPAddr).Port
	content.Shards[3].Nodes = append(content.Shards[3].Nodes, topology.Node{
		Host: "127.0.0.1", Port: refusing.Addr().(*net.TCPAddr).Port, Database: "x", Role: topology.Replica,
	})
	c.publish(content)
	c.cfg.ShardTime = 3 * time.Second
	got := c.examine(true, true)
	for _, want := range []string{
		"primaries error [s1] the primary 127.0.0.1:", "primaries error [s3] the primary 127.0.0.1:", "does not answer: no answer within 3s",
		"replicas warning [s4 127.0.0.1:", "does not answer: ", "connection refused",
		"settings ok [] encoding, collation and 18 settings are the same on 2 shards", "schema ok [] 2 shards have the same schema",
		"placement ok", "reference tables ok",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if n := strings.Count(got, " error "); n != 2 {
		t.Errorf("%d errors\n%s", n, got)
	}
	for i := range content.Shards {
		content.Shards[i].Nodes[0].Port = refusing.Addr().(*net.TCPAddr).Port
	}
	c.publish(content)
	if got := c.examine(true, false); strings.Count(got, "primaries error") != 4 {
		t.Errorf("all shards are away: %s", got)
	}
}

// TestReplicas looks at nodes that are not what the map says.
func TestReplicas(t *testing.T) {
	primary := pgtest.Start(t)
	replica := primary.Replica(t)
	c := newClinic(t, 2)
	node := func(s *pgtest.Server, db string, role topology.Role) topology.Node {
		return topology.Node{Host: s.Host, Port: s.Port, Database: db, Role: role}
	}
	content := c.content()
	for _, test := range []struct {
		nodes []topology.Node
		want  string
	}{
		{[]topology.Node{node(primary, "postgres", topology.Primary), node(replica, "postgres", topology.Replica)}, ""},
		{[]topology.Node{node(replica, "postgres", topology.Primary)}, "primaries error [s3] the primary 127.0.0.1:REPLICA is in recovery: it is a replica"},
		{[]topology.Node{node(primary, "postgres", topology.Primary), node(primary, "template1", topology.Replica)}, "replicas error [s3 127.0.0.1:PRIMARY/template1] is no replica: it takes writes"},
		{
			[]topology.Node{node(primary, "postgres", topology.Primary), node(replica, "template1", topology.Replica)},
			"replicas error [s3 127.0.0.1:REPLICA/template1] is a replica of another database than the shard's primary",
		},
		{
			[]topology.Node{{Host: "localhost", Port: c.pg.Port, Database: c.databases[0], Role: topology.Primary}},
			"primaries error [s3] localhost:PORT is the same database as that of shard s1",
		},
	} {
		with := content
		with.Shards = append(content.Shards[:2:2], topology.Shard{Name: "s3", Nodes: test.nodes})
		c.publish(with)
		var got []string
		for line := range strings.Lines(c.examine(false, false)) {
			if strings.HasPrefix(line, "primaries") || strings.HasPrefix(line, "replicas") {
				got = append(got, strings.TrimSpace(line))
			}
		}
		ports := strings.NewReplacer(fmt.Sprint(primary.Port), "PRIMARY", fmt.Sprint(replica.Port), "REPLICA")
		if diff := cmp.Diff(test.want, ports.Replace(strings.Join(got, "\n"))); diff != "" {
			t.Error(diff)
		}
	}
}

// TestBusy: the second of two who ask at a time is told so.
func TestBusy(t *testing.T) {
	c := newClinic(t, 1)
	d := New(c.cfg)
	entered, leave := make(chan struct{}), make(chan struct{})
	d.cfg.Catalog = &Catalog{
		Load: func(context.Context) (*topology.Snapshot, error) {
			close(entered)
			<-leave
			return nil, errors.New("away")
		},
		Trouble: func() string { return "" },
		Moves:   func(context.Context) ([]topology.MoveRecord, error) { return nil, errors.New("away") },
	}
	done := make(chan error, 1)
	go func() {
		_, err := d.Examine(t.Context(), false)
		done <- err
	}()
	<-entered
	if _, err := d.Examine(t.Context(), false); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestMapChanges: rows that were counted by a map that has changed meanwhile are no error.
func TestMapChanges(t *testing.T) {
	c := newClinic(t, 2)
	key := int64(1)
	for c.snap.Owner(topology.HashInt(key)) != 0 {
		key++
	}
	c.pg.Exec(t, c.databases[1], fmt.Sprintf("SET session_replication_role = replica; INSERT INTO users VALUES (%d)", key))
	first, asked := c.snap, 0
	next, err := first.Apply(topology.SetShardState{Name: "s1", State: topology.ShardDraining})
	if err != nil {
		t.Fatal(err)
	}
	c.cfg.Snapshot = func() *topology.Snapshot {
		if asked++; asked == 1 {
			return first
		}
		return next
	}
	if got, want := c.examine(true, false), "placement warning [s2] public.users has 1 row of keys that the shard does not own"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestContentsAreWhole: a column may have the name by which our statement calls the table.
func TestContentsAreWhole(t *testing.T) {
	pg := pgtest.Shared(t)
	db := pg.CreateDatabase(t)
	pg.Exec(t, db, "CREATE TABLE r (t text, v text); INSERT INTO r VALUES ('a', 'one'), (NULL, NULL)")
	read := func() (c contents) {
		t.Helper()
		err := onNode(t.Context(), topology.Node{Host: pg.Host, Port: pg.Port, Database: db}, func(query topology.Query) (err error) {
			c, err = readContents(t.Context(), query, &topology.Table{TableName: topology.TableName{Schema: "public", Name: "r"}})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	before := read()
	pg.Exec(t, db, "UPDATE r SET v = 'two' WHERE t = 'a'")
	if after := read(); after == before {
		t.Errorf("%+v before and after a change", after)
	}
}
