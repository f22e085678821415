package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	clientPatience = 30 * time.Second      // any answer comes within it
	clientPause    = 10 * time.Millisecond // of a client between two things
)

// outcome of what a client asked for.
type outcome uint8

const (
	done outcome = iota
	undone
	unknown
)

// retryable are the errors that docs/operations.md tells clients to expect when nodes fail or ranges move, with what is known of a
// single statement or a COMMIT that got one. A statement in a transaction that was not committed is undone in any case.
var retryable = map[string]outcome{
	"40001": undone,  // key ranges have moved
	"53300": undone,  // no backend in time
	"57P03": undone,  // a node cannot be reached, or starts
	"08006": unknown, // the connection to a shard broke
	"08007": unknown, // the outcome of a COMMIT is not known
	"57P01": unknown, // the node or the proxy shuts down
}

// bookClient is a client of one proxy, who connects again when the connection has broken.
type bookClient struct {
	*book
	name     string
	proxy    int
	conn     *pgconn.PgConn
	life     int64 // of the proxy, when the client connected
	extended bool  // the protocol to use
}

// work calls do with a connection until ctx ends.
func (c *bookClient) work(ctx context.Context, do func(ctx context.Context)) {
	for ctx.Err() == nil {
		if c.conn == nil || c.conn.IsClosed() {
			c.connect(context.WithoutCancel(ctx))
		}
		if c.conn != nil {
			do(context.WithoutCancel(ctx)) // what came of it must be known
		}
		select {
		case <-ctx.Done():
		case <-time.After(clientPause):
		}
	}
	if c.conn != nil {
		_ = c.conn.Close(context.WithoutCancel(ctx))
	}
}

func (c *bookClient) connect(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, clientPatience)
	defer cancel()
	c.life = c.lives[c.proxy].Load()
	conn, err := pgconn.Connect(ctx, c.dsns[c.proxy])
	if err != nil {
		c.conn = nil
		c.outcome("connect", err)
		return
	}
	c.conn = conn
}

// do runs one statement. $1 to $3 are args.
func (c *bookClient) do(ctx context.Context, sql string, args ...int64) (rows [][]string, affected int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, clientPatience)
	defer cancel()
	var r *pgconn.Result
	if c.extended {
		var params [][]byte
		for _, arg := range args {
			params = append(params, fmt.Append(nil, arg))
		}
		r = c.conn.ExecParams(ctx, sql, params, nil, nil, nil).Read()
		err = r.Err
	} else {
		for i, arg := range args {
			sql = strings.ReplaceAll(sql, fmt.Sprintf("$%d", i+1), fmt.Sprint(arg))
		}
		var results []*pgconn.Result
		if results, err = c.conn.Exec(ctx, sql).ReadAll(); err == nil {
			r = results[len(results)-1]
		}
	}
	if err != nil {
		return nil, 0, err
	}
	for _, values := range r.Rows {
		var row []string
		for _, v := range values {
			row = append(row, string(v))
		}
		rows = append(rows, row)
	}
	if sql == "COMMIT" && r.CommandTag.String() != "COMMIT" {
		c.wrong("%s: COMMIT of a transaction without errors is answered with %s", c.name, r.CommandTag)
	}
	return rows, r.CommandTag.RowsAffected(), nil
}

// outcome says what came of a statement by itself, or of a COMMIT. An error that is not documented is wrong.
func (c *bookClient) outcome(what string, err error) outcome {
	if err == nil {
		return done
	}
	code, result := "lost", unknown
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		code = refused.Code
		var known bool
		if result, known = retryable[code]; !known {
			c.wrong("%s, through proxy %s: %s: undocumented %s: %s (%s) %s", c.name, c.proxies[c.proxy].name, what, code, refused.Message, refused.Detail, refused.Hint)
			result = unknown
		}
	} else if life := c.lives[c.proxy].Load(); life == c.life && life%2 == 0 {
		c.wrong("%s: %s: proxy %s, which lives, has given no answer: %v", c.name, what, c.proxies[c.proxy].name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errors[code]++
	if c.first[code] == "" {
		c.first[code] = what + ": " + err.Error()
	}
	return result
}

// read reads rows of all shards that nobody changes, by different plans: each is there once.
func (c *bookClient) read(ctx context.Context) {
	queries := []string{
		"SELECT id FROM users WHERE id >= $1",
		"SELECT u.id FROM users u JOIN projects p ON p.creator_user_id = u.id WHERE u.id >= $1",
		"SELECT creator_user_id FROM projects WHERE creator_user_id >= $1",
	}
	round := 0
	c.work(ctx, func(ctx context.Context) {
		round++
		c.extended = round%2 == 0
		sql := queries[round%len(queries)]
		from := time.Now()
		rows, _, err := c.do(ctx, sql, bookFixed)
		if c.outcome(sql, err) != done {
			return
		}
		seen := make(map[string]bool)
		for _, row := range rows {
			seen[row[0]] = true
		}
		if len(rows) != bookFixedMax || len(seen) != bookFixedMax {
			c.wrong("%s, through proxy %s, after %v: %s gives %d rows of %d keys, want %d",
				c.name, c.proxies[c.proxy].name, time.Since(from), sql, len(rows), len(seen), bookFixedMax)
		}
		c.did(c.name)
	})
}
