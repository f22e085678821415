package rebalance

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"shardproxy/fence"
	"shardproxy/topology"
)

// fenced is a runner that nobody runs, of a move between shards that have their fences.
func (c *cluster) fenced(t *testing.T) *runner {
	t.Helper()
	m := quarter(t)
	m.ID = 1
	r := newRunner(NewCoordinator(CoordinatorConfig{
		Name: "p", Cluster: "c", Catalog: c.catalog, Keeper: c.keeper, Schema: func() *topology.Schema { return c.schema }, DSN: c.dsn, Log: c.log(),
	}), topology.Lease{}, m)
	t.Cleanup(r.cleanUp)
	if err := r.ready(); err != nil {
		t.Fatal(err)
	}
	for at := range Side(2) {
		st, err := r.owned(at)
		if err == nil {
			err = fence.Install(t.Context(), r.on(at).query, st, r.tables())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// begin is another session on a shard, in a transaction.
func (c *cluster) begin(shard int, sql string) *pgx.Conn {
	c.t.Helper()
	conn := c.on(shard).Connect(c.t, c.db[shard])
	if _, err := conn.Exec(c.t.Context(), "BEGIN; "+sql); err != nil {
		c.t.Fatal(err)
	}
	return conn
}

// TestPreparedFenceHasGone holds that a cutover whose prepared fences were ended by the server makes them anew, and that the one of
// the shard that gains waits for no writer then either: it may wait for the end of the hold.
func TestPreparedFenceHasGone(t *testing.T) {
	c := newCluster(t)
	r := c.fenced(t)
	ctx, epoch := t.Context(), c.keeper.Snapshot().Epoch+2
	if err := r.warm(ctx, Source, epoch); err != nil {
		t.Fatal(err)
	}
	for at, p := range r.fences {
		if _, err := p.side.query(ctx, "SET LOCAL idle_in_transaction_session_timeout = 1"); err != nil {
			t.Fatal(err)
		}
		c.until("the server has ended what is idle", func() bool {
			return c.one(at, "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction' AND backend_xid IS NOT NULL") == "0"
		})
	}
	c.begin(1, "SET shardproxy.epoch = 1; INSERT INTO plans VALUES (1)")
	for at := range Side(2) {
		if err := r.fenceTo(ctx, at, at == Target, epoch); err != nil {
			t.Errorf("%v: %v", at, err)
		}
		st, _, err := fence.Read(ctx, r.on(at).query)
		if want, _ := r.wanted(at, at == Target, epoch); err != nil || st.Epoch != epoch || len(st.Owned) != len(want.Owned) || st.Owned[0] != want.Owned[0] {
			t.Errorf("%v: %v, %v", at, st, err)
		}
	}
}

// TestHalfPreparedFences holds that nothing is left prepared on one shard where it could not be on the other.
func TestHalfPreparedFences(t *testing.T) {
	c := newCluster(t)
	r := c.fenced(t)
	maker := c.begin(0, fence.Triggers(fence.Table{})[0])
	epoch := c.keeper.Snapshot().Epoch + 2
	if err := r.warm(t.Context(), Source, epoch); !errors.Is(err, fence.ErrBusy) {
		t.Errorf("beside one that makes a table: %v", err)
	}
	if r.fences != [2]*prepared{} {
		t.Errorf("prepared: %v", r.fences)
	}
	_ = maker.Close(context.Background())
	if err := r.fenceTo(t.Context(), Target, true, epoch); err != nil {
		t.Error(err)
	}
}
