package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/backend"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// works is a proxy that notes what it is told. There is no shard "nosuch"; shard "busy" is paused when its context ends.
type works struct {
	mu      sync.Mutex // guards the fields below
	done    []string
	pausing chan struct{} // closed when a pause of "busy" has begun; may be nil
}

func (w *works) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done = append(w.done, fmt.Sprintf(format, args...))
}

func (w *works) told() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := strings.Join(w.done, "; ")
	w.done = nil
	return list
}

func (w *works) Pause(ctx context.Context, shard string) error {
	w.note("pause %q", shard)
	switch shard {
	case "nosuch":
		return proxy.ErrNoShard
	case "resumed":
		return backend.ErrResumed
	case "paused":
		return backend.ErrPaused
	case "busy":
		close(w.pausing)
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (w *works) Resume(shard string) error {
	w.note("resume %q", shard)
	if shard == "" {
		return nil
	}
	return backend.ErrNotPaused
}

func (w *works) Reconnect(shard string) error {
	w.note("reconnect %q", shard)
	if shard == "nosuch" {
		return proxy.ErrNoShard
	}
	return nil
}

func (w *works) Kill(context.Context) int { w.note("kill"); return 3 }

func (w *works) KillClient(_ context.Context, id uint32) bool {
	w.note("kill client %d", id)
	return id == 9
}

// program is a process with three keys.
type program struct {
	mu   sync.Mutex // guards the fields below
	done []string
	err  error // of the next Reload
}

func (p *program) Settings() []Setting {
	return []Setting{
		{Key: "listen.addresses", Value: `["127.0.0.1:1"]`, Default: `["127.0.0.1:6432"]`},
		{Key: "pool.size_max", Value: "7", Default: "20", Live: true},
		{Key: "cluster.service_password", Value: "[redacted]", Live: true},
	}
}

func (p *program) Set(key, value string) error {
	switch {
	case key == "listen.addresses":
		return ErrFixedKey
	case key == "cluster.service_password":
		return ErrListKey
	case key != "pool.size_max":
		return ErrUnknownKey
	case value == "0":
		return errors.New("0 is not between 1 and 1000")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, key+"="+value)
	return nil
}

func (p *program) Reload() (changed, restart []string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return []string{"pool.size_max"}, []string{"listen.addresses", "log.format"}, p.err
}

func (p *program) Shutdown(how Shutdown) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, how.String())
}

