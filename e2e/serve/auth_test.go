package serve

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/wire"
)

// user is a [[users]] whose secret is whatever, and whose role on the shards is app.
func user(name, secret string) string {
	return fmt.Sprintf("\n[[users]]\nname = %q\nsecret = %q\nserver_user = \"app\"\nserver_password = \"app\"\n", name, secret)
}

func verifier(t *testing.T, password string) string {
	t.Helper()
	v, err := wire.NewVerifier(password)
	if err != nil {
		t.Fatal(err)
	}
	return string(v)
}

// TestPasswords logs in with every method and every form of a secret, by three drivers.
func TestPasswords(t *testing.T) {
	t.Parallel()
	p := start(t, `
[[auth.rules]]
user = "scram, scramverifier, app, nobody"
[[auth.rules]]
user = "md5,md5stored,md5verifier"
method = "md5"
[[auth.rules]]
user = "clear,clearstored,clearverifier"
method = "password"
[[auth.rules]]
user = "empty"
`+user("scram", "scram")+user("scramverifier", verifier(t, "scramverifier"))+
		user("md5", "md5")+user("md5stored", string(wire.NewMD5Secret("md5stored", "md5stored")))+user("md5verifier", verifier(t, "md5verifier"))+
		user("clear", "clear")+user("clearstored", string(wire.NewMD5Secret("clearstored", "clearstored")))+user("clearverifier", verifier(t, "clearverifier"))+
		user("empty", ""))
	for _, name := range []string{"scram", "scramverifier", "md5", "md5stored", "md5verifier", "clear", "clearstored", "clearverifier"} {
		t.Run(name, func(t *testing.T) {
			const who = "SELECT current_user"
			connect(t, p.dsn(name)).expect(t, who, "app")
			if got, err := psql(t, p.dsn(name), "-c", who); err != nil || got != "app" {
				t.Errorf("psql: %q, %v", got, err)
			}
			if got, err := pq(t, p.dsn(name), who); err != nil || got != "app" {
				t.Errorf("lib/pq: %q, %v", got, err)
			}
			wrong := p.dsn(name + ":wrong")
			cannotConnect(t, wrong, "28P01", `^password authentication failed for user "`+name+`"`)
			if _, err := psql(t, wrong, "-c", who); err == nil || !strings.Contains(err.Error(), "password authentication failed for user") {
				t.Errorf("psql with a wrong password: %v", err)
			}
		})
	}
	// A stored verifier is not its own password.
	cannotConnect(t, p.dsn("scramverifier:"+verifier(t, "scramverifier")), "28P01", "")
	cannotConnect(t, p.dsn("nobody:x"), "28P01", `^password authentication failed for user "nobody"`)
	cannotConnect(t, p.dsn("empty:x"), "28P01", "")
}

// TestRules holds that the first rule that fits decides, and that none is a refusal.
func TestRules(t *testing.T) {
	t.Parallel()
	p := start(t, `
[[auth.rules]]
user = "banned"
method = "reject"
[[auth.rules]]
address = "127.0.0.1"
user = "free, ghost"
method = "trust"
[[auth.rules]]
address = "127.0.0.0/8"
user = "free"
[[auth.rules]]
user = "banned"
method = "trust"
[[auth.rules]]
database = "shardproxy"
user = "admin"
[[auth.rules]]
user = "app"
database = "other"
`+user("banned", "banned")+user("free", "free"))
	from := func(address string) func(*pgconn.Config) {
		return func(cfg *pgconn.Config) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
			cfg.DialFunc = func(ctx context.Context, network, to string) (net.Conn, error) {
				return d.DialContext(ctx, network, to)
			}
		}
	}
	login := func(user, address string) error {
		c, err := tryConnect(t, p.dsn(user), from(address))
		if err == nil {
			_, err = c.try("SELECT 1")
		}
		return err
	}
	if err := login("free:wrong", "127.0.0.1"); err != nil {
		t.Errorf("trust: %v", err)
	}
	if err := login("free", "127.0.0.2"); err != nil {
		t.Errorf("the rule behind trust: %v", err)
	}
	refused(t, "trust is for one address", login("free:wrong", "127.0.0.2"), "28P01", "")
	refused(t, "reject", login("banned", "127.0.0.1"), "28000", `user "banned", database "shop", no encryption`)
	refused(t, "rule for another database", login("app", "127.0.0.1"), "28000", `no authentication rule lets in host "127.0.0.1", user "app"`)
	refused(t, "unknown user that is trusted", login("ghost", "127.0.0.1"), "28000", `role "ghost" does not exist`)
	p.console(t).must(t, "SHOW VERSION")
	cannotConnect(t, p.dsn("admin"), "28000", "")
}

