package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/jackc/pgx/v5/pgproto3"
)

// fewBackends is the configuration of a proxy whose clients must share two backends per shard.
const fewBackends = "[pool]\nsize_max = 2\nacquire_timeout = \"30s\"\n"

// rowsOf gives the rows of a statement that must not fail, one line each.
func (s *session) rowsOf(sql string) (string, error) {
	tr := s.simple(&entry{sql: sql})
	if line, failed := tr.failed(); failed {
		return "", fmt.Errorf("%s: %s", sql, line)
	}
	var rows []string
	for _, line := range tr.lines {
		if row, ok := strings.CutPrefix(line, "row "); ok {
			rows = append(rows, row)
		}
	}
	return strings.Join(rows, "\n"), nil
}

// TestPreparedStatementsOfManyClients lets many clients prepare different statements of one name and run
// them over few backends.
func TestPreparedStatementsOfManyClients(t *testing.T) {
	c := needCluster(t)
	const clients, rounds = 48, 30
	p := startProxy(t, c, fewBackends)
	s := connect(t, p.DSN)
	s.must(t, "DROP TABLE IF EXISTS prepared_t")
	s.must(t, "CREATE TABLE prepared_t (user_id bigint PRIMARY KEY, n int)")
	values := make([]string, clients)
	for i := range values {
		values[i] = fmt.Sprintf("(%d, %d)", i, i*10)
	}
	s.must(t, "INSERT INTO prepared_t VALUES "+strings.Join(values, ", "))

	var group errgroup.Group
	for client := range clients {
		s := connect(t, p.DSN)
		group.Go(func() error {
			prepare := &transcript{}
			s.send(&pgproto3.Parse{Name: "same", Query: fmt.Sprintf("SELECT n + %d FROM prepared_t WHERE user_id = $1", client)}, &pgproto3.Sync{})
			s.flush()
			s.untilReady(prepare, nil)
			for round := range rounds {
				key := (client + round) % clients
				tr := &transcript{}
				s.send(&pgproto3.Bind{PreparedStatement: "same", Parameters: [][]byte{[]byte(strconv.Itoa(key))}}, &pgproto3.Execute{}, &pgproto3.Sync{})
				s.flush()
				s.untilReady(tr, nil)
				if want := fmt.Sprintf("row %q", strconv.Itoa(key*10+client)); len(tr.lines) < 2 || tr.lines[1] != want {
					return fmt.Errorf("client %d, round %d: %q, want %s", client, round, tr.lines, want)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	s.must(t, "DROP TABLE prepared_t")
}

// TestSettingsStayWithTheirClient lets clients with different settings take turns on few backends, where
// each must find its own and one that has set nothing must find the defaults.
func TestSettingsStayWithTheirClient(t *testing.T) {
	c := needCluster(t)
	p := startProxy(t, c, fewBackends)
	const show = "SELECT current_setting('TimeZone'), current_setting('work_mem'), current_setting('search_path'), " +
		"current_setting('application_name'), coalesce(current_setting('e2e.tenant', true), ''), current_user"
	innocent := connect(t, p.DSN)
	defaults, err := innocent.rowsOf(show)
	if err != nil {
		t.Fatal(err)
	}
	sessions := make([]*session, 8)
	want := make([]string, len(sessions))
	for i := range sessions {
		s := connect(t, p.DSN)
		sessions[i] = s
		s.mustf(t, "SET TIME ZONE '%d'", i-4)
		s.mustf(t, "SET work_mem = '%dMB'", i+5)
		s.mustf(t, "SET search_path = schema_%d, public", i)
		s.mustf(t, "SELECT set_config('application_name', 'client %d', false)", i)
		s.mustf(t, "SET e2e.tenant = 'tenant %d'", i)
		if want[i], err = s.rowsOf(show); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(want[i], fmt.Sprintf(`"%dMB" | "schema_%d, public" | "client %d" | "tenant %d"`, i+5, i, i, i)) {
			t.Fatalf("client %d has set and finds %s", i, want[i])
		}
	}
	var group errgroup.Group
	for i, s := range sessions {
		group.Go(func() error {
			for range 20 {
				if got, err := s.rowsOf(show); err != nil || got != want[i] {
					return fmt.Errorf("client %d finds %s, want %s, %w", i, got, want[i], err)
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		for range 20 {
			if got, err := innocent.rowsOf(show); err != nil || got != defaults {
				return fmt.Errorf("a client that has set nothing finds %s, want %s, %w", got, defaults, err)
			}
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}

	for i, s := range sessions { // ways to end with something set
		switch i % 3 {
		case 0:
			s.conn.Close()
		case 1:
			s.must(t, "BEGIN; SET LOCAL work_mem = '77MB'; SET statement_timeout = 1234; SELECT 1")
			s.conn.Close()
		case 2:
			s.must(t, "DISCARD ALL")
		}
	}
	fresh := connect(t, p.DSN)
	for range 10 {
		for _, s := range []*session{fresh, innocent, sessions[2]} {
			if got, err := s.rowsOf(show); err != nil || got != defaults {
				t.Fatalf("after the others have gone: %s, want %s, %v", got, defaults, err)
			}
			if got, err := s.rowsOf("SHOW statement_timeout"); err != nil || got != `"0"` {
				t.Fatalf("statement_timeout is %s, %v", got, err)
			}
		}
	}
}

// TestAClientThatGoesLeavesNothing drops the connections of clients in the middle of a transaction, of a
// COPY and with an advisory lock.
func TestAClientThatGoesLeavesNothing(t *testing.T) {
	c := needCluster(t)
	s := connect(t, proxyDSN)
	s.must(t, "DROP TABLE IF EXISTS gone")
	s.must(t, "CREATE TABLE gone (user_id bigint PRIMARY KEY)")

	in := connect(t, proxyDSN)
	in.must(t, "BEGIN")
	for key := range 8 {
		in.mustf(t, "INSERT INTO gone VALUES (%d)", key)
	}
	in.conn.Close()

	copying := connect(t, proxyDSN)
	copying.send(&pgproto3.Query{String: "COPY gone FROM STDIN"})
	copying.flush()
	for msg, ok := copying.next(&transcript{}); ok; msg, ok = copying.next(&transcript{}) {
		if _, in := msg.(*pgproto3.CopyInResponse); in {
			break
		}
	}
	copying.send(&pgproto3.CopyData{Data: []byte("100\n101\n102\n103\n")})
	copying.flush()
	copying.conn.Close()

	locking := connect(t, proxyDSN)
	locking.must(t, "SELECT pg_advisory_lock(881688)")
	if n := onShards(t, c, advisoryLocks); n != 1 {
		t.Errorf("pg_advisory_lock took %d locks, want 1", n)
	}
	locking.conn.Close()

	waitFor(t, "the advisory lock is released", func() bool { return onShards(t, c, advisoryLocks) == 0 })
	waitFor(t, "no backend is left in a transaction", func() bool {
		return onShards(t, c, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND state <> 'idle' AND pid <> pg_backend_pid() AND query LIKE '%gone%'") == 0
	})
	s.must(t, "LOCK TABLE gone IN ACCESS EXCLUSIVE MODE NOWAIT; SELECT 1")
	if got, err := s.rowsOf("SELECT user_id FROM gone"); err != nil || got != "" {
		t.Errorf("rows of clients that had gone: %s, %v", got, err)
	}
	s.must(t, "DROP TABLE gone")
}

const advisoryLocks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 881688"

// TestListenAndNotify sends notifications from one client to others, whatever backends they share.
func TestListenAndNotify(t *testing.T) {
	const heard, text = "notify e2e_listen %q", "to all %d"
	listeners := []*session{connect(t, proxyDSN), connect(t, proxyDSN)}
	for _, l := range listeners {
		l.must(t, "LISTEN e2e_listen")
	}
	deaf := connect(t, proxyDSN)
	teller := connect(t, proxyDSN)
	for i := range 3 {
		switch i {
		case 0:
			teller.mustf(t, "NOTIFY e2e_listen, '"+text+"'", i)
		case 1:
			teller.mustf(t, "SELECT pg_notify('e2e_listen', '"+text+"')", i)
		case 2:
			teller.mustf(t, "BEGIN; NOTIFY e2e_listen, '"+text+"'; COMMIT", i)
		}
		want := fmt.Sprintf(heard, fmt.Sprintf(text, i))
		for n, l := range listeners {
			_ = l.conn.SetDeadline(time.Now().Add(answerPatience))
			tr := &transcript{}
			if _, ok := l.next(tr); !ok || tr.lines[0] != want { // without being asked
				t.Fatalf("listener %d hears %q, want %s", n, tr.lines, want)
			}
		}
	}
	if tr := deaf.must(t, "SELECT 1"); strings.Contains(strings.Join(tr.lines, " "), "notify") {
		t.Errorf("a client that does not listen hears %q", tr.lines)
	}
	listeners[0].must(t, "UNLISTEN *")
	teller.must(t, "NOTIFY e2e_listen, 'last'")
	tr := &transcript{}
	if _, ok := listeners[1].next(tr); !ok || tr.lines[0] != fmt.Sprintf(heard, "last") {
		t.Errorf("the listener that stays hears %q", tr.lines)
	}
	if tr := listeners[0].must(t, "SELECT 1"); strings.Contains(strings.Join(tr.lines, " "), "notify") {
		t.Errorf("a client after UNLISTEN hears %q", tr.lines)
	}
}

// TestFullPool holds all backends of one shard: one more client is told so with 53300 after its wait, and
// is served as soon as there is room.
func TestFullPool(t *testing.T) {
	c := needCluster(t)
	p := startProxy(t, c, "[pool]\nsize_max = 2\nacquire_timeout = \"300ms\"\n")
	s := connect(t, p.DSN)
	s.must(t, "DROP TABLE IF EXISTS full_t")
	s.must(t, "CREATE TABLE full_t (user_id bigint PRIMARY KEY)")
	busy, other := keyOn(t, c, 0, 0), keyOn(t, c, 1, 0)
	read := func(key int) *entry {
		return &entry{sql: fmt.Sprintf("SELECT user_id FROM full_t WHERE user_id = %d", key)}
	}
	holders := []*session{connect(t, p.DSN), connect(t, p.DSN)}
	for _, h := range holders {
		h.must(t, "BEGIN")
		h.must(t, read(busy).sql)
	}
	if line, _ := s.simple(read(busy)).failed(); !strings.HasPrefix(line, "error ERROR 53300 ") && !strings.HasPrefix(line, "error FATAL 53300 ") {
		t.Errorf("a full pool gives %q, want 53300", line)
	}
	if s.tx == 0 {
		s = connect(t, p.DSN)
	}
	s.must(t, read(other).sql)
	holders[0].must(t, "COMMIT")
	s.must(t, read(busy).sql)
	holders[1].must(t, "ROLLBACK")
	s.must(t, "DROP TABLE full_t")
}

// TestSessionPooling keeps a client on its backends, so that what PostgreSQL keeps per session works.
func TestSessionPooling(t *testing.T) {
	c := needCluster(t)
	p := startProxy(t, c, "[pool]\nmode = \"session\"\n")
	s := connect(t, p.DSN)
	pid, err := s.rowsOf("SELECT pg_backend_pid()")
	if err != nil {
		t.Fatal(err)
	}
	others := connect(t, p.DSN)
	for range 5 {
		others.must(t, "SELECT 1")
		if got, err := s.rowsOf("SELECT pg_backend_pid()"); err != nil || got != pid {
			t.Fatalf("another backend: %s, want %s, %v", got, pid, err)
		}
	}
}
