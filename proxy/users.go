package proxy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"shardproxy/backend"
	"shardproxy/wire"
)

// authCacheFor is how long the answer to an auth query is used again: a burst of logins is one query.
const authCacheFor = 5 * time.Second

// QueryUsers gives a Lookup that asks the first shard: sql has the user's name as $1 and gives its name and secret.
// Clients found so have the same role on the shards, with their secret as password where it is one.
func (s *Server) QueryUsers(sql string, as *User, pooling PoolMode) Lookup {
	s.dialer.remember(as)
	type found struct {
		user *User
		at   time.Time
	}
	var mu sync.Mutex
	cache := make(map[string]found)
	return func(ctx context.Context, name string) (*User, bool, error) {
		mu.Lock()
		f, ok := cache[name]
		mu.Unlock()
		if ok && time.Since(f.at) < authCacheFor {
			return f.user, f.user != nil, nil
		}
		var waiter backend.Waiter
		pool := s.poolOf(as, s.snapshot.Load(), 0)
		c, err := pool.Acquire(ctx, &waiter)
		if err != nil {
			return nil, false, err
		}
		defer pool.Release(c)
		rows, err := c.Rows(ctx, sql, name)
		if err != nil {
			return nil, false, fmt.Errorf("auth query: %w", err)
		}
		f = found{at: time.Now()}
		switch {
		case len(rows) == 0:
		case len(rows) > 1 || len(rows[0]) != 2:
			return nil, false, errors.New("auth query: one row of two columns, name and secret, is needed")
		case rows[0][0] == name && rows[0][1] != "":
			f.user = &User{Name: name, Secret: wire.Secret(rows[0][1]), ServerUser: name, ServerPassword: rows[0][1], Pooling: pooling}
		}
		mu.Lock()
		if len(cache) >= loginsMax {
			clear(cache)
		}
		if ok && f.user != nil && f.user.Secret == cache[name].user.secret() {
			f.user = cache[name].user // it counts its connections
		}
		cache[name] = f
		mu.Unlock()
		return f.user, f.user != nil, nil
	}
}
