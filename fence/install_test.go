package fence

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shardproxy/topology"
)

// oddTables are sharded tables of all kinds and a reference table, with names that need quotes and in other schemas.
const oddTables = `
	CREATE SCHEMA "Other ""one""";
	CREATE TABLE users (id bigint PRIMARY KEY, n int);
	CREATE TABLE "Other ""one"""."Order's (new)" ("user_id" varchar(20), "select" int);
	CREATE TABLE "OPERATOR(pg_catalog.=)" (creator_user_id uuid NOT NULL);
	CREATE TABLE plans (id int PRIMARY KEY);
	CREATE TABLE events (user_id int, at int) PARTITION BY RANGE (at);
	CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10);
	CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20) PARTITION BY LIST (at);
	CREATE TABLE events_2_a PARTITION OF events_2 FOR VALUES IN (10);
	CREATE TABLE base (user_id smallint);
	CREATE TABLE child (extra int) INHERITS (base);
	CREATE VIEW v AS SELECT * FROM users;
	CREATE MATERIALIZED VIEW m AS SELECT * FROM users;`

// picture is all that a fence consists of, with what changes when something is touched.
func (s *shard) picture() string {
	s.Helper()
	return s.one(`SELECT string_agg(x, E'\n' ORDER BY x) FROM (
		SELECT concat_ws(' ', tgrelid::regclass, tgname, oid, xmin, tgparentid <> 0) FROM pg_trigger WHERE tgname LIKE 'shardproxy%'
		UNION ALL SELECT concat_ws(' ', oid::regprocedure, oid, xmin) FROM pg_proc WHERE pronamespace = 'shardproxy'::regnamespace
		UNION ALL SELECT concat_ws(' ', oid::regclass, oid, xmin) FROM pg_class WHERE relnamespace = 'shardproxy'::regnamespace
		UNION ALL SELECT concat_ws(' ', nspname, oid, xmin) FROM pg_namespace WHERE nspname = 'shardproxy'
		UNION ALL SELECT concat_ws(' ', epoch, shard, xmin) FROM shardproxy.fence) p(x)`)
}

