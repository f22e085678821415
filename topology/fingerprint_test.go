package topology

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

func mustRead(t testing.TB, conn *pgx.Conn, shard string) *Fingerprint {
	t.Helper()
	query := connQuery(conn.PgConn())
	f, err := ReadFingerprint(t.Context(), query, shard)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := ReadFingerprintSum(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	if sum != f.Sum {
		t.Errorf("the server's sum of %s is %s, ours %s", shard, sum, f.Sum)
	}
	if status := conn.PgConn().TxStatus(); status != 'I' {
		t.Errorf("the session of %s is left in a transaction: %c", shard, status)
	}
	return f
}

func texts(differences []Difference) (list []string) {
	for _, d := range differences {
		list = append(list, d.String())
	}
	return list
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// everything has at least one object of each kind.
const everything = `
	CREATE EXTENSION IF NOT EXISTS pg_trgm;
	CREATE SCHEMA app;
	CREATE TYPE app.mood AS ENUM ('sad', 'ok');
	CREATE TYPE pair AS (a int, b text COLLATE "C");
	CREATE TYPE span AS RANGE (subtype = float8);
	CREATE DOMAIN email AS text NOT NULL DEFAULT 'x@y' CONSTRAINT has_at CHECK (VALUE LIKE '%@%');
	CREATE COLLATION binary_like (provider = libc, locale = 'C');
	CREATE SEQUENCE counter START 5 INCREMENT 2;
	CREATE TABLE users (id bigint PRIMARY KEY, email email, mood app.mood DEFAULT 'ok', name text COLLATE "C" NOT NULL DEFAULT 'it''s \ me',
		born date, since timestamptz DEFAULT '2020-01-01 12:00+00', CONSTRAINT adult CHECK (born < '2010-01-01'), UNIQUE (name) INCLUDE (born));
	CREATE TABLE "Odd one" (user_id bigint REFERENCES users ON DELETE CASCADE, n serial, m int GENERATED ALWAYS AS IDENTITY,
		twice int GENERATED ALWAYS AS (n * 2) STORED, note text, span span, pair pair);
	CREATE INDEX note_trgm ON "Odd one" USING gin (note gin_trgm_ops) WHERE n > 0;
	CREATE UNIQUE INDEX lower_note ON "Odd one" (lower(note), user_id);
	CREATE TABLE app.log (user_id bigint, at date, PRIMARY KEY (user_id, at)) PARTITION BY RANGE (at);
	CREATE TABLE app.log_1 PARTITION OF app.log FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
	CREATE TABLE app.log_rest PARTITION OF app.log DEFAULT;
	ALTER TABLE app.log ADD FOREIGN KEY (user_id) REFERENCES users;
	CREATE UNLOGGED TABLE passing (user_id bigint, more text);
	CREATE VIEW people AS SELECT id, name FROM users WHERE mood = 'ok';
	CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM users;
	CREATE UNIQUE INDEX ON counted (n);
	CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
	CREATE FUNCTION thrice(n int DEFAULT 1) RETURNS int RETURN n * 3;
	CREATE PROCEDURE work(INOUT a int) LANGUAGE plpgsql SET work_mem = '4MB' AS 'BEGIN a := a + 1; END';
	CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
	CREATE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE TRIGGER touch BEFORE UPDATE OF note ON "Odd one" FOR EACH ROW WHEN (NEW.n > 1) EXECUTE FUNCTION touched();
	CREATE TRIGGER touch_log AFTER INSERT ON app.log FOR EACH ROW EXECUTE FUNCTION touched();
	CREATE RULE quiet AS ON DELETE TO passing DO INSTEAD NOTHING;
	ALTER TABLE users ENABLE ROW LEVEL SECURITY;
	CREATE POLICY own ON users FOR SELECT USING (name = current_user) ;
	CREATE STATISTICS related ON born, mood FROM users;
	CREATE FUNCTION alike(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT lower($1) = lower($2)';
	CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = alike, COMMUTATOR = ===);
	CREATE FUNCTION to_mood(int) RETURNS app.mood IMMUTABLE LANGUAGE sql AS 'SELECT ''ok''::app.mood';
	CREATE CAST (int AS app.mood) WITH FUNCTION to_mood(int);
	CREATE FUNCTION told() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
	CREATE EVENT TRIGGER tell ON ddl_command_end WHEN TAG IN ('CREATE SCHEMA') EXECUTE FUNCTION told();
	CREATE FOREIGN DATA WRAPPER wrapper;
	CREATE SERVER remote FOREIGN DATA WRAPPER wrapper;
	CREATE FOREIGN TABLE away (user_id bigint) SERVER remote OPTIONS (place 'there');
	GRANT SELECT ON users TO pg_monitor;
	GRANT UPDATE (name) ON users TO pg_monitor WITH GRANT OPTION;
	REVOKE EXECUTE ON FUNCTION twice FROM PUBLIC;
	ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO pg_monitor;
	CREATE TEMP TABLE gone (user_id int)`

// TestFingerprintFinds makes one difference at a time, and compares what is said of it with testdata/drift.txt: a line "> SQL",
// then a line each difference.
func TestFingerprintFinds(t *testing.T) {
	reference := mustRead(t, database(t, everything), "s1")
	kinds := make(map[string]bool)
	for key := range reference.objects {
		kinds[key.kind] = true
	}
	for _, k := range objectKinds {
		if !kinds[k.kind] {
			t.Errorf("there is no %s in everything", k.kind)
		}
	}
	conn := database(t, everything)
	if got := texts(Differences(reference, mustRead(t, conn, "s2"))); len(got) > 0 {
		t.Fatalf("of equal databases: %q", got)
	}
	const file = "testdata/drift.txt"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	cases := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			b.WriteString(line + "\n")
		}
		sql, ok := strings.CutPrefix(line, "> ")
		if !ok {
			continue
		}
		cases++
		b.WriteString(line)
		if _, err := conn.PgConn().Exec(t.Context(), "BEGIN; "+sql).ReadAll(); err != nil {
			t.Errorf("%s: %v", sql, err)
			mustExec(t, conn, "ROLLBACK")
			continue
		}
		for _, said := range texts(Differences(reference, inTransaction(t, conn))) {
			b.WriteString(said + "\n")
		}
		mustExec(t, conn, "ROLLBACK")
		b.WriteByte('\n')
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(text), b.String()); diff != "" {
		t.Errorf("(-file +now; -update writes it)\n%s", diff)
	}
	if cases < 80 {
		t.Errorf("only %d cases", cases)
	}
}