// TestOperations runs commands one after the other: an answer is the notices, then the tag or the error.
func TestOperations(t *testing.T) {
	var log bytes.Buffer
	cfg, w, p := testConfig(), &works{}, &program{}
	cfg.Control, cfg.Process, cfg.Log = w, p, slog.New(slog.NewTextHandler(&log, nil))
	c := startConsole(t, cfg)
	conn := connectListening(t, c, "root")
	for _, test := range []struct{ sql, want, told string }{
		{"PAUSE", "PAUSE", `pause ""`},
		{"PAUSE app", "PAUSE", `pause ""`},
		{`pause "app";`, "PAUSE", `pause ""`},
		{"PAUSE SHARD s1", "PAUSE", `pause "s1"`},
		{"PAUSE SHARD Eu-1", "PAUSE", `pause "Eu-1"`},
		{"PAUSE other", `3D000 database "other" does not exist`, ""},
		{"PAUSE SHARD", "42601 PAUSE: the name of the shard is missing", ""},
		{"PAUSE app now", "42601 PAUSE: now is too much", ""},
		{"PAUSE SHARD nosuch", `42704 shard "nosuch" does not exist`, `pause "nosuch"`},
		{"PAUSE SHARD paused", `55000 shard "paused" is paused already`, `pause "paused"`},
		{"PAUSE SHARD resumed", "57014 canceling PAUSE due to RESUME", `pause "resumed"`},
		{"RESUME", "RESUME", `resume ""`},
		{"RESUME SHARD s1", `55000 shard "s1" is not paused`, `resume "s1"`},
		{"RECONNECT", "RECONNECT", `reconnect ""`},
		{"RECONNECT SHARD nosuch", `42704 shard "nosuch" does not exist`, `reconnect "nosuch"`},
		{"KILL", "KILL", "kill"},
		{"KILL app", "KILL", "kill"},
		{"KILL SHARD s1", "42601 KILL: clients are not those of one shard", ""},
		{"KILL_CLIENT 9", "KILL_CLIENT", "kill client 9"},
		{"KILL_CLIENT 8", "42704 client 8 does not exist", "kill client 8"},
		{"KILL_CLIENT all", "42601 KILL_CLIENT: all is not the id of a client", ""},
		{"KILL_CLIENT 99999999999", "42601 KILL_CLIENT: 99999999999 is not the id of a client", ""},
		{"KILL_CLIENT", "42601 KILL_CLIENT: the id of the client is missing", ""},
		{"RELOAD", "NOTICE changed: pool.size_max WARNING changed in the file, but not in force before a restart: listen.addresses, log.format RELOAD", ""},
		{"SET pool.size_max = 5", "SET", ""},
		{"SET pool.size_max=6; set POOL.Size_Max to '7'", "SET SET", ""},
		{"SET pool.size_max = 0", `22023 invalid value for parameter "pool.size_max": 0 is not between 1 and 1000`, ""},
		{"SET pool.size_min = 0", `42704 unrecognized configuration parameter "pool.size_min"`, ""},
		{"SET listen.addresses = 'x'", `55P02 parameter "listen.addresses" cannot be changed without restarting the proxy`, ""},
		{"SET cluster.service_password = 'secret'", `55P02 parameter "cluster.service_password" cannot be SET: it is a list or a secret, and can only be changed in the file`, ""},
		{"SET pool.size_max", "42601 SET: a value is missing", ""},
		{"SET pool.size_max =", "42601 SET: a value is missing", ""},
		{"SET default_pool_size = 5", "WARNING SET default_pool_size has no effect here SET", ""},
		{"SET SESSION statement_timeout = 5", "SET", ""},
		{"SHUTDOWN soon", "42601 SHUTDOWN: soon is too much", ""},
		{"SHUTDOWN WAIT_FOR_CLIENTS; SHUTDOWN WAIT_FOR_SERVERS; SHUTDOWN", "SHUTDOWN SHUTDOWN SHUTDOWN", ""},
		{"BEGIN; PAUSE", "25001 PAUSE cannot run inside a transaction block", ""},
		{"ROLLBACK", "ROLLBACK", ""},
	} {
		if got := order(t, conn, test.sql); got != test.want {
			t.Errorf("%s\n got  %s\n want %s", test.sql, got, test.want)
		}
		if told := w.told(); told != test.told {
			t.Errorf("%s: the proxy was told %s, want %s", test.sql, told, test.told)
		}
	}
	const done = "pool.size_max=5, pool.size_max=6, pool.size_max=7, SHUTDOWN WAIT_FOR_CLIENTS, SHUTDOWN WAIT_FOR_SERVERS, SHUTDOWN"
	if got := strings.Join(p.done, ", "); got != done {
		t.Errorf("the process was told %s, want %s", got, done)
	}
	from := conn.Conn().LocalAddr().String()
	for _, line := range []string{
		`level=INFO msg="console command" user=root from=` + from + ` command="PAUSE SHARD s1" epoch=7`,
		`level=WARN msg="console command" user=root from=` + from + ` command="PAUSE SHARD nosuch" epoch=7 error="shard \"nosuch\" does not exist"`,
		`command="KILL (3 clients)"`, `command="KILL_CLIENT 9"`, `command=RELOAD`, `command="SET pool.size_max = 5"`, `command="SHUTDOWN WAIT_FOR_CLIENTS"`,
	} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("no line %s in\n%s", line, log.String())
		}
	}
	if strings.Contains(log.String(), "secret'") {
		t.Error("a secret was logged")
	}
}

// order gives the notices and tags of a simple query, or the message of its error.
func order(t testing.TB, conn *pgconn.PgConn, sql string) string {
	t.Helper()
	results, err := conn.Exec(testContext(t), sql).ReadAll()
	said, _ := conn.CustomData()["said"].([]string)
	delete(conn.CustomData(), "said")
	if e, ok := errorAs(err); ok {
		return e.Code + " " + e.Message
	}
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	for _, r := range results {
		said = append(said, r.CommandTag.String())
	}
	return strings.Join(said, " ")
}

