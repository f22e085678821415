package serve

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/pgtest"
)

// running is a program that a test has started.
type running struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

func (r *running) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(b)
}

// spawn starts a program, which is killed after the test if it still runs.
func spawn(t *testing.T, name string, args ...string) *running {
	t.Helper()
	r := &running{cmd: exec.Command(name, args...), ended: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	r.cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=10", "HOME="+t.TempDir())
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.ended
	})
	return r
}

func (r *running) alive() bool {
	select {
	case <-r.ended:
		return false
	default:
		return true
	}
}

// wait gives what the program has printed once it has ended.
func (r *running) wait(t *testing.T) (string, error) {
	t.Helper()
	waitFor(t, r.cmd.Path+" ends", func() bool { return !r.alive() })
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String(), r.err
}

// ownServer is a PostgreSQL of the test's own with two shards, and the settings of a proxy before it.
func ownServer(t *testing.T) (pg *pgtest.Server, settings string) {
	t.Helper()
	pg = pgtest.Start(t)
	pg.Exec(t, "postgres", "CREATE ROLE app LOGIN SUPERUSER")
	for _, db := range []string{"one", "two"} {
		pg.Exec(t, "postgres", "CREATE DATABASE "+db+" OWNER app")
	}
	return pg, shard("s1", "127.0.0.1", pg.Port, "one") + shard("s2", "127.0.0.1", pg.Port, "two")
}

// paused says which shards SHOW DATABASES calls paused.
func paused(t *testing.T, console *client) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	results, err := console.Exec(ctx, "SHOW DATABASES").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]int{}
	for i, f := range results[0].FieldDescriptions {
		column[f.Name] = i
	}
	var list []string
	for _, row := range results[0].Rows {
		if string(row[column["paused"]]) == "1" {
			list = append(list, string(row[column["shard"]]))
		}
	}
	return strings.Join(list, " ")
}

// TestPauseRestart restarts PostgreSQL under pgbench, whose transactions write on both shards. None fails or is lost.
func TestPauseRestart(t *testing.T) {
	t.Parallel()
	pg, settings := ownServer(t)
	p := start(t, settings+"\n[pool]\nacquire_timeout = \"300ms\"\n")
	const keys, clients, transactions = 1000, 8, 400
	c := connect(t, p.dsn("app"))
	c.must(t, "CREATE TABLE items (user_id bigint PRIMARY KEY, n int)")
	rows := make([]string, keys)
	for i := range rows {
		rows[i] = fmt.Sprintf("(%d, 0)", i+1)
	}
	c.must(t, "INSERT INTO items VALUES "+strings.Join(rows, ", "))
	script := put(t, t.TempDir(), "script", []byte(`\set a random(1, 500)
\set b random(501, 1000)
BEGIN;
UPDATE items SET n = n + 1 WHERE user_id = :a;
UPDATE items SET n = n + 1 WHERE user_id = :b;
END;
`))
	sum := func() (n int) {
		for _, db := range []string{"one", "two"} {
			part, err := strconv.Atoi(connect(t, pg.DSN(db)).must(t, "SELECT coalesce(sum(n), 0) FROM items"))
			if err != nil {
				t.Fatal(err)
			}
			n += part
		}
		return n
	}
	bench := spawn(t, "pgbench", "-n", "-f", script, "-c", strconv.Itoa(clients), "-j", "2", "-t", strconv.Itoa(transactions), p.dsn("app"))
	waitFor(t, "pgbench is at work", func() bool { return sum() >= 100 })

	if out, err := psql(t, p.dsn("admin", "dbname=shardproxy"), "-c", "PAUSE"); err != nil || out != "" {
		t.Fatalf("PAUSE: %q, %v", out, err)
	}
	if !bench.alive() {
		t.Fatal("pgbench has ended before the pause")
	}
	console := p.console(t)
	if open := servers(t, console); len(open) > 0 {
		t.Errorf("connections during the pause: %v", open)
	}
	if got := paused(t, console); got != "s1 s2" {
		t.Errorf("paused: %q", got)
	}
	if _, body := p.get(t, "/readyz"); !strings.Contains(body, "paused") {
		t.Errorf("/readyz: %s", body)
	}
	if _, body := p.get(t, "/metrics"); !strings.Contains(body, "\nshardproxy_paused_shards 2\n") {
		t.Error("no metric tells of the pause")
	}
	before := sum()
	if err := pg.Restart(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "all clients wait", func() bool {
		return strings.Count(console.must(t, "SHOW CLIENTS"), " active ") >= clients
	})
	late := connect(t, p.dsn("app")) // logging in needs no node
	if after := sum(); after != before || before >= 2*clients*transactions {
		t.Errorf("%d updates before the restart, %d after it", before, after)
	}
	console.must(t, "RESUME")
	late.must(t, "SELECT n FROM items")
	out, err := bench.wait(t)
	if want := fmt.Sprintf("processed: %d/%[1]d\nnumber of failed transactions: 0", clients*transactions); err != nil || !strings.Contains(out, want) {
		t.Errorf("pgbench: %v\n%s", err, out)
	}
	if got := sum(); got != 2*clients*transactions {
		t.Errorf("%d updates, want %d", got, 2*clients*transactions)
	}
}