// TestUserFile reads PgBouncer's userlist.txt.
func TestUserFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	list := fmt.Sprintf("; users\n\"app\" \"app\"\n\"owner\" \"owner\"\n\"mapped\" %q\n\"quo\"\"te\" \"pass\"\"word\"\n", verifier(t, "mapped"))
	file := put(t, dir, "userlist.txt", []byte(list))
	p := start(t, fmt.Sprintf("[auth]\nuser_file = %q\n[[users]]\nname = \"mapped\"\nserver_user = \"app\"\nserver_password = \"app\"\n", file))
	connect(t, p.dsn("owner")).expect(t, "SELECT current_user", "owner")
	connect(t, p.dsn("mapped")).expect(t, "SELECT current_user", "app")
	cannotConnect(t, p.dsn("owner:app"), "28P01", "")
	cannotConnect(t, p.dsn(`quo"te:wrong`), "28P01", "")
	// His password is right, so what fails is the role, which the shards do not have.
	c, err := tryConnect(t, p.dsn(`quo"te:pass"word`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.try("SELECT 1"); err == nil {
		t.Error("a role that no shard has can work")
	}
}

// TestAuthQuery looks users up on the first shard.
func TestAuthQuery(t *testing.T) {
	t.Parallel()
	p := start(t, `
[auth]
query = "SELECT name, secret FROM public.logins WHERE name = $1"
query_user = "service"
query_password = "service"
`)
	exec := func(sql string) {
		t.Helper()
		onServer(t, "s1", sql)
	}
	exec("INSERT INTO logins VALUES ('dynamic', 'dynamic'), ('vague', NULL), ('o''brien', 'x')")
	connect(t, p.dsn("dynamic")).expect(t, "SELECT current_user", "dynamic")
	connect(t, p.dsn("app")).expect(t, "SELECT current_user", "app") // listed: not asked for
	cannotConnect(t, p.dsn("dynamic:wrong"), "28P01", "")
	cannotConnect(t, p.dsn("vague:vague"), "28P01", "")
	cannotConnect(t, p.dsn("missing"), "28P01", "")
	cannotConnect(t, p.dsn("o'brien:y"), "28P01", `"o'brien"`)
	exec("DELETE FROM logins WHERE name = 'dynamic'")
	waitFor(t, "the user that is gone may not log in any more", func() bool {
		c, err := tryConnect(t, p.dsn("dynamic"))
		if err == nil {
			c.leave()
			return false
		}
		refused(t, "user that is gone", err, "28P01", "")
		return true
	})
}

// TestAuthQueryFails tells clients to come again, and the operator why.
func TestAuthQueryFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ query, password, log string }{
		"query":    {"SELECT name, secret FROM no_such_table WHERE name = $1", "service", `no_such_table`},
		"shape":    {"SELECT $1::text", "service", `one row of two columns`},
		"password": {"SELECT $1, $1", "wrong", `password authentication failed for user \\"service`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, fmt.Sprintf("[auth]\nquery = %q\nquery_user = \"service\"\nquery_password = %q\n", c.query, c.password))
			cannotConnect(t, p.dsn("dynamic"), "57P03", "cannot look up the user")
			p.waitLogged(t, `level=ERROR msg="auth query failed".*`+c.log)
			connect(t, p.dsn("app")).must(t, "SELECT 1")
		})
	}
}

// TestLookupKeepsConfiguredPassword: whoever is looked up under the name of a role must not change its password.
func TestLookupKeepsConfiguredPassword(t *testing.T) {
	t.Parallel()
	p := start(t, `
[auth]
query = "SELECT $1, 'not the password of this role'"
query_user = "service"
query_password = "service"
[[users]]
name = "mapped"
secret = "mapped"
server_user = "owner"
server_password = "owner"
`)
	cannotConnect(t, p.dsn("owner:guessed"), "28P01", "")
	connect(t, p.dsn("mapped")).expect(t, "SELECT current_user", "owner")
}

// TestServerUser maps users to roles with passwords of every kind that a shard may ask for.
func TestServerUser(t *testing.T) {
	t.Parallel()
	var settings strings.Builder
	for _, role := range []string{"owner", "md5role", "clear"} {
		fmt.Fprintf(&settings, "[[users]]\nname = \"to-%s\"\nsecret = \"x\"\nserver_user = %[1]q\nserver_password = %[1]q\n", role)
	}
	p := start(t, settings.String()+`
[[users]]
name = "wrong"
secret = "x"
server_user = "service"
server_password = "nonsense"
`)
	for _, role := range []string{"owner", "md5role", "clear"} {
		connect(t, p.dsn("to-"+role+":x")).expect(t, "SELECT current_user", role)
	}
	cannotConnect(t, p.dsn("to-owner:owner"), "28P01", "") // the password of the role is not the user's
	connect(t, p.dsn("wrong:x")).refuses(t, "SELECT 1", "28P01", `password authentication failed for user "service"`)
}
