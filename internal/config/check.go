package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Problem is a value that cannot be used.
type Problem struct {
	Path    string // of the configuration file, "" for one that was not loaded
	Line    int    // of the key or of the table around it; 0 where the file has neither
	Key     string // such as pool.size_max or shards[1].nodes[0].port (counted from 0)
	Message string
}

// String is the problem as file:line: key: message.
func (p Problem) String() string {
	e := FileError{Path: p.Path, Line: p.Line, Message: p.Key + ": " + p.Message}
	if p.Path == "" {
		return e.Message
	}
	return e.Error()
}

// Check looks at all values at once, reads the certificates, and says all that is wrong.
func (c *Config) Check() []Problem {
	k := &checker{config: c}
	k.listen(&c.Listen)
	k.admin(&c.Admin)
	k.auth(&c.Auth)
	k.users(c.Users)
	k.pool(&c.Pool)
	k.limits(&c.Limits)
	k.moves(&c.Moves)
	k.serverTLS(&c.ServerTLS)
	k.cluster(&c.Cluster)
	if c.Catalog.DSN == "" {
		k.shards(c.Shards)
		k.ranges(c.Ranges)
		k.tables(&c.Tables)
	} else {
		k.catalog(c)
	}
	k.gossip(c)
	k.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	k.oneOf("log.format", c.Log.Format, "text", "json")
	return k.problems
}

// Validate is Check as one error.
func (c *Config) Validate() error {
	problems := c.Check()
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = errors.New(p.String())
	}
	return errors.Join(errs...)
}

// checker collects problems.
type checker struct {
	config   *Config
	problems []Problem
}

func (k *checker) addf(key, format string, args ...any) {
	k.problems = append(k.problems, Problem{k.config.path, k.config.lineOf(key), key, fmt.Sprintf(format, args...)})
}

func (k *checker) oneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		k.addf(key, "%q is not one of %s", value, strings.Join(allowed, ", "))
	}
}

func (k *checker) between(key string, value, low, high int) {
	if value < low || value > high {
		k.addf(key, "%d is not between %d and %d", value, low, high)
	}
}

func (k *checker) positive(key string, d Duration) {
	if d.Duration == 0 {
		k.addf(key, "must be above zero")
	}
	k.optional(key, d)
}

// optional allows 0, which switches the limit off.
func (k *checker) optional(key string, d Duration) {
	switch {
	case d.Duration == invalid:
		k.addf(key, `is not a duration such as "250ms", "2s" or "1h30m"`)
	case d.Duration < 0:
		k.addf(key, "%v is below zero", d)
	}
}

func (k *checker) nonEmpty(key, value string) {
	if value == "" {
		k.addf(key, "is missing")
	}
}

func (k *checker) address(key, value string) {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		k.addf(key, "%q is not an address of the form host:port", value)
	}
}

// keyPair checks that both or neither are named, and that they belong together.
func (k *checker) keyPair(certKey, cert, keyKey, key string) {
	switch {
	case cert == "" && key != "":
		k.addf(certKey, "is missing, but %s is set", keyKey)
	case cert != "" && key == "":
		k.addf(keyKey, "is missing, but %s is set", certKey)
	case cert != "":
		if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
			k.addf(certKey, "%v", err)
		}
	}
}

func (k *checker) roots(key, path string) {
	if path == "" {
		return
	}
	text, err := os.ReadFile(path)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
		err = fmt.Errorf("%s holds no certificate in PEM form", path)
	}
	if err != nil {
		k.addf(key, "%v", err)
	}
}

const maxCount = 1 << 30 // of anything that is counted: far above any use, far below overflow

