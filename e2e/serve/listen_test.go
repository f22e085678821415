package serve

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestUnixSocket listens on nothing else, and finds the socket of a proxy that was killed.
func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	settings := fmt.Sprintf("[listen]\naddresses = []\nunix_socket_dir = %q\n[[auth.rules]]\ntype = \"local\"\n", dir)
	socket := filepath.Join(dir, ".s.PGSQL.6432")
	try := func(password string) (string, error) {
		return psql(t, fmt.Sprintf("host=%s port=6432 user=app password=%s dbname=shop", dir, password), "-c", "SELECT 42")
	}
	p := begin(t, settings)
	p.waitReady(t)
	if got, err := try("app"); err != nil || got != "42" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := try("wrong"); err == nil || !strings.Contains(err.Error(), "password authentication failed") {
		t.Errorf("a wrong password: %v", err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o777 {
		t.Errorf("%v, %v: other accounts must come in too", info, err)
	}
	endsWith(t, settings, socket+": another process listens on it")

	p.signal(t, syscall.SIGKILL)
	p.await(t)
	if _, err := os.Stat(socket); err != nil {
		t.Fatalf("the killed proxy has left no socket: %v", err)
	}
	p = begin(t, settings)
	p.waitReady(t)
	if got, err := try("app"); err != nil || got != "42" {
		t.Errorf("on the place of a stale socket: %q, %v", got, err)
	}
	p.signal(t, syscall.SIGTERM)
	if state := p.await(t); !state.Success() {
		t.Errorf("ended with %v", state)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
	put(t, dir, ".s.PGSQL.6432", []byte("not a socket"))
	endsWith(t, settings, "there is a file that is no socket")
}

// TestAddresses listens on several, and names the socket after the first.
func TestAddresses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := start(t, fmt.Sprintf("[listen]\naddresses = [\"127.0.0.1:0\", \"127.0.0.2:0\", \"localhost:0\"]\nunix_socket_dir = %q\n", dir))
	_, port, err := net.SplitHostPort(p.address)
	if err != nil {
		t.Fatal(err)
	}
	p.waitLogged(t, regexp.QuoteMeta(filepath.Join(dir, ".s.PGSQL."+port)))
	addresses := regexp.MustCompile(`listening address=(\S+:\d+)\n`).FindAllStringSubmatch(p.logged(), -1)
	if len(addresses) != 3 {
		t.Fatalf("%v are not 3 addresses", addresses)
	}
	for _, a := range addresses {
		p.address = a[1]
		connect(t, p.dsn("app")).must(t, "SELECT 1")
	}
}

// endsWith starts a proxy that must end by itself with status 1 and one line that the expression matches.
func endsWith(t *testing.T, settings, expression string) {
	t.Helper()
	file := put(t, t.TempDir(), "shardproxy.toml", []byte(compose(settings)))
	ends(t, launch(t, "serve", "--config", file), expression)
}

func ends(t *testing.T, p *process, expression string) {
	t.Helper()
	state := p.await(t)
	lines := strings.Split(strings.TrimSpace(p.logged()), "\n")
	if state.ExitCode() != 1 || len(lines) != 1 || !regexp.MustCompile(`^shardproxy: .*(`+expression+`)`).MatchString(lines[0]) {
		t.Errorf("ended with %v, want 1 and one line like %s:\n%s", state, expression, p.logged())
	}
}

// TestCannotStart says on one line why not.
func TestCannotStart(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	dir := t.TempDir()
	for name, c := range map[string]struct{ settings, want string }{
		"port taken":        {fmt.Sprintf("[listen]\naddresses = [%q]", taken.Addr()), `listen tcp .*: bind: address already in use`},
		"second port taken": {fmt.Sprintf("[listen]\naddresses = [\"127.0.0.1:0\", %q]", taken.Addr()), `address already in use`},
		"http port taken":   {fmt.Sprintf("[admin]\nhttp = %q", taken.Addr()), `listen tcp .*: bind: address already in use`},
		"no such folder":    {"[listen]\nunix_socket_dir = \"/no/such/folder\"", `listen unix /no/such/folder/\.s\.PGSQL\.`},
		"not our address":   {"[listen]\naddresses = [\"192.0.2.1:1\"]", `192\.0\.2\.1:1: bind: cannot assign requested address`},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); endsWith(t, c.settings+"\n", c.want) })
	}
	good := compose("")
	bad := func(text, want string) {
		t.Helper()
		file := put(t, t.TempDir(), "bad.toml", []byte(text+"\n"+good))
		ends(t, launch(t, "serve", "--config", file), regexp.QuoteMeta(file)+want)
		check := launch(t, "check", "--config", file)
		if check.await(t).ExitCode() != 1 || !regexp.MustCompile(regexp.QuoteMeta(file)+want).MatchString(check.logged()) {
			t.Errorf("check says %s\nwant %s", check.logged(), want)
		}
	}
	bad("colour = 1", `:1:1: unknown key colour`)
	bad("[pool]\nmode = \"statement\"", `:2: pool\.mode: "statement" is not one of transaction, session`)
	bad("[pool]\nsize_max = \"many\"", `:2:\d+: `)
	bad("[pool", `:1:\d+: `)
	bad("[auth]\nuser_file = \"none.txt\"", `:2: auth\.user_file: open .*none\.txt: no such file`)
	file := put(t, dir, "good.toml", []byte(good))
	list := put(t, dir, "users.txt", []byte("app secret\n"))
	broken := put(t, dir, "broken.toml", []byte("[auth]\nuser_file = \"users.txt\"\n"+good))
	for want, args := range map[string][]string{
		`unknown flag: --fast`:                                      {"serve", "--config", file, "--fast"},
		`unknown command "more"`:                                    {"serve", "--config", file, "more"},
		`required flag\(s\) "config" not set`:                       {"serve"},
		`none\.toml: no such file`:                                  {"serve", "--config", dir + "/none.toml"},
		regexp.QuoteMeta(list) + ":1: expected \"user\" \"secret\"": {"serve", "--config", broken},
	} {
		ends(t, launch(t, args...), want)
	}
}
