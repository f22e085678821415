package proxy

import (
	"context"
	"strings"
	"sync"
	"time"

	"shardproxy/backend"
	"shardproxy/wire"
)

// dialer connects to nodes with the passwords of the users.
type dialer struct {
	tls     *wire.ClientTLS
	timeout time.Duration

	passwords sync.Map // server user → password, of the configuration
	lookups   sync.Map // the same, of users that were looked up
	caches    sync.Map // backend.Key → *wire.SCRAMCache
}

// remember keeps the password of a configured user.
func (d *dialer) remember(u *User) {
	if u.ServerPassword != "" {
		d.passwords.Store(u.ServerUser, u.ServerPassword)
	}
}

// found keeps the password of a user that was looked up. What the configuration says of the role goes first: a user
// who takes its name must not take its connections away.
func (d *dialer) found(u *User) { d.lookups.Store(u.ServerUser, u.ServerPassword) }

// knows says whether we can connect as a server user.
func (d *dialer) knows(user string) bool {
	_, configured := d.passwords.Load(user)
	_, found := d.lookups.Load(user)
	return configured || found
}

func (d *dialer) config(key backend.Key) *wire.ConnectConfig {
	cfg := &wire.ConnectConfig{
		Network: "tcp", Address: key.Address, User: key.User, Database: key.Database, TLS: d.tls, Timeout: d.timeout,
		Params: map[string]string{"application_name": "shardproxy"},
	}
	if folder, port, ok := strings.Cut(key.Address, ":"); ok && strings.HasPrefix(folder, "/") {
		cfg.Network, cfg.Address = "unix", folder+"/.s.PGSQL."+port
	}
	if p, ok := d.passwords.Load(key.User); ok {
		cfg.Password = p.(string)
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