// TestPauseIsTakenBack interrupts psql, which waits for a transaction: then work goes on as if nothing had been asked for.
func TestPauseIsTakenBack(t *testing.T) {
	t.Parallel()
	p := start(t, "")
	open, other, console := connect(t, p.dsn("app")), connect(t, p.dsn("app")), p.console(t)
	open.must(t, "BEGIN")
	open.must(t, at("s1", "SELECT 1"))
	waiting := spawn(t, "psql", "-X", "-d", p.dsn("admin", "dbname=shardproxy"), "-c", "PAUSE SHARD s1")
	waitFor(t, "the pause begins", func() bool { return paused(t, console) == "s1" })
	other.must(t, at("s2", "SELECT 1"))
	open.must(t, at("s2", "SELECT 1")) // it has begun, and ends
	if err := waiting.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if out, err := waiting.wait(t); err == nil || !strings.Contains(out, "canceling statement due to user request") {
		t.Errorf("psql: %v\n%s", err, out)
	}
	other.must(t, at("s1", "SELECT 1"))
	open.must(t, "COMMIT")

	// And from a driver: RESUME of another session.
	open.must(t, "BEGIN")
	open.must(t, at("s1", "SELECT 1"))
	ended := make(chan error, 1)
	second := p.console(t)
	go func() {
		_, err := second.try("PAUSE")
		ended <- err
	}()
	waitFor(t, "the pause begins", func() bool { return paused(t, console) == "s1 s2" })
	console.must(t, "RESUME")
	refused(t, "PAUSE", <-ended, "57014", "RESUME")
	open.must(t, "COMMIT")
}

