package proxy

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/backend"
	"shardproxy/wire"
)

// dialer connects to nodes with the passwords of the users.
type dialer struct {
	means   atomic.Pointer[means]
	lookups sync.Map // server user → password, of users that were looked up
	caches  sync.Map // backend.Key → *wire.SCRAMCache
}

// means is what the configuration says of how to connect. It is immutable.
type means struct {
	tls       *wire.ClientTLS
	timeout   time.Duration
	passwords map[string]string // server user → password
}

func meansOf(live *Live) *means {
	m := &means{tls: live.ServerTLS, timeout: live.ConnectTimeout, passwords: make(map[string]string)}
	add := func(u *User) {
		if u != nil && u.ServerPassword != "" {
			m.passwords[u.ServerUser] = u.ServerPassword
		}
	}
	add(live.UserQueryAs)
	add(live.Service)
	for _, u := range live.Users {
		add(u)
	}
	return m
}

// found keeps the password of a user that was looked up. What the configuration says of the role goes first: a user
// who takes its name must not take its connections away.
func (d *dialer) found(u *User) { d.lookups.Store(u.ServerUser, u.ServerPassword) }

// knows says whether we can connect as a server user.
func (d *dialer) knows(user string) bool {
	_, configured := d.means.Load().passwords[user]
	_, found := d.lookups.Load(user)
	return configured || found
}

func (d *dialer) config(key backend.Key) *wire.ConnectConfig {
	m := d.means.Load()
	cfg := &wire.ConnectConfig{
		Network: "tcp", Address: key.Address, User: key.User, Database: key.Database, TLS: m.tls, Timeout: m.timeout,
		Params: map[string]string{"application_name": "shardproxy"},
	}
	if folder, port, ok := strings.Cut(key.Address, ":"); ok && strings.HasPrefix(folder, "/") {
		cfg.Network, cfg.Address = "unix", folder+"/.s.PGSQL."+port
	}
	if p, ok := m.passwords[key.User]; ok {
		cfg.Password = p
	} else if p, ok := d.lookups.Load(key.User); ok {
		cfg.Password = p.(string)
	}
	cache, _ := d.caches.LoadOrStore(key, &wire.SCRAMCache{})
	cfg.SCRAM = cache.(*wire.SCRAMCache)
	return cfg
}

// Dial connects to a node.
func (d *dialer) Dial(ctx context.Context, key backend.Key) (*wire.ServerConn, error) {
	return wire.Connect(ctx, d.config(key))
}

// Cancel asks a node to cancel what one of our connections runs.
func (d *dialer) Cancel(ctx context.Context, key backend.Key, cancel wire.CancelKey) error {
	return wire.SendCancel(ctx, d.config(key), cancel)
}
