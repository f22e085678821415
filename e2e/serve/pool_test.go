package serve

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

const whoAmI = "SELECT pg_backend_pid()"

// servers gives the process numbers of SHOW SERVERS, by shard.
func servers(t *testing.T, console *client) map[string][]string {
	t.Helper()
	return serversOf(t, console, false)
}

// serversOf is servers, or the connections of the proxy's own work.
func serversOf(t *testing.T, console *client, service bool) map[string][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	results, err := console.Exec(ctx, "SHOW SERVERS").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]int{}
	for i, f := range results[0].FieldDescriptions {
		column[f.Name] = i
	}
	found := map[string][]string{}
	for _, row := range results[0].Rows {
		if (string(row[column["application_name"]]) == "service") != service {
			continue
		}
		shard := string(row[column["shard"]])
		found[shard] = append(found[shard], string(row[column["remote_pid"]]))
	}
	return found
}

// TestTransactionPooling gives one backend to many clients, and none sees another's settings.
func TestTransactionPooling(t *testing.T) {
	t.Parallel()
	p := start(t, "[pool]\nsize_max = 1\n")
	a, b := connect(t, p.dsn("app", "application_name=a")), connect(t, p.dsn("app", "application_name=b"))
	a.must(t, "SET work_mem = '7MB'; SET search_path = pg_catalog")
	pid := a.must(t, at("s1", whoAmI))
	b.expect(t, at("s1", whoAmI), pid)
	const state = "SELECT current_setting('work_mem'), current_setting('search_path'), current_setting('application_name')"
	for range 2 {
		a.expect(t, at("s1", state), "7MB pg_catalog a")
		b.expect(t, at("s1", state), `4MB "$user", public b`)
	}
	a.must(t, "BEGIN")
	a.expect(t, at("s1", whoAmI), pid)
	b.must(t, at("s2", whoAmI)) // s1's is taken, s2 has one of its own
	a.must(t, "COMMIT")
	b.expect(t, at("s1", whoAmI), pid)
}

