package mover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

// world is a source and a target with the same tables, and a move between them by a role that is no superuser.
type world struct {
	t      testing.TB
	server [2]*pgtest.Server // by Side
	db     [2]string
	spec   Spec
	m      *Mover
}

// lowerHalf is what moves in most tests.
var lowerHalf = []topology.KeyRange{{Start: 0x2000000000000000, End: 0x9000000000000000}}

// Roles of the tests: of one, session_replication_role may be set.
const (
	plainRole   = "mover_plain"
	replicaRole = "mover_replica"
)

var makeRoles = `DO $$ BEGIN
	CREATE ROLE mover_plain LOGIN REPLICATION; CREATE ROLE mover_replica LOGIN REPLICATION;
	GRANT SET ON PARAMETER session_replication_role TO mover_replica;
	EXCEPTION WHEN duplicate_object THEN NULL; END $$`

var moves struct {
	mu sync.Mutex
	n  int64
}

// newWorld runs setup as the role on both sides; {source: …} in it, on a line, is for the source only, likewise {target: …}.
func newWorld(t testing.TB, role, setup string, tables ...Table) *world {
	return newWorldOn(t, [2]*pgtest.Server{pgtest.Shared(t), pgtest.Shared(t)}, role, setup, tables...)
}

func newWorldOn(t testing.TB, servers [2]*pgtest.Server, role, setup string, tables ...Table) *world {
	t.Helper()
	w := &world{t: t, server: servers}
	for _, side := range []Side{Source, Target} {
		s := servers[side]
		s.Exec(t, "postgres", makeRoles)
		w.db[side] = s.CreateDatabase(t)
		s.Exec(t, "postgres", fmt.Sprintf("ALTER DATABASE %s OWNER TO %s", w.db[side], role))
		s.Exec(t, w.db[side], "ALTER SCHEMA public OWNER TO "+role)
		var sql strings.Builder
		for line := range strings.Lines(setup) {
			if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "{") {
				only, rest, _ := strings.Cut(strings.Trim(trimmed, "{}"), ":")
				if only == side.String() {
					sql.WriteString(rest + "\n")
				}
				continue
			}
			sql.WriteString(line)
		}
		s.Exec(t, w.db[side], "SET ROLE "+role+"; "+sql.String())
	}
	moves.mu.Lock()
	moves.n++
	id := moves.n
	moves.mu.Unlock()
	w.spec = Spec{
		Cluster: "Test-Cluster", ID: id, Tables: tables, Ranges: lowerHalf,
		Source: w.config(Source, role), Target: w.config(Target, role),
	}
	w.m = w.mover()
	t.Cleanup(func() { // else the databases could not be dropped
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		for _, m := range []*Mover{w.m, w.m.Reverse()} {
			if err := m.Drop(ctx); err != nil && !t.Failed() {
				t.Errorf("Drop: %v", err)
			}
		}
	})
	return w
}

func (w *world) config(side Side, role string) *pgx.ConnConfig {
	cfg, err := pgx.ParseConfig(w.server[side].DSNAs(role, "", w.db[side]))
	if err != nil {
		w.t.Fatal(err)
	}
	return cfg
}

func (w *world) mover() *Mover {
	w.t.Helper()
	m, err := New(w.spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) exec(side Side, sql string) {
	w.t.Helper()
	w.server[side].Exec(w.t, w.db[side], sql)
}

func (w *world) one(side Side, sql string) string {
	w.t.Helper()
	rows := w.rows(side, sql)
	if len(rows) != 1 {
		w.t.Fatalf("%s: %d rows", sql, len(rows))
	}
	return rows[0]
}

// rows gives the text of a one-column query.
func (w *world) rows(side Side, sql string) []string {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.server[side].DSN(w.db[side]))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close(w.t.Context())
	results, err := conn.PgConn().Exec(w.t.Context(), sql).ReadAll()
	if err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	var list []string
	for _, row := range results[len(results)-1].Rows {
		list = append(list, string(row[0]))
	}
	return list
}

