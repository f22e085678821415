package fence

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/topology"
)

// TestWrites runs every kind of write on a shard that owns the lower half of the ring, by maps of three epochs. @1 … @3 are
// keys of its own, #1 … #3 are not; each has a row already where it is even.
func TestWrites(t *testing.T) {
	s := newShard(t, `
		CREATE TABLE users (id int PRIMARY KEY, n int);
		CREATE TABLE orders (user_id int REFERENCES users ON DELETE CASCADE ON UPDATE CASCADE, n int);
		CREATE TABLE plans (id int PRIMARY KEY);
		CREATE VIEW v AS SELECT * FROM users;`)
	lower, upper := keys(3)
	var names []string
	for i := range lower {
		names = append(names, fmt.Sprintf("@%d", i+1), fmt.Sprint(lower[i]), fmt.Sprintf("#%d", i+1), fmt.Sprint(upper[i]))
	}
	replace := strings.NewReplacer(names...)
	s.must(s.conn, replace.Replace("INSERT INTO users VALUES (@2, 0), (#2, 0); INSERT INTO orders VALUES (@2, 0), (#2, 0); INSERT INTO plans VALUES (2)"))
	s.install(State{Shard: "s1", Epoch: 5, Owned: half(false)})
	writer := s.session(0)
	try := func(sql string) string {
		s.must(writer, "BEGIN")
		defer s.must(writer, "ROLLBACK")
		if table, ok := strings.CutPrefix(sql, "COPY "); ok {
			table, rows, _ := strings.Cut(table, " ")
			_, err := writer.PgConn().CopyFrom(t.Context(), strings.NewReader(rows+"\n"), "COPY "+table+" FROM STDIN")
			return refusal(err)
		}
		return refusal(s.exec(writer, sql))
	}
	for _, test := range []struct{ sql, want string }{
		{"INSERT INTO users VALUES (@1, 1)", ""},
		{"INSERT INTO users VALUES (#1, 1)", foreignRow},
		{"INSERT INTO users VALUES (@1, 1), (@3, 1), (#1, 1)", foreignRow},
		{"INSERT INTO users SELECT @1 WHERE false", ""},
		{"INSERT INTO v VALUES (#1, 1)", foreignRow},
		{"INSERT INTO users VALUES (@2, 1) ON CONFLICT DO NOTHING", ""},
		{"INSERT INTO users VALUES (@2, 1) ON CONFLICT (id) DO UPDATE SET n = 2", ""},
		{"INSERT INTO users VALUES (#1, 1) ON CONFLICT DO NOTHING", foreignRow},
		{"INSERT INTO users VALUES (#2, 1) ON CONFLICT (id) DO UPDATE SET n = 2", foreignRow},
		{"COPY users @1	1", ""},
		{"COPY users #1	1", foreignRow},
		{"MERGE INTO users u USING (VALUES (@1)) x(id) ON u.id = x.id WHEN NOT MATCHED THEN INSERT VALUES (x.id, 1)", ""},
		{"MERGE INTO users u USING (VALUES (#1)) x(id) ON u.id = x.id WHEN NOT MATCHED THEN INSERT VALUES (x.id, 1)", foreignRow},
		{"MERGE INTO users u USING (VALUES (@2)) x(id) ON u.id = x.id WHEN MATCHED THEN UPDATE SET n = 2", ""},
		{"MERGE INTO users u USING (VALUES (#2)) x(id) ON u.id = x.id WHEN MATCHED THEN UPDATE SET n = 2", foreignRow},
		{"MERGE INTO users u USING (VALUES (#2)) x(id) ON u.id = x.id WHEN MATCHED THEN DELETE", foreignRow},
		{"UPDATE users SET n = 2 WHERE id = @2", ""},
		{"UPDATE users SET n = 2 WHERE id = @1", ""},
		{"UPDATE users SET n = 2 WHERE id = #1", ""},
		{"UPDATE users SET n = 2 WHERE id = #2", foreignRow},
		{"UPDATE users SET n = 2", foreignRow},
		{"UPDATE users SET id = @3 WHERE id = @2", ""},
		{"UPDATE users SET id = #3 WHERE id = @2", foreignRow},
		{"UPDATE users SET id = @3 WHERE id = #2", foreignRow},
		{"UPDATE orders SET user_id = NULL WHERE user_id = @2", ""},
		{"UPDATE orders SET user_id = NULL WHERE user_id = #2", foreignRow},
		{"INSERT INTO orders VALUES (NULL, 1)", ""},
		{"DELETE FROM users WHERE id = @2", ""},
		{"DELETE FROM users WHERE id = @1", ""},
		{"DELETE FROM users WHERE id = #2", foreignRow},
		{"WITH gone AS (DELETE FROM orders WHERE user_id = #2 RETURNING *) SELECT count(*) FROM gone", foreignRow},
		{"ALTER TABLE users DISABLE TRIGGER ALL; DELETE FROM users WHERE id = #2", ""},
		{"TRUNCATE orders", ""},
		{"TRUNCATE users CASCADE", ""},
		{"INSERT INTO plans VALUES (1)", ""},
		{"UPDATE plans SET id = 3", ""},
		{"DELETE FROM plans", ""},
		{"TRUNCATE plans", ""},
		{"COPY plans 3", ""},
	} {
		sql := replace.Replace(test.sql)
		for _, epoch := range []topology.Epoch{0, 4, 5, 6} {
			s.must(writer, "RESET shardproxy.epoch")
			if epoch > 0 {
				s.stamp(writer, epoch)
			}
			want := test.want
			if epoch < 5 && !strings.Contains(sql, "DISABLE TRIGGER") {
				want = staleWrite
			}
			if got := try(sql); got != want {
				t.Errorf("%s at epoch %d: %q, want %q", test.sql, epoch, got, want)
			}
		}
	}
}

