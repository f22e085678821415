package topology

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// database gives a connection to a new database in which sql has run.
func database(t testing.TB, sql string) *pgx.Conn {
	t.Helper()
	server := pgtest.Shared(t)
	name := server.CreateDatabase(t)
	server.Exec(t, name, sql)
	return server.Connect(t, name)
}

func mustLoad(t testing.TB, conn *pgx.Conn, rules KeyRules) *Schema {
	t.Helper()
	s, err := LoadSchemaConn(t.Context(), conn, rules)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestLoadTables(t *testing.T) {
	conn := database(t, `
		CREATE TABLE users (id bigint PRIMARY KEY, email text);
		CREATE TABLE projects (id bigserial, gone int, creator_user_id int NOT NULL, name varchar(10) DEFAULT 'x');
		ALTER TABLE projects DROP COLUMN gone;
		CREATE TABLE plans (code text PRIMARY KEY);
		CREATE SCHEMA app;
		CREATE TABLE app."Odd Name" (user_id uuid NOT NULL, sum int GENERATED ALWAYS AS (1 + 1) STORED);
		CREATE VIEW app.mine AS SELECT p.id, lower(u.email) AS email FROM projects p JOIN users u ON u.id = p.creator_user_id;
		CREATE MATERIALIZED VIEW stored AS SELECT count(*) FROM plans;
		CREATE TEMP TABLE passing (user_id int);
		CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
		CREATE TRIGGER t BEFORE INSERT ON plans FOR EACH ROW EXECUTE FUNCTION touched();
		CREATE TABLE child (user_id bigint REFERENCES users);
		CREATE TABLE ruled (user_id bigint);
		CREATE RULE r AS ON DELETE TO ruled DO INSTEAD NOTHING;
		CREATE TABLE empty ();
		CREATE DOMAIN short AS varchar(7);
		CREATE DOMAIN shorter AS short;
		CREATE TABLE lengths (a varchar(3), b shorter, c char(4), d varchar, PRIMARY KEY (d, a) INCLUDE (b));
		CREATE TABLE pg_class (user_id bigint);
		CREATE FOREIGN DATA WRAPPER wrapper;
		CREATE SERVER remote FOREIGN DATA WRAPPER wrapper;
		CREATE FOREIGN TABLE away (user_id bigint) SERVER remote;
	`)
	s := mustLoad(t, conn, DefaultKeyRules())
	name := func(schema, table string) TableName { return TableName{schema, table} }
	want := map[TableName]*Table{}
	for _, table := range []*Table{
		{TableName: name("public", "users"), Kind: Sharded, KeyType: KeyInt, Key: 0, Primary: []string{"id"}, Columns: []Column{
			{Name: "id", Type: oidInt8, NotNull: true}, {Name: "email", Type: oidText},
		}},
		{TableName: name("public", "projects"), Kind: Sharded, KeyType: KeyInt, Key: 1, Columns: []Column{
			{Name: "id", Type: oidInt8, NotNull: true, Default: Volatile, Sequence: true, Draws: `"public"."projects_id_seq"`},
			{Name: "creator_user_id", Type: oidInt4, NotNull: true},
			{Name: "name", Type: oidVarchar, Length: 10, Default: Immutable},
		}},
		{TableName: name("public", "plans"), Kind: Reference, Key: -1, Triggers: true, Primary: []string{"code"}, Columns: []Column{{Name: "code", Type: oidText, NotNull: true}}},
		{TableName: name("app", "Odd Name"), Kind: Sharded, KeyType: KeyUUID, Key: 0, Columns: []Column{
			{Name: "user_id", Type: oidUUID, NotNull: true}, {Name: "sum", Type: oidInt4, Generated: true},
		}},
		{
			TableName: name("app", "mine"), Kind: View, Key: -1, Columns: []Column{{Name: "id", Type: oidInt8}, {Name: "email", Type: oidText}},
			Definition: " SELECT p.id,\n    lower(u.email) AS email\n   FROM (public.projects p\n     JOIN public.users u ON ((u.id = p.creator_user_id)));",
		},
		{
			TableName: name("public", "stored"), Kind: View, Stored: true, Key: -1, Columns: []Column{{Name: "count", Type: oidInt8}},
			Definition: " SELECT count(*) AS count\n   FROM public.plans;",
		},
		{TableName: name("public", "child"), Kind: Sharded, KeyType: KeyInt, Columns: []Column{{Name: "user_id", Type: oidInt8}}},
		{TableName: name("public", "ruled"), Kind: Sharded, KeyType: KeyInt, Triggers: true, Columns: []Column{{Name: "user_id", Type: oidInt8}}},
		{TableName: name("public", "empty"), Kind: Reference, Key: -1},
		{TableName: name("public", "lengths"), Kind: Reference, Key: -1, Primary: []string{"d", "a"}, Columns: []Column{
			{Name: "a", Type: oidVarchar, Length: 3, NotNull: true},
			{Name: "b", Type: oidVarchar, Length: 7},
			{Name: "c", Type: 1042},
			{Name: "d", Type: oidVarchar, NotNull: true},
		}},
		{TableName: name("public", "away"), Kind: Other, Key: -1, Columns: []Column{{Name: "user_id", Type: oidInt8}}},
		{TableName: name("public", "projects_id_seq"), Kind: Other, Key: -1},
	} {
		want[table.TableName] = table
	}
	if diff := cmp.Diff(want, s.Tables); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if again := mustLoad(t, conn, DefaultKeyRules()); again.Version == s.Version {
		t.Error("two schemas have one version")
	}
	if diff := cmp.Diff(DefaultKeyRules(), s.Rules); diff != "" {
		t.Errorf("rules were not kept:\n%s", diff)
	}
}

func TestLoadDefaults(t *testing.T) {
	conn := database(t, `
		CREATE SEQUENCE seq;
		CREATE FUNCTION fixed(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
		CREATE FUNCTION unsure() RETURNS int LANGUAGE sql AS 'SELECT 1';
		CREATE FUNCTION draw(int, int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
		CREATE OPERATOR @@@@ (FUNCTION = draw, LEFTARG = int, RIGHTARG = int);
		CREATE DOMAIN stamp AS timestamptz DEFAULT now();
		CREATE DOMAIN inner_stamp AS stamp NOT NULL;
	`)
	tests := []struct {
		column   string // type and default
		want     Volatility
		sequence bool
	}{
		{"int", 0, false},
		{"int DEFAULT 5", Immutable, false},
		{"int DEFAULT NULL", 0, false},
		{"text DEFAULT '{SUBLINK :funcid 1574 nextval('", Immutable, false},
		{"text DEFAULT upper('a') || 'b'", Immutable, false},
		{"int[] DEFAULT ARRAY[1, 2]", Immutable, false},
		{"jsonb DEFAULT '{}'", Immutable, false},
		{"bool DEFAULT (1 IS DISTINCT FROM 2 AND coalesce(NULL, true))", Immutable, false},
		{"int DEFAULT CASE WHEN true THEN fixed(1) ELSE greatest(1, 2) END", Immutable, false},
		{"timestamptz DEFAULT now()", Stable, false},
		{"timestamptz DEFAULT CURRENT_TIMESTAMP", Stable, false},
		{"date DEFAULT CURRENT_DATE", Stable, false},
		{"timestamp DEFAULT LOCALTIMESTAMP(0)", Stable, false},
		{"text DEFAULT CURRENT_USER", Stable, false},
		{"text DEFAULT now()::text", Stable, false},
		{"timestamptz DEFAULT (now() + interval '1 day')", Stable, false},
		{"text DEFAULT current_setting('a.b', true)", Stable, false},
		{"timestamptz DEFAULT clock_timestamp()", Volatile, false},
		{"float8 DEFAULT random()", Volatile, false},
		{"uuid DEFAULT gen_random_uuid()", Volatile, false},
		{"int DEFAULT fixed((random() * 10)::int)", Volatile, false},
		{"int DEFAULT unsure()", Volatile, false},
		{"int DEFAULT 1 @@@@ 2", Volatile, false},
		{"bigint DEFAULT nextval('seq')", Volatile, true},
		{"text DEFAULT 'n' || nextval('seq')", Volatile, true},
		{"bigint DEFAULT nextval('seq') + nextval('seq')", Volatile, true},
		{"int GENERATED ALWAYS AS IDENTITY", Volatile, true},
		{"bigint GENERATED BY DEFAULT AS IDENTITY", Volatile, true},
		{"smallserial", Volatile, true},
		{"int GENERATED ALWAYS AS (1 + 2) STORED", 0, false},
		{"stamp", Stable, false},
		{"inner_stamp", Stable, false},
		{"stamp DEFAULT '2020-01-01'", Immutable, false},
	}
	for i, test := range tests {
		if _, err := conn.Exec(t.Context(), fmt.Sprintf("CREATE TABLE t%d (c %s)", i, test.column)); err != nil {
			t.Fatalf("%s: %v", test.column, err)
		}
	}
	s := mustLoad(t, conn, DefaultKeyRules())
	for i, test := range tests {
		table := s.Tables[TableName{"public", fmt.Sprintf("t%d", i)}]
		if table == nil {
			t.Fatalf("no table of %s", test.column)
		}
		c := table.Columns[0]
		draws := map[string]string{
			"bigint DEFAULT nextval('seq')":    `"public"."seq"`,
			"int GENERATED ALWAYS AS IDENTITY": fmt.Sprintf(`"public"."t%d_c_seq"`, i), "bigint GENERATED BY DEFAULT AS IDENTITY": fmt.Sprintf(`"public"."t%d_c_seq"`, i),
			"smallserial": fmt.Sprintf(`"public"."t%d_c_seq"`, i),
		}[test.column]
		if identity := strings.HasSuffix(test.column, "AS IDENTITY"); c.Draws != draws || c.Identity != identity || c.Always != (identity && strings.Contains(test.column, "ALWAYS")) {
			t.Errorf("%s draws from %q, identity %v, always %v", test.column, c.Draws, c.Identity, c.Always)
		}
		if c.Default != test.want || c.Sequence != test.sequence {
			t.Errorf("%s: %q, sequence %v; want %q, %v", test.column, c.Default, c.Sequence, test.want, test.sequence)
		}
	}
}

func TestLoadPlacement(t *testing.T) {
	conn := database(t, `
		CREATE COLLATION fuzzy (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
		CREATE DOMAIN account AS bigint;
		CREATE DOMAIN main_account AS account NOT NULL;
		CREATE TABLE by_domain (user_id account);
		CREATE TABLE by_nested (user_id main_account);
		CREATE TABLE by_fuzzy (user_id text COLLATE fuzzy);
		CREATE TABLE by_c (user_id text COLLATE "C");
		CREATE TABLE by_numeric (user_id numeric);
		CREATE TABLE parted (at date, user_id bigint) PARTITION BY RANGE (at);
		CREATE TABLE parted_1 (user_id bigint, at date);
		ALTER TABLE parted ATTACH PARTITION parted_1 FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
		CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM ('2021-01-01') TO ('2022-01-01') PARTITION BY RANGE (at);
		CREATE TABLE parted_2_1 PARTITION OF parted_2 FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
		CREATE TABLE explicit (user_id int, other uuid) PARTITION BY LIST (user_id);
		CREATE TABLE explicit_1 PARTITION OF explicit DEFAULT;
		CREATE TABLE base (x int);
		CREATE TABLE derived (user_id int) INHERITS (base);
		CREATE TABLE keyed (user_id int);
		CREATE TABLE mixed () INHERITS (base, keyed);
		CREATE TABLE torn (a int, user_id int) PARTITION BY LIST (a);
		CREATE TABLE torn_1 PARTITION OF torn DEFAULT;
		CREATE TABLE no_such_key (x int);
		CREATE TABLE abroad (user_id int) PARTITION BY LIST (user_id);
		CREATE TABLE abroad_1 PARTITION OF abroad FOR VALUES IN (1) PARTITION BY LIST (user_id);
		CREATE FOREIGN DATA WRAPPER wrapper;
		CREATE SERVER remote FOREIGN DATA WRAPPER wrapper;
		CREATE FOREIGN TABLE abroad_1_1 PARTITION OF abroad_1 DEFAULT SERVER remote;
		CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
		CREATE TRIGGER t BEFORE INSERT ON parted_2_1 FOR EACH ROW EXECUTE FUNCTION touched();
		CREATE SCHEMA shardproxy;
		CREATE FUNCTION shardproxy.fence() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
		CREATE TRIGGER f BEFORE INSERT ON by_domain FOR EACH ROW EXECUTE FUNCTION shardproxy.fence();
	`)
	rules := DefaultKeyRules()
	rules.Explicit = map[TableName]string{
		{"public", "explicit"}:    "other",
		{"public", "torn_1"}:      "a",
		{"public", "no_such_key"}: "y",
	}
	s := mustLoad(t, conn, rules)
	tests := []struct {
		table   string
		kind    TableKind
		key     string
		keyType KeyType
		parent  string
		problem string
	}{
		{"by_domain", Sharded, "user_id", KeyInt, "", ""},
		{"by_nested", Sharded, "user_id", KeyInt, "", ""},
		{"by_fuzzy", Sharded, "user_id", KeyNone, "", "not deterministic"},
		{"by_c", Sharded, "user_id", KeyText, "", ""},
		{"by_numeric", Sharded, "user_id", KeyNone, "", "cannot be a shard key"},
		{"parted", Sharded, "user_id", KeyInt, "", ""},
		{"parted_1", Sharded, "user_id", KeyInt, "parted", ""},
		{"parted_2", Sharded, "user_id", KeyInt, "parted", ""},
		{"parted_2_1", Sharded, "user_id", KeyInt, "parted_2", ""},
		{"explicit", Sharded, "other", KeyUUID, "", ""},
		{"explicit_1", Sharded, "other", KeyUUID, "explicit", ""},
		{"base", Reference, "", KeyNone, "", ""},
		{"derived", Reference, "", KeyNone, "base", ""},
		{"mixed", Sharded, "", KeyNone, "base", "placed differently"},
		{"torn_1", Sharded, "user_id", KeyNone, "torn", "elsewhere"},
		{"no_such_key", Sharded, "", KeyNone, "", `no column "y"`},
		{"abroad", Sharded, "user_id", KeyNone, "", "another server"},
		{"abroad_1", Sharded, "user_id", KeyNone, "abroad", "another server"},
	}
	for _, test := range tests {
		table := s.Tables[TableName{"public", test.table}]
		if table == nil {
			t.Errorf("%s is missing", test.table)
			continue
		}
		if table.Kind != test.kind || table.KeyColumn() != test.key || table.KeyType != test.keyType || table.Parent.Name != test.parent {
			t.Errorf("%s: %v by %q (%v), parent %q", test.table, table.Kind, table.KeyColumn(), table.KeyType, table.Parent.Name)
		}
		if (table.Problem == "") != (test.problem == "") || !strings.Contains(table.Problem, test.problem) {
			t.Errorf("%s: problem %q, want %q", test.table, table.Problem, test.problem)
		}
	}
	if c := s.Tables[TableName{"public", "by_nested"}].Columns[0]; c.Type != oidInt8 || !c.NotNull {
		t.Errorf("a column of a domain is %+v", c)
	}

	for name, want := range map[string]bool{"by_domain": false, "parted": true, "parted_1": false, "parted_2": true, "parted_2_1": true} {
		if got := s.Tables[TableName{"public", name}].Triggers; got != want {
			t.Errorf("%s: triggers %v, want %v", name, got, want)
		}
	}

	rules.RefuseUnlisted = true
	s = mustLoad(t, conn, rules)
	for _, name := range []string{"base", "derived"} {
		if table := s.Tables[TableName{"public", name}]; table.Kind != Sharded || table.KeyType != KeyNone || table.Problem == "" {
			t.Errorf("%s is not refused: %+v", name, table)
		}
	}
}

func TestLoadFunctions(t *testing.T) {
	conn := database(t, `
		CREATE SCHEMA app;
		CREATE FUNCTION app.lower(int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
		CREATE FUNCTION mine(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
		CREATE FUNCTION app.mine(int, int) RETURNS SETOF int STABLE LANGUAGE sql AS 'SELECT 1';
		CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int);
	`)
	s := mustLoad(t, conn, DefaultKeyRules())
	for name, want := range map[string]Function{
		"upper":           {Volatility: Immutable, Builtin: true},
		"lower":           {Volatility: Volatile},
		"now":             {Volatility: Stable, Builtin: true},
		"random":          {Volatility: Volatile, Builtin: true},
		"count":           {Volatility: Immutable, Builtin: true, Aggregate: true},
		"generate_series": {Volatility: Stable, Builtin: true, SetOf: true},
		"mine":            {Volatility: Stable, SetOf: true},
		"total":           {Volatility: Immutable, Aggregate: true},
	} {
		if got, ok := s.Functions[name]; !ok || got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	if _, ok := s.Functions["no_such_function"]; ok {
		t.Error("an unknown function is known")
	}
}

func TestLoadOperators(t *testing.T) {
	conn := database(t, `
		CREATE FUNCTION same(varchar, varchar) RETURNS bool IMMUTABLE LANGUAGE sql AS 'SELECT true';
		CREATE OPERATOR = (FUNCTION = same, LEFTARG = varchar, RIGHTARG = varchar);
		CREATE FUNCTION same(point, point) RETURNS bool STABLE LANGUAGE sql AS 'SELECT true';
		CREATE OPERATOR = (FUNCTION = same, LEFTARG = point, RIGHTARG = point);
		CREATE FUNCTION draw(point) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
		CREATE OPERATOR @@@@ (FUNCTION = draw, RIGHTARG = point);
		CREATE EXTENSION pg_trgm`)
	want := map[string]Operator{"=": {Volatility: Stable, Keys: true}, "@@@@": {Volatility: Volatile}}
	if diff := cmp.Diff(want, mustLoad(t, conn, DefaultKeyRules()).Operators); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLoadError(t *testing.T) {
	conn := pgtest.Shared(t).Connect(t, "postgres")
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSchemaConn(t.Context(), conn, DefaultKeyRules()); err == nil {
		t.Error("a closed connection gave a schema")
	}
}

// BenchmarkLoadSchema loads a schema of 200 tables with 15 columns and 5 defaults each.
func BenchmarkLoadSchema(b *testing.B) {
	conn := database(b, `
		DO $$ BEGIN
			FOR i IN 1..200 LOOP
				EXECUTE format('CREATE TABLE t%s (id bigserial PRIMARY KEY, user_id bigint NOT NULL, a int DEFAULT 1, b text DEFAULT ''x'','
					' c timestamptz DEFAULT now(), d uuid DEFAULT gen_random_uuid(), e int, f int, g int, h int, i int, j int, k int, l int, m int)', i);
			END LOOP;
		END $$;
		ANALYZE`)
	for b.Loop() {
		mustLoad(b, conn, DefaultKeyRules())
	}
}