// TestReconnect works in the extended protocol as well.
func TestReconnect(t *testing.T) {
	t.Parallel()
	p := start(t, "")
	c := connect(t, p.dsn("app"))
	one, two := c.must(t, at("s1", whoAmI)), c.must(t, at("s2", whoAmI))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	console, err := pgx.Connect(ctx, p.dsn("admin", "dbname=shardproxy"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close(ctx)
	if tag, err := console.Exec(ctx, "RECONNECT SHARD s1"); err != nil || tag.String() != "RECONNECT" {
		t.Errorf("%v, %v", tag, err)
	}
	if got := c.must(t, at("s1", whoAmI)); got == one {
		t.Error("the connection to s1 is used again")
	}
	c.expect(t, at("s2", whoAmI), two)
	c.must(t, "BEGIN")
	c.expect(t, at("s2", whoAmI), two)
	if _, err := console.Exec(ctx, "RECONNECT"); err != nil {
		t.Error(err)
	}
	c.expect(t, at("s2", whoAmI), two) // the transaction goes on where it began
	c.must(t, "COMMIT")
	if got := c.must(t, at("s2", whoAmI)); got == two {
		t.Error("the connection to s2 is used again")
	}
}

// TestKill cuts off one client, then all, who may come back after RESUME.
func TestKill(t *testing.T) {
	t.Parallel()
	p := start(t, "")
	idle, open, console := connect(t, p.dsn("app", "application_name=idle")), connect(t, p.dsn("app", "application_name=open")), p.console(t)
	key := keyOn(0, 20)
	open.must(t, "BEGIN")
	open.must(t, insert(key, 1))
	if _, err := console.try("KILL_CLIENT 4000000"); err == nil {
		t.Error("a client that is not there was killed")
	}
	console.must(t, fmt.Sprintf("KILL_CLIENT %d", idle.PID()))
	refused(t, "the killed client", fate(t, idle), "57P01", "terminating connection due to administrator command")
	open.must(t, "SELECT 1")
	console.must(t, "KILL shop")
	refused(t, "the client in a transaction", fate(t, open), "57P01", "")
	if got := onServer(t, "s1", countOf(key)); got != "0" {
		t.Errorf("%s rows of its transaction", got)
	}
	late := connect(t, p.dsn("app"))
	answered := make(chan error, 1)
	go func() {
		_, err := late.try("SELECT n FROM items")
		answered <- err
	}()
	waitFor(t, "the statement waits", func() bool {
		return strings.Contains(console.must(t, "SHOW CLIENTS"), " active ") && len(answered) == 0
	})
	console.must(t, "RESUME")
	if err := <-answered; err != nil {
		t.Errorf("after RESUME: %v", err)
	}
}

// TestReload changes the file under a running proxy, first so that it cannot be used.
func TestReload(t *testing.T) {
	t.Parallel()
	const before = "[pool]\nsize_max = 3\n[[users]]\nname = \"app\"\nsecret = \"app\"\n[[users]]\nname = \"other\"\nsecret = \"first\"\nserver_user = \"app\"\nserver_password = \"app\"\n"
	p := start(t, before)
	console, old := p.console(t), connect(t, p.dsn("other:first"))
	rewrite := func(settings string) {
		put(t, p.dir, configFile, []byte(compose(settings)))
	}
	reload := func() string { // by psql, for its notices
		out, err := psql(t, p.dsn("admin", "dbname=shardproxy"), "-c", "RELOAD")
		if err != nil {
			return err.Error()
		}
		return out
	}
	rewrite(strings.Replace(before, "size_max = 3", "size_max = 0\ncolour = 1", 1))
	if out := reload(); !strings.Contains(out, "ERROR:  the configuration file cannot be used") || !strings.Contains(out, "unknown key pool.colour") {
		t.Errorf("RELOAD of a file with an unknown key: %s", out)
	}
	rewrite(strings.Replace(before, "size_max = 3", "size_max = 0", 1) + "[[users]]\nname = \"third\"\nsecret = \"third\"\n")
	if out := reload(); !strings.Contains(out, "pool.size_max: 0 is not between 1 and") {
		t.Errorf("RELOAD of a file with a bad value: %s", out)
	}
	cannotConnect(t, p.dsn("third"), "28P01", "") // nothing of it is in force
	setting := func(key string) string {
		for line := range strings.Lines(console.must(t, "SHOW CONFIG")) {
			if strings.HasPrefix(line, key+" ") {
				return strings.TrimSpace(line)
			}
		}
		return "none"
	}
	if got := setting("pool.size_max"); got != "pool.size_max 3 20 yes" {
		t.Error(got)
	}

	after := strings.NewReplacer("first", "second", "size_max = 3", "size_max = 4").Replace(before) + "[log]\nlevel = \"debug\"\nformat = \"json\"\n[limits]\nplan_cache_entries = 77\n"
	rewrite(after)
	out := reload()
	for _, want := range []string{"NOTICE:  changed: users, pool.size_max, log.level", "WARNING:  changed in the file, but not in force before a restart: limits.plan_cache_entries, log.format"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	for _, want := range []string{"pool.size_max 4 20 yes", "log.level debug info yes", "log.format text text no", "limits.plan_cache_entries 10000 10000 no"} {
		if key, _, _ := strings.Cut(want, " "); setting(key) != want {
			t.Errorf("%s, want %s", setting(key), want)
		}
	}
	p.waitLogged(t, `level=WARN msg="changes of the configuration need a restart" keys="limits.plan_cache_entries log.format"`)
	p.waitLogged(t, `msg="console command" user=admin from=127\.0\.0\.1:\d+ command=RELOAD epoch=1`)
	cannotConnect(t, p.dsn("other:first"), "28P01", "")
	connect(t, p.dsn("other:second")).must(t, "SELECT 1")
	old.must(t, "SELECT 1")
	killed := p.console(t)
	console.must(t, fmt.Sprintf("KILL_CLIENT %d", killed.PID()))
	refused(t, "the killed client", fate(t, killed), "57P01", "")
	p.waitLogged(t, "level=DEBUG") // it is in force

	// SET holds until the next RELOAD, which also takes the console away from its user.
	console.must(t, "SET pool.size_max = 2")
	if got := setting("pool.size_max"); got != "pool.size_max 2 20 yes" {
		t.Error(got)
	}
	console.refuses(t, "SET pool.size_max = 0", "22023", "is not between")
	console.refuses(t, "SET log.format = 'json'", "55P02", "")
	rewrite(strings.Replace(after, "[pool]", "[admin]\nhttp = \"127.0.0.1:0\"\nusers = [\"other\"]\nstats_users = [\"admin\"]\n[pool]", 1))
	p.signal(t, syscall.SIGHUP)
	p.waitLogged(t, `msg="configuration read again" changed="admin.users admin.stats_users pool.size_max"`)
	if got := setting("pool.size_max"); got != "pool.size_max 4 20 yes" {
		t.Error(got)
	}
	console.refuses(t, "RELOAD", "42501", "needs the role admin")
}

// TestReloadServerPassword follows a role whose password has been changed, without a client noticing.
func TestReloadServerPassword(t *testing.T) {
	t.Parallel()
	onServer(t, "postgres", "CREATE ROLE changing LOGIN PASSWORD 'first'")
	t.Cleanup(func() { onServer(t, "postgres", "DROP ROLE changing") })
	const before = "[[users]]\nname = \"c\"\nsecret = \"c\"\nserver_user = \"changing\"\nserver_password = \"first\"\n"
	p := start(t, before)
	c, console := connect(t, p.dsn("c")), p.console(t)
	pid := c.must(t, at("s1", whoAmI))
	onServer(t, "postgres", "ALTER ROLE changing PASSWORD 'second'")
	put(t, p.dir, configFile, []byte(compose(strings.Replace(before, "first", "second", 1))))
	console.must(t, "RELOAD")
	if got := c.must(t, at("s1", whoAmI)); got == pid {
		t.Error("a connection with the former password is used again")
	}
}

// TestShutdown by the console: for clients that leave, and then at once for those that do not.
func TestShutdown(t *testing.T) {
	t.Parallel()
	p := start(t, "")
	idle, open, console := connect(t, p.dsn("app")), connect(t, p.dsn("app")), p.console(t)
	open.must(t, "BEGIN")
	console.must(t, "SHUTDOWN WAIT_FOR_CLIENTS")
	draining(t, p)
	if _, err := tryConnect(t, p.dsn("app")); err == nil {
		t.Error("a client was let in")
	}
	open.must(t, "COMMIT")
	idle.must(t, "SELECT 1") // nobody is cut off
	idle.leave()
	if console.must(t, "SHOW VERSION"); !p.alive() {
		t.Fatal("it did not wait for the last client")
	}
	open.leave()
	refused(t, "the client of the console", fate(t, console), "57P01", "")
	if state := p.await(t); !state.Success() {
		t.Errorf("ended with %v", state)
	}

	p = start(t, "")
	idle, open, console = connect(t, p.dsn("app")), connect(t, p.dsn("app")), p.console(t)
	open.must(t, "BEGIN")
	console.must(t, "SHUTDOWN WAIT_FOR_CLIENTS")
	console.must(t, "SHUTDOWN")
	for _, c := range []*client{idle, open} {
		refused(t, "client", fate(t, c), "57P01", "")
	}
	if state := p.await(t); !state.Success() {
		t.Errorf("ended with %v", state)
	}

	p = start(t, "")
	idle, open, console = connect(t, p.dsn("app")), connect(t, p.dsn("app")), p.console(t)
	open.must(t, "BEGIN")
	console.must(t, "SHUTDOWN WAIT_FOR_SERVERS")
	refused(t, "idle client", fate(t, idle), "57P01", "")
	open.must(t, "COMMIT")
	refused(t, "client after its transaction", fate(t, open), "57P01", "")
	if state := p.await(t); !state.Success() {
		t.Errorf("ended with %v", state)
	}
}

// TestConsoleExplain asks the console of a real proxy.
func TestConsoleExplain(t *testing.T) {
	t.Parallel()
	p := start(t, "")
	out, err := psql(t, p.dsn("admin", "dbname=shardproxy"), "-c", fmt.Sprintf("EXPLAIN SELECT * FROM items WHERE user_id = %d", keyOn(1, 0)))
	if want := "Kind: keyed\nShards: s2\nWrites: no\nTables: sharded public.items by user_id"; err != nil || out != want {
		t.Errorf("%q, %v", out, err)
	}
	p.console(t).expect(t, "EXPLAIN SELECT * FROM items WHERE user_id = $1",
		"Kind: keyed\nShards: depends on parameter 1\nWrites: no\nTables: sharded public.items by user_id")
}
