package mover

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/topology"
)

// zooSchema has what makes a move difficult: odd names, types of the user's own whose OIDs differ, dropped columns,
// another order of columns, generated and identity columns, TOAST, partitions, foreign keys, triggers, a fence.
const zooSchema = `CREATE SCHEMA "Odd ""Schema";
CREATE SCHEMA shardproxy;
{target: CREATE TABLE wasted (); CREATE TYPE waste AS ENUM ('w'); DROP TYPE waste; DROP TABLE wasted;}
{target: CREATE TYPE "Odd ""Schema".decoy AS (a int);}
CREATE TYPE "Odd ""Schema"."Mood" AS ENUM ('sad', 'o,k "', 'happy');
CREATE DOMAIN "Odd ""Schema".small AS numeric CHECK (VALUE < 1000000);
CREATE TYPE "Odd ""Schema".pair AS (a int, "B b" text, m "Odd ""Schema"."Mood");
CREATE TABLE "Odd ""Schema"."us'ers" (
	"I d" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
{source: junk text,}
	name text NOT NULL, big text, doubled text GENERATED ALWAYS AS (name || '/' || name) STORED,
	num numeric, f8 float8, f4 real, at timestamptz, t timestamp, d date, iv interval, b bytea, j json, jb jsonb, arr int[], texts text[],
	mood "Odd ""Schema"."Mood", moods "Odd ""Schema"."Mood"[], p "Odd ""Schema".pair, small "Odd ""Schema".small, ip inet, r int4range, c char(5), v varchar(20), bits varbit, ok boolean, u uuid, x xml
{target: , "serial no" int GENERATED ALWAYS AS IDENTITY}
);
ALTER TABLE "Odd ""Schema"."us'ers" ALTER big SET STORAGE EXTERNAL;
{source: ALTER TABLE "Odd ""Schema"."us'ers" DROP junk; ALTER TABLE "Odd ""Schema"."us'ers" ADD "serial no" int GENERATED ALWAYS AS IDENTITY;}
CREATE TABLE projects (id bigint PRIMARY KEY, creator_user_id bigint NOT NULL, title text, doc text, n int DEFAULT 0, UNIQUE (creator_user_id, id),
	FOREIGN KEY (creator_user_id) REFERENCES "Odd ""Schema"."us'ers" ON DELETE CASCADE);
ALTER TABLE projects ALTER doc SET STORAGE EXTERNAL;
CREATE TABLE members ("user" bigint, project bigint, "select" int, note text, PRIMARY KEY ("select", "user", project),
	FOREIGN KEY ("user", project) REFERENCES projects (creator_user_id, id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE TABLE events (at date NOT NULL, user_id int NOT NULL, no int, payload jsonb, PRIMARY KEY (user_id, no, at)) PARTITION BY RANGE (at);
CREATE TABLE "events 1" PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2020-07-01');
{source: CREATE TABLE events_2 (no int NOT NULL, payload jsonb, user_id int NOT NULL, at date NOT NULL); ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES FROM ('2020-07-01') TO ('2021-01-01');}
{target: CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM ('2020-07-01') TO ('2021-01-01');}
CREATE TABLE full_identity (k smallint NOT NULL, id int PRIMARY KEY, body text);
ALTER TABLE full_identity REPLICA IDENTITY FULL; ALTER TABLE full_identity ALTER body SET STORAGE EXTERNAL;
CREATE TABLE by_index (k int NOT NULL, a int NOT NULL, b text NOT NULL, c text, id int PRIMARY KEY);
CREATE UNIQUE INDEX by_index_ab ON by_index (b, a); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_ab;
CREATE TABLE twins (k int, body text, p point, j json, n numeric, arr int[], doubled text GENERATED ALWAYS AS (body || body) STORED, junk int);
{source: ALTER TABLE twins DROP junk; ALTER TABLE twins DROP n; ALTER TABLE twins ADD n numeric;}
{target: ALTER TABLE twins DROP junk;}
CREATE INDEX ON twins (k); ALTER TABLE twins REPLICA IDENTITY FULL; ALTER TABLE twins ALTER body SET STORAGE EXTERNAL;
CREATE TABLE never (user_id int PRIMARY KEY, x int);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF TG_TABLE_NAME = 'projects' THEN NEW.n := NEW.n + 1; END IF; RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON projects FOR EACH ROW EXECUTE FUNCTION touch();
`

