package rebalance

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestStatusOfAnother asks a proxy for moves that another one carries out.
func TestStatusOfAnother(t *testing.T) {
	c := newCluster(t)
	leader := NewCoordinator(CoordinatorConfig{Name: "leader", Catalog: c.catalog, Keeper: c.keeper, Log: c.log()})
	other := NewCoordinator(CoordinatorConfig{Name: "other", Catalog: c.catalog, Keeper: c.keeper, Log: c.log()})
	lease, err := c.catalog.TakeLease(t.Context(), "leader", leaseTime)
	if err != nil {
		t.Fatal(err)
	}
	status := func(of *Coordinator) []Status {
		t.Helper()
		list, err := of.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if got := status(other); len(got) != 0 {
		t.Errorf("before anything was told: %+v", got)
	}
	r := newRunner(leader, lease, Move{ID: 3, Rev: 5, State: Copying, Source: "s1", Target: "s2", Rows: 100, Bytes: 2000, Task: TaskCopy, Error: "it waits", Blockers: []string{"pid 1"}, Alarmed: true})
	r.chunks.Store(1)
	r.chunksTotal.Store(4)
	r.copyBegan.Store(time.Now().UnixNano())
	reason := "a replica lags"
	r.lagging.Store(&reason)
	leader.runners[3] = r
	if err := c.catalog.RenewLease(t.Context(), lease, leaseTime, leader.progress()); err != nil {
		t.Fatal(err)
	}
	if got := status(leader); len(got) != 1 || got[0].Move.Source != "s1" {
		t.Errorf("the leader: %+v", got)
	}
	got := status(other)
	want := []Status{{Move: Move{ID: 3, Rev: 5, Task: TaskCopy, Error: "it waits", Blockers: []string{"pid 1"}, Alarmed: true, Rows: 100, Bytes: 2000}, Told: true, Lag: -1, Copied: 1, Chunks: 4, Throttle: reason}}
	if len(got) == 1 && got[0].Copying > 0 {
		want[0].Copying = got[0].Copying
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("another one: %s", diff)
	}
}