func TestReloadOfBrokenFile(t *testing.T) {
	cfg, p := testConfig(), &program{}
	p.err = errors.Join(errors.New("f.toml:3: pool.mode: no"), errors.New("f.toml:4: pool.size_max: no"))
	cfg.Process = p
	_, err := connect(t, startConsole(t, cfg), "root").Exec(testContext(t), "RELOAD").ReadAll()
	e := wantError(t, err, "ERROR", "F0000")
	if e.Message != "the configuration file cannot be used: f.toml:3: pool.mode: no" || e.Detail != "f.toml:4: pool.size_max: no" || e.Hint == "" {
		t.Errorf("%q, detail %q, hint %q", e.Message, e.Detail, e.Hint)
	}
}

// TestEveryVerbHasItsRole holds that who may only look can change nothing, and look at everything.
func TestEveryVerbHasItsRole(t *testing.T) {
	cfg := testConfig()
	cfg.Operator = newDesk(t)
	c := startConsole(t, cfg)
	watcher, w := connect(t, c, "watcher"), cfg.Control.(*works)
	for _, v := range verbs() {
		sql := v.name
		if v.name == "SET" {
			sql = "SET pool.size_max = 5"
		}
		_, err := watcher.Exec(testContext(t), sql).ReadAll()
		e, _ := errorAs(err)
		denied := e != nil && e.Code == wire.CodeInsufficientPrivilege
		first, _, _ := strings.Cut(v.name, " ")
		looks := slices.Contains([]string{"SHOW", "LOCATE", "EXPLAIN", "DOCTOR", "PLAN", "VERIFY"}, first) || v.name == "FENCE CHECK"
		heavy := v.name == "DOCTOR DEEP" || first == "VERIFY" // it changes nothing, but is much work
		switch {
		case denied != (v.role == RoleAdmin):
			t.Errorf("%s: denied %v to stats users, role %v", v.name, denied, v.role)
		case !denied && !looks, denied && looks && !heavy:
			t.Errorf("%s has the role %v", v.name, v.role)
		case looks == v.alone, looks && v.act != nil:
			t.Errorf("%s may run in a transaction block: %v", v.name, !v.alone)
		}
		// The extended protocol comes to the same.
		_, err = watcher.Prepare(testContext(t), "", sql, nil)
		if e, _ := errorAs(err); (e != nil && e.Code == wire.CodeInsufficientPrivilege) != denied {
			t.Errorf("%s in the extended protocol: %v", v.name, err)
		}
	}
	if told := w.told(); told != "" {
		t.Errorf("the proxy was told %s", told)
	}
}

// TestRolesChange holds that a session has the role that its user has now, also for what it has prepared before.
func TestRolesChange(t *testing.T) {
	c := startConsole(t, testConfig())
	conn := connect(t, c, "root")
	if _, err := conn.Prepare(testContext(t), "p", "PAUSE", nil); err != nil {
		t.Fatal(err)
	}
	c.SetRoles([]string{"watcher"}, []string{"root"})
	_, err := conn.Exec(testContext(t), "PAUSE").ReadAll()
	wantError(t, err, "ERROR", wire.CodeInsufficientPrivilege)
	wantError(t, conn.ExecPrepared(testContext(t), "p", nil, nil, nil).Read().Err, "ERROR", wire.CodeInsufficientPrivilege)
	query(t, conn, "SHOW EPOCH")
	c.SetRoles([]string{"watcher"}, nil)
	_, err = conn.Exec(testContext(t), "SHOW EPOCH").ReadAll()
	wantError(t, err, "ERROR", wire.CodeInsufficientPrivilege)
}

// busyConsole has a proxy whose shard "busy" cannot be paused, and gives a channel that is closed once that is tried.
func busyConsole(t testing.TB) (*console, chan struct{}) {
	cfg, w := testConfig(), &works{pausing: make(chan struct{})}
	cfg.Control = w
	return startConsole(t, cfg), w.pausing
}

func TestPauseIsCanceledByLeaving(t *testing.T) {
	c, pausing := busyConsole(t)
	r := dialRawAs(t, c, "root")
	r.Send(&pgproto3.Query{String: "PAUSE SHARD busy"})
	r.Send(&pgproto3.Query{String: "SHOW VERSION"}) // what is sent meanwhile does not hide that the client leaves
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	<-pausing
	r.conn.Close()
	for ctx := testContext(t); ; {
		c.mu.Lock()
		n := len(c.sessions)
		c.mu.Unlock()
		if n == 0 {
			return
		}
		if ctx.Err() != nil {
			t.Fatal("the session still waits")
		}
	}
}

