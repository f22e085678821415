package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/e2e/harness"
	"shardproxy/topology"
)

// lane is a range that moves to and fro between two shards. At first it is the end of a longer one.
type lane struct {
	of          topology.KeyHash // where the longer one begins
	first, last topology.KeyHash
	from, to    string
}

// Each of the four shards begins with a quarter of the ring. No range comes beside another one of its new owner: they would be one.
var (
	lanes = []lane{
		{0x0000000000000000, 0x3000000000000000, 0x3fffffffffffffff, "s1", "s3"},
		{0xc000000000000000, 0xf000000000000000, 0xffffffffffffffff, "s4", "s2"},
	}
	large = lane{0x4000000000000000, 0x5000000000000000, 0x7fffffffffffffff, "s2", "s4"}
)

func (l lane) has(h topology.KeyHash) bool { return l.first <= h && h <= l.last }

// leave is the order that makes the range and moves it.
func (l lane) leave() string {
	return fmt.Sprintf("SPLIT RANGE 0x%x AT 0x%x TO %s", uint64(l.of), uint64(l.first), l.to)
}

// moveTo is the order that moves the range to a shard.
func (l lane) moveTo(shard string) string {
	return fmt.Sprintf("MOVE RANGE 0x%x TO %s", uint64(l.first), shard)
}

// users who write, of each kind.
const users = 2000

// cluster is a running one.
type cluster struct {
	*harness.Cluster
	bin  string     // folder of the program
	keys [3][]int64 // of users: by lane, and in neither of the lanes, nor in the large range

	mu    sync.Mutex // guards the fields below, over a command
	admin *pgconn.PgConn
	lanes map[string]int // by number of move
}

func startCluster(ctx context.Context, o options) (*cluster, error) {
	dir, err := harness.TempDir()
	if err != nil {
		return nil, err
	}
	c := &cluster{bin: dir, lanes: map[string]int{}}
	binary, err := harness.Build(ctx, dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if c.Cluster, err = harness.StartCluster(ctx, harness.Options{Binary: binary, Shards: 4, Sync: true, Args: []string{"--proxies", "2"}}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if c.admin, err = pgconn.Connect(ctx, c.Proxies[0].Admin); err == nil {
		err = c.fill(ctx, o.rows)
	}
	if err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

func (c *cluster) stop() error {
	if c.admin != nil {
		_ = c.admin.Close(context.Background())
	}
	return errors.Join(c.Stop(), os.RemoveAll(c.bin))
}

// fill makes the tables, and gives the large range its rows.
func (c *cluster) fill(ctx context.Context, rows int) error {
	conn, err := pgx.Connect(ctx, c.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, sql := range []string{
		"CREATE TABLE accounts (user_id bigint PRIMARY KEY, n bigint NOT NULL, pad text NOT NULL)",
		"CREATE TABLE entries (user_id bigint REFERENCES accounts, id bigint, at timestamptz NOT NULL DEFAULT now(), amount numeric NOT NULL, note text, PRIMARY KEY (user_id, id))",
		"CREATE INDEX ON entries (at)",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	accounts, many := [][]any{}, []int64{}
	for key := int64(1); len(many) < rows/entriesEach || len(accounts)-len(many) < 3*users; key++ {
		h := topology.HashInt(key)
		kind := kindOf(h)
		switch {
		case large.has(h):
			if len(many) == rows/entriesEach {
				continue
			}
			many = append(many, key)
		case len(c.keys[kind]) == users:
			continue
		default:
			c.keys[kind] = append(c.keys[kind], key)
		}
		accounts = append(accounts, []any{key, 0, strings.Repeat("x", 100)})
	}
	if _, err := conn.CopyFrom(ctx, pgx.Identifier{"accounts"}, []string{"user_id", "n", "pad"}, pgx.CopyFromRows(accounts)); err != nil {
		return err
	}
	entries := pgx.CopyFromSlice(len(many)*entriesEach, func(i int) ([]any, error) {
		return []any{many[i/entriesEach], int64(i), "12.50", strings.Repeat("y", 400)}, nil
	})
	_, err = conn.CopyFrom(ctx, pgx.Identifier{"entries"}, []string{"user_id", "id", "amount", "note"}, entries)
	return err
}

// entriesEach are the entries of each account of the large range.
const entriesEach = 20

// kindOf gives the lane of a key hash, or the number of those in none.
func kindOf(h topology.KeyHash) int {
	for i, l := range lanes {
		if l.has(h) {
			return i
		}
	}
	return len(lanes)
}

// console runs a command and gives its rows by the names of their columns.
func (c *cluster) console(ctx context.Context, sql string) ([]map[string]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	results, err := c.admin.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", sql, err)
	}
	var rows []map[string]string
	for _, row := range results[len(results)-1].Rows {
		m := make(map[string]string)
		for i, f := range results[len(results)-1].FieldDescriptions {
			m[f.Name] = string(row[i])
		}
		rows = append(rows, m)
	}
	return rows, nil
}

// begin gives an order that makes one move, and the number of that.
func (c *cluster) begin(ctx context.Context, sql string) (id string, err error) {
	rows, err := c.console(ctx, sql)
	if err != nil {
		return "", err
	}
	for _, row := range rows {
		if row["move"] != "" {
			id = row["move"]
		}
	}
	if _, err := strconv.Atoi(id); err != nil {
		return "", fmt.Errorf("%s: no move came of it", sql)
	}
	return id, nil
}

// note remembers whose move it is.
func (c *cluster) note(id string, lane int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lanes[id] = lane
}

// await waits until a move is in a phase. Meanwhile each look is given to see, if that is not nil.
func (c *cluster) await(ctx context.Context, id, phase string, see func(phase string)) error {
	for {
		rows, err := c.console(ctx, "SHOW MOVES ALL")
		if err != nil {
			return err
		}
		for _, row := range rows {
			if row["id"] != id {
				continue
			}
			if see != nil {
				see(row["phase"])
			}
			switch row["phase"] {
			case phase:
				return nil
			case "aborted", "failed-verification", "reversed", "cleaned":
				return fmt.Errorf("move %s is %s: %s", id, row["phase"], row["error"])
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}

// lookAgain is how often the moves are looked at.
const lookAgain = 50 * time.Millisecond
