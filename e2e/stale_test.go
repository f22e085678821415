package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/fence"
	"shardproxy/topology"
)

// testStaleProxy moves a key range while one proxy hears of nothing. No write is accepted through that, and reads of what has
// moved are refused once its lease has run out; all else goes on, and all is well again when the cut heals.
func testStaleProxy(t *testing.T, c *faultCluster) {
	h := c.harnessShards()
	moved, other := keyOn(t, h, 0, 0), keyOn(t, h, 2, 0)
	good, stale := connect(t, c.proxies[0].DSN), connect(t, c.proxies[2].DSN)
	good.must(t, "CREATE TABLE fault_stale (user_id bigint PRIMARY KEY, v text)")
	c.proxies[0].console(t).must(t, "FENCE INSTALL")
	good.mustf(t, "INSERT INTO fault_stale VALUES (%d, 'old'), (%d, 'other')", moved, other)
	waitFor(t, "the other proxy reads it", func() bool { return lastRow(stale, "SELECT v FROM fault_stale WHERE user_id = %d", moved) == "old" })

	c.cutGossip(2, true)
	c.cutCatalog(2, true)
	waitFor(t, "proxy c is alone", func() bool { return c.alivePeers(t, 2) == 0 })
	epoch := c.moveAway(t, int64(moved))
	waitFor(t, "the others go by the new map", func() bool { return c.epochs(t, 0, 1) == fmt.Sprintf("%d %d", epoch, epoch) })
	good.mustf(t, "UPDATE fault_stale SET v = 'new' WHERE user_id = %d", moved)

	for _, sql := range []string{ // each waits for the map for some seconds
		"UPDATE fault_stale SET v = 'lost' WHERE user_id = %d AND v = 'no row'",
		"INSERT INTO fault_stale VALUES (%d, 'lost') ON CONFLICT (user_id) DO UPDATE SET v = 'lost'",
	} {
		line, failed := stale.simple(&entry{sql: fmt.Sprintf(sql, moved)}).failed()
		if !failed || !strings.HasPrefix(line, "error ERROR 57P03 ") && !strings.HasPrefix(line, "error ERROR 40001 ") {
			t.Errorf("%s through the proxy that is cut off: %q", sql, line)
		}
	}
	waitFor(t, "reads are refused", func() bool {
		line, failed := stale.simple(&entry{sql: fmt.Sprintf("SELECT v FROM fault_stale WHERE user_id = %d", moved)}).failed()
		return failed && strings.HasPrefix(line, "error ERROR 57P03 ")
	})
	if line, failed := stale.simple(&entry{sql: "SELECT v FROM fault_stale"}).failed(); !failed {
		t.Errorf("it reads all shards: %q", line)
	}
	stale.mustf(t, "UPDATE fault_stale SET v = 'still' WHERE user_id = %d", other)
	if text := get(t, c.proxies[2].HTTP+"/readyz"); !strings.Contains(text, "fenced") {
		t.Errorf("readyz of the proxy that is cut off:\n%s", text)
	}

	c.cutGossip(2, false)
	c.cutCatalog(2, false)
	waitFor(t, "it has caught up", func() bool { return c.epochs(t, 2) == fmt.Sprint(epoch) })
	if got := lastRow(stale, "SELECT v FROM fault_stale WHERE user_id = %d", moved); got != "new" {
		t.Errorf("through the proxy that was cut off: %q", got)
	}
	stale.mustf(t, "UPDATE fault_stale SET v = 'newer' WHERE user_id = %d", moved)
	if got := lastRow(good, "SELECT v FROM fault_stale WHERE user_id = %d", moved); got != "newer" {
		t.Errorf("what it writes then is %q", got)
	}
	waitFor(t, "readyz has nothing to say", func() bool { return get(t, c.proxies[2].HTTP+"/readyz") == "ready\n" })
	waitFor(t, "all know each other again", func() bool { return c.alivePeers(t, 2) == 2 && c.alivePeers(t, 0) == 2 })
}

// lastRow is the one value that a query gives, "" for an error.
func lastRow(s *session, format string, args ...any) string {
	tr := s.simple(&entry{sql: fmt.Sprintf(format, args...)})
	if _, failed := tr.failed(); failed {
		return ""
	}
	return firstColumn(tr)
}

// moveAway gives the range around a key of the first shard to the second, as who moves ranges does: the first is narrowed and
// the second widened by their fences, the row goes there, and then the catalog has it. It gives the new epoch.
func (c *faultCluster) moveAway(t *testing.T, key int64) topology.Epoch {
	t.Helper()
	catalog, err := topology.OpenCatalog(c.catalog.DSNAs("app", "app", "app"))
	if err != nil {
		t.Fatal(err)
	}
	snap, err := catalog.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h := topology.HashInt(key)
	change := topology.MoveRange{Start: h, End: h + 1, Shard: snap.Shards[1].Name}
	next, err := snap.Apply(change)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*pgx.Conn
	for i := range conns {
		conns[i] = c.shards[i].Connect(t, "app")
		query := func(_ context.Context, sql string) (rows [][]string, err error) {
			results, err := conns[i].PgConn().Exec(t.Context(), sql).ReadAll()
			if err != nil {
				return nil, err
			}
			for _, row := range results[len(results)-1].Rows {
				values := make([]string, len(row))
				for j, v := range row {
					values[j] = string(v)
				}
				rows = append(rows, values)
			}
			return rows, nil
		}
		if _, err := query(t.Context(), "SET search_path = pg_catalog"); err != nil {
			t.Fatal(err)
		}
		schema, err := topology.LoadSchema(t.Context(), query, snap.Rules)
		if err != nil {
			t.Fatal(err)
		}
		for err = fence.ErrBusy; errors.Is(err, fence.ErrBusy); {
			err = fence.Set(t.Context(), query, fence.StateOf(next, topology.ShardID(i)), fence.Tables(schema))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var v string
	if err := conns[0].QueryRow(t.Context(), "SELECT v FROM public.fault_stale WHERE user_id = $1", key).Scan(&v); err != nil {
		t.Fatal(err)
	}
	if _, err := conns[1].Exec(t.Context(), fmt.Sprintf("SET shardproxy.epoch = %d", next.Epoch)); err != nil {
		t.Fatal(err)
	}
	if _, err := conns[1].Exec(t.Context(), "INSERT INTO public.fault_stale VALUES ($1, $2)", key, v); err != nil {
		t.Fatal(err)
	}
	if _, err := catalog.Commit(t.Context(), snap, change, topology.Actor{User: "test", From: "e2e"}); err != nil {
		t.Fatal(err)
	}
	return next.Epoch
}
