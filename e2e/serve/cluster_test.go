package serve

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"shardproxy/topology"
)

func insert(key int64, n int) string {
	return fmt.Sprintf("INSERT INTO items VALUES (%d, %d)", key, n)
}

func countOf(key int64) string {
	return fmt.Sprintf("SELECT count(*) FROM items WHERE user_id = %d", key)
}

// databases makes two empty ones that are dropped after the test, and gives their shards.
func databases(t *testing.T, name string) (settings string, names [2]string) {
	t.Helper()
	for i := range names {
		names[i] = fmt.Sprintf("%s_%d", name, i+1)
		onServer(t, "postgres", "CREATE DATABASE "+names[i]+" OWNER app")
		t.Cleanup(func() { onServer(t, "postgres", "DROP DATABASE "+names[i]+" WITH (FORCE)") })
		settings += shard(fmt.Sprintf("s%d", i+1), "127.0.0.1", server.Port(), names[i])
	}
	return settings, names
}

// TestTables places tables by each rule of [tables].
func TestTables(t *testing.T) {
	t.Parallel()
	shards, names := databases(t, "tables")
	p := start(t, `
[tables]
explicit = ["listed.owner_id", "billing.invoices.account", "\"Odd\".\"Key\""]
reference = ["countries", "events"]
columns = ["user_id", "team_id"]
named = ["people.id"]
unlisted = "refuse"
`+shards)
	c := connect(t, p.dsn("app"))
	for _, sql := range []string{
		"CREATE SCHEMA billing",
		"CREATE TABLE listed (user_id int, owner_id bigint)",
		"CREATE TABLE billing.invoices (account text)",
		`CREATE TABLE "Odd" ("Key" uuid)`,
		"CREATE TABLE countries (code text)",
		"CREATE TABLE events (user_id bigint)",
		"CREATE TABLE teams (team_id bigint, user_id bigint)",
		"CREATE TABLE members (team_id bigint)",
		"CREATE TABLE people (id bigint)",
	} {
		c.must(t, sql)
	}
	c.refuses(t, "CREATE TABLE other (id bigint)", "0A000", "other")
	if got := onServer(t, names[0], "SELECT to_regclass('other') IS NULL"); got != "t" {
		t.Error("the refused table is on a shard")
	}
	for _, name := range names { // as a migration that went past the proxy
		onServer(t, name, "CREATE TABLE other (id bigint); GRANT ALL ON other TO app")
	}
	c.refuses(t, "SELECT * FROM other", "0A000", "other")
	c.refuses(t, "INSERT INTO other VALUES (1)", "0A000", "other")

	found := p.console(t).must(t, "SHOW TABLES")
	for _, line := range []string{
		"public listed sharded owner_id", "billing invoices sharded account", "public Odd sharded Key", "public countries reference",
		"public events reference", "public teams sharded user_id", "public members sharded team_id", "public people sharded id",
	} {
		if !strings.Contains("\n"+found, "\n"+line) {
			t.Errorf("no %q in\n%s", line, found)
		}
	}
	c.must(t, "INSERT INTO countries VALUES ('de')")
	for _, name := range names {
		if got := onServer(t, name, "SELECT code FROM countries"); got != "de" {
			t.Errorf("%s has %q of a reference table", name, got)
		}
	}
}

// TestRanges gives the halves of the ring to the shards in another order.
func TestRanges(t *testing.T) {
	t.Parallel()
	p := start(t, `
[[ranges]]
start = "0000000000000000"
end = "8000000000000000"
shard = "s2"
[[ranges]]
start = "8000000000000000"
end = "c000000000000000"
shard = "s1"
[[ranges]]
start = "0xc000000000000000"
shard = "s2"
`)
	c := connect(t, p.dsn("app"))
	seen := map[string]bool{}
	for n := range 8 {
		key := keyOn(n%2, 100+n)
		owner := "s2"
		if topology.HashInt(key)>>62 == 2 {
			owner = "s1"
		}
		seen[owner] = true
		c.must(t, insert(key, n))
		if got := onServer(t, owner, countOf(key)); got != "1" {
			t.Errorf("key %d is not on %s", key, owner)
		}
	}
	if !seen["s1"] || !seen["s2"] {
		t.Errorf("the keys of this test are on %v only", seen)
	}
	want := "0000000000000000 8000000000000000"
	if got := p.console(t).must(t, "SHOW RANGES"); !strings.HasPrefix(got, want) || strings.Count(got, "\n") != 2 {
		t.Errorf("SHOW RANGES:\n%s", got)
	}
}