func TestPauseIsCanceledByRequest(t *testing.T) {
	c, pausing := busyConsole(t)
	r := dialRawAs(t, c, "root")
	r.Send(&pgproto3.Query{String: "PAUSE SHARD busy"})
	r.Send(&pgproto3.Query{String: "SHOW VERSION"})
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	<-pausing
	c.Cancel(wire.CancelKey{PID: r.key.PID, Secret: "no"})
	c.Cancel(r.key)
	if got := r.until(t, 'Z') + " " + r.until(t, 'Z'); got != "EE57014 ZI T D C ZI" {
		t.Errorf("answers %s", got)
	}
	c.Cancel(r.key) // nothing waits any more
}

func TestPauseEndsWithTheConsole(t *testing.T) {
	c, pausing := busyConsole(t)
	r := dialRawAs(t, c, "root")
	r.Send(&pgproto3.Query{String: "PAUSE SHARD busy"})
	if err := r.Flush(); err != nil {
		t.Fatal(err)
	}
	<-pausing
	c.stop()
	if got := r.until(t, 0); !strings.HasSuffix(got, "EF57P01 EOF") {
		t.Errorf("answers %s", got)
	}
}

// TestKillClientOfConsole ends a session of the console itself, be it the one that asks.
func TestKillClientOfConsole(t *testing.T) {
	c, pausing := busyConsole(t)
	waiting, root := dialRawAs(t, c, "root"), dialRawAs(t, c, "root")
	waiting.Send(&pgproto3.Query{String: "PAUSE SHARD busy"})
	if err := waiting.Flush(); err != nil {
		t.Fatal(err)
	}
	<-pausing
	root.Send(&pgproto3.Query{String: fmt.Sprintf("KILL_CLIENT %d", waiting.key.PID)})
	if got := root.until(t, 'Z'); got != "C ZI" {
		t.Errorf("answers %s", got)
	}
	if got := waiting.until(t, 0); !strings.HasSuffix(got, "EF57P01 EOF") {
		t.Errorf("the one that waited: %s", got)
	}
	root.Send(&pgproto3.Query{String: fmt.Sprintf("KILL_CLIENT %d", root.key.PID)})
	if got := root.until(t, 0); got != "C ZI EF57P01 EOF" {
		t.Errorf("the one that asked: %s", got)
	}
}

func TestExplain(t *testing.T) {
	conn := connect(t, startConsole(t, testConfig()), "watcher")
	for _, test := range []struct{ sql, want string }{
		{"EXPLAIN SELECT 1", "Kind: any, Text: SELECT 1"},
		{
			"explain /* shardproxy: shard=s1 */ SELECT 'a;b', $$;$$, $x$ ; $x$ /* end */; SHOW VERSION",
			"Kind: any, Text: /* shardproxy: shard=s1 */ SELECT 'a;b', $$;$$, $x$ ; $x$, shardproxy 1.2.3",
		},
		{"EXPLAIN (SHARDPROXY) SELECT * FROM t WHERE id = $1", "Kind: any, Text: SELECT * FROM t WHERE id = $1"},
		{"EXPLAIN ( shardproxy )\nSELECT (1)", "Kind: any, Text: SELECT (1)"},
		{"EXPLAIN (SELECT 1)", "Kind: any, Text: (SELECT 1)"},
		{"EXPLAIN refuse", "54001 too deep"},
		{"EXPLAIN", "42601 EXPLAIN: the statement is missing"},
		{"EXPLAIN (SHARDPROXY)", "42601 EXPLAIN: the statement is missing"},
	} {
		if got := run(t, conn, test.sql); got != test.want {
			t.Errorf("%s\n got  %s\n want %s", test.sql, got, test.want)
		}
	}
	if r := conn.ExecParams(testContext(t), "EXPLAIN SELECT $1", nil, nil, nil, nil).Read(); r.Err != nil || len(r.Rows) != 2 {
		t.Errorf("in the extended protocol: %v", r.Err)
	}
}
