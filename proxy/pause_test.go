package proxy

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/backend"
)

// TestPauseWaitsForTransactions holds that a pause lets a transaction end that goes to a further shard, and holds back what
// is new, for as long as it takes.
func TestPauseWaitsForTransactions(t *testing.T) {
	k := newKit(t, func(c *Config) { c.Pools.Wait = 1 })
	begun, fresh := k.connect(), k.connect()
	a, b := k.keyOn(0, 0), k.keyOn(1, 0)
	begun.query("BEGIN")
	begun.query("INSERT INTO t VALUES (" + itoa(a) + ", 'begun')")
	paused := make(chan error, 1)
	go func() { paused <- k.srv.Pause(context.Background(), "") }()
	waitFor(t, "it is paused", func() bool { return k.srv.Paused("") })
	fresh.send(simpleQuery("SELECT 1 FROM r"))
	waitFor(t, "the statement is held back", func() bool { return k.waiting() == 1 })
	begun.want("INSERT INTO t VALUES ("+itoa(b)+", 'begun')", "C:INSERT 0 1 Z:T")
	begun.want("COMMIT", "C:COMMIT Z:I")
	if err := <-paused; err != nil {
		t.Fatal(err)
	}
	for _, p := range k.srv.Pools() {
		if p.Used+p.Idle > 0 {
			t.Errorf("%v has connections during the pause: %+v", p.Key, p)
		}
	}
	if n := k.rowsOf("v = 'begun'"); n != [kitShards]int{1, 1, 0} {
		t.Errorf("rows on the shards: %v", n)
	}
	if err := k.srv.Resume(""); err != nil {
		t.Fatal(err)
	}
	if got := fresh.answer("Z"); !strings.HasSuffix(got, "SELECT 0 Z:I") {
		t.Errorf("after the pause: %s", got)
	}
}

// simpleQuery is a Query message.
func simpleQuery(sql string) pgproto3.FrontendMessage { return &pgproto3.Query{String: sql} }

func (k *kit) waiting() (n int) {
	for _, p := range k.srv.Pools() {
		n += p.Waiting
	}
	return n
}

// TestPauseShardHoldsItsOwn holds that other shards go on, that the statement over all shards waits, and that a client may
// still cancel.
func TestPauseShardHoldsItsOwn(t *testing.T) {
	k := newKit(t)
	c, other := k.connect(), k.connect()
	if err := k.srv.Pause(t.Context(), "nosuch"); !errors.Is(err, ErrNoShard) {
		t.Errorf("a shard that is not there: %v", err)
	}
	if err := k.srv.Pause(t.Context(), "s2"); err != nil {
		t.Fatal(err)
	}
	other.query("INSERT INTO t VALUES (" + itoa(k.keyOn(0, 1)) + ", 'other')")
	c.send(simpleQuery("SELECT count(*) FROM t WHERE user_id = " + itoa(k.keyOn(1, 1))))
	waitFor(t, "the statement is held back", func() bool { return k.waiting() == 1 })
	k.cancel(c)
	if got := c.answer("Z"); !strings.Contains(got, "57014") {
		t.Errorf("cancelled: %s", got)
	}
	c.send(simpleQuery("SELECT user_id FROM t"))
	waitFor(t, "the statement is held back", func() bool { return k.waiting() == 1 })
	if err := k.srv.Resume("s1"); !errors.Is(err, backend.ErrNotPaused) {
		t.Errorf("a shard that is not paused: %v", err)
	}
	if err := k.srv.Resume("s2"); err != nil {
		t.Fatal(err)
	}
	if got := c.answer("Z"); !strings.Contains(got, "SELECT 1 ") {
		t.Errorf("after the pause: %s", got)
	}
}

