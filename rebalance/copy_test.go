package rebalance

import (
	"strings"
	"testing"

	"shardproxy/internal/pgtest"
)

// TestCopyIsThrottled holds that a copy rests while a replica of its target lags, keeps to its limit, and goes on as soon as the limits are
// lifted.
func TestCopyIsThrottled(t *testing.T) {
	c := newClusterOn(t, [2]*pgtest.Server{pgtest.Shared(t), replicated(t)})
	c.fill(2000)
	replica := c.server(c.standby(1))
	c.on(1).Exec(t, "postgres", "ALTER SYSTEM RESET synchronous_standby_names")
	c.on(1).Exec(t, "postgres", "SELECT pg_reload_conf()")
	replica.Exec(t, "postgres", "SELECT pg_wal_replay_pause()")
	c.limits.Store(&CopyLimits{BytesPerSecond: 1000, ReplicaLagBytes: 1})
	defer c.coordinate("p1")()
	id := c.add(quarter(t))
	throttle := func() string {
		for _, st := range c.leader.Load().Own() {
			if st.Move.ID == MoveID(id) {
				return st.Throttle
			}
		}
		return ""
	}
	c.until("the copy waits for the replica", func() bool { return strings.Contains(throttle(), "MB behind") })
	if m := c.move(id); m.State != Copying || m.Rows != 0 {
		t.Errorf("%v, %d rows", &m, m.Rows)
	}
	replica.Exec(t, "postgres", "SELECT pg_wal_replay_resume()")
	c.until("the copy is slow", func() bool { return throttle() == "at most 0.0 MB/s" })
	c.limits.Store(&CopyLimits{ReplicaLagBytes: 1 << 30})
	c.await(id, Soak)
	if got := throttle(); got != "" {
		t.Errorf("after the copy: %q", got)
	}
	c.order(id, OrderFinish)
	c.await(id, Cleaned)
	c.leftovers()
}
