package fence

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"shardproxy/topology"
)

// partitioned is a shard of the lower half with a fenced partitioned table that has one partition.
func partitioned(t *testing.T) (*shard, State) {
	s := newShard(t, "CREATE TABLE events (user_id int, at int) PARTITION BY RANGE (at); CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10)")
	st := State{Shard: "s1", Epoch: 5, Owned: half(false)}
	s.install(st)
	return s, st
}

// TestPartitionsCreatedLater holds that PostgreSQL fences the rows of partitions that nobody told us of.
func TestPartitionsCreatedLater(t *testing.T) {
	s, st := partitioned(t)
	s.must(s.conn, `CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20) PARTITION BY LIST (at);
		CREATE TABLE events_2_a PARTITION OF events_2 FOR VALUES IN (10); CREATE TABLE events_2_b (LIKE events); ALTER TABLE events_2 ATTACH PARTITION events_2_b FOR VALUES IN (11)`)
	lower, upper := keys(1)
	fresh := s.session(5)
	for _, at := range []int{1, 10, 11} {
		for key, want := range map[int]string{lower[0]: "", upper[0]: foreignRow} {
			for _, table := range []string{"events", map[int]string{1: "events_1", 10: "events_2_a", 11: "events_2_b"}[at]} {
				if got := refusal(s.exec(fresh, fmt.Sprintf("INSERT INTO %s VALUES (%d, %d)", table, key, at))); got != want {
					t.Errorf("%s, key %d: %q, want %q", table, key, got, want)
				}
			}
		}
	}
	if got := refusal(s.exec(fresh, fmt.Sprintf("UPDATE events SET at = 11, user_id = %d WHERE at = 1", upper[0]))); got != foreignRow {
		t.Errorf("a row that changes its partition and its key: %q", got)
	}
	if got := refusal(s.exec(fresh, "UPDATE events SET at = 11 WHERE at = 1")); got != "" {
		t.Errorf("a row that changes its partition: %q", got)
	}
	old := s.session(4)
	if got := refusal(s.exec(old, "UPDATE events SET at = 1 WHERE false")); got != staleWrite {
		t.Errorf("through the parent at an old epoch: %q", got)
	}
	var missing []string
	for _, table := range []string{"events_2", "events_2_a", "events_2_b"} {
		missing = append(missing, "public."+table+": trigger shardproxy_epoch is missing")
	}
	if found := s.check(st); !slices.Equal(found, missing) {
		t.Errorf("%q", found)
	}
	s.install(st)
	if got := refusal(s.exec(old, "DELETE FROM events_2_a WHERE false")); got != staleWrite {
		t.Errorf("a partition by its own name at an old epoch: %q", got)
	}
}

// TestPartitionThroughProxy creates a partition with Triggers in one transaction.
func TestPartitionThroughProxy(t *testing.T) {
	s, st := partitioned(t)
	client := s.session(5)
	s.must(client, "BEGIN; CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20)")
	name := topology.TableName{Schema: "public", Name: "events_2"}
	schema, err := topology.LoadSchema(t.Context(), queryOf(client), s.rules)
	if err != nil {
		t.Fatal(err)
	}
	list := Tables(schema)
	at := slices.IndexFunc(list, func(t Table) bool { return t.TableName == name })
	s.must(client, strings.Join(Triggers(list[at]), ";")+"; COMMIT")
	if found := s.check(st); found != nil {
		t.Errorf("%q", found)
	}
}

// TestAttachAndDetach moves fenced tables into and out of a fenced partitioned table.
func TestAttachAndDetach(t *testing.T) {
	s, st := partitioned(t)
	s.must(s.conn, "CREATE TABLE events_2 (user_id int, at int)")
	s.install(st)
	s.must(s.conn, "ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES FROM (10) TO (20)")
	want := []string{
		"public.events_2: trigger shardproxy_owner_delete does not belong there", "public.events_2: trigger shardproxy_owner_insert does not belong there",
		"public.events_2: trigger shardproxy_owner_update does not belong there",
	}
	if found := s.check(st); !slices.Equal(found, want) {
		t.Errorf("attached: %q", found)
	}
	// That they are checked twice is no reason not to move the fence.
	st.Epoch = 6
	s.set(st)
	s.install(st)
	s.must(s.conn, "ALTER TABLE events DETACH PARTITION events_2")
	want = []string{
		"public.events_2: trigger shardproxy_owner_insert is missing", "public.events_2: trigger shardproxy_owner_delete is missing",
		"public.events_2: trigger shardproxy_owner_update is missing",
	}
	if found := s.check(st); !slices.Equal(found, want) {
		t.Errorf("detached: %q", found)
	}
	s.install(st)
	if found := s.check(st); found != nil {
		t.Errorf("installed: %q", found)
	}
}

// TestKeyOfPartitionsChanges replaces the triggers of a parent, and with them those that its partitions got.
func TestKeyOfPartitionsChanges(t *testing.T) {
	s := newShard(t, "CREATE TABLE events (user_id int, other int) PARTITION BY LIST (other); CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1)")
	st := State{Shard: "s1", Epoch: 5, Owned: half(false)}
	s.install(st)
	s.rules.Explicit = map[topology.TableName]string{{Schema: "public", Name: "events"}: "other"}
	s.install(st)
	if found := s.check(st); found != nil {
		t.Errorf("%q", found)
	}
	_, upper := keys(1)
	lowerOne := contains(half(false), topology.HashInt(1))
	got := refusal(s.exec(s.session(5), fmt.Sprintf("INSERT INTO events_1 VALUES (%d, 1)", upper[0])))
	if (got == "") != lowerOne || got != "" && got != foreignRow {
		t.Errorf("by the new key: %q", got)
	}
	if got := refusal(s.exec(s.conn, "CREATE OR REPLACE TRIGGER shardproxy_owner_parts_insert AFTER INSERT ON events_1 EXECUTE FUNCTION shardproxy.refuse_foreign()")); !strings.HasPrefix(got, "42710 ") {
		t.Errorf("PostgreSQL lets the trigger of a partition be replaced: %q", got)
	}
}

func TestInheritance(t *testing.T) {
	s := newShard(t, "CREATE TABLE base (user_id int, n int); CREATE TABLE child (extra int) INHERITS (base)")
	lower, upper := keys(1)
	s.must(s.conn, fmt.Sprintf("INSERT INTO child VALUES (%d, 0, 0), (%d, 0, 0)", lower[0], upper[0]))
	s.install(State{Shard: "s1", Epoch: 5, Owned: half(false)})
	for epoch, want := range map[topology.Epoch]string{5: foreignRow, 4: staleWrite} {
		conn := s.session(epoch)
		for _, sql := range []string{"UPDATE base SET n = 1", "UPDATE child SET n = 1", fmt.Sprintf("INSERT INTO child VALUES (%d, 0, 0)", upper[0]), "DELETE FROM base"} {
			if got := refusal(s.exec(conn, sql)); got != want {
				t.Errorf("%s at epoch %d: %q, want %q", sql, epoch, got, want)
			}
		}
	}
}
