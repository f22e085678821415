package proxy

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"shardproxy/topology"
)

// TestDeadlocks makes circles of sessions over several shards. One of each gets 40P01, the others end.
func TestDeadlocks(t *testing.T) {
	var k, other *kit
	ties := func(of **kit) func(*Config) {
		return func(c *Config) {
			c.Peers.Ties = func(_ context.Context, asked []topology.Process) []topology.Tie { return (*of).srv.Ties(asked) }
		}
	}
	k = newKit(t, ties(&other))
	other = k.beside(func(c *Config) {
		ties(&k)(c)
		c.Peers.Tag = 1
	})
	var keys [kitShards]string
	for i := range keys {
		keys[i] = itoa(k.keyOn(i, 0))
	}
	change := func(shard int) pgproto3.FrontendMessage {
		return &pgproto3.Query{String: "UPDATE t SET v = v || 'x' WHERE user_id = " + keys[shard]}
	}
	for _, test := range []struct {
		name string
		by   []*kit
		path [][]int // the shards that each session locks rows on; the last one waits
	}{
		{"two", []*kit{k, k}, [][]int{{0, 1}, {1, 0}}},
		{"three", []*kit{k, k, k}, [][]int{{0, 1}, {1, 2}, {2, 0}}},
		{"two proxies", []*kit{k, other}, [][]int{{0, 2}, {2, 0}}},
		{"three by two proxies", []*kit{other, k, other}, [][]int{{0, 1}, {1, 2}, {2, 0}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, key := range keys {
				k.connect().want("INSERT INTO t VALUES ("+key+", '') ON CONFLICT (user_id) DO UPDATE SET v = ''", "C:INSERT 0 1 Z:I")
			}
			var clients []*client
			for i, by := range test.by {
				c := by.connect()
				clients = append(clients, c)
				c.want("BEGIN", "C:BEGIN Z:T")
				c.send(change(test.path[i][0]))
				if got := c.answer("Z"); got != "C:UPDATE 1 Z:T" {
					t.Fatal(got)
				}
			}
			for i, c := range clients {
				c.send(change(test.path[i][1]))
			}
			answers := make([]chan string, len(clients))
			for i, c := range clients {
				answers[i] = make(chan string, 1)
				go func() {
					got := c.answer("Z")
					end := "COMMIT"
					if strings.HasPrefix(got, "E:") {
						end = "ROLLBACK"
					}
					answers[i] <- got + " " + c.query(end)
				}()
			}
			refused := 0
			for _, a := range answers {
				switch got := <-a; got {
				case "E:40P01 Z:E C:ROLLBACK Z:I":
					refused++
				case "C:UPDATE 1 Z:T C:COMMIT Z:I":
				default:
					t.Errorf("%s", got)
				}
			}
			if refused != 1 {
				t.Errorf("%d sessions gave way, want 1", refused)
			}
			k.atRest()
		})
	}
}

// TestLongWaitsAreNoDeadlock leaves sessions alone that wait for one which does not wait.
func TestLongWaitsAreNoDeadlock(t *testing.T) {
	k := newKit(t)
	one, two := itoa(k.keyOn(0, 0)), itoa(k.keyOn(1, 0))
	holder, waiter := k.connect(), k.connect()
	for _, key := range []string{one, two} {
		holder.want("INSERT INTO t VALUES ("+key+", '')", "C:INSERT 0 1 Z:I")
	}
	holder.want("BEGIN", "C:BEGIN Z:T")
	holder.want("UPDATE t SET v = 'a' WHERE user_id = "+one, "C:UPDATE 1 Z:T")
	waiter.want("BEGIN", "C:BEGIN Z:T")
	waiter.want("UPDATE t SET v = 'b' WHERE user_id = "+two, "C:UPDATE 1 Z:T")
	waiter.send(&pgproto3.Query{String: "UPDATE t SET v = 'b' WHERE user_id = " + one})
	holder.want("SELECT pg_sleep(2) FROM t WHERE user_id = "+one, "T D: C:SELECT 1 Z:T")
	holder.want("COMMIT", "C:COMMIT Z:I")
	if got := waiter.answer("Z"); got != "C:UPDATE 1 Z:T" {
		t.Errorf("%s", got)
	}
	waiter.want("COMMIT", "C:COMMIT Z:I")
	k.atRest()
}

// TestDeadlockInAQueue: the session that gives way may wait for a backend, with locks on other shards.
func TestDeadlockInAQueue(t *testing.T) {
	k := newKit(t, func(c *Config) { c.Pools.Max = 2 })
	var keys [kitShards]string
	for i := range keys {
		keys[i] = itoa(k.keyOn(i, 0))
		k.connect().want("INSERT INTO t VALUES ("+keys[i]+", '')", "C:INSERT 0 1 Z:I")
	}
	for range 2 { // the third shard has no backend left
		c := k.connect()
		c.want("BEGIN", "C:BEGIN Z:T")
		c.want("SELECT v FROM t WHERE user_id = "+keys[2], "T D: C:SELECT 1 Z:T")
	}
	low, high := k.connect(), k.connect()
	for i, c := range []*client{low, high} {
		c.want("BEGIN", "C:BEGIN Z:T")
		c.want("UPDATE t SET v = 'x' WHERE user_id = "+keys[i], "C:UPDATE 1 Z:T")
	}
	low.send(&pgproto3.Query{String: "UPDATE t SET v = 'y' WHERE user_id = " + keys[1]})
	// COPY takes backends as its rows come. The first row is long enough to be stored, and so to wait, before the next.
	rows := keys[0] + "\t" + strings.Repeat("z", 100_000) + "\n" + keys[2] + "\tz\n"
	high.send(&pgproto3.Query{String: "COPY t FROM STDIN"}, &pgproto3.CopyData{Data: []byte(rows)}, &pgproto3.CopyDone{})
	if got := high.answer("Z"); got != "G E:40P01 Z:E" {
		t.Errorf("gave way: %s", got)
	}
	high.want("ROLLBACK", "C:ROLLBACK Z:I")
	if got := low.answer("Z"); got != "C:UPDATE 1 Z:T" {
		t.Errorf("went on: %s", got)
	}
}