// triggers lists those of ours, as "table trigger", with a + behind those that PostgreSQL copied.
func (s *shard) triggers() []string {
	s.Helper()
	text := s.one(`SELECT coalesce(string_agg(concat_ws(' ', c.relname, tgname || CASE WHEN tgparentid <> 0 THEN '+' ELSE '' END), ',' ORDER BY c.relname, tgname), '')
		FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE tgname LIKE 'shardproxy%'`)
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// withOwner are the triggers of a sharded table.
func withOwner(table string) []string {
	return []string{table + " shardproxy_epoch", table + " shardproxy_owner_delete", table + " shardproxy_owner_insert", table + " shardproxy_owner_update"}
}

func TestInstallTwiceChangesNothing(t *testing.T) {
	s := newShard(t, oddTables)
	st := State{Shard: "s1", Epoch: 3, Owned: half(false)}
	if found := s.check(st); !slices.Equal(found, []string{"the shard has no fence"}) {
		t.Errorf("before: %q", found)
	}
	if _, installed, err := Read(t.Context(), s.query); installed || err != nil {
		t.Errorf("before: installed %v, %v", installed, err)
	}
	s.install(st)
	if diff := cmp.Diff(st, s.read()); diff != "" {
		t.Error(diff)
	}
	if found := s.check(st); found != nil {
		t.Errorf("after: %q", found)
	}
	want := withOwner("OPERATOR(pg_catalog.=)")
	want = append(want, withOwner("Order's (new)")...)
	want = append(want, withOwner("base")...)
	want = append(want, withOwner("child")...)
	for _, part := range []string{"events", "events_1+", "events_2+", "events_2_a+"} {
		table, plus := strings.CutSuffix(part, "+")
		want = append(want, table+" shardproxy_epoch")
		for _, event := range []string{"delete", "insert", "update"} {
			name := table + " shardproxy_owner_parts_" + event
			if plus {
				name += "+"
			}
			want = append(want, name)
		}
	}
	want = append(want, "plans shardproxy_epoch")
	want = append(want, withOwner("users")...)
	got := s.triggers()
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	before := s.picture()
	s.install(st)
	st.Epoch = 4 // the same ranges: the fence of epoch 3 holds for it too
	s.install(st)
	if diff := cmp.Diff(before, s.picture()); diff != "" {
		t.Error(diff)
	}
	if found := s.check(st); found != nil {
		t.Errorf("at the next epoch: %q", found)
	}
}

// TestInstallMends breaks a fence in every way: Check tells of it, and Install puts it right.
func TestInstallMends(t *testing.T) {
	s := newShard(t, "CREATE TABLE users (id int PRIMARY KEY, other int); CREATE TABLE plans (id int); CREATE TABLE events (user_id int, at int) PARTITION BY LIST (at); CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1)")
	st := State{Shard: "s1", Epoch: 3, Owned: half(false)}
	s.install(st)
	sound := s.triggers()
	const otherTable = "on another table"
	for _, test := range []struct{ name, sql, want string }{
		{"trigger dropped", "DROP TRIGGER shardproxy_epoch ON users", "public.users: trigger shardproxy_epoch is missing"},
		{"triggers dropped", "DROP TRIGGER shardproxy_owner_insert ON users; DROP TRIGGER shardproxy_epoch ON events_1; DROP TRIGGER shardproxy_epoch ON plans", "public.events_1: trigger shardproxy_epoch is missing\npublic.plans: trigger shardproxy_epoch is missing\npublic.users: trigger shardproxy_owner_insert is missing"},
		{"parts dropped", "DROP TRIGGER shardproxy_owner_parts_insert ON events", "public.events: trigger shardproxy_owner_parts_insert is missing"},
		{"disabled", "ALTER TABLE users DISABLE TRIGGER shardproxy_owner_update", "public.users: trigger shardproxy_owner_update is disabled, or enabled otherwise than by default"},
		{"for replicas only", "ALTER TABLE plans ENABLE REPLICA TRIGGER shardproxy_epoch", "public.plans: trigger shardproxy_epoch is disabled, or enabled otherwise than by default"},
		{"disabled in a partition", "ALTER TABLE events_1 DISABLE TRIGGER shardproxy_owner_parts_delete", "public.events_1: trigger shardproxy_owner_parts_delete is disabled, or enabled otherwise than by default"},
		{
			"another key", `CREATE OR REPLACE TRIGGER shardproxy_owner_delete AFTER DELETE ON users FOR EACH ROW WHEN (NOT shardproxy.owns(hashint8extended(OLD.other, 8816678312871386365))) EXECUTE FUNCTION shardproxy.refuse_foreign()`,
			"public.users: trigger shardproxy_owner_delete is another one: it was made for another key, or changed",
		},
		{"another function", `CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE OR REPLACE TRIGGER shardproxy_epoch BEFORE INSERT OR DELETE OR UPDATE OR TRUNCATE ON plans FOR EACH STATEMENT EXECUTE FUNCTION mine()`, "public.plans: trigger shardproxy_epoch is another one: it was made for another key, or changed"},
		{"owner of a reference table", `CREATE TRIGGER shardproxy_owner_insert AFTER INSERT ON plans FOR EACH ROW WHEN (false) EXECUTE FUNCTION shardproxy.refuse_foreign()`, "public.plans: trigger shardproxy_owner_insert does not belong there"},
		{"under another name", `CREATE TRIGGER mine AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION shardproxy.refuse_foreign()`, "public.users: trigger mine does not belong there"},
		{otherTable, `CREATE SCHEMA pgx; CREATE VIEW odd AS SELECT 1 AS id; CREATE TABLE shardproxy.commits (id int); CREATE TRIGGER shardproxy_epoch BEFORE INSERT ON shardproxy.commits EXECUTE FUNCTION shardproxy.refuse_stale()`, "shardproxy.commits: trigger shardproxy_epoch does not belong there"},
		{"owns edited", `DO $$ BEGIN EXECUTE (SELECT replace(pg_get_functiondef('shardproxy.owns'::regproc), 'RETURN (', 'RETURN true OR (') ); END $$`, "function shardproxy.owns was changed"},
		{"owns rewritten", `CREATE OR REPLACE FUNCTION shardproxy.owns(hash bigint) RETURNS boolean LANGUAGE sql AS 'SELECT true'`, "function shardproxy.owns was changed"},
		{"owns of other keys", `DO $$ BEGIN EXECUTE (SELECT replace(pg_get_functiondef('shardproxy.owns'::regproc), ',0}', ',1}') ); END $$`, "by its fence of epoch 3 the shard owns other keys than the map says"},
		{"function of the epoch edited", `CREATE OR REPLACE FUNCTION shardproxy.refuse_stale() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`, "function shardproxy.refuse_stale was changed"},
		{"options changed", `ALTER FUNCTION shardproxy.owns SECURITY DEFINER; ALTER FUNCTION shardproxy.refuse_foreign SET work_mem = '1MB'`, "function shardproxy.owns was changed\nfunction shardproxy.refuse_foreign was changed"},
		{"rights on a function", `REVOKE EXECUTE ON FUNCTION shardproxy.owns FROM PUBLIC`, "function shardproxy.owns may not be called by everybody"},
		{"rights on the schema", `REVOKE USAGE ON SCHEMA shardproxy FROM PUBLIC`, "not everybody may read shardproxy.fence"},
		{"rights on the table", `REVOKE SELECT ON shardproxy.fence FROM PUBLIC`, "not everybody may read shardproxy.fence"},
		{"row deleted", `DELETE FROM shardproxy.fence`, "the shard has no fence"},
		{"functions dropped", `DROP FUNCTION shardproxy.owns CASCADE`, "function shardproxy.owns is missing\npublic.events: trigger shardproxy_owner_parts_insert is missing\npublic.events: trigger shardproxy_owner_parts_delete is missing\npublic.events: trigger shardproxy_owner_parts_update is missing\npublic.users: trigger shardproxy_owner_insert is missing\npublic.users: trigger shardproxy_owner_delete is missing\npublic.users: trigger shardproxy_owner_update is missing"},
		{"all dropped", "DROP SCHEMA shardproxy CASCADE", "the shard has no fence"},
	} {
		s.must(s.conn, test.sql)
		if got := strings.Join(s.check(st), "\n"); got != test.want {
			t.Errorf("%s: check says\n%s\nwant\n%s", test.name, got, test.want)
		}
		s.install(st)
		if found := s.check(st); found != nil && test.name != otherTable {
			t.Errorf("%s, mended: %q", test.name, found)
		}
		if test.name == otherTable {
			if found := s.check(st); len(found) != 1 {
				t.Errorf("a table that is not in the list, mended: %q", found)
			}
			s.installComplete(st)
		}
		if diff := cmp.Diff(sound, s.triggers()); diff != "" {
			t.Errorf("%s, mended: %s", test.name, diff)
		}
	}
	missing := append(s.tables(), Table{TableName: topology.TableName{Schema: "public", Name: "lost"}, Key: "id", KeyType: topology.KeyInt})
	if err := Install(t.Context(), s.query, st, missing); err != nil {
		t.Errorf("a table that the shard has not: %v", err)
	}
	if found, err := Check(t.Context(), s.query, st, missing); err != nil || len(found) != 1 || found[0].What != "the shard does not have the table" {
		t.Errorf("a table that the shard has not: %v, %v", found, err)
	}
}

// TestInstallFollowsTheRules changes how tables are placed.
func TestInstallFollowsTheRules(t *testing.T) {
	s := newShard(t, "CREATE TABLE users (id int PRIMARY KEY, other text); CREATE TABLE plans (id int, owner uuid)")
	st := State{Shard: "s1", Epoch: 3, Owned: half(false)}
	s.install(st)
	users, plans := topology.TableName{Schema: "public", Name: "users"}, topology.TableName{Schema: "public", Name: "plans"}

	s.rules.Explicit = map[topology.TableName]string{users: "other", plans: "owner"}
	if got := s.check(st); len(got) != 6 || !strings.HasPrefix(got[0], "public.plans: trigger shardproxy_owner_insert is missing") ||
		!strings.HasPrefix(got[3], "public.users: trigger shardproxy_owner_insert is another one") {
		t.Errorf("%q", got)
	}
	s.install(st)
	if diff := cmp.Diff(append(withOwner("plans"), withOwner("users")...), s.triggers()); diff != "" {
		t.Error(diff)
	}
	s.must(s.conn, "ALTER TABLE users RENAME COLUMN other TO another; ALTER TABLE users RENAME TO people")
	s.rules.Explicit = map[topology.TableName]string{{Schema: "public", Name: "people"}: "another", plans: "owner"}
	before := s.picture()
	if found := s.check(st); found != nil {
		t.Errorf("PostgreSQL follows the new names: %q", found)
	}
	s.install(st)
	if after := s.picture(); after != before {
		t.Errorf("new names: %s", cmp.Diff(before, after))
	}

	s.rules = topology.KeyRules{Explicit: map[topology.TableName]string{plans: "nosuch"}, Reference: map[topology.TableName]bool{{Schema: "public", Name: "people"}: true}}
	s.install(st)
	if diff := cmp.Diff(append([]string{"people shardproxy_epoch"}, withOwner("plans")...), s.triggers()); diff != "" {
		t.Errorf("of one that cannot be placed, which is not in the list: %s", diff)
	}
	s.installComplete(st)
	if diff := cmp.Diff([]string{"people shardproxy_epoch"}, s.triggers()); diff != "" {
		t.Errorf("a reference table, and one that cannot be placed: %s", diff)
	}
}

// TestInstallLeavesALaterFence holds that a proxy with an old map mends triggers but not what a shard owns.
func TestInstallLeavesALaterFence(t *testing.T) {
	s := newShard(t, "CREATE TABLE users (id int PRIMARY KEY)")
	later := State{Shard: "s1", Epoch: 9, Owned: half(true)}
	s.install(later)
	old := State{Shard: "s1", Epoch: 8, Owned: half(false)}
	const above = "the fence is at epoch 9, above the map's 8"
	if found := s.check(old); !slices.Equal(found, []string{above}) {
		t.Errorf("%q", found)
	}
	s.must(s.conn, "DROP TRIGGER shardproxy_epoch ON users; CREATE TABLE projects (creator_user_id int); REVOKE EXECUTE ON FUNCTION shardproxy.owns FROM PUBLIC")
	s.install(old)
	if diff := cmp.Diff(later, s.read()); diff != "" {
		t.Error(diff)
	}
	if found := s.check(later); found != nil {
		t.Errorf("%q", found)
	}
	if diff := cmp.Diff(append(withOwner("projects"), withOwner("users")...), s.triggers()); diff != "" {
		t.Error(diff)
	}
	s.must(s.conn, "DROP FUNCTION shardproxy.owns CASCADE")
	if err := Install(t.Context(), s.query, old, s.tables()); err == nil || !strings.Contains(err.Error(), "does not say what it was at epoch 9") {
		t.Errorf("what the shard owned is lost: %v", err)
	}

	newer := State{Shard: "s1", Epoch: 10, Owned: half(false)}
	s.install(newer)
	if diff := cmp.Diff(newer, s.read()); diff != "" {
		t.Errorf("a later map: %s", diff)
	}
	var other *OtherShardError
	if err := Install(t.Context(), s.query, State{Shard: "s2", Epoch: 11}, s.tables()); !errors.As(err, &other) || other.Found != "s1" {
		t.Errorf("the map leads to the wrong database: %v", err)
	}
	if found := s.check(State{Shard: "s2", Epoch: 11}); !slices.Equal(found, []string{"the database has the fence of shard s1"}) {
		t.Errorf("%q", found)
	}
}

// TestOrdinaryRoles installs as a role that owns the tables and no more, and writes as one that may only insert.
func TestOrdinaryRoles(t *testing.T) {
	s := newShard(t, "")
	owner, writer := s.db+"_owner", s.db+"_writer"
	s.must(s.conn, fmt.Sprintf(`CREATE ROLE %[2]s LOGIN; CREATE ROLE %[3]s LOGIN; GRANT CREATE ON DATABASE %[1]s TO %[2]s; GRANT CREATE ON SCHEMA public TO %[2]s;
		ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC`, s.db, owner, writer))
	t.Cleanup(func() { // roles outlive the database
		sql := fmt.Sprintf("RESET ROLE; DROP OWNED BY %[1]s, %[2]s CASCADE; DROP ROLE %[1]s, %[2]s", owner, writer)
		if _, err := s.conn.PgConn().Exec(context.WithoutCancel(t.Context()), sql).ReadAll(); err != nil {
			t.Error(err)
		}
	})
	s.must(s.conn, "SET ROLE "+owner+"; ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC; CREATE TABLE users (id int PRIMARY KEY); GRANT INSERT ON users TO "+writer)
	lower, upper := keys(2)
	st := State{Shard: "s1", Epoch: 3, Owned: half(false)}
	s.install(st)
	s.install(st)
	st.Epoch = 4
	s.set(st)
	if found := s.check(st); found != nil {
		t.Errorf("%q", found)
	}

	conn := s.session(4)
	s.must(conn, "SET ROLE "+writer)
	for key, want := range map[int]string{lower[0]: "", upper[0]: foreignRow} {
		if got := refusal(s.exec(conn, fmt.Sprintf("INSERT INTO users VALUES (%d)", key))); got != want {
			t.Errorf("key %d: %q, want %q", key, got, want)
		}
	}
	s.must(conn, "SELECT epoch FROM shardproxy.fence")
	if err := Set(t.Context(), queryOf(conn), State{Shard: "s1", Epoch: 5}, s.tables()); sqlState(err) != "42501" {
		t.Errorf("a role that may only insert moves the fence: %v", err)
	}
	if err := s.exec(conn, "UPDATE shardproxy.fence SET epoch = 1"); sqlState(err) != "42501" {
		t.Errorf("a role that may only insert changes the row: %v", err)
	}

	// A table that another role makes later, through a proxy.
	s.must(s.conn, "RESET ROLE; GRANT CREATE ON SCHEMA public TO "+writer)
	s.must(conn, "BEGIN; CREATE TABLE orders (user_id int)")
	s.must(conn, strings.Join(Triggers(Table{TableName: topology.TableName{Schema: "public", Name: "orders"}, Key: "user_id", KeyType: topology.KeyInt}), ";"))
	s.must(conn, "COMMIT")
	if got := refusal(s.exec(conn, fmt.Sprintf("INSERT INTO orders VALUES (%d)", upper[1]))); got != foreignRow {
		t.Errorf("the new table: %q", got)
	}
	if found := s.check(st); found != nil {
		t.Errorf("%q", found)
	}
}

// TestKeyTypeStays holds what decision 7 says of ALTER TABLE on a shard key.
func TestKeyTypeStays(t *testing.T) {
	s := newShard(t, "CREATE TABLE users (id int PRIMARY KEY, name varchar(10))")
	s.install(State{Shard: "s1", Epoch: 3, Owned: all})
	for sql, want := range map[string]string{
		"ALTER TABLE users ALTER COLUMN id TYPE bigint":        "0A000 cannot alter type of a column used in a trigger definition",
		"ALTER TABLE users DROP COLUMN id":                     "2BP01 cannot drop column id of table users because other objects depend on it",
		"ALTER TABLE users ALTER COLUMN name TYPE varchar(20)": "",
	} {
		if got := refusal(s.exec(s.conn, sql)); got != want {
			t.Errorf("%s: %q, want %q", sql, got, want)
		}
	}
}