func (k *checker) listen(l *Listen) {
	if len(l.Addresses) == 0 && l.UnixSocketDir == "" {
		k.addf("listen.addresses", "is empty, and unix_socket_dir is too: no client could come in")
	}
	for i, a := range l.Addresses {
		k.address(fmt.Sprintf("listen.addresses[%d]", i), a)
	}
	k.keyPair("listen.tls_cert", l.TLSCert, "listen.tls_key", l.TLSKey)
	k.oneOf("listen.tls_client_certs", l.TLSClientCerts, "none", "optional", "require")
	k.roots("listen.tls_client_ca", l.TLSClientCA)
	if l.TLSClientCerts != "none" && l.TLSClientCA == "" {
		k.addf("listen.tls_client_ca", "is missing: nothing could check the certificates of clients")
	}
	if l.TLSCert == "" && (l.TLSRequire || l.TLSClientCerts != "none") {
		k.addf("listen.tls_cert", "is missing: TLS is asked for")
	}
	k.between("listen.max_clients", l.MaxClients, 1, maxCount)
	k.between("listen.max_unauthenticated", l.MaxUnauthenticated, 1, maxCount)
	k.between("listen.max_startup_bytes", l.MaxStartupBytes, 256, 1<<20)
	k.positive("listen.login_timeout", l.LoginTimeout)
	k.optional("listen.drain_timeout", l.DrainTimeout)
}

func (k *checker) admin(a *Admin) {
	if a.HTTP != "" {
		k.address("admin.http", a.HTTP)
	}
	for i, u := range a.Users {
		k.nonEmpty(fmt.Sprintf("admin.users[%d]", i), u)
	}
	for i, u := range a.StatsUsers {
		k.nonEmpty(fmt.Sprintf("admin.stats_users[%d]", i), u)
	}
}

func (k *checker) auth(a *Auth) {
	for i, r := range a.Rules {
		key := fmt.Sprintf("auth.rules[%d].", i)
		k.oneOf(key+"type", r.Type, "local", "host", "hostssl", "hostnossl")
		k.oneOf(key+"method", r.Method, "trust", "reject", "scram-sha-256", "md5", "password", "cert")
		switch {
		case r.Type == "local" && r.Address != "":
			k.addf(key+"address", "a rule of type local has no address")
		case r.Type != "local" && !isRuleAddress(r.Address):
			k.addf(key+"address", "%q is not \"all\", an IP address, or one with a mask such as 10.0.0.0/8", r.Address)
		}
		if r.Type == "hostssl" && k.config.Listen.TLSCert == "" {
			k.addf(key+"type", "hostssl needs listen.tls_cert")
		}
		if r.Method == "cert" && (r.Type != "hostssl" || k.config.Listen.TLSClientCerts == "none") {
			k.addf(key+"method", "cert needs a rule of type hostssl, and listen.tls_client_certs")
		}
		k.list(key+"database", r.Database)
		k.list(key+"user", r.User)
	}
	if a.Query != "" {
		k.nonEmpty("auth.query_user", a.QueryUser)
		if !strings.Contains(a.Query, "$1") {
			k.addf("auth.query", "has no $1 for the user name")
		}
	}
}

// list checks names with commas between them.
func (k *checker) list(key, value string) {
	for name := range strings.SplitSeq(value, ",") {
		if strings.TrimSpace(name) == "" {
			k.addf(key, "%q has an empty name", value)
			return
		}
	}
}

// isRuleAddress says whether a rule's address is all, an address or a network.
func isRuleAddress(s string) bool {
	if s == "all" {
		return true
	}
	_, addrErr := netip.ParseAddr(s)
	_, netErr := netip.ParsePrefix(s)
	return addrErr == nil || netErr == nil
}

// scramVerifier and md5Verifier are how PostgreSQL stores secrets in pg_authid.rolpassword.
var (
	scramVerifier = regexp.MustCompile(`^SCRAM-SHA-256\$[1-9][0-9]*:[A-Za-z0-9+/]+=*\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$`)
	md5Verifier   = regexp.MustCompile(`^md5[0-9a-f]{32}$`)
)

func (k *checker) users(users []User) {
	seen := map[string]bool{}
	roles := k.rolePasswords()
	for i := range users {
		u := &users[i]
		key := fmt.Sprintf("users[%d].", i)
		k.nonEmpty(key+"name", u.Name)
		if seen[u.Name] {
			k.addf(key+"name", "user %q is listed twice", u.Name)
		}
		seen[u.Name] = true
		if s := u.Secret.Reveal(); strings.HasPrefix(s, "SCRAM-SHA-256$") && !scramVerifier.MatchString(s) {
			k.addf(key+"secret", "begins like a SCRAM verifier but is not one")
		}
		if u.ServerPassword.IsVerifier() {
			k.addf(key+"server_password", "is a verifier; logging in to a node needs the password itself")
		}
		roles.add(key+"server_password", u.Role(), u.RolePassword().Reveal())
		if u.PoolMode != "" {
			k.oneOf(key+"pool_mode", u.PoolMode, "transaction", "session")
		}
		k.between(key+"max_connections", u.MaxConnections, 0, maxCount)
	}
}

