package serve

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// fate waits until the proxy ends the session of a client that says nothing, and gives the reason.
func fate(t *testing.T, c *client) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if _, err := c.ReceiveMessage(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			t.Fatalf("the session goes on: %v", err)
		}
	}
}

// draining waits until the proxy says that it gets no more clients.
func draining(t *testing.T, p *proxy) {
	t.Helper()
	waitFor(t, "/readyz tells of the drain", func() bool {
		status, body := p.get(t, "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "shutting down")
	})
}

// TestDrain ends idle sessions at SIGTERM, and lets transactions end.
func TestDrain(t *testing.T) {
	t.Parallel()
	p := start(t, "")
	if status, body := p.get(t, "/readyz"); status != http.StatusOK {
		t.Errorf("before: %d %s", status, body)
	}
	idle, busy, failed, console := connect(t, p.dsn("app")), connect(t, p.dsn("app")), connect(t, p.dsn("app")), p.console(t)
	key := keyOn(1, 10)
	busy.must(t, "BEGIN")
	busy.must(t, insert(key, 1))
	failed.must(t, "BEGIN")
	failed.refuses(t, "SELECT 1/0", "22012", "")
	console.must(t, "SHOW VERSION")

	p.signal(t, syscall.SIGTERM)
	const reason = "terminating connection due to administrator command"
	refused(t, "idle client", fate(t, idle), "57P01", reason)
	refused(t, "client of the console", fate(t, console), "57P01", "")
	draining(t, p)
	if status, _ := p.get(t, "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d: whoever restarts what is not healthy would cut off transactions", status)
	}
	if conn, err := net.Dial("tcp", p.address); err == nil {
		conn.Close()
		t.Error("new clients are let in")
	}
	busy.must(t, insert(key+1_000_000_000, 2))
	if _, err := busy.try("COMMIT"); err != nil {
		t.Errorf("COMMIT while draining: %v", err)
	}
	refused(t, "client after its COMMIT", fate(t, busy), "57P01", reason)
	if !p.alive() {
		t.Error("the proxy did not wait for the second transaction")
	}
	failed.must(t, "ROLLBACK")
	refused(t, "client after its ROLLBACK", fate(t, failed), "57P01", reason)
	if state := p.await(t); !state.Success() {
		t.Errorf("ended with %v", state)
	}
	if got := onServer(t, "s2", countOf(key)); got != "1" {
		t.Errorf("%s rows are there", got)
	}
}

// TestDrainTimeout cuts off what does not end, and cancels it on the shard.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	p := start(t, "[listen]\ndrain_timeout = \"300ms\"\n")
	idle, running := connect(t, p.dsn("app")), connect(t, p.dsn("app"))
	idle.must(t, "BEGIN")
	key := keyOn(0, 11)
	idle.must(t, insert(key, 1))
	const mark = "drain-timeout"
	ended := make(chan error, 1)
	go func() {
		_, err := running.try(at("s2", "SELECT pg_sleep(60), '"+mark+"'"))
		ended <- err
	}()
	const running60 = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60), ''" + mark + "%' AND pid <> pg_backend_pid()"
	waitFor(t, "the statement runs", func() bool { return onServer(t, "postgres", running60) == "1" })
	p.signal(t, syscall.SIGTERM)
	p.waitLogged(t, `msg=drain error="2 sessions did not end in time"`)
	if state := p.await(t); !state.Success() {
		t.Errorf("ended with %v", state)
	}
	if err := <-ended; err == nil {
		t.Error("the statement succeeds")
	}
	refused(t, "client in a transaction", fate(t, idle), "57P01", "terminating connection due to administrator command")
	waitFor(t, "the statement is cancelled on its shard", func() bool { return onServer(t, "postgres", running60) == "0" })
	if got := onServer(t, "s1", countOf(key)); got != "0" {
		t.Errorf("%s rows of the transaction that was cut off are there", got)
	}
}

// TestSecondSignal does not wait any more.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		p := start(t, "")
		c := connect(t, p.dsn("app"))
		c.must(t, "BEGIN")
		p.signal(t, s)
		draining(t, p)
		p.signal(t, s)
		status := p.await(t).Sys().(syscall.WaitStatus)
		if !status.Signaled() || status.Signal() != s {
			t.Errorf("ended with %v, want %v", status, s)
		}
		var e *pgconn.PgError
		if err := fate(t, c); errors.As(err, &e) {
			t.Errorf("the client was told %v", e)
		}
	}
}

// TestHangup with a file that is as before changes nothing, and harms nobody.
func TestHangup(t *testing.T) {
	t.Parallel()
	p := start(t, "")
	c := connect(t, p.dsn("app"))
	p.signal(t, syscall.SIGHUP)
	p.waitLogged(t, `msg="configuration read again" changed=""`)
	c.must(t, "SELECT 1")
}

// TestSlowLoginDoesNotHoldDrain ends connections that have not logged in.
func TestSlowLoginDoesNotHoldDrain(t *testing.T) {
	t.Parallel()
	p := start(t, "")
	silent, slow := dial(t, p), dial(t, p)
	if _, err := slow.Write(startup(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(slow, make([]byte, 9)); err != nil { // it is asked for its password
		t.Fatal(err)
	}
	p.signal(t, syscall.SIGTERM)
	if state := p.await(t); !state.Success() {
		t.Errorf("ended with %v", state)
	}
	for _, conn := range []net.Conn{silent, slow} {
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("a connection that has not logged in is not closed: %v", err)
		}
	}
}
