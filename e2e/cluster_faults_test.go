package e2e

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// TestClusterFaults cuts, kills and starts again what a cluster of three proxies is made of. Each step begins and ends with all well.
func TestClusterFaults(t *testing.T) {
	needCluster(t)
	c := newFaultCluster(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *faultCluster)
	}{
		{"SchemaChangesAreKnownByAll", testSchemaChanges},
		{"GossipCut", testGossipCut},
		{"GossipAndCatalogCut", testGossipAndCatalogCut},
		{"StaleProxyIsFenced", testStaleProxy},
		{"CatalogKilled", testCatalogKilled},
		{"StrangersStayOut", testStrangers},
		{"CancelByAnotherProxy", testCancelByAnother},
		{"KilledUnderLoad", testKilledUnderLoad},
		{"KeyRotation", testKeyRotation},
	} {
		from := time.Now()
		if !t.Run(step.name, func(t *testing.T) { step.run(t, c) }) {
			return // what follows would only fail for the same reason
		}
		t.Logf("%-28s %v", step.name, time.Since(from).Round(time.Millisecond))
	}
}

// testSchemaChanges makes, changes and drops tables by one proxy. The others plan by them soon, and a statement that was
// prepared before says what it says on a plain PostgreSQL.
func testSchemaChanges(t *testing.T, c *faultCluster) {
	h := c.harnessShards()
	one, other := keyOn(t, h, 0, 0), keyOn(t, h, 1, 0)
	a, b, third := connect(t, c.proxies[0].DSN), connect(t, c.proxies[1].DSN), connect(t, c.proxies[2].DSN)
	plain := connect(t, plainDSN)
	plain.must(t, "DROP TABLE IF EXISTS fault_schema")
	both := func(sql string) {
		t.Helper()
		a.must(t, sql)
		plain.must(t, sql)
	}
	both("CREATE TABLE fault_schema (user_id bigint PRIMARY KEY, n int)")
	for _, s := range []*session{b, third} { // at once: they do not know the table, and look for it
		s.mustf(t, "INSERT INTO fault_schema VALUES (%d, 1)", keyOn(t, h, 2, slices.Index([]*session{b, third}, s)))
	}
	both(fmt.Sprintf("INSERT INTO fault_schema VALUES (%d, 10), (%d, 20)", one, other))

	prepare := func(s *session, name, sql string) {
		t.Helper()
		tr := &transcript{}
		s.send(&pgproto3.Parse{Name: name, Query: sql}, &pgproto3.Describe{ObjectType: 'S', Name: name}, &pgproto3.Sync{})
		s.flush()
		s.untilReady(tr, func() {})
		if line, failed := tr.failed(); failed {
			t.Fatalf("prepare %s: %s", sql, line)
		}
	}
	run := func(s *session, name string, params ...string) string {
		t.Helper()
		tr := &transcript{}
		var values [][]byte
		for _, p := range params {
			values = append(values, []byte(p))
		}
		s.send(&pgproto3.Bind{PreparedStatement: name, Parameters: values}, &pgproto3.Execute{}, &pgproto3.Sync{})
		s.flush()
		s.untilReady(tr, func() {})
		return strings.Join(tr.lines, "\n")
	}
	const all, insert, drop = "all", "insert", "drop"
	for _, s := range []*session{plain, b, third} {
		prepare(s, all, "SELECT * FROM fault_schema WHERE user_id = $1")
		prepare(s, insert, "INSERT INTO fault_schema (user_id, n) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET n = excluded.n RETURNING n")
		prepare(s, drop, "SELECT n FROM fault_schema WHERE user_id = $1")
		run(s, all, fmt.Sprint(one)) // held by a backend of one shard, not of the other
		run(s, drop, fmt.Sprint(one))
	}
	same := func(what, name string, params ...string) {
		t.Helper()
		want := run(plain, name, params...)
		for i, s := range []*session{b, third} {
			waitFor(t, fmt.Sprintf("%s through proxy %s as on a plain PostgreSQL, which says\n%s", what, c.proxies[i+1].name, want),
				func() bool { return run(s, name, params...) == want })
		}
	}
	both("ALTER TABLE fault_schema ADD COLUMN note text DEFAULT 'new'")
	same("a statement whose columns have become more, held by the backend", all, fmt.Sprint(one))
	same("a statement whose columns have become more, not held by the backend", all, fmt.Sprint(other))
	same("a statement that the change does not touch", insert, fmt.Sprint(one), "11")
	for i, s := range []*session{b, third} {
		waitFor(t, "the new column is planned with through proxy "+c.proxies[i+1].name, func() bool {
			tr := s.simple(&entry{sql: fmt.Sprintf("SELECT note FROM fault_schema WHERE user_id = %d", other)})
			return firstColumn(tr) == "new"
		})
	}
	both("DROP TABLE fault_schema")
	same("a statement on a table that was dropped", drop, fmt.Sprint(one))
	c.remake(t, "text", 0, 1, 2)
	for i := range 8 {
		b.mustf(t, "INSERT INTO fault_remade VALUES ('%d', 0)", i)
		if got := firstColumn(third.mustf(t, "UPDATE fault_remade SET n = 1 WHERE user_id = '%d' RETURNING n", i)); got != "1" {
			t.Errorf("row %d of the new table is not found: %q", i, got)
		}
	}
}