// TestSessionPooling keeps a backend and all that is in it for one user, and cleans it for the next.
func TestSessionPooling(t *testing.T) {
	t.Parallel()
	p := start(t, "[pool]\nsize_max = 1\nacquire_timeout = \"200ms\"\n[[users]]\nname = \"owner\"\nsecret = \"owner\"\npool_mode = \"session\"\n")
	a := connect(t, p.dsn("owner"))
	pid := a.must(t, at("s1", whoAmI))
	a.must(t, "SET work_mem = '7MB'")
	a.must(t, "SET shardproxy.shard = 's1'") // a temporary table is on one shard
	a.must(t, "CREATE TEMP TABLE mine (n int)")
	a.must(t, "INSERT INTO mine VALUES (1), (2)")
	a.must(t, at("s1", "SELECT pg_advisory_lock(4711)"))
	a.must(t, at("s1", "PREPARE p AS SELECT 42"))
	a.must(t, "LISTEN news")
	a.expect(t, at("s1", whoAmI), pid)
	a.expect(t, "SELECT sum(n) FROM mine", "3")
	a.expect(t, at("s1", "SHOW work_mem"), "7MB")

	b := connect(t, p.dsn("owner"))
	b.refuses(t, at("s1", whoAmI), "53300", "no backend connection became free within 200ms")
	connect(t, p.dsn("app")).must(t, "NOTIFY news, 'hello'") // another user has a pool of his own
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := a.WaitForNotification(ctx); err != nil {
		t.Errorf("no notification: %v", err)
	}
	a.leave()
	waitFor(t, "the backend is free", func() bool {
		_, err := b.try(at("s1", whoAmI))
		return err == nil
	})
	b.expect(t, at("s1", whoAmI), pid)
	b.expect(t, at("s1", "SHOW work_mem"), "4MB")
	b.expect(t, at("s1", "SELECT count(*) FROM pg_class WHERE relname = 'mine'"), "0")
	b.expect(t, at("s1", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"), "0")
	b.expect(t, at("s1", "SELECT count(*) FROM pg_listening_channels()"), "0")
	b.expect(t, at("s1", "SELECT count(*) FROM pg_prepared_statements"), "0")
}

// TestSessionPoolingForAll is the mode of those who have none of their own.
func TestSessionPoolingForAll(t *testing.T) {
	t.Parallel()
	p := start(t, "[pool]\nmode = \"session\"\nsize_max = 1\nacquire_timeout = \"200ms\"\n"+
		"[[users]]\nname = \"owner\"\nsecret = \"owner\"\npool_mode = \"transaction\"\n")
	for user, free := range map[string]bool{"app": false, "owner": true} {
		a, b := connect(t, p.dsn(user)), connect(t, p.dsn(user))
		a.must(t, at("s2", whoAmI))
		if _, err := b.try(at("s2", whoAmI)); (err == nil) != free {
			t.Errorf("%s: %v", user, err)
		}
	}
}

// TestAcquireTimeout refuses who waited too long for a backend, and only his statement.
func TestAcquireTimeout(t *testing.T) {
	t.Parallel()
	p := start(t, "[pool]\nsize_max = 1\nacquire_timeout = \"200ms\"\n")
	a, b := connect(t, p.dsn("app")), connect(t, p.dsn("app"))
	a.must(t, "BEGIN")
	a.must(t, at("s1", whoAmI))
	begin := time.Now()
	b.refuses(t, at("s1", whoAmI), "53300", "(?s)within 200ms.*pool.size_max")
	if took := time.Since(begin); took < 200*time.Millisecond {
		t.Errorf("refused after %v", took)
	}
	b.must(t, at("s2", whoAmI))
	a.must(t, "COMMIT")
	b.must(t, at("s1", whoAmI))
}

// TestBudget holds max_backends over both shards: a new connection costs an idle one of another pool.
func TestBudget(t *testing.T) {
	t.Parallel()
	p := start(t, "[pool]\nmax_backends = 2\nsize_max = 2\nacquire_timeout = \"200ms\"\n")
	console := p.console(t)
	a, b, c := connect(t, p.dsn("app")), connect(t, p.dsn("app")), connect(t, p.dsn("app"))
	hold := func(c *client, shard string) {
		t.Helper()
		c.must(t, "BEGIN")
		c.must(t, at(shard, whoAmI))
	}
	hold(a, "s1")
	hold(b, "s1")
	c.refuses(t, at("s2", whoAmI), "53300", "pool.max_backends")
	a.must(t, "COMMIT")
	b.must(t, "COMMIT")
	hold(a, "s2") // closes one of s1
	if got := servers(t, console); len(got["s1"]) != 1 || len(got["s2"]) != 1 {
		t.Errorf("%v, want one connection to each shard", got)
	}
	hold(b, "s2")
	c.refuses(t, at("s1", whoAmI), "53300", "")
	a.must(t, "COMMIT")
	c.must(t, at("s1", whoAmI))
	if got := servers(t, console); len(got["s1"])+len(got["s2"]) > 2 {
		t.Errorf("%v are more than 2", got)
	}
}

// TestIdleTimeout closes what nobody uses, down to size_min.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	p := start(t, "[pool]\nsize_min = 1\nidle_timeout = \"100ms\"\n")
	console := p.console(t)
	var clients []*client
	for range 3 {
		c := connect(t, p.dsn("app"))
		c.must(t, "BEGIN")
		c.must(t, at("s2", whoAmI))
		clients = append(clients, c)
	}
	if got := servers(t, console)["s2"]; len(got) != 3 {
		t.Errorf("%v, want 3 connections to s2", got)
	}
	for _, c := range clients {
		c.must(t, "COMMIT")
	}
	waitFor(t, "one connection is left", func() bool { return len(servers(t, console)["s2"]) == 1 })
	left := servers(t, console)["s2"][0]
	clients[0].expect(t, at("s2", whoAmI), left)
	waitFor(t, "the server knows no other", func() bool {
		return onServer(t, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE pid = "+left) == "1"
	})
}

// TestLifetime replaces connections that are too old, also one that is in use all the time.
func TestLifetime(t *testing.T) {
	t.Parallel()
	p := start(t, "[pool]\nsize_min = 1\nsize_max = 1\nlifetime = \"300ms\"\n")
	c := connect(t, p.dsn("app"))
	c.must(t, "BEGIN")
	first := c.must(t, at("s2", whoAmI))
	c.must(t, at("s2", "SELECT pg_sleep(0.4)"))
	c.expect(t, at("s2", whoAmI), first) // not within a transaction
	c.must(t, "COMMIT")
	if again := c.must(t, at("s2", whoAmI)); again == first {
		t.Errorf("the backend %s outlives its lifetime", first)
	}
}

// TestCheckAfter notices a dead connection before it is used.
func TestCheckAfter(t *testing.T) {
	t.Parallel()
	p := start(t, "[pool]\ncheck_after = \"1ns\"\n[[users]]\nname = \"owner\"\nsecret = \"owner\"\n")
	c := connect(t, p.dsn("owner"))
	pid := c.must(t, at("s2", whoAmI))
	onServer(t, "postgres", "SELECT pg_terminate_backend("+pid+", 5000)")
	if again := c.must(t, at("s2", whoAmI)); again == pid {
		t.Errorf("the backend is still %s", pid)
	}
}

// TestPreparedOnBackend bounds what one connection holds; what was pushed out still works.
func TestPreparedOnBackend(t *testing.T) {
	t.Parallel()
	p := start(t, "[pool]\nsize_max = 1\nprepared_statements = 2\n")
	c := connect(t, p.dsn("app"))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	const count = 5
	for i := range count {
		sql := fmt.Sprintf("/* shardproxy: shard=s1 */ SELECT %d::text || $1", i)
		if _, err := c.Prepare(ctx, fmt.Sprintf("p%d", i), sql, nil); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 * count {
		result := c.ExecPrepared(ctx, fmt.Sprintf("p%d", i%count), [][]byte{[]byte("x")}, nil, nil).Read()
		if want := fmt.Sprintf("%dx", i%count); result.Err != nil || string(result.Rows[0][0]) != want {
			t.Fatalf("%v, %v, want %s", result.Rows, result.Err, want)
		}
	}
	held := c.must(t, at("s1", "SELECT statement FROM pg_prepared_statements"))
	if n := strings.Count(held, "SELECT"); n > 2 || n == 0 {
		t.Errorf("the backend holds %d:\n%s", n, held)
	}
}

// TestConnectTimeout gives up on a shard that takes connections and never answers.
func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	p := start(t, "[pool]\nconnect_timeout = \"1s\"\n"+shard("s1", "127.0.0.1", server.Port(), "s1")+
		shard("s2", "127.0.0.1", silent.Addr().(*net.TCPAddr).Port, "s2"))
	c := connect(t, p.dsn("app"))
	begin := time.Now()
	c.refuses(t, at("s2", whoAmI), "57P03", "deadline exceeded|timeout")
	if took := time.Since(begin); took > patience/4 {
		t.Errorf("gives up after %v", took)
	}
	c.must(t, at("s1", whoAmI))
}

// TestUnreachableShard says so to who needs it; the others work on.
func TestUnreachableShard(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ tls, host, want string }{
		"nobody listens": {`sslmode = "disable"`, "127.0.0.3", "connection refused"},
		"wrong name":     {"sslmode = \"verify-full\"\nroot_cert = \"" + put(t, t.TempDir(), "ca.crt", nodeCA.pem) + `"`, "127.0.0.1", "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, "[server_tls]\n"+c.tls+"\n"+shard("s1", "localhost", server.Port(), "s1")+shard("s2", c.host, server.Port(), "s2"))
			client := connect(t, p.dsn("app"))
			client.must(t, at("s1", whoAmI))
			client.refuses(t, at("s2", whoAmI), "57P03", c.want)
			client.must(t, at("s1", whoAmI))
		})
	}
}
