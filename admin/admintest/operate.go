package admintest

import (
	"context"
	"errors"

	"shardproxy/admin"
	"shardproxy/backend"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// operated is what a Console has been told as the proxy and the process that it stands for.
type operated struct {
	paused map[string]bool
	busy   string // shard whose pause never comes to its end
	size   string // pool.size_max
	broken error  // of the configuration file
}

// Busy makes the pause of a shard wait for as long as its client does.
func (c *Console) Busy(shard string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.operated.busy = shard
}

// Break makes the configuration file one that cannot be used.
func (c *Console) Break(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.operated.broken = err
}

func (c *Console) knows(shard string) error {
	if _, ok := c.Snapshot().ShardByName(shard); shard != "" && !ok {
		return proxy.ErrNoShard
	}
	return nil
}

// Pause implements admin.Control, as the four methods below do.
func (c *Console) Pause(ctx context.Context, shard string) error {
	if err := c.knows(shard); err != nil {
		return err
	}
	c.mu.Lock()
	busy := c.operated.busy == shard && shard != ""
	if c.operated.paused == nil {
		c.operated.paused = make(map[string]bool)
	}
	was := c.operated.paused[shard]
	c.operated.paused[shard] = !busy
	c.mu.Unlock()
	switch {
	case was:
		return backend.ErrPaused
	case busy:
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// Resume ends a pause.
func (c *Console) Resume(shard string) error {
	if err := c.knows(shard); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.operated.paused[shard] {
		return backend.ErrNotPaused
	}
	delete(c.operated.paused, shard)
	return nil
}

// Reconnect does nothing: there are no connections.
func (c *Console) Reconnect(shard string) error { return c.knows(shard) }

// Kill pauses all.
func (c *Console) Kill(context.Context) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.operated.paused = map[string]bool{"": true}
	return 0
}

// KillClient finds the client 7 only.
func (c *Console) KillClient(_ context.Context, id uint32) bool { return id == 7 }

// Settings has one key of each kind. Console implements admin.Process.
func (c *Console) Settings() []admin.Setting {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := c.operated.size
	if size == "" {
		size = "20"
	}
	return []admin.Setting{
		{Key: "listen.addresses", Value: `["127.0.0.1:6432"]`, Default: `["127.0.0.1:6432"]`},
		{Key: "pool.size_max", Value: size, Default: "20", Live: true},
		{Key: "cluster.service_password", Value: "[redacted]", Live: true},
	}
}

// Set changes pool.size_max.
func (c *Console) Set(key, value string) error {
	switch {
	case key == "listen.addresses":
		return admin.ErrFixedKey
	case key == "cluster.service_password":
		return admin.ErrListKey
	case key != "pool.size_max":
		return admin.ErrUnknownKey
	case value == "0":
		return errors.New("0 is not between 1 and 1000")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.operated.size = value
	return nil
}

// Reload takes back what Set has changed. The file has another address, too.
func (c *Console) Reload() (changed, restart []string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.operated.broken != nil {
		return nil, nil, c.operated.broken
	}
	c.operated.size = ""
	return []string{"pool.size_max"}, []string{"listen.addresses"}, nil
}

// Shutdown does nothing.
func (c *Console) Shutdown(admin.Shutdown) {}

// Paused says whether a shard is paused.
func (c *Console) Paused(shard string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.operated.paused[""] || c.operated.paused[shard]
}

// Live is a configuration with two users.
func (c *Console) Live() *proxy.Live {
	return &proxy.Live{
		Pools: backend.Limits{Max: 20, Total: 100}, MaxClients: 100,
		Users: map[string]*proxy.User{"app": {Name: "app", ServerUser: "app"}},
	}
}

// Database that clients see.
func (c *Console) Database() string { return "app" }

// Caches lists one.
func (c *Console) Caches() []proxy.CacheInfo {
	return []proxy.CacheInfo{{Name: "sessions", Held: 1, Most: 100}}
}

// Leases lists one for each primary, which has not been asked yet.
func (c *Console) Leases() (leases []proxy.LeaseInfo) {
	for _, p := range c.Pools() {
		leases = append(leases, proxy.LeaseInfo{Key: p.Key})
	}
	return leases
}

// Explain knows every statement but DROP.
func (c *Console) Explain(sql string) ([]string, *wire.Error) {
	if sql == "DROP" {
		return nil, wire.Errorf(wire.CodeSyntaxError, "syntax error at end of input")
	}
	return []string{"Kind: any", "Shards: any one", "Text: " + sql}, nil
}