// TestShutdownDuringPause holds that clients which wait at a paused shard do not hold up a shutdown.
func TestShutdownDuringPause(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	if err := k.srv.Pause(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	c.send(simpleQuery("SELECT 1 FROM r"))
	waitFor(t, "the statement is held back", func() bool { return k.waiting() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := k.srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if got := c.answer("gone"); !strings.Contains(got, "57P01") {
		t.Errorf("the client was told %s", got)
	}
}

// TestKillClient ends sessions wherever they wait, and stops what their shards do for them.
func TestKillClient(t *testing.T) {
	k := newKit(t)
	idle, open, running, held, other := k.connect(), k.connect(), k.connect(), k.connect(), k.connect()
	listening := k.connect()
	listening.query("LISTEN news")
	open.query("BEGIN")
	open.query("INSERT INTO t VALUES (" + itoa(k.keyOn(0, 3)) + ", 'killed')")
	running.send(simpleQuery(on1 + "SELECT pg_sleep(60), 'kill-client'"))
	waitFor(t, "the statement runs", func() bool { return k.running("kill-client") == 1 })
	if err := k.srv.Pause(t.Context(), "s3"); err != nil {
		t.Fatal(err)
	}
	held.send(simpleQuery(on3 + "SELECT 1"))
	waitFor(t, "the statement is held back", func() bool { return k.waiting() == 1 })
	for name, c := range map[string]*client{"idle": idle, "open": open, "running": running, "held": held, "listening": listening} {
		if !k.srv.KillClient(t.Context(), c.pid) {
			t.Errorf("%s: it is not there", name)
		}
		if got := c.answer("gone"); !strings.Contains(got, "57P01") || strings.Contains(got, "08006") {
			t.Errorf("%s: the client was told %s", name, got)
		}
		if k.srv.KillClient(t.Context(), c.pid) {
			t.Errorf("%s: it is still there", name)
		}
	}
	waitFor(t, "the statement is cancelled", func() bool { return k.running("kill-client") == 0 })
	if n := k.rowsOf("v = 'killed'"); n != [kitShards]int{} {
		t.Errorf("rows of the transaction: %v", n)
	}
	other.want("SELECT 1 FROM r", "T C:SELECT 0 Z:I")
	if err := k.srv.Resume("s3"); err != nil {
		t.Error(err)
	}
	k.atRest()
}

// TestKill ends all, and lets those who come then wait until RESUME.
func TestKill(t *testing.T) {
	k := newKit(t)
	running, idle := k.connect(), k.connect()
	running.send(simpleQuery(on2 + "SELECT pg_sleep(60), 'kill-all'"))
	waitFor(t, "the statement runs", func() bool { return k.running("kill-all") == 1 })
	if n := k.srv.Kill(t.Context()); n != 2 {
		t.Errorf("%d sessions were killed", n)
	}
	for _, c := range []*client{running, idle} {
		if got := c.answer("gone"); !strings.Contains(got, "57P01") {
			t.Errorf("the client was told %s", got)
		}
	}
	waitFor(t, "the statement is cancelled", func() bool { return k.running("kill-all") == 0 })
	late := k.connect()
	late.send(simpleQuery("SELECT 1 FROM r"))
	waitFor(t, "the statement is held back", func() bool { return k.waiting() == 1 })
	if err := k.srv.Resume(""); err != nil {
		t.Error(err)
	}
	if got := late.answer("Z"); !strings.Contains(got, "SELECT 0 ") {
		t.Errorf("after RESUME: %s", got)
	}
}

// TestReconnectAfterUse holds that a connection in use is closed when it is released.
func TestReconnectAfterUse(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.query("BEGIN")
	const pid = on1 + "SELECT pg_backend_pid()"
	before := c.value(pid)
	if err := k.srv.Reconnect("s1"); err != nil {
		t.Fatal(err)
	}
	if got := c.value(pid); got != before {
		t.Errorf("the transaction went from %s to %s", before, got)
	}
	outdated := 0
	for _, b := range k.srv.Backends() {
		if b.Outdated {
			outdated++
		}
	}
	if outdated != 1 {
		t.Errorf("%d connections are to be closed", outdated)
	}
	c.query("COMMIT")
	if got := c.value(pid); got == before {
		t.Error("the connection is used again")
	}
	if err := k.srv.Reconnect("nosuch"); !errors.Is(err, ErrNoShard) {
		t.Errorf("a shard that is not there: %v", err)
	}
}