// inTransaction reads what the open transaction has made, as no other session can.
func inTransaction(t *testing.T, conn *pgx.Conn) *Fingerprint {
	t.Helper()
	settings := fingerprintSettings[strings.Index(fingerprintSettings, ";")+1:] // the transaction has its isolation already
	rows, err := connQuery(conn.PgConn())(t.Context(), settings+fingerprintObjects+"SELECT kind, name, part, place, def FROM objects ORDER BY place")
	if err != nil {
		t.Fatal(err)
	}
	f, err := newFingerprint("s2", rows)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// fenced is what a fence leaves on a shard: schema shardproxy, and triggers of its functions on the tables.
const fenced = `
	CREATE SCHEMA shardproxy;
	CREATE TABLE shardproxy.fence (one boolean PRIMARY KEY DEFAULT true CHECK (one), epoch bigint NOT NULL, shard text NOT NULL);
	GRANT USAGE ON SCHEMA shardproxy TO PUBLIC;
	GRANT SELECT ON shardproxy.fence TO PUBLIC;
	CREATE FUNCTION shardproxy.owns(hash bigint) RETURNS boolean STABLE STRICT LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
	CREATE FUNCTION shardproxy.refuse_stale() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE FUNCTION shardproxy.refuse_foreign() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
	CREATE TRIGGER shardproxy_epoch BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON users
		FOR EACH STATEMENT EXECUTE FUNCTION shardproxy.refuse_stale();
	CREATE TRIGGER shardproxy_owner_insert AFTER INSERT ON app.log FOR EACH ROW
		WHEN (NOT shardproxy.owns(hashint8extended(NEW.user_id, 1))) EXECUTE FUNCTION shardproxy.refuse_foreign();
	CREATE FUNCTION shardproxy.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
	CREATE EVENT TRIGGER shardproxy_fence ON ddl_command_end EXECUTE FUNCTION shardproxy.on_ddl();
	CREATE PUBLICATION shardproxy_move_7 FOR TABLE users`

func TestFingerprintOfFencedShard(t *testing.T) {
	plain := mustRead(t, database(t, everything), "s1")
	with := mustRead(t, database(t, everything+";"+fenced), "s2")
	if got := texts(Differences(plain, with)); len(got) > 0 || plain.Sum != with.Sum {
		t.Errorf("sums %s and %s: %q", plain.Sum, with.Sum, got)
	}
}

// TestFingerprintOfOneSchemaMadeInManyWays: what counts is what came out, not by which statements.
func TestFingerprintOfOneSchemaMadeInManyWays(t *testing.T) {
	inline := mustRead(t, database(t, `
		CREATE TABLE users (id bigint PRIMARY KEY, email text NOT NULL UNIQUE, age int DEFAULT 1 + 1 CHECK (age > 0));
		CREATE TABLE posts (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint NOT NULL REFERENCES users, at timestamptz DEFAULT '2020-01-01 00:00+00');
		CREATE INDEX ON posts (user_id);
		CREATE VIEW young AS SELECT id FROM users WHERE age < 30;
		GRANT SELECT, INSERT ON users TO pg_monitor;
		GRANT SELECT ON users TO pg_read_all_data`), "s1")
	altered := database(t, `
		SET TimeZone = 'Asia/Tokyo'; SET search_path = public, pg_catalog; SET DateStyle = 'German';
		CREATE TABLE posts (gone text, id int, user_id bigint);
		CREATE TABLE old_users (id bigint, first text, email varchar(9), age int);
		ALTER TABLE old_users DROP COLUMN first;
		ALTER TABLE old_users RENAME TO users;
		ALTER TABLE users ADD CHECK (age > 0), ALTER age SET DEFAULT 1+1, ALTER email TYPE text, ADD UNIQUE (email), ALTER email SET NOT NULL, ADD PRIMARY KEY (id);
		CREATE INDEX posts_user_id_idx ON posts USING btree (user_id ASC NULLS LAST);
		ALTER TABLE posts ADD at timestamptz DEFAULT '01.01.2020 09:00+09', DROP COLUMN gone, ALTER id SET NOT NULL;
		ALTER TABLE posts ALTER id ADD GENERATED ALWAYS AS IDENTITY, ADD PRIMARY KEY (id), ALTER user_id SET NOT NULL;
		ALTER TABLE posts ADD CONSTRAINT posts_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users (id);
		CREATE VIEW young AS SELECT u.id FROM public.users u;
		CREATE OR REPLACE VIEW young AS SELECT users.id FROM users WHERE (age < 30);
		GRANT SELECT ON users TO pg_read_all_data;
		GRANT ALL ON users TO pg_monitor; REVOKE UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER ON users FROM pg_monitor;
		GRANT SELECT ON posts TO pg_monitor; REVOKE SELECT ON posts FROM pg_monitor`)
	if got := texts(Differences(inline, mustRead(t, altered, "s2"))); len(got) > 0 {
		t.Errorf("%q", got)
	}
}

// TestFingerprintOfAnySession holds that what a session has set makes no difference, and stays.
func TestFingerprintOfAnySession(t *testing.T) {
	conn := database(t, everything)
	want := mustRead(t, conn, "s1")
	for _, set := range []string{
		"TimeZone = 'Asia/Tokyo'", "DateStyle = 'German'", "search_path = app, public, pg_temp", "quote_all_identifiers = on", "IntervalStyle = iso_8601",
		"extra_float_digits = -5", "bytea_output = escape", "standard_conforming_strings = off", "escape_string_warning = off", "client_encoding = LATIN1",
		"default_transaction_isolation = serializable", "default_transaction_read_only = on", "plan_cache_mode = force_generic_plan", "jit_above_cost = 0",
	} {
		mustExec(t, conn, "SET "+set)
		if got := mustRead(t, conn, "s1"); got.Sum != want.Sum {
			t.Errorf("SET %s makes %q", set, texts(Differences(want, got)))
		}
	}
	var path string
	if err := conn.QueryRow(t.Context(), "SHOW search_path").Scan(&path); err != nil || path != "app, public, pg_temp" {
		t.Errorf("search_path is %q, %v", path, err)
	}
}

// TestFingerprintOfOtherEncoding: the server hashes other bytes than we, and the schemas are equal all the same.
func TestFingerprintOfOtherEncoding(t *testing.T) {
	const sql = "CREATE TABLE größe (user_id bigint, maß text DEFAULT 'ä')"
	server := pgtest.Shared(t)
	name := server.CreateDatabase(t) // for its name, and for its end
	server.Exec(t, "postgres", "DROP DATABASE "+name)
	server.Exec(t, "postgres", "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'")
	utf8, latin := mustRead(t, database(t, sql), "s1"), server.Connect(t, name)
	mustExec(t, latin, "SET client_encoding = UTF8")
	mustExec(t, latin, sql)
	mustExec(t, latin, "RESET client_encoding")
	other, err := ReadFingerprint(t.Context(), connQuery(latin.PgConn()), "s2")
	if err != nil {
		t.Fatal(err)
	}
	if got := texts(Differences(utf8, other)); len(got) > 0 {
		t.Errorf("%q", got)
	}
	if _, ok := other.objects[objectKey{kindColumn, `"maß" of public."größe"`}]; !ok {
		t.Error("the names are not in UTF8")
	}
}

// TestFingerprintOfBrokenText: a name that holds our separator makes no difference, and no panic.
func TestFingerprintOfBrokenText(t *testing.T) {
	const sql = "CREATE TABLE odd (user_id bigint, a text DEFAULT E'x\x1fy'); CREATE TABLE \"a\x1eb\" (\"c\x1fd\" int)"
	one := mustRead(t, database(t, sql), "s1")
	if got := texts(Differences(one, mustRead(t, database(t, sql), "s2"))); len(got) > 0 {
		t.Errorf("%q", got)
	}
	other := mustRead(t, database(t, strings.Replace(sql, "\x1fy", "\x1fz", 1)), "s2")
	if got, want := texts(Differences(one, other)), []string{"column a of public.odd has another definition than on s1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestFingerprintOfNothing(t *testing.T) {
	empty := database(t, "DROP EXTENSION plpgsql; DROP SCHEMA public")
	if f := mustRead(t, empty, "s1"); f.Sum != "0 " {
		t.Errorf("sum %q", f.Sum)
	}
	many := texts(Differences(mustRead(t, database(t, everything), "s1"), mustRead(t, empty, "s2")))
	if len(many) < 20 || slices.ContainsFunc(many, func(s string) bool { return !strings.HasSuffix(s, " is missing") }) {
		t.Errorf("%d: %q", len(many), many)
	}
}

func TestFingerprintFails(t *testing.T) {
	conn := database(t, "")
	broken := func(context.Context, string) ([][]string, error) { return nil, errors.New("gone") }
	if _, err := ReadFingerprint(t.Context(), broken, "s1"); err == nil || !strings.Contains(err.Error(), "shard s1: gone") {
		t.Errorf("%v", err)
	}
	if _, err := ReadFingerprintSum(t.Context(), broken); err == nil {
		t.Error("no error")
	}
	narrow := func(context.Context, string) ([][]string, error) { return [][]string{{"a", "b"}}, nil }
	if _, err := ReadFingerprint(t.Context(), narrow, "s1"); err == nil {
		t.Error("two values are no row")
	}
	if _, err := ReadFingerprintSum(t.Context(), narrow); err == nil {
		t.Error("two values are no sum")
	}
	mustRead(t, conn, "s1")
}

// BenchmarkFingerprint is of 1,000 tables with 10 columns, 3 defaults and 3 indexes each.
func BenchmarkFingerprint(b *testing.B) {
	conn := database(b, `DO $$ BEGIN FOR i IN 1..1000 LOOP
		EXECUTE format('CREATE TABLE t%s (id bigint GENERATED ALWAYS AS IDENTITY, user_id bigint NOT NULL, name varchar(20) NOT NULL DEFAULT ''x'',
			amount numeric(10,2) CHECK (amount > 0), created timestamptz DEFAULT now(), data jsonb, flag boolean DEFAULT false, note text, a int, b int,
			PRIMARY KEY (user_id, id))', i);
		EXECUTE format('CREATE INDEX ON t%s (created)', i);
		EXECUTE format('CREATE INDEX ON t%s (user_id, name) WHERE flag', i);
	END LOOP; END $$; ANALYZE`)
	query := connQuery(conn.PgConn())
	b.Run("sum", func(b *testing.B) {
		for range b.N {
			if _, err := ReadFingerprintSum(b.Context(), query); err != nil {
				b.Fatal(err)
			}
		}
	})
	var f *Fingerprint
	b.Run("all", func(b *testing.B) {
		for range b.N {
			var err error
			if f, err = ReadFingerprint(b.Context(), query, "s1"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("differences", func(b *testing.B) {
		for range b.N {
			sink += uint64(len(Differences(f, f)))
		}
	})
}