// fenceSQL is a fence of the target that lets nobody in but the mover.
const fenceSQL = `CREATE SCHEMA IF NOT EXISTS shardproxy; GRANT ALL ON SCHEMA shardproxy TO PUBLIC;
CREATE OR REPLACE FUNCTION shardproxy.owns(hash bigint) RETURNS boolean LANGUAGE plpgsql STABLE STRICT AS 'BEGIN RETURN false; END';
CREATE FUNCTION shardproxy.refuse_foreign() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF current_setting('shardproxy.move', true) <> '' THEN RETURN NULL; END IF;
	RAISE EXCEPTION 'not owned' USING ERRCODE = '23514'; END $$;
`

func fenceTable(t Table) string {
	return fmt.Sprintf("CREATE TRIGGER shardproxy_owner AFTER INSERT OR DELETE OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION shardproxy.refuse_foreign();\n", quoteName(t.TableName))
}

func zooTables() []Table {
	return []Table{
		table1("public", "members", "user", topology.KeyInt), // children first: the mover finds the order
		table1("public", "projects", "creator_user_id", topology.KeyInt),
		table1(`Odd "Schema`, "us'ers", "I d", topology.KeyInt),
		table1("public", "events", "user_id", topology.KeyInt),
		table1("public", "full_identity", "k", topology.KeyInt),
		table1("public", "by_index", "k", topology.KeyInt),
		table1("public", "twins", "k", topology.KeyInt),
		table1("public", "never", "user_id", topology.KeyInt),
	}
}

func newZoo(t testing.TB) *world { return newWorld(t, replicaRole, zooSchema, zooTables()...) }

func (w *world) fence(side Side) {
	w.exec(side, fenceSQL)
	for _, t := range w.spec.Tables {
		w.exec(side, fenceTable(t))
	}
}

// writers write to a side without end.
type writers struct {
	cancel  context.CancelFunc
	done    sync.WaitGroup
	commits atomic.Int64
	errs    atomic.Int64
	other   atomic.Pointer[error] // an error that was not expected
}

// write starts n writers over keys 1 to keys.
func (w *world) write(side Side, seed uint64, n, keys, base int) *writers {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ws := &writers{cancel: cancel}
	for i := range n {
		ws.done.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			for ctx.Err() == nil {
				if err := w.writeUntilLost(ctx, side, ws, rng, keys, base); err != nil && ctx.Err() == nil {
					ws.other.Store(&err)
					return
				}
			}
		})
	}
	w.t.Cleanup(func() { cancel(); ws.done.Wait() })
	return ws
}

func (ws *writers) stop(t testing.TB) {
	t.Helper()
	ws.cancel()
	ws.done.Wait()
	if err := ws.other.Load(); err != nil {
		t.Fatalf("a writer: %v", *err)
	}
	t.Logf("%d transactions, %d statements failed", ws.commits.Load(), ws.errs.Load())
}