// rolePasswords finds roles on the nodes that are given two passwords, of which only one could be used.
type rolePasswords struct {
	k     *checker
	known map[string]rolePassword
}

type rolePassword struct{ key, password string }

func (k *checker) rolePasswords() *rolePasswords {
	r := &rolePasswords{k, map[string]rolePassword{}}
	r.add("cluster.service_password", k.config.Cluster.ServiceUser, k.config.Cluster.ServicePassword.Reveal())
	r.add("auth.query_password", k.config.Auth.QueryUser, k.config.Auth.QueryPassword.Reveal())
	return r
}

func (r *rolePasswords) add(key, role, password string) {
	if role == "" || password == "" {
		return
	}
	if other, ok := r.known[role]; ok && other.password != password {
		r.k.addf(key, "role %q of the nodes has another password in %s", role, other.key)
	}
	r.known[role] = rolePassword{key, password}
}

func (k *checker) pool(p *Pool) {
	k.oneOf("pool.mode", p.Mode, "transaction", "session")
	k.between("pool.max_backends", p.MaxBackends, 1, maxCount)
	if p.MaxBackends > 0 {
		k.between("pool.size_max", p.SizeMax, 1, p.MaxBackends)
	}
	if p.SizeMax > 0 {
		k.between("pool.size_min", p.SizeMin, 0, p.SizeMax)
	}
	k.positive("pool.acquire_timeout", p.AcquireTimeout)
	k.positive("pool.connect_timeout", p.ConnectTimeout)
	k.optional("pool.idle_timeout", p.IdleTimeout)
	k.optional("pool.lifetime", p.Lifetime)
	k.optional("pool.check_after", p.CheckAfter)
	k.between("pool.prepared_statements", p.PreparedStatements, 1, maxCount)
}

func (k *checker) limits(l *Limits) {
	k.between("limits.message_bytes", l.MessageBytes, 64<<10, MessageMax)
	if l.MessageBytes > 0 {
		k.between("limits.query_bytes", l.QueryBytes, 1<<10, l.MessageBytes)
	}
	k.between("limits.parser_tokens", l.ParserTokens, 100, 2500)
	k.between("limits.plan_cache_entries", l.PlanCacheEntries, 1, maxCount)
	k.between("limits.prepared_statements", l.PreparedStatements, 1, maxCount)
	k.between("limits.finish_bytes", l.FinishBytes, 64<<10, 512<<20) // of a message PostgreSQL takes 1 GB
	k.between("limits.finish_rows", l.FinishRows, 1, 100_000_000)
}

func (k *checker) moves(m *Moves) {
	const most = 1 << 50 // bytes, of no use beyond
	k.between("moves.copy_bytes_per_second", m.CopyBytesPerSecond, 0, most)
	k.between("moves.replica_lag_bytes", m.ReplicaLagBytes, 0, most)
}

// systemRoots as server_tls.root_cert stands for the authorities of the operating system.
const systemRoots = "system"

func (k *checker) serverTLS(t *ServerTLS) {
	k.oneOf("server_tls.sslmode", t.SSLMode, "disable", "allow", "prefer", "require", "verify-ca", "verify-full")
	if strings.HasPrefix(t.SSLMode, "verify-") && t.RootCert == "" {
		k.addf("server_tls.root_cert", "is missing: %s needs it", t.SSLMode)
	}
	switch {
	case t.RootCert != systemRoots:
		k.roots("server_tls.root_cert", t.RootCert)
	case t.SSLMode != "verify-full": // anyone can have a certificate of a public authority
		k.addf("server_tls.root_cert", "%q needs sslmode verify-full", systemRoots)
	}
	k.keyPair("server_tls.cert", t.Cert, "server_tls.key", t.Key)
}