// inside is true for rows of the ranges, without the code that is tested.
func (w *world) inside(t Table) string {
	hash := map[topology.KeyType]string{
		topology.KeyInt:  "hashint8extended(%s::int8, 8816678312871386365)",
		topology.KeyText: "hashtextextended(%s::text, 8816678312871386365)",
		topology.KeyUUID: "uuid_hash_extended(%s, 8816678312871386365)",
	}[t.KeyType]
	hash = fmt.Sprintf(hash, quote(t.Key))
	var parts []string
	for _, r := range w.spec.Ranges {
		parts = append(parts, fmt.Sprintf("%s >= %d AND %s <= %d", hash, r.Start.Signed(), hash, (r.End-1).Signed()))
	}
	return "(" + strings.Join(parts, " OR ") + ")"
}

// same compares every row of the ranges on both sides, and that the target has no others.
func (w *world) same() {
	w.t.Helper()
	if diff := w.difference(); diff != "" {
		w.t.Fatalf("the target is not the source:\n%s", diff)
	}
}

func (w *world) difference() string {
	w.t.Helper()
	for _, t := range w.spec.Tables {
		columns := w.one(Source, fmt.Sprintf("SELECT string_agg(quote_ident(attname), ',' ORDER BY attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped", literal(quoteName(t.TableName))))
		sql := fmt.Sprintf("SELECT ROW(%s)::text FROM %s WHERE %s ORDER BY 1", columns, quoteName(t.TableName), w.inside(t))
		want, got := w.rows(Source, sql), w.rows(Target, sql)
		if diff := cmp.Diff(want, got); diff != "" {
			if len(diff) > 3000 {
				diff = diff[:3000]
			}
			return fmt.Sprintf("table %s: %d rows, %d on the target\n%s", t.TableName, len(want), len(got), diff)
		}
		if n := w.one(Target, fmt.Sprintf("SELECT count(*) FROM %s WHERE NOT %s", quoteName(t.TableName), w.inside(t))); n != "0" {
			return fmt.Sprintf("table %s: %s rows outside the ranges on the target", t.TableName, n)
		}
	}
	return ""
}

// copy prepares and copies.
func (w *world) copy(options CopyOptions) {
	w.t.Helper()
	snapshot, err := w.m.Prepare(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	defer snapshot.Close()
	if err := w.m.Copy(w.t.Context(), snapshot, options); err != nil {
		w.t.Fatal(err)
	}
}

// running is a stream that runs until stop or the end of the test.
type running struct {
	*Stream
	t      testing.TB
	cancel context.CancelCauseFunc
	done   chan struct{}
	err    error
}

var errStopTest = errors.New("the test stops the stream")

func start(t testing.TB, m *Mover, options StreamOptions) *running {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
	r := &running{Stream: m.NewStream(options), t: t, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		for {
			r.err = r.Run(ctx)
			if r.err == nil || ctx.Err() != nil || Permanent(r.err) {
				return
			}
			t.Logf("the stream is run again: %v", r.err)
			_ = pause(ctx, 20*time.Millisecond)
		}
	}()
	t.Cleanup(func() { r.stop() })
	return r
}

func (r *running) stop() error {
	r.cancel(errStopTest)
	<-r.done
	if errors.Is(r.err, errStopTest) {
		return nil
	}
	return r.err
}

// catchUp waits until the target has all that is committed on the source now.
func (r *running) catchUp() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	lsn, err := r.mover.SourceLSN(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	for {
		err := r.CatchUp(ctx, lsn)
		if err == nil {
			return
		}
		if ctx.Err() != nil || Permanent(err) {
			r.t.Fatalf("CatchUp: %v; %+v", err, r.Status())
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			r.t.Fatal(err)
		}
	}
}

func pgCode(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}
