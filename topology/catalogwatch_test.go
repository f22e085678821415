package topology

import (
	"context"
	"errors"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// heard is one call of a watcher.
type heard struct {
	epoch  Epoch
	err    error
	schema bool
	from   string
}

// watchInto runs Watch until the test ends.
func watchInto(t *testing.T, c *Catalog) <-chan heard {
	t.Helper()
	news := make(chan heard, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.Watch(ctx, func(e Epoch, err error) { news <- heard{epoch: e, err: err} }, func(from string) { news <- heard{schema: true, from: from} })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch returned %v", err)
		}
	})
	return news
}

// await gives the first call that fits.
func await(t *testing.T, news <-chan heard, what string, fits func(heard) bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case h := <-news:
			if fits(h) {
				return
			}
		case <-deadline:
			t.Fatalf("never heard of %s", what)
		}
	}
}

func TestCatalogWatch(t *testing.T) {
	c, conn, s := filledCatalog(t, modelContent())
	news := watchInto(t, c)
	at := func(e Epoch) func(heard) bool { return func(h heard) bool { return h.err == nil && h.epoch == e } }
	await(t, news, "the first epoch", at(1))
	next, err := c.Commit(t.Context(), s, SplitRange{1}, dba)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now()
	await(t, news, "a change", at(2))
	t.Logf("heard of a change %v after its commit", time.Since(from))
	if err := c.TellSchema(t.Context(), "me"); err != nil {
		t.Fatal(err)
	}
	await(t, news, "a change of tables", func(h heard) bool { return h.schema && h.from == "me" })

	const kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%shardproxy.meta%' AND pid <> pg_backend_pid()"
	if _, err := conn.Exec(t.Context(), kill); err != nil {
		t.Fatal(err)
	}
	await(t, news, "the connection's end", func(h heard) bool { return h.err != nil && h.epoch == 2 })
	await(t, news, "its return", at(2))
	await(t, news, "changes of tables that there may have been", func(h heard) bool { return h.schema && h.from == "" })
	if _, err := c.Commit(t.Context(), next, SplitRange{2}, dba); err != nil {
		t.Fatal(err)
	}
	await(t, news, "a change after the return", at(3))
}

// TestCatalogAway stops the server: calls fail soon, a watcher says so, and all goes on when it is back.
func TestCatalogAway(t *testing.T) {
	pg := pgtest.Start(t)
	c, err := OpenCatalog(pg.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	s := mustNew(t, modelContent())
	if _, err := c.Init(t.Context(), s, dba); err != nil {
		t.Fatal(err)
	}
	news := watchInto(t, c)
	await(t, news, "the first epoch", func(h heard) bool { return h.err == nil })
	if err := pg.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, news, "the catalog's end", func(h heard) bool { return h.err != nil })
	if _, err := c.Load(t.Context()); err == nil || errors.Is(err, ErrDamaged) || errors.Is(err, ErrNoCatalog) {
		t.Errorf("Load without a server: %v", err)
	}
	if _, err := c.Commit(t.Context(), s, SplitRange{1}, dba); err == nil || errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("Commit without a server: %v", err)
	}
	if err := pg.Restart(); err != nil {
		t.Fatal(err)
	}
	await(t, news, "the catalog's return", func(h heard) bool { return h.err == nil && h.epoch == 1 })
	if _, err := c.Commit(t.Context(), s, SplitRange{1}, dba); err != nil {
		t.Fatal(err)
	}
	await(t, news, "a change", func(h heard) bool { return h.err == nil && h.epoch == 2 })
}

func TestOpenCatalogRefusesNonsense(t *testing.T) {
	if _, err := OpenCatalog("postgres://user:secret@host:port/db"); err == nil {
		t.Error("a port that is no number")
	}
}
