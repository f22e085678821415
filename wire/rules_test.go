package wire

import (
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestRulesMatch(t *testing.T) {
	rules, err := ParseRules([]string{
		"local     all       postgres                        trust",
		"local     sameuser  all                             md5",
		"hostssl   all       admin     all                   cert",
		"host      all       admin     all                   reject",
		"hostnossl shop,blog all       10.0.0.0/8            scram-sha-256",
		"host      shop      bob,alice 192.168.1.7           password",
		"host      all       all       ::1/128               trust",
	})
	must(t, err)
	unix := &net.UnixAddr{Name: "@", Net: "unix"}
	tcp := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netipAddrPort(t, s)) }
	for _, c := range []struct {
		user, database string
		remote         net.Addr
		tls            bool
		want           Method
	}{
		{"postgres", "x", unix, false, MethodTrust},
		{"bob", "bob", unix, false, MethodMD5},
		{"bob", "shop", unix, false, ""},
		{"admin", "shop", tcp("10.1.2.3:1"), true, MethodCert},
		{"admin", "shop", tcp("10.1.2.3:1"), false, MethodReject},
		{"x", "blog", tcp("10.1.2.3:1"), false, MethodSCRAM},
		{"x", "blog", tcp("[::ffff:10.1.2.3]:1"), false, MethodSCRAM},
		{"x", "blog", tcp("10.1.2.3:1"), true, ""},
		{"x", "blog", tcp("11.1.2.3:1"), false, ""},
		{"x", "other", tcp("10.1.2.3:1"), false, ""},
		{"alice", "shop", tcp("192.168.1.7:1"), true, MethodPassword},
		{"alice", "shop", tcp("192.168.1.8:1"), true, ""},
		{"carol", "shop", tcp("192.168.1.7:1"), true, ""},
		{"carol", "x", tcp("[::1]:1"), true, MethodTrust},
		{"postgres", "x", &net.IPAddr{}, false, ""}, // no address that we know
	} {
		st := &Startup{Params: map[string]string{"user": c.user, "database": c.database}, TLS: c.tls}
		got, ok := rules.Match(st, c.remote)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%s on %s from %v (TLS %v): got %q, %v, want %q", c.user, c.database, c.remote, c.tls, got, ok, c.want)
		}
	}
}

func TestParseRuleRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"":                                  "0 fields, not 5",
		"local all all all trust":           "5 fields, not 4",
		"host all all trust":                "4 fields, not 5",
		"tcp all all all trust":             `"tcp" is not`,
		"host all all 10.0.0.0/33 trust":    "10.0.0.0/33",
		"host all all example.com trust":    "example.com",
		"host all all all gss":              "gss",
		"host all all all cert":             "needs a rule of type hostssl",
		"local all all cert":                "needs a rule of type hostssl",
		"host all all all trust clientcert": "6 fields",
	} {
		if rule, err := ParseRule(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %+v, %v; want %q", line, rule, err, want)
		}
	}
	if _, err := ParseRules([]string{"local all all trust", "nonsense"}); err == nil || !strings.Contains(err.Error(), "rule 2") {
		t.Errorf("got %v", err)
	}
}

func TestRejectionError(t *testing.T) {
	st := &Startup{Params: map[string]string{"user": "u", "database": "d"}, TLS: true}
	e := RejectionError(st, net.TCPAddrFromAddrPort(netipAddrPort(t, "10.0.0.1:5")))
	if want := `no authentication rule lets in host "10.0.0.1", user "u", database "d", SSL encryption`; e.Message != want || e.Code != "28000" {
		t.Errorf("got %v", e)
	}
	st.TLS = false
	e = RejectionError(st, &net.UnixAddr{Net: "unix"})
	if want := `no authentication rule lets in host "[local]", user "u", database "d", no encryption`; e.Message != want || !e.Fatal() {
		t.Errorf("got %v", e)
	}
}

func netipAddrPort(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	a, err := netip.ParseAddrPort(s)
	must(t, err)
	return a
}