// TestRefusalsTellWhatToDo holds what a person reads who connects to a shard directly.
func TestRefusalsTellWhatToDo(t *testing.T) {
	s := newShard(t, `CREATE TABLE "Odd %s users" (user_id int PRIMARY KEY)`)
	s.install(State{Shard: `s'1\%s"`, Epoch: 5, Owned: nil})
	for epoch, want := range map[topology.Epoch][2]string{
		0: {`shard s'1\%s" takes writes to public."Odd %s users" from epoch 5 of the topology on, and this session is at epoch 0`, "SET shardproxy.epoch = 5."},
		5: {`shard s'1\%s" does not own the shard key of a row of public."Odd %s users"`, "shardctl locate"},
	} {
		for _, setting := range []string{"on", "off"} {
			writer := s.session(epoch)
			s.must(writer, "SET standard_conforming_strings = "+setting+"; SET escape_string_warning = off")
			var e *pgconn.PgError
			err := s.exec(writer, `INSERT INTO "Odd %s users" VALUES (1)`)
			if !errors.As(err, &e) || e.Message != want[0] || !strings.Contains(e.Hint, want[1]) || e.TableName != "fence" {
				t.Errorf("epoch %d, standard_conforming_strings %s: %v", epoch, setting, err)
			}
		}
	}
	writer := s.session(0)
	s.must(writer, "BEGIN; SET LOCAL shardproxy.epoch = 7; COMMIT") // leaves it empty
	if got := refusal(s.exec(writer, `DELETE FROM "Odd %s users"`)); got != staleWrite {
		t.Errorf("after SET LOCAL: %q", got)
	}
	s.must(writer, "SET shardproxy.epoch = 'x'")
	if got := refusal(s.exec(writer, `DELETE FROM "Odd %s users"`)); !strings.HasPrefix(got, "22P02 ") {
		t.Errorf("an epoch that is no number: %q", got)
	}
}

// TestHostileSession holds that neither what a client may set nor what he may create changes what a fence does, or what is
// installed.
func TestHostileSession(t *testing.T) {
	s := newShard(t, `
		CREATE SCHEMA evil;
		CREATE FUNCTION evil.no(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false';
		CREATE FUNCTION evil.no(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT false';
		CREATE FUNCTION evil.no(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
		CREATE OPERATOR evil.< (leftarg = bigint, rightarg = bigint, function = evil.no);
		CREATE OPERATOR evil.= (leftarg = bigint, rightarg = bigint, function = evil.no);
		CREATE OPERATOR evil.= (leftarg = int, rightarg = int, function = evil.no);
		CREATE OPERATOR evil.= (leftarg = text, rightarg = text, function = evil.no);
		CREATE FUNCTION evil.current_setting(text, boolean) RETURNS text LANGUAGE sql AS $$SELECT '999'$$;
		CREATE FUNCTION evil.width_bucket(bigint, bigint[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
		CREATE FUNCTION evil.hashint8extended(bigint, bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
		CREATE FUNCTION evil.to_regclass(text) RETURNS regclass LANGUAGE sql AS 'SELECT NULL::regclass';
		CREATE FUNCTION evil.pg_get_triggerdef(oid) RETURNS text LANGUAGE sql AS $$SELECT ''$$;
		CREATE DOMAIN evil.text AS int;
		CREATE TABLE public.before (user_id int)`)
	for _, setting := range []string{
		"search_path = evil, pg_catalog, public", "standard_conforming_strings = off", "escape_string_warning = off", "backslash_quote = off",
		"default_transaction_isolation = serializable", "default_transaction_read_only = on", "synchronous_commit = off", "check_function_bodies = off",
		"quote_all_identifiers = on", "client_min_messages = error",
	} {
		s.must(s.conn, "ALTER DATABASE "+s.db+" SET "+setting)
	}
	conn := s.pg.Connect(t, s.db)
	tables := s.tables() // loaded by a session without these settings
	st := State{Shard: `it's a \ "shard"`, Epoch: 5, Owned: half(false)}
	if err := Install(t.Context(), queryOf(conn), st, tables); err != nil {
		t.Fatal(err)
	}
	if found, err := Check(t.Context(), queryOf(conn), st, tables); err != nil || found != nil {
		t.Errorf("%v, %v", found, err)
	}
	if found := s.check(st); found != nil {
		t.Errorf("other sessions see it otherwise: %v", found)
	}
	st.Epoch, st.Owned = 6, half(true)
	if err := Set(t.Context(), queryOf(conn), st, tables); err != nil {
		t.Fatal(err)
	}

	writer := s.session(0)
	s.must(writer, "SET default_transaction_read_only = off")
	s.must(writer, "BEGIN; CREATE TABLE public.after (user_id int)")
	after := Table{TableName: topology.TableName{Schema: "public", Name: "after"}, Key: "user_id", KeyType: topology.KeyInt}
	s.must(writer, strings.Join(Triggers(after), ";"))
	s.must(writer, "COMMIT")
	lower, upper := keys(1)
	for _, table := range []string{"before", "after"} {
		for _, test := range []struct {
			key   int
			epoch topology.Epoch
			want  string
		}{{upper[0], 5, staleWrite}, {lower[0], 6, foreignRow}, {upper[0], 6, ""}} {
			s.stamp(writer, test.epoch)
			if got := refusal(s.exec(writer, fmt.Sprintf("INSERT INTO public.%s VALUES (%d)", table, test.key))); got != test.want {
				t.Errorf("%s, key %d, epoch %d: %q, want %q", table, test.key, test.epoch, got, test.want)
			}
		}
	}
	if found := s.check(st); found != nil {
		t.Error(found)
	}
}
