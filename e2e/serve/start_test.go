package serve

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"shardproxy/internal/pgtest"
)

// TestNoShardAtStart waits for the shards, says so, and ends when it is told to.
func TestNoShardAtStart(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t)
	s.Exec(t, "postgres", "CREATE ROLE app LOGIN")
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	settings := shard("s1", s.Host, s.Port, "postgres") + shard("s2", s.Host, s.Port, "template1")
	p, stopped := begin(t, settings), begin(t, settings)
	for _, p := range []*proxy{p, stopped} {
		p.waitLogged(t, "level=WARN msg=\"no shard answers yet\" error=.*connection refused")
		if status, body := p.get(t, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "no shard has answered yet") {
			t.Errorf("/readyz: %d %s", status, body)
		}
		if status, _ := p.get(t, "/healthz"); status != http.StatusOK {
			t.Errorf("/healthz: %d", status)
		}
	}
	p.address = p.waitLogged(t, `listening address=(\S+)`)
	cannotConnect(t, p.dsn("app"), "57P03", "(?s)starting up.*No shard has answered yet")
	p.console(t).must(t, "SHOW SHARDS")
	stopped.signal(t, syscall.SIGTERM)
	if state := stopped.await(t); !state.Success() {
		t.Errorf("SIGTERM while it waits for a shard ends it with %v", state)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	p.waitReady(t)
	connect(t, p.dsn("app")).expect(t, at("s2", "SELECT current_database()"), "template1")
}

// TestFirstShardDownAtStart learns from another one.
func TestFirstShardDownAtStart(t *testing.T) {
	t.Parallel()
	p := start(t, shard("s1", "127.0.0.3", server.Port(), "s1")+shard("s2", "127.0.0.1", server.Port(), "s2"))
	c := connect(t, p.dsn("app"))
	c.expect(t, at("s2", "SELECT current_database()"), "s2")
	c.expect(t, countOf(keyOn(1, 5)), "0")
	c.refuses(t, countOf(keyOn(0, 5)), "57P03", "connection refused")
}
