package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// identity is a folder with the certificates of a proxy and of its clients.
type identity struct {
	dir     string
	servers *authority
	clients *authority
}

func newIdentity(t *testing.T) *identity {
	t.Helper()
	id := &identity{dir: t.TempDir(), servers: newAuthority("proxy CA"), clients: newAuthority("client CA")}
	cert, key := id.servers.issue("proxy", "localhost", "127.0.0.1")
	putPair(t, id.dir, "server", cert, key)
	cert, key = id.clients.issue("app")
	putPair(t, id.dir, "app", cert, key)
	cert, key = newAuthority("stranger").issue("app")
	putPair(t, id.dir, "stranger", cert, key)
	put(t, id.dir, "servers.crt", id.servers.pem)
	put(t, id.dir, "clients.crt", id.clients.pem)
	return id
}

// listen is the section of the configuration; certs is tls_client_certs.
func (id *identity) listen(certs string) string {
	return fmt.Sprintf("[listen]\ntls_cert = %q\ntls_key = %q\ntls_client_ca = %q\ntls_client_certs = %q\n",
		id.path("server.crt"), id.path("server.key"), id.path("clients.crt"), certs)
}

func (id *identity) path(name string) string { return filepath.Join(id.dir, name) }

// full is what a client says to check the proxy's certificate and name; with a name it shows a certificate of its own.
func (id *identity) full(name string) []string {
	params := []string{"sslmode=verify-full", "sslrootcert=" + id.path("servers.crt")}
	if name != "" {
		params = append(params, "sslcert="+id.path(name+".crt"), "sslkey="+id.path(name+".key"))
	}
	return params
}

// TestClientTLS goes through sslmode with three drivers.
func TestClientTLS(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	p := start(t, id.listen("none"))
	const ask = "SELECT 41 + 1"
	for _, mode := range []string{"disable", "prefer", "require", "verify-ca", "verify-full"} {
		dsn := p.dsn("app", "sslmode="+mode, "sslrootcert="+id.path("servers.crt"))
		c := connect(t, dsn)
		c.expect(t, ask, "42")
		if _, secure := c.Conn().(*tls.Conn); secure != (mode != "disable") {
			t.Errorf("pgx, %s: TLS %v", mode, secure)
		}
		if got, err := psql(t, dsn, "-c", `\conninfo`, "-c", ask); err != nil || !strings.HasSuffix(got, "42") ||
			strings.Contains(got, "TLSv1.3") != (mode != "disable") {
			t.Errorf("psql, %s: %q, %v", mode, got, err)
		}
		if got, err := pq(t, dsn, ask); err != nil || got != "42" {
			t.Errorf("lib/pq, %s: %q, %v", mode, got, err)
		}
	}
	if got := p.console(t).must(t, "SHOW CLIENTS"); !strings.Contains(got, "TLS") {
		t.Errorf("SHOW CLIENTS shows no TLS:\n%s", got)
	}
	wrongCA := p.dsn("app", "sslmode=verify-full", "sslrootcert="+id.path("clients.crt"))
	if _, err := tryConnect(t, wrongCA); err == nil {
		t.Error("a client trusts a wrong CA")
	}
	// Channel binding holds through psql, which is told to insist on it.
	if got, err := psql(t, p.dsn("app", "sslmode=require", "channel_binding=require"), "-c", ask); err != nil || got != "42" {
		t.Errorf("channel binding: %q, %v", got, err)
	}
}

func TestNoClientTLS(t *testing.T) {
	t.Parallel()
	p := start(t, "")
	if _, err := psql(t, p.dsn("app", "sslmode=require"), "-c", "SELECT 1"); err == nil || !strings.Contains(err.Error(), "server does not support SSL") {
		t.Errorf("sslmode=require without a certificate: %v", err)
	}
	if _, err := psql(t, p.dsn("app", "sslmode=prefer"), "-c", "SELECT 1"); err != nil {
		t.Errorf("sslmode=prefer: %v", err)
	}
}

// TestTLSRequired refuses plain text by TCP, but not by the Unix socket.
func TestTLSRequired(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	p := start(t, id.listen("none")+fmt.Sprintf("tls_require = true\nunix_socket_dir = %q\n", id.dir))
	cannotConnect(t, p.dsn("app"), "28000", "connection requires encryption")
	connect(t, p.dsn("app", "sslmode=require")).must(t, "SELECT 1")
	_, port, _ := net.SplitHostPort(p.address)
	local := fmt.Sprintf("host=%s port=%s user=app password=app dbname=shop", id.dir, port)
	if got, err := psql(t, local, "-c", "SELECT 1"); err != nil || got != "1" {
		t.Errorf("Unix socket: %q, %v", got, err)
	}
}

// TestTLSRules tells connections with and without TLS apart.
func TestTLSRules(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	p := start(t, id.listen("none")+"[[auth.rules]]\ntype = \"hostssl\"\nuser = \"app\"\n[[auth.rules]]\ntype = \"hostnossl\"\nuser = \"admin\"\n")
	connect(t, p.dsn("app", "sslmode=require")).must(t, "SELECT 1")
	cannotConnect(t, p.dsn("app"), "28000", "no encryption")
	p.console(t).must(t, "SHOW VERSION")
	cannotConnect(t, p.dsn("admin", "sslmode=require"), "28000", "SSL encryption")
}