// TestServiceUser reads the schema as a role of its own, so that clients' roles need no more than their tables.
func TestServiceUser(t *testing.T) {
	t.Parallel()
	p := start(t, "[cluster]\nname = \"shop-eu\"\ndatabase = \"store\"\nservice_user = \"service\"\nservice_password = \"service\"\n")
	if got := serversOf(t, connect(t, p.dsn("admin", "dbname=shardproxy")), true); len(got["s1"]) != 1 {
		t.Errorf("%v, want the connection that has read the schema", got)
	} else if role := onServer(t, "postgres", "SELECT usename FROM pg_stat_activity WHERE pid = "+got["s1"][0]); role != "service" {
		t.Errorf("the schema was read by %q", role)
	}
	connect(t, p.dsn("app", "dbname=store")).must(t, "SELECT count(*) FROM plans")
	cannotConnect(t, p.dsn("app"), "3D000", `(?s)database "shop" does not exist.*store and shardproxy`)
	cannotConnect(t, p.dsn("app", "dbname=s1"), "3D000", "")
	cannotConnect(t, p.dsn("app", "dbname=shardproxy"), "42501", "permission denied")
}

// TestLog holds that secrets and literals stay out of the log, in both formats.
func TestLog(t *testing.T) {
	t.Parallel()
	const secret = "top-secret"
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			p := start(t, fmt.Sprintf("[log]\nformat = %q\n[[users]]\nname = \"owner\"\nsecret = \"%s\"\nserver_password = \"owner\"\n"+
				"[[users]]\nname = \"lost\"\nsecret = \"x\"\nserver_password = \"%[2]s\"\n", format, secret))
			c := connect(t, p.dsn("owner:"+secret))
			c.expect(t, "SELECT '"+secret+"'", secret)
			c.refuses(t, "SELECT '"+secret+"'::int", "22P02", "")
			c.refuses(t, "SELEC '"+secret+"'", "42601", "")
			c.refuses(t, "SELECT * FROM nowhere WHERE x = '"+secret+"'", "42P01", "")
			c.refuses(t, "UPDATE items SET user_id = 1 WHERE n = length('"+secret+"')", "0A000", "")
			cannotConnect(t, p.dsn("owner:"+secret+"x"), "28P01", "")
			connect(t, p.dsn("lost:x")).refuses(t, "SELECT 1", "28P01", "")
			pid := c.must(t, "BEGIN;"+at("s1", whoAmI))
			onServer(t, "postgres", "SELECT pg_terminate_backend("+pid+", 5000)")
			if _, err := c.try(at("s1", "SELECT '"+secret+"'")); err == nil {
				t.Error("the statement works without its backend")
			}
			p.waitLogged(t, "login failed")
			if strings.Contains(p.logged(), secret) {
				t.Errorf("the log shows a secret or a literal:\n%s", p.logged())
			}
			for line := range strings.Lines(p.logged()) {
				var entry struct{ Time, Level, Msg string }
				if format == "json" && (json.Unmarshal([]byte(line), &entry) != nil || entry.Time == "" || entry.Level == "" || entry.Msg == "") {
					t.Errorf("not an entry of a log: %s", line)
				}
			}
		})
	}
}

// TestLogLevel leaves out what is below it.
func TestLogLevel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := begin(t, fmt.Sprintf("[log]\nlevel = \"error\"\n[listen]\naddresses = []\nunix_socket_dir = %q\n", dir))
	local := "host=" + dir + " port=6432 dbname=shop user=app password="
	waitFor(t, "the proxy works", func() bool {
		_, err := psql(t, local+"app", "-c", "SELECT 1")
		return err == nil
	})
	if _, err := psql(t, local+"wrong", "-c", "SELECT 1"); err == nil { // which is information, not an error
		t.Error("a wrong password is let in")
	}
	p.signal(t, syscall.SIGTERM)
	p.await(t)
	if got := p.logged(); got != "" {
		t.Errorf("logged below the level: %s", got)
	}
}

// TestAdmin has profiles only where they are asked for, and users who may look.
func TestAdmin(t *testing.T) {
	t.Parallel()
	p := start(t, "[admin]\nhttp = \"127.0.0.1:0\"\npprof = true\nstats_users = [\"app\"]\n")
	if status, _ := p.get(t, "/debug/pprof/cmdline"); status != http.StatusOK {
		t.Errorf("profiles: %d", status)
	}
	connect(t, p.dsn("app", "dbname=shardproxy")).must(t, "SHOW POOLS")
	cannotConnect(t, p.dsn("admin", "dbname=shardproxy"), "42501", "neither an admin nor a stats user")
	bare := start(t, "")
	if status, _ := bare.get(t, "/debug/pprof/cmdline"); status != http.StatusNotFound {
		t.Errorf("profiles that nobody asked for: %d", status)
	}
}