// remake makes a table anew with a key of another type by the first proxy, and waits until proxies know: a plan of the
// former table would put rows elsewhere.
func (c *faultCluster) remake(t *testing.T, keyType string, proxies ...int) {
	t.Helper()
	s := connect(t, c.proxies[0].DSN)
	s.must(t, "DROP TABLE IF EXISTS fault_remade")
	s.mustf(t, "CREATE TABLE fault_remade (user_id %s PRIMARY KEY, n int)", keyType)
	c.waitKey(t, keyType, proxies...)
}

func (c *faultCluster) waitKey(t *testing.T, keyType string, proxies ...int) {
	t.Helper()
	row := fmt.Sprintf(`"fault_remade" | "sharded" | "user_id" | %q`, keyType)
	waitFor(t, "proxies know a table with a key of type "+keyType, func() bool {
		for _, i := range proxies {
			if !strings.Contains(strings.Join(c.proxies[i].console(t).must(t, "SHOW TABLES").lines, "\n"), row) {
				return false
			}
		}
		return true
	})
}

// testGossipCut cuts a proxy off from its peers. It hears of a change from the catalog, and finds its peers again.
func testGossipCut(t *testing.T, c *faultCluster) {
	c.cutGossip(2, true)
	waitFor(t, "proxy c is gone for the others, and they for it", func() bool {
		return c.alivePeers(t, 0) == 1 && c.alivePeers(t, 2) == 0
	})
	if c.proxies[2].gossip.lost.Load() == 0 || c.proxies[0].gossip.lost.Load() == 0 {
		t.Error("the relays have lost nothing")
	}
	from := time.Now()
	epoch := c.change(t, 0, "ADD REFERENCE fault_cut")
	waitFor(t, "all have the change", func() bool { return c.epochs(t, 0, 1, 2) == strings.Repeat(epoch+" ", 2)+epoch })
	t.Logf("known by all after %v, by one of them from the catalog", time.Since(from).Round(time.Millisecond))
	c.remake(t, "int", 0, 1, 2)
	c.cutGossip(2, false)
	waitFor(t, "all know each other again", func() bool {
		return c.alivePeers(t, 0) == 2 && c.alivePeers(t, 1) == 2 && c.alivePeers(t, 2) == 2
	})
}

// testGossipAndCatalogCut cuts a proxy off from all that could tell it of a change. It serves by its old map, says so, and
// catches up when it can hear again.
func testGossipAndCatalogCut(t *testing.T, c *faultCluster) {
	before := c.epochs(t, 2)
	s := connect(t, c.proxies[2].DSN)
	s.must(t, "CREATE TABLE fault_cut_rows (user_id bigint PRIMARY KEY, n int)")
	c.cutGossip(2, true)
	c.cutCatalog(2, true)
	waitFor(t, "readyz says that the catalog is away", func() bool {
		return strings.Contains(get(t, c.proxies[2].HTTP+"/readyz"), "catalog")
	})
	waitFor(t, "proxy c is alone", func() bool { return c.alivePeers(t, 2) == 0 })
	after := c.change(t, 0, "ADD TABLE fault_late.owner")
	waitFor(t, "the others have the change", func() bool { return c.epochs(t, 0, 1) == after+" "+after })
	c.remake(t, "uuid", 0, 1)
	for i := range 20 {
		s.mustf(t, "INSERT INTO fault_cut_rows VALUES (%d, %[1]d)", i)
		connect(t, c.proxies[2].DSN).mustf(t, "SELECT n FROM fault_cut_rows WHERE user_id = %d", i)
	}
	if got := c.epochs(t, 2); got != before {
		t.Errorf("the proxy that is cut off is at epoch %s, it was at %s", got, before)
	}
	text := get(t, c.proxies[2].HTTP+"/readyz")
	if !strings.HasPrefix(text, "ready\n") || !strings.Contains(text, "the catalog does not answer") {
		t.Errorf("readyz of the proxy that is cut off:\n%s", text)
	}
	if !strings.Contains(c.proxies[2].Log(), "the catalog does not answer") {
		t.Errorf("its log does not tell:\n%s", c.proxies[2].Log())
	}
	if line, failed := c.proxies[2].console(t).simple(&entry{sql: "ADD REFERENCE fault_never"}).failed(); !failed || !strings.HasPrefix(line, "error ERROR 57P03 ") {
		t.Errorf("a change through the proxy that is cut off: %q", line)
	}
	c.cutGossip(2, false)
	c.cutCatalog(2, false)
	from := time.Now()
	waitFor(t, "it has caught up", func() bool { return c.epochs(t, 2) == after })
	t.Logf("caught up %v after the cut healed", time.Since(from).Round(time.Millisecond))
	c.waitKey(t, "uuid", 2)
	waitFor(t, "readyz has nothing to say", func() bool { return get(t, c.proxies[2].HTTP+"/readyz") == "ready\n" })
	waitFor(t, "all know each other again", func() bool { return c.alivePeers(t, 2) == 2 && c.alivePeers(t, 0) == 2 })
}