func (ws *writers) await(t testing.TB, more int64) {
	t.Helper()
	for from := ws.commits.Load(); ws.commits.Load() < from+more; {
		if err := ws.other.Load(); err != nil {
			t.Fatalf("a writer: %v", *err)
		}
		if err := pause(t.Context(), time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

// writeUntilLost returns nil where the server went away.
func (w *world) writeUntilLost(ctx context.Context, side Side, ws *writers, rng *rand.Rand, keys, base int) error {
	conn, err := pgx.Connect(ctx, w.server[side].DSN(w.db[side]))
	if err != nil {
		_ = pause(ctx, 10*time.Millisecond)
		return nil
	}
	defer closeWriter(conn)
	for ctx.Err() == nil && !conn.IsClosed() {
		if err := zooTransaction(ctx, conn, ws, rng, keys, base); err != nil {
			switch pgCode(err) {
			case "23505", "23503", "40P01", "40001", "57P01", "57P03", "":
				ws.errs.Add(1)
				if conn.PgConn().TxStatus() != 'I' {
					_, _ = conn.Exec(ctx, "ROLLBACK")
				}
			default:
				return err
			}
		}
	}
	return nil
}

func zooTransaction(ctx context.Context, conn *pgx.Conn, ws *writers, rng *rand.Rand, keys, base int) error {
	exec := func(sql string) error {
		_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		if err != nil {
			err = fmt.Errorf("%s: %w", sql, err)
		}
		return err
	}
	if rng.IntN(3) == 0 {
		if err := exec(zooStatement(rng, keys, base)); err != nil {
			return err
		}
		ws.commits.Add(1)
		return nil
	}
	if err := exec("BEGIN"); err != nil {
		return err
	}
	for range 1 + rng.IntN(6) {
		savepoint := rng.IntN(3) == 0
		if savepoint {
			if err := exec("SAVEPOINT s"); err != nil {
				return err
			}
		}
		err := exec(zooStatement(rng, keys, base))
		if savepoint && (err != nil && pgCode(err) != "" || rng.IntN(3) == 0) {
			if err := exec("ROLLBACK TO s"); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
	}
	end := "COMMIT"
	if rng.IntN(5) == 0 {
		end = "ROLLBACK"
	}
	if err := exec(end); err != nil {
		return err
	}
	ws.commits.Add(1)
	return nil
}

// zooStatement is one random statement over keys 1 to keys; ids that do not hold the key begin at base.
func zooStatement(rng *rand.Rand, keys, base int) string {
	k := func() int { return 1 + rng.IntN(keys) }
	id := func() int { return base + rng.IntN(4*keys) }
	text := func() string {
		return []string{"''", "NULL", "'a'", "'Ünï \"co\\de'", "repeat('x" + fmt.Sprint(rng.IntN(1000)) + "', 1500)", "E'\\n\\t,{}()'"}[rng.IntN(6)]
	}
	const users = `"Odd ""Schema"."us'ers"`
	switch rng.IntN(26) {
	case 0, 1, 2:
		return fmt.Sprintf(`INSERT INTO %s ("I d", name, big, num, f8, f4, at, t, d, iv, b, j, jb, arr, texts, mood, moods, p, small, ip, r, c, v, bits, ok, u, x) OVERRIDING SYSTEM VALUE
			SELECT %d, 'n%d', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s ON CONFLICT DO NOTHING`,
			users, k(), rng.IntN(100), text(),
			pick(rng, "NULL", "'NaN'", "1.500", "-99999999999999999999.0000001", "'Infinity'"),
			pick(rng, "'NaN'::float8", "'-Infinity'", "-0.0::float8", "0.1", "1e-300", "NULL"), pick(rng, "'NaN'::real", "0.1", "3e38", "NULL"),
			pick(rng, "'infinity'::timestamptz", "'-infinity'", "'2020-02-29 23:59:59.999999+13'", "'0044-03-15 BC'", "NULL"),
			pick(rng, "'infinity'::timestamp", "'1999-12-31 23:59:59.5'", "NULL"), pick(rng, "'infinity'::date", "'4713-01-01 BC'", "NULL"),
			pick(rng, "'1 year -2 days 03:04:05.678'::interval", "'-1 month'", "NULL"), pick(rng, `'\x00ff5c27'::bytea`, "''", "NULL"),
			pick(rng, `'{"b": 1,  "a":[]}'::json`, "'null'", "NULL"), pick(rng, `'{"b": 1.0, "a": "\u00fc"}'::jsonb`, "'[]'", "NULL"),
			pick(rng, "'{1,NULL,3}'::int[]", "'[0:1]={1,2}'", "'{}'", "'{{1,2},{3,4}}'", "NULL"), pick(rng, `'{"a,b","\"",NULL,""}'::text[]`, "NULL"),
			pick(rng, `'sad'::"Odd ""Schema"."Mood"`, `'o,k "'`, "NULL"), pick(rng, `'{sad,happy,NULL}'::"Odd ""Schema"."Mood"[]`, "'{}'", "NULL"),
			pick(rng, `ROW(1, 'x,"y', 'happy')::"Odd ""Schema".pair`, `ROW(NULL, '', NULL)::"Odd ""Schema".pair`, "NULL"), pick(rng, "12.50", "NULL"),
			pick(rng, "'::1/64'::inet", "NULL"), pick(rng, "'[1,5)'::int4range", "'empty'", "'(,)'", "NULL"), pick(rng, "'ab'", "NULL"), pick(rng, "'va r '", "NULL"),
			pick(rng, "B'101'::varbit", "B''", "NULL"), pick(rng, "true", "NULL"), pick(rng, "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "NULL"), pick(rng, "'<a b=\"c\"/>'::xml", "NULL"))
	case 3:
		return fmt.Sprintf(`UPDATE %s SET name = name || '!' , num = num + 1 WHERE "I d" = %d`, users, k())
	case 4:
		return fmt.Sprintf(`UPDATE %s SET big = %s WHERE "I d" BETWEEN %d AND %d`, users, text(), k(), k())
	case 5:
		return fmt.Sprintf(`UPDATE %s SET "serial no" = DEFAULT, f8 = f8 * 2 WHERE "I d" = %d`, users, k())
	case 6:
		return fmt.Sprintf(`DELETE FROM %s WHERE "I d" = %d`, users, k())
	case 7, 8, 9:
		return fmt.Sprintf("INSERT INTO projects (id, creator_user_id, title, doc) SELECT %d, %d, 't', %s ON CONFLICT DO NOTHING", id(), k(), text())
	case 10:
		return fmt.Sprintf("UPDATE projects SET title = title || '.' WHERE id BETWEEN %d AND %d", id(), id())
	case 11:
		return fmt.Sprintf("UPDATE projects SET creator_user_id = %d WHERE id = %d", k(), id()) // with its members
	case 12:
		return fmt.Sprintf("UPDATE projects SET id = %d, creator_user_id = %d, n = 0 WHERE id = %d", id(), k(), id())
	case 13:
		return fmt.Sprintf("INSERT INTO members SELECT creator_user_id, id, %d, %s FROM projects WHERE id BETWEEN %d AND %d ON CONFLICT DO NOTHING", rng.IntN(3), text(), id(), id())
	case 14:
		return fmt.Sprintf("UPDATE members SET note = %s, \"select\" = \"select\" + %d WHERE \"user\" = %d", text(), rng.IntN(2), k())
	case 15:
		return fmt.Sprintf("INSERT INTO events SELECT DATE '2020-01-01' + %d, %d, %d, '{\"a\": %d}' ON CONFLICT DO NOTHING", rng.IntN(366), k(), rng.IntN(5), rng.IntN(9))
	case 16:
		return fmt.Sprintf("UPDATE events SET at = DATE '2020-01-01' + %d, payload = NULL WHERE user_id = %d", rng.IntN(366), k()) // to another partition
	case 17:
		return fmt.Sprintf("DELETE FROM events WHERE user_id = %d AND no < 3", k())
	case 18:
		return fmt.Sprintf("INSERT INTO full_identity VALUES (%d, %d, %s) ON CONFLICT (id) DO UPDATE SET k = EXCLUDED.k", k(), id(), text())
	case 19:
		return fmt.Sprintf("UPDATE full_identity SET k = %d WHERE id = %d; DELETE FROM full_identity WHERE id = %d", k(), id(), id())
	case 20:
		return fmt.Sprintf("INSERT INTO by_index VALUES (%d, %d, 'b%d', %s, %d) ON CONFLICT (id) DO UPDATE SET k = EXCLUDED.k, c = EXCLUDED.c", k(), base+rng.IntN(50), rng.IntN(50), text(), id())
	case 21, 22:
		return fmt.Sprintf("INSERT INTO twins (k, body, p, j, n, arr) SELECT %s, %s, point(1, -0.0), '{\"a\":  1}', %s, %s FROM generate_series(1, %d)",
			pick(rng, fmt.Sprint(k()), fmt.Sprint(k()), "NULL"), text(), pick(rng, "1.0", "1.00", "NULL"), pick(rng, "'[0:1]={1,2}'::int[]", "array_remove('{1,NULL}'::int[], NULL)", "NULL"), 1+rng.IntN(3))
	case 23:
		return fmt.Sprintf("UPDATE twins SET k = %d WHERE ctid = (SELECT ctid FROM twins WHERE k = %d LIMIT 1)", k(), k())
	case 24:
		return fmt.Sprintf("DELETE FROM twins WHERE ctid = (SELECT ctid FROM twins WHERE k = %d LIMIT 1); UPDATE twins SET n = NULL, body = %s WHERE k = %d", k(), text(), k())
	default:
		return fmt.Sprintf("UPDATE by_index SET a = a + %d, k = %d WHERE id = %d; DELETE FROM by_index WHERE id = %d", base+100, k(), id(), id())
	}
}

func pick(rng *rand.Rand, choices ...string) string { return choices[rng.IntN(len(choices))] }

func newSeed(t testing.TB) uint64 {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return seed
}

// TestZooMoves moves all of it while it is written to, by a role that is no superuser, past a fence.
func TestZooMoves(t *testing.T) {
	w := newZoo(t)
	w.fence(Target)
	seed := newSeed(t)
	ws := w.write(Source, seed, 3, 250, 0)
	ws.await(t, 1000)
	w.copy(CopyOptions{Workers: 3})
	s := start(t, w.m, StreamOptions{})
	ws.await(t, 1000)
	s.catchUp()
	ws.stop(t)
	s.catchUp()
	w.same()
	checks, err := w.m.Verify(t.Context(), VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		if c.Rows[Source] != c.Rows[Target] || len(c.Differences) > 0 || c.Rows[Source] == 0 && c.Table.Name != "never" {
			t.Errorf("Verify says %+v", c)
		}
	}
	if st := s.Status(); st.Missed == 0 {
		t.Errorf("no row came in with unchanged values: %+v", st)
	}
}

// TestKilledAtRandom ends connections of the mover, and the mover itself, at random points.
func TestKilledAtRandom(t *testing.T) {
	w := newZoo(t)
	w.fence(Target)
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 99))
	ws := w.write(Source, seed, 3, 200, 0)
	ws.await(t, 500)
	kill := func(side Side) {
		w.exec(side, fmt.Sprintf("SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY random() LIMIT 1) p", literal(w.m.Name())))
	}
	copied := false
	for attempt := 0; !copied; attempt++ {
		ctx, cancel := context.WithCancel(t.Context())
		var n atomic.Int64
		at, how := int64(1+rng.IntN(8)), rng.IntN(3)
		progress := func(CopyProgress) {
			if attempt > 3 || n.Add(1) != at {
				return
			}
			if how == 0 {
				cancel()
			} else {
				kill(Side(how - 1))
			}
		}
		snapshot, err := w.mover().Prepare(ctx)
		if err != nil {
			t.Fatal(err)
		}
		err = w.mover().Copy(ctx, snapshot, CopyOptions{Workers: 2, Progress: progress})
		t.Logf("copy: %v", err)
		copied = err == nil
		if err != nil && Permanent(err) {
			t.Fatal(err)
		}
		snapshot.Close()
		cancel()
	}
	for range 12 {
		s := start(t, w.mover(), StreamOptions{})
		ws.await(t, int64(rng.IntN(150)))
		switch rng.IntN(3) {
		case 0:
			kill(Source)
		case 1:
			kill(Target)
		}
		ws.await(t, int64(rng.IntN(100)))
		// The next one begins while this one may still have its sessions.
		go s.cancel(errors.New("killed"))
	}
	ws.stop(t)
	s := start(t, w.m, StreamOptions{})
	s.catchUp()
	w.same()
}

// TestReverse goes there and back, with both streams running all the time.
func TestReverse(t *testing.T) {
	w := newZoo(t)
	seed := newSeed(t)
	ws := w.write(Source, seed, 3, 200, 0)
	ws.await(t, 800)
	w.copy(CopyOptions{Workers: 2})
	there := start(t, w.m, StreamOptions{})
	ws.await(t, 300)
	back := w.m.Reverse()
	if _, err := back.PrepareStream(t.Context()); err != nil {
		t.Fatal(err)
	}
	ws.await(t, 300)
	ws.stop(t)
	there.catchUp()
	w.same()
	opened, err := back.SourceLSN(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := back.StartAt(t.Context(), opened); err != nil {
		t.Fatal(err)
	}
	backwards := start(t, back, StreamOptions{})
	for turn := range 4 { // the writers change sides; who is written to is the owner
		owner, stream := Target, backwards
		if turn%2 == 1 {
			owner, stream = Source, there
		}
		before := w.outside(Source)
		ws := w.writeInside(owner, seed+uint64(turn))
		ws.await(t, 250)
		ws.stop(t)
		stream.catchUp()
		w.same()
		if owner == Target {
			if diff := strings.Compare(before, w.outside(Source)); diff != 0 {
				t.Fatal("the way back has changed rows of other ranges")
			}
		}
	}
	changes := there.Status().Changes
	there.catchUp()
	backwards.catchUp()
	if now := there.Status().Changes; now != changes {
		t.Errorf("what the way back wrote was streamed: %d changes", now-changes)
	}
	if err := there.stop(); err != nil {
		t.Error(err)
	}
}

// outside sums up the rows of other ranges.
func (w *world) outside(side Side) string {
	s := ""
	for _, t := range w.spec.Tables {
		s += w.one(side, fmt.Sprintf("SELECT md5(coalesce(string_agg(x::text, ',' ORDER BY x::text), '')) FROM %s x WHERE NOT %s", quoteName(t.TableName), w.inside(t)))
	}
	return s
}

// writeInside writes to keys of the ranges only, as the fence sees to it: rows that would leave are refused by a trigger.
func (w *world) writeInside(side Side, seed uint64) *writers {
	w.exec(side, `CREATE OR REPLACE FUNCTION only_inside() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'outside' USING ERRCODE = '23503'; END $$`)
	for _, t := range w.spec.Tables {
		for _, row := range []string{"NEW", "OLD"} {
			event := map[string]string{"NEW": "INSERT OR UPDATE", "OLD": "DELETE OR UPDATE"}[row]
			cond := strings.ReplaceAll(w.inside(t), quote(t.Key), row+"."+quote(t.Key))
			w.exec(side, fmt.Sprintf("CREATE OR REPLACE TRIGGER only_inside_%s AFTER %s ON %s FOR EACH ROW WHEN (NOT %s) EXECUTE FUNCTION only_inside()", row, event, quoteName(t.TableName), cond))
		}
	}
	return w.write(side, seed, 3, 200, 1_000_000)
}
