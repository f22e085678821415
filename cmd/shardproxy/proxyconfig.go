package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"shardproxy/backend"
	"shardproxy/internal/config"
	"shardproxy/proxy"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// fixedConfig is what the file means for the proxy until it ends.
func fixedConfig(c *config.Config, from *topology.Snapshot, log *slog.Logger) proxy.Fixed {
	return proxy.Fixed{
		Cluster: c.Cluster.Name, Database: c.Cluster.Database, Topology: from, Log: log,
		Router: router.Config{
			CacheEntries: c.Limits.PlanCacheEntries, MaxTokens: c.Limits.ParserTokens,
			MaxBytes: config.MessageMax, // the proxy itself looks at limits.query_bytes, which may change
		},
	}
}

// liveConfig is what the file means for the proxy until it is read again. toClients is nil without TLS.
func liveConfig(c *config.Config, toClients *wire.ServerTLS) (*proxy.Live, error) {
	access, err := accessRules(c.Auth.Rules)
	if err != nil {
		return nil, err
	}
	toNodes, err := wire.LoadClientTLS(wire.ClientTLSFiles{
		Mode: wire.SSLMode(c.ServerTLS.SSLMode), RootCert: c.ServerTLS.RootCert, Cert: c.ServerTLS.Cert, Key: c.ServerTLS.Key,
	})
	if err != nil {
		return nil, fmt.Errorf("server_tls: %w", err)
	}
	live := &proxy.Live{
		Accept: wire.AcceptConfig{
			TLS: toClients, RequireTLS: c.Listen.TLSRequire, RequireClientCert: c.Listen.TLSClientCerts == "require",
			Timeout: c.Listen.LoginTimeout.Duration, MaxStartupBytes: c.Listen.MaxStartupBytes,
		},
		Access: access, MaxClients: c.Listen.MaxClients, MaxUnauthenticated: c.Listen.MaxUnauthenticated,
		Users: make(map[string]*proxy.User), Pooling: poolMode(c.Pool.Mode),
		ServerTLS: toNodes, ConnectTimeout: c.Pool.ConnectTimeout.Duration,
		Pools: backend.Limits{
			Min: c.Pool.SizeMin, Max: c.Pool.SizeMax, Total: c.Pool.MaxBackends, Wait: c.Pool.AcquireTimeout.Duration,
			Idle: c.Pool.IdleTimeout.Duration, Lifetime: c.Pool.Lifetime.Duration, CheckAfter: c.Pool.CheckAfter.Duration,
			Statements: c.Pool.PreparedStatements,
		},
		MessageBytes: c.Limits.MessageBytes, QueryBytes: c.Limits.QueryBytes, PreparedStatements: c.Limits.PreparedStatements,
		FinishBytes: c.Limits.FinishBytes, FinishRows: c.Limits.FinishRows,
	}
	for i := range c.Users {
		u := proxyUser(c, &c.Users[i])
		live.Users[u.Name] = u
		if live.Service == nil {
			live.Service = u
		}
	}
	if c.Cluster.ServiceUser != "" {
		live.Service = &proxy.User{ServerUser: c.Cluster.ServiceUser, ServerPassword: c.Cluster.ServicePassword.Reveal()}
	}
	if c.Auth.Query != "" {
		live.UserQuery = c.Auth.Query
		live.UserQueryAs = &proxy.User{ServerUser: c.Auth.QueryUser, ServerPassword: c.Auth.QueryPassword.Reveal()}
	}
	return live, nil
}

// clientTLS reads the certificate for clients; nil where the file names none.
func clientTLS(l *config.Listen) (*wire.ServerTLS, error) {
	if l.TLSCert == "" {
		return nil, nil
	}
	files := wire.ServerTLSFiles{Cert: l.TLSCert, Key: l.TLSKey}
	if l.TLSClientCerts != "none" {
		files.ClientCA = l.TLSClientCA
	}
	t, err := wire.LoadServerTLS(files)
	if err != nil {
		return nil, fmt.Errorf("listen.tls_cert: %w", err)
	}
	return t, nil
}

func proxyUser(c *config.Config, u *config.User) *proxy.User {
	return &proxy.User{
		Name: u.Name, Secret: wire.Secret(u.Secret.Reveal()), ServerUser: u.Role(), ServerPassword: u.RolePassword().Reveal(),
		Pooling: poolMode(cmp.Or(u.PoolMode, c.Pool.Mode)), MaxConnections: u.MaxConnections,
	}
}

func poolMode(name string) proxy.PoolMode {
	if name == "session" {
		return proxy.SessionPooling
	}
	return proxy.TransactionPooling
}

// accessRules turns the rules of the file into those of wire. They have passed Check.
func accessRules(list []config.AuthRule) (wire.Rules, error) {
	rules := make(wire.Rules, len(list))
	for i, r := range list {
		rules[i] = wire.Rule{
			Type: wire.ConnType(r.Type), Databases: names(r.Database), Users: names(r.User), Method: wire.Method(r.Method),
		}
		if r.Type == "local" || r.Address == "all" {
			continue
		}
		var err error
		if rules[i].Address, err = network(r.Address); err != nil {
			return nil, fmt.Errorf("auth.rules[%d].address: %w", i, err)
		}
	}
	return rules, nil
}

// names cuts a list at its commas.
func names(list string) []string {
	cut := strings.Split(list, ",")
	for i := range cut {
		cut[i] = strings.TrimSpace(cut[i])
	}
	return cut
}

// network reads an address, which stands for itself, or a network.
func network(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap() // as wire compares those of clients
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}