// testCatalogKilled kills the catalog: nothing can be changed, all is served, and a proxy starts by its file.
func testCatalogKilled(t *testing.T, c *faultCluster) {
	connect(t, c.proxies[0].DSN).must(t, "CREATE TABLE fault_catalog (user_id bigint PRIMARY KEY, n int)")
	epoch := c.epochs(t, 1)
	if err := c.catalog.Kill(); err != nil {
		t.Fatal(err)
	}
	line, failed := c.proxies[0].console(t).simple(&entry{sql: "ADD REFERENCE fault_refused"}).failed()
	if !failed || !strings.HasPrefix(line, "error ERROR 57P03 ") || !strings.Contains(line, "data traffic goes on") {
		t.Errorf("a change without the catalog: %q", line)
	}
	c.proxies[1].kill(t)
	c.proxies[1].start(t)
	waitFor(t, "the proxy serves by its file, and says so", func() bool {
		text := get(t, c.proxies[1].HTTP+"/readyz")
		return strings.HasPrefix(text, "ready\n") && strings.Contains(text, "state file")
	})
	if got := c.epochs(t, 1); got != epoch {
		t.Errorf("the file is of epoch %s, want %s", got, epoch)
	}
	for i := range c.proxies {
		s := connect(t, c.proxies[i].DSN)
		for k := range 8 {
			s.mustf(t, "INSERT INTO fault_catalog VALUES (%d, 1)", 100*i+k)
		}
	}
	if err := c.catalog.Restart(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "all see that the catalog is back", func() bool {
		for _, p := range c.proxies {
			if get(t, p.HTTP+"/readyz") != "ready\n" {
				return false
			}
		}
		return true
	})
	after := c.change(t, 1, "ADD REFERENCE fault_back")
	waitFor(t, "all have the change", func() bool { return c.epochs(t, 0, 1, 2) == strings.Repeat(after+" ", 2)+after })
}

// testStrangers starts proxies with another key, and of another cluster, which try to join.
func testStrangers(t *testing.T, c *faultCluster) {
	c.catalog.Exec(t, "postgres", "CREATE DATABASE other OWNER app")
	c.initCatalog(t, "other", "others")
	for _, stranger := range []struct{ name, database, cluster, key string }{
		{"wrongkey", "app", faultName, faultOther},
		{"wrongcluster", "other", "others", faultKey},
	} {
		p := c.newProxy(t, stranger.name)
		p.config = c.configure(p, stranger.database, stranger.cluster, stranger.key, []string{c.proxies[0].gossip.address})
		p.start(t)
		waitFor(t, stranger.name+" sees that it is not let in", func() bool {
			return strings.Contains(p.Log(), "gossip: cannot join "+c.proxies[0].gossip.address)
		})
		waitFor(t, "the proxy that was asked tells of it", func() bool {
			return regexp.MustCompile(`level=WARN msg="gossip: [^"]*(cluster|key|decrypt|Encrypt|remote state|keyring)`).MatchString(c.proxies[0].Log())
		})
		for i := range c.proxies {
			if lines := strings.Join(c.proxies[i].console(t).must(t, "SHOW PEERS").lines, "\n"); strings.Contains(lines, stranger.name) || c.alivePeers(t, i) != 2 {
				t.Errorf("proxy %s knows\n%s", c.proxies[i].name, lines)
			}
		}
		if lines := strings.Join(p.console(t).must(t, "SHOW PEERS").lines, "\n"); strings.Contains(lines, "row ") {
			t.Errorf("%s knows\n%s", stranger.name, lines)
		}
		// Alone, it serves; but by the map of another cluster, which is older, not where the shards are fenced.
		line, failed := connect(t, p.DSN).simple(&entry{sql: "SELECT 1"}).failed()
		if failed && (stranger.cluster == faultName || !strings.HasPrefix(line, "error ERROR 57P03 ")) {
			t.Errorf("through %s: %s", stranger.name, line)
		}
		p.kill(t)
	}
}

// change makes a change of the topology by one proxy and gives the epoch that it made.
func (c *faultCluster) change(t *testing.T, i int, command string) string {
	t.Helper()
	var tr *transcript
	waitFor(t, command, func() bool { // another one may have been first
		tr = c.proxies[i].console(t).simple(&entry{sql: command})
		line, failed := tr.failed()
		return !failed || !strings.HasPrefix(line, "error ERROR 40001 ")
	})
	if line, failed := tr.failed(); failed {
		t.Fatalf("%s: %s", command, line)
	}
	return firstColumn(tr)
}

// documented gives the SQLSTATEs that the manual tells operators of.
func documented(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	codes := make(map[string]bool)
	for _, m := range regexp.MustCompile(`(?m)^\| ([0-9A-Z]{5}) \|`).FindAllSubmatch(text, -1) {
		codes[string(m[1])] = true
	}
	if len(codes) < 10 {
		t.Fatalf("only %d codes in the manual", len(codes))
	}
	return codes
}
