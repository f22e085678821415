package wire

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// ConnType is the kind of connection that a Rule is for.
type ConnType string

// The kinds, in pg_hba.conf's words.
const (
	ConnLocal     ConnType = "local" // unix socket
	ConnHost      ConnType = "host"  // TCP, with or without TLS
	ConnHostSSL   ConnType = "hostssl"
	ConnHostNoSSL ConnType = "hostnossl"
)

// Rule says how a kind of clients must authenticate: a line of pg_hba.conf.
type Rule struct {
	Type      ConnType
	Databases []string     // names, "all" or "sameuser"
	Users     []string     // names or "all"
	Address   netip.Prefix // the zero value is every address
	Method    Method
}

// Rules is an ordered list of rules, of which the first that matches holds.
type Rules []Rule

// Match gives the method for a client. false means that no rule matches, which is a refusal:
// see RejectionError.
func (r Rules) Match(st *Startup, remote net.Addr) (Method, bool) {
	unix := isUnix(remote)
	addr := addrOf(remote)
	for i := range r {
		if r[i].matches(st, unix, addr) {
			return r[i].Method, true
		}
	}
	return "", false
}

func (r *Rule) matches(st *Startup, unix bool, addr netip.Addr) bool {
	switch r.Type {
	case ConnLocal:
		if !unix {
			return false
		}
	case ConnHost, ConnHostSSL, ConnHostNoSSL:
		if unix || r.Type == ConnHostSSL && !st.TLS || r.Type == ConnHostNoSSL && st.TLS {
			return false
		}
		if r.Address.IsValid() && !r.Address.Contains(addr) {
			return false
		}
	default:
		return false
	}
	database, user := st.Database(), st.User()
	return slices.ContainsFunc(r.Databases, func(d string) bool {
		return d == database || d == "all" || d == "sameuser" && database == user
	}) && slices.ContainsFunc(r.Users, func(u string) bool { return u == user || u == "all" })
}

// ParseRules reads rules, one a line, as ParseRule does.
func ParseRules(lines []string) (Rules, error) {
	rules := make(Rules, 0, len(lines))
	for i, line := range lines {
		rule, err := ParseRule(line)
		if err != nil {
			return nil, fmt.Errorf("authentication rule %d: %w", i+1, err)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// ParseRule reads a line in the manner of pg_hba.conf: `local DATABASE USER METHOD` or
// `host DATABASE USER ADDRESS METHOD` (also hostssl, hostnossl). Databases and users may be lists
// with commas; the address is an IP, a CIDR or "all".
func ParseRule(line string) (Rule, error) {
	fields := strings.Fields(line)
	want := 5
	if len(fields) > 0 && ConnType(fields[0]) == ConnLocal {
		want = 4
	}
	if len(fields) != want {
		return Rule{}, fmt.Errorf("%q has %d fields, not %d: local DATABASE USER METHOD, or host DATABASE USER ADDRESS METHOD",
			line, len(fields), want)
	}
	rule := Rule{
		Type:      ConnType(fields[0]),
		Databases: strings.Split(fields[1], ","),
		Users:     strings.Split(fields[2], ","),
	}
	var err error
	switch rule.Type {
	case ConnLocal:
	case ConnHost, ConnHostSSL, ConnHostNoSSL:
		if rule.Address, err = parsePrefix(fields[3]); err != nil {
			return Rule{}, err
		}
	default:
		return Rule{}, fmt.Errorf("%q is not local, host, hostssl or hostnossl", fields[0])
	}
	if rule.Method, err = ParseMethod(fields[want-1]); err != nil {
		return Rule{}, err
	}
	if rule.Method == MethodCert && rule.Type != ConnHostSSL {
		return Rule{}, fmt.Errorf("method cert needs a rule of type hostssl, not %s", rule.Type)
	}
	return rule, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if s == "all" {
		return netip.Prefix{}, nil
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("address %q is neither an IP, a CIDR nor \"all\"", s)
	}
	return prefix, nil
}

// addrOf gives the IP of a peer, the zero value where it has none.
func addrOf(remote net.Addr) netip.Addr {
	if tcp, ok := remote.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// RejectionError is the refusal of a client which no rule lets in, worded as PostgreSQL does.
func RejectionError(st *Startup, remote net.Addr) *Error {
	host := "[local]"
	if addr := addrOf(remote); addr.IsValid() {
		host = addr.String()
	}
	encryption := "no encryption"
	if st.TLS {
		encryption = "SSL encryption"
	}
	return Fatalf(CodeInvalidAuthorization, "no authentication rule lets in host %q, user %q, database %q, %s",
		host, st.User(), st.Database(), encryption).
		WithHint("An administrator of the proxy can add a rule.")
}
