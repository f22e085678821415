package mover

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

func (w *world) preflight() *Report {
	w.t.Helper()
	r, err := w.m.Preflight(w.t.Context(), PreflightOptions{OldTransaction: 1}) // a nanosecond
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (r *Report) has(t *testing.T, warning bool, text string) {
	t.Helper()
	for _, p := range r.Problems {
		if p.Warning == warning && strings.Contains(p.String(), text) {
			return
		}
	}
	t.Errorf("%q is not among the problems:\n%v", text, r.Problems)
}

func TestPreflightOfAGoodMove(t *testing.T) {
	w := newZoo(t)
	ws := w.write(Source, newSeed(t), 2, 300, 0)
	ws.await(t, 500)
	ws.stop(t)
	w.fence(Target)
	r := w.preflight()
	if err := r.Err(); err != nil {
		t.Error(err)
	}
	if !r.Replica[Source] || !r.Replica[Target] || r.FreeSlots[Source] == 0 || r.FreeSenders[Target] == 0 {
		t.Errorf("%+v", r)
	}
	for _, one := range r.Tables {
		want := w.one(Source, "SELECT count(*) FROM "+quoteName(one.Table)+" WHERE "+w.inside(Table{one.Table, keyOf(w, one.Table), topology.KeyInt}))
		if got := one.MovingRows; want != "0" && got == 0 || one.MovingBytes > one.Bytes {
			t.Errorf("%+v, %s rows move", one, want)
		}
	}
}

func keyOf(w *world, name topology.TableName) string {
	for _, t := range w.spec.Tables {
		if t.TableName == name {
			return t.Key
		}
	}
	return ""
}

func TestPreflightNamesProblems(t *testing.T) {
	w := newWorld(t, plainRole, `CREATE TABLE notes (id int PRIMARY KEY, user_id int NOT NULL, code text UNIQUE, same int);
{target: ALTER TABLE notes ADD more int;}
CREATE TABLE bare (user_id int); CREATE TABLE "full" (user_id int); ALTER TABLE "full" REPLICA IDENTITY FULL; CREATE UNLOGGED TABLE fleeting (user_id int PRIMARY KEY);
CREATE TABLE ids (id int PRIMARY KEY, user_id int NOT NULL, code text);
CREATE UNIQUE INDEX ids_code ON ids (lower(code)) WHERE code <> '';
CREATE TABLE a (k int PRIMARY KEY, b int); CREATE TABLE b (k int PRIMARY KEY, a int REFERENCES a); ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b;
{source: CREATE TABLE only_here (user_id int PRIMARY KEY);}
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER tr BEFORE INSERT ON ids FOR EACH ROW EXECUTE FUNCTION f()`,
		notes(), table1("public", "bare", "user_id", topology.KeyInt), table1("public", "full", "user_id", topology.KeyInt), table1("public", "ids", "user_id", topology.KeyInt), table1("public", "fleeting", "user_id", topology.KeyInt),
		table1("public", "a", "k", topology.KeyInt), table1("public", "b", "k", topology.KeyInt))
	w.exec(Source, "INSERT INTO ids SELECT i, i, 'C' || i FROM generate_series(1, 1000) i")
	outside := w.one(Source, "SELECT min(user_id) FROM ids WHERE NOT "+w.inside(table1("public", "ids", "user_id", topology.KeyInt)))
	inside := w.rows(Source, "SELECT user_id FROM ids WHERE "+w.inside(table1("public", "ids", "user_id", topology.KeyInt))+" ORDER BY 1 DESC LIMIT 2")
	w.exec(Target, "INSERT INTO ids VALUES ("+inside[0]+", "+outside+", 'other'), (-1, "+outside+", 'c"+inside[1]+"')")
	w.exec(Target, "INSERT INTO a SELECT i FROM generate_series(1, 50) i")
	r := w.preflight()
	r.has(t, false, `table public.notes: there is a new column "more"`)
	r.has(t, false, "table public.bare: it has neither a primary key nor a replica identity index: add one, or ALTER TABLE \"public\".\"bare\" REPLICA IDENTITY FULL")
	r.has(t, true, "table public.full: it has no primary key: each UPDATE and DELETE of a row searches")
	r.has(t, false, "public.fleeting is a foreign or unlogged table")
	r.has(t, false, "in unique index ids_pkey: "+inside[0])
	r.has(t, false, "in unique index ids_code: c"+inside[1])
	r.has(t, false, "target, table public.a: there are rows of the ranges already")
	r.has(t, false, "the foreign keys of the tables form a circle")
	r.has(t, false, "trigger tr would act on the rows")
	r.has(t, false, `by foreign key "b_a_fkey" a row may refer to one that does not move with it`)
	if r.Err() == nil {
		t.Error("there is no error")
	}
	w.spec.Tables = []Table{table1("public", "only_here", "user_id", topology.KeyInt)}
	w.m = w.mover()
	w.preflight().has(t, false, "target, table public.only_here: there is no such table")
}

func TestPreflightNamesBlockers(t *testing.T) {
	w := newWorld(t, replicaRole, notesSchema, notes())
	conn := w.server[Source].Connect(t, w.db[Source])
	w.exec(Source, "BEGIN; INSERT INTO notes VALUES (1, 1); PREPARE TRANSACTION 'left over'")
	defer w.exec(Source, "ROLLBACK PREPARED 'left over'")
	if _, err := conn.Exec(t.Context(), "BEGIN; INSERT INTO notes VALUES (2, 2)", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	r := w.preflight()
	pid := conn.PgConn().PID()
	prepared, running := false, false
	for _, b := range r.Blockers {
		prepared = prepared || b.Side == Source && b.Prepared == "left over" && b.User != "" && b.Age > 0
		running = running || b.Side == Source && uint32(b.PID) == pid && b.User != ""
	}
	if !prepared || !running {
		t.Errorf("blockers: %v", r.Blockers)
	}
	if _, err := conn.Exec(t.Context(), "ROLLBACK"); err != nil {
		t.Error(err)
	}
}

func TestPreflightNamesMissingRights(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"wal_level": "replica", "max_replication_slots": "0", "max_slot_wal_keep_size": "100MB", "synchronous_standby_names": "*"}})
	w := &world{t: t, server: [2]*pgtest.Server{s, s}}
	s.Exec(t, "postgres", "CREATE ROLE nobody LOGIN; CREATE ROLE somebody; CREATE TABLE notes (id int PRIMARY KEY, user_id int); ALTER TABLE notes OWNER TO somebody; ALTER TABLE notes ENABLE ROW LEVEL SECURITY; GRANT SELECT ON notes TO nobody")
	w.db = [2]string{"postgres", "postgres"}
	w.spec = Spec{Cluster: "c", ID: 1, Tables: []Table{notes()}, Ranges: lowerHalf, Source: w.config(Source, "nobody"), Target: w.config(Target, "nobody")}
	w.m = w.mover()
	r := w.preflight()
	r.has(t, false, "wal_level is replica")
	r.has(t, false, "would count as a standby")
	r.has(t, false, "there is no free replication slot")
	r.has(t, false, "role nobody has not the attribute REPLICATION")
	r.has(t, false, "role nobody may not create publications")
	r.has(t, false, "not a member of its owner somebody")
	r.has(t, false, "row security hides rows")
	r.has(t, true, `shard key "user_id" may be NULL`)
	r.has(t, true, "100 MB of log")
}
