package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestConsole asks the admin console for what PgBouncer's tools ask, with PgBouncer's names of columns.
func TestConsole(t *testing.T) {
	c := needCluster(t)
	connect(t, proxyDSN).must(t, "SELECT 1") // so that there is a pool
	s := connect(t, c.Proxies[0].Admin)
	for _, show := range []struct {
		what, columns string
		rowsMin       int
	}{
		{"POOLS", "database user cl_active cl_waiting sv_active sv_idle maxwait pool_mode", 1},
		{"CLIENTS", "type user database state addr port connect_time", 1},
		{"SERVERS", "type user database state addr port connect_time", 1},
		{"STATS", "database total_xact_count total_query_count total_received total_sent total_query_time", 1},
		{"SHARDS", "", shardCount},
		{"RANGES", "", shardCount},
		{"TABLES", "", 0},
		{"VERSION", "version", 1},
	} {
		t.Run(show.what, func(t *testing.T) {
			tr := s.must(t, "SHOW "+show.what)
			said, rows := strings.Join(tr.lines, "\n"), 0
			for _, column := range strings.Fields(show.columns) {
				if !strings.Contains(said, "column \""+column+"\" ") {
					t.Errorf("no column %s in\n%s", column, said)
				}
			}
			for _, line := range tr.lines {
				if strings.HasPrefix(line, "row ") {
					rows++
				}
			}
			if rows < show.rowsMin {
				t.Errorf("%d rows, at least %d are wanted\n%s", rows, show.rowsMin, said)
			}
		})
	}
	if line, failed := s.simple(&entry{sql: "SHOW NOSUCH"}).failed(); !failed {
		t.Error("SHOW NOSUCH succeeds")
	} else if s.tx == 0 {
		t.Errorf("SHOW NOSUCH ends the session: %s", line)
	}
}

// TestHealthAndMetrics asks what orchestration and Prometheus ask.
func TestHealthAndMetrics(t *testing.T) {
	c := needCluster(t)
	s := connect(t, proxyDSN)
	s.must(t, "SELECT 1")
	s.simple(&entry{sql: "SELECT 1/0"})
	for path, want := range map[string][]string{
		"/healthz": {""},
		"/readyz":  {""},
		"/metrics": {"# TYPE shardproxy_", `22012`},
	} {
		resp, err := http.Get(c.Proxies[0].HTTP + path) //nolint:noctx // of this machine
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s, %v\n%s", path, resp.Status, err, body)
		}
		for _, w := range want {
			if !strings.Contains(string(body), w) {
				t.Errorf("%s says nothing of %q\n%.2000s", path, w, body)
			}
		}
	}
}
