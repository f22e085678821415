package serve

import (
	"fmt"
	"testing"
)

// TestNodeTLS speaks to shards by sslmode. The server's certificate is for "localhost".
func TestNodeTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	right := put(t, dir, "right.crt", nodeCA.pem)
	wrong := put(t, dir, "wrong.crt", newAuthority("another").pem)
	cert, key := nodeCA.issue("certified")
	putPair(t, dir, "certified", cert, key)
	ours := fmt.Sprintf("cert = \"%s/certified.crt\"\nkey = \"%[1]s/certified.key\"\n", dir)
	const secure = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
	tests := []struct {
		name, settings, host, role string
		tls, fails                 string // what pg_stat_ssl says, or the reason in the log
	}{
		{"disable", `sslmode = "disable"`, "localhost", "plain", "f", ""},
		{"disable is refused", `sslmode = "disable"`, "localhost", "secure", "", "no encryption"},
		{"allow stays plain", `sslmode = "allow"`, "localhost", "plain", "f", ""},
		{"allow turns to TLS", `sslmode = "allow"`, "localhost", "secure", "t", ""},
		{"prefer", `sslmode = "prefer"`, "localhost", "secure", "t", ""},
		{"prefer turns to plain", `sslmode = "prefer"`, "localhost", "plain", "f", ""},
		{"require", `sslmode = "require"`, "127.0.0.1", "secure", "t", ""},
		{"require is refused", `sslmode = "require"`, "localhost", "plain", "", "SSL encryption"},
		{"require with a CA checks it", `sslmode = "require"` + "\nroot_cert = \"" + wrong + `"`, "localhost", "secure", "", "unknown authority"},
		{"verify-ca", `sslmode = "verify-ca"` + "\nroot_cert = \"" + right + `"`, "127.0.0.1", "secure", "t", ""},
		{"verify-ca, wrong CA", `sslmode = "verify-ca"` + "\nroot_cert = \"" + wrong + `"`, "localhost", "secure", "", "unknown authority"},
		{"verify-full", `sslmode = "verify-full"` + "\nroot_cert = \"" + right + `"`, "localhost", "secure", "t", ""},
		{"verify-full, wrong name", `sslmode = "verify-full"` + "\nroot_cert = \"" + right + `"`, "127.0.0.1", "secure", "", "doesn't contain any IP SANs|cannot validate certificate for 127.0.0.1"},
		{"verify-full, wrong CA", `sslmode = "verify-full"` + "\nroot_cert = \"" + wrong + `"`, "localhost", "secure", "", "unknown authority"},
		{"verify-full, system CAs", `sslmode = "verify-full"` + "\nroot_cert = \"system\"", "localhost", "secure", "", "unknown authority"},
		{"our certificate", `sslmode = "require"` + "\n" + ours, "localhost", "certified", "t", ""},
		{"no certificate of ours", `sslmode = "require"`, "localhost", "certified", "", "client certificate"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := begin(t, fmt.Sprintf("[server_tls]\n%s\n[[users]]\nname = \"app\"\nsecret = \"app\"\nserver_user = %q\nserver_password = %[2]q\n"+
				"[cluster]\nservice_user = %[2]q\nservice_password = %[2]q\n", test.settings, test.role)+
				shard("s1", test.host, server.Port(), "s1"))
			if test.fails != "" {
				p.waitLogged(t, "no shard answers yet.*("+test.fails+")")
				return
			}
			p.waitReady(t)
			connect(t, p.dsn("app")).expect(t, secure, test.tls)
		})
	}
}

// TestNodeUnixSocket reaches the shards by a socket, where no TLS is needed.
func TestNodeUnixSocket(t *testing.T) {
	t.Parallel()
	p := start(t, "[server_tls]\nsslmode = \"verify-full\"\nroot_cert = \"system\"\n"+
		shard("s1", sockets, server.Port(), "s1")+shard("s2", sockets, server.Port(), "s2"))
	connect(t, p.dsn("app")).expect(t, at("s2", "SELECT current_database(), inet_server_addr()"), "s2 ")
}
