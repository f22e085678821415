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

// userQuery finds users that the configuration does not name. It asks the first shard: sql has the user's name as $1 and
// gives its name and secret. Clients found so have the same role on the shards, with their secret as password where it is one.
type userQuery struct {
	sql     string
	as      *User
	pooling PoolMode

	mu    sync.Mutex // guards known
	known map[string]foundUser
}

// foundUser is the answer for one name; user is nil where there is none.
type foundUser struct {
	user *User
	at   time.Time
}

// find gives the user of a name; false where there is none.
func (q *userQuery) find(ctx context.Context, s *Server, name string) (*User, bool, error) {
	q.mu.Lock()
	f, ok := q.known[name]
	q.mu.Unlock()
	if ok && time.Since(f.at) < authCacheFor {
		return f.user, f.user != nil, nil
	}
	f = foundUser{at: time.Now()}
	err := s.withUser(ctx, q.as, s.snapshot.Load(), 0, func(c *backend.Conn) (err error) {
		f.user, err = q.ask(ctx, c, name)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.known == nil || len(q.known) >= loginsMax {
		q.known = make(map[string]foundUser)
	}
	q.known[name] = f
	return f.user, f.user != nil, nil
}

func (q *userQuery) ask(ctx context.Context, c *backend.Conn, name string) (*User, error) {
	rows, err := c.Rows(ctx, q.sql, name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("auth query: %w", err)
	case len(rows) == 0:
		return nil, nil
	case len(rows) > 1 || len(rows[0]) != 2:
		return nil, errors.New("auth query: one row of two columns, name and secret, is needed")
	case rows[0][0] != name || rows[0][1] == "":
		return nil, nil
	}
	secret := rows[0][1]
	return &User{Name: name, Secret: wire.Secret(secret), ServerUser: name, ServerPassword: secret, Pooling: q.pooling}, nil
}