func TestClientCertificates(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	// login gives the error of an attempt with the certificate of this name, "" for none.
	login := func(t *testing.T, p *proxy, user, certificate string) error {
		t.Helper()
		c, err := tryConnect(t, p.dsn(user, id.full(certificate)...))
		if err == nil {
			_, err = c.try("SELECT 1")
		}
		return err
	}
	// strange says whether libpq gets in with a certificate of another authority. (Go's clients do not send one that
	// was not asked for.)
	strange := func(t *testing.T, p *proxy) bool {
		t.Helper()
		_, err := psql(t, p.dsn("app", id.full("stranger")...), "-c", "SELECT 1")
		return err == nil
	}
	t.Run("none", func(t *testing.T) {
		p := start(t, id.listen("none"))
		for _, certificate := range []string{"", "app"} {
			if err := login(t, p, "app", certificate); err != nil {
				t.Errorf("%q: %v", certificate, err)
			}
		}
		if !strange(t, p) {
			t.Error("a certificate that was not asked for matters")
		}
	})
	t.Run("optional", func(t *testing.T) {
		p := start(t, id.listen("optional"))
		for _, certificate := range []string{"", "app"} {
			if err := login(t, p, "app", certificate); err != nil {
				t.Errorf("%q: %v", certificate, err)
			}
		}
		if strange(t, p) {
			t.Error("a certificate of a wrong CA is let in")
		}
		connect(t, p.dsn("app")).must(t, "SELECT 1") // without TLS
	})
	t.Run("require", func(t *testing.T) {
		p := start(t, id.listen("require")+fmt.Sprintf("unix_socket_dir = %q\n", id.dir))
		if err := login(t, p, "app", "app"); err != nil {
			t.Error(err)
		}
		refused(t, "wrong password with a certificate", login(t, p, "app:wrong", "app"), "28P01", "")
		refused(t, "no certificate", login(t, p, "app", ""), "28000", "requires a valid client certificate")
		cannotConnect(t, p.dsn("app"), "28000", "requires a valid client certificate")
		if strange(t, p) {
			t.Error("a certificate of a wrong CA is let in")
		}
		_, port, _ := net.SplitHostPort(p.address)
		if _, err := psql(t, fmt.Sprintf("host=%s port=%s user=app password=app dbname=shop", id.dir, port), "-c", "SELECT 1"); err != nil {
			t.Errorf("Unix socket: %v", err)
		}
	})
	t.Run("method cert", func(t *testing.T) {
		p := start(t, id.listen("optional")+"[[auth.rules]]\ntype = \"hostssl\"\nuser = \"app,owner\"\nmethod = \"cert\"\n"+user("owner", "owner"))
		if err := login(t, p, "app:wrong", "app"); err != nil {
			t.Errorf("no password is needed: %v", err)
		}
		if got, err := psql(t, p.dsn("app:", id.full("app")...), "-c", "SELECT 42"); err != nil || got != "42" {
			t.Errorf("psql: %q, %v", got, err)
		}
		refused(t, "another's certificate", login(t, p, "owner", "app"), "28000", `certificate authentication failed for user "owner"`)
		refused(t, "no certificate", login(t, p, "app", ""), "28000", "requires a valid client certificate")
	})
}

// TestDirectTLS begins TLS without asking for it, as clients of PostgreSQL 17 may.
func TestDirectTLS(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	p := start(t, id.listen("none"))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(id.servers.pem)
	direct := func(protocols ...string) (*client, error) {
		return tryConnect(t, p.dsn("app"), func(cfg *pgconn.Config) {
			cfg.DialFunc = func(_ context.Context, network, address string) (net.Conn, error) {
				return tls.Dial(network, address, &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: protocols}) //nolint:noctx // of this machine
			}
		})
	}
	c, err := direct("postgresql")
	if err != nil {
		t.Fatal(err)
	}
	c.expect(t, "SELECT 42", "42")
	_, err = direct()
	refused(t, "without ALPN", err, "08P01", "ALPN")
	if _, err := direct("http/1.1"); err == nil {
		t.Error("another protocol by ALPN is taken")
	}
}

// TestCertificateReload changes the files under a running proxy.
func TestCertificateReload(t *testing.T) {
	t.Parallel()
	for name, hangup := range map[string]bool{"SIGHUP": true, "by itself": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := newIdentity(t)
			p := start(t, id.listen("none"))
			old := connect(t, p.dsn("app", id.full("")...))

			put(t, id.dir, "server.crt", []byte("nonsense"))
			refused, taken := `level=ERROR msg="TLS certificate could not be read again`, `level=INFO msg="TLS certificate read again`
			if hangup {
				p.signal(t, syscall.SIGHUP)
				refused, taken = `level=ERROR msg="the configuration cannot be read again.*listen.tls_cert`, `level=INFO msg="configuration read again`
			}
			p.waitLogged(t, refused)
			connect(t, p.dsn("app", id.full("")...)).must(t, "SELECT 1") // the former is in use

			next := newAuthority("next CA")
			cert, key := next.issue("proxy", "127.0.0.1")
			putPair(t, id.dir, "server", cert, key)
			put(t, id.dir, "servers.crt", next.pem)
			if hangup {
				p.signal(t, syscall.SIGHUP)
			}
			p.waitLogged(t, taken)
			connect(t, p.dsn("app", id.full("")...)).must(t, "SELECT 1")
			old.must(t, "SELECT 1")
		})
	}
}

// TestTLSNeedsClientHello sends plain text where a handshake must come: whoever stands between may not add messages.
func TestTLSNeedsClientHello(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	p := start(t, id.listen("none"))
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request, _ := (&pgproto3.SSLRequest{}).Encode(nil)
	if _, err := conn.Write(append(request, "plain text that came along"...)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if len(answer) == 0 || answer[0] != 'S' {
		t.Errorf("%q, %v", answer, err)
	}
	p.waitLogged(t, "login failed.*received unencrypted data after SSL request")
}
