package fence

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"shardproxy/topology"
)

func snapshotOf(t testing.TB, epoch topology.Epoch, names string, ranges ...topology.KeyRange) *topology.Snapshot {
	t.Helper()
	var shards []topology.Shard
	for name := range strings.FieldsSeq(names) {
		shards = append(shards, topology.Shard{Name: name})
	}
	snap, err := topology.NewSnapshot(epoch, shards, ranges, nil)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func TestStateOf(t *testing.T) {
	snap := snapshotOf(t, 7, "a b c",
		topology.KeyRange{Start: 0, End: 10, Shard: 1}, topology.KeyRange{Start: 10, End: 20, Shard: 1}, topology.KeyRange{Start: 20, End: 30, Shard: 0},
		topology.KeyRange{Start: 30, End: 40, Shard: 1}, topology.KeyRange{Start: 40, Shard: 1})
	want := []State{
		{Shard: "a", Epoch: 7, Owned: []topology.KeyRange{{Start: 20, End: 30}}},
		{Shard: "b", Epoch: 7, Owned: []topology.KeyRange{{End: 20}, {Start: 30}}},
		{Shard: "c", Epoch: 7},
	}
	for i := range want {
		if diff := cmp.Diff(want[i], StateOf(snap, topology.ShardID(i))); diff != "" {
			t.Error(diff)
		}
	}
	if diff := cmp.Diff(want, statesOf(snap)); diff != "" {
		t.Errorf("all at once: %s", diff)
	}
	whole := snapshotOf(t, 7, "a", topology.KeyRange{End: 10}, topology.KeyRange{Start: 10})
	if diff := cmp.Diff(all, StateOf(whole, 0).Owned); diff != "" {
		t.Errorf("the whole ring: %s", diff)
	}
}

func TestStateIsChecked(t *testing.T) {
	long := make([]topology.KeyRange, OwnedMax+1)
	for i := range long {
		long[i] = topology.KeyRange{Start: topology.KeyHash(2 * i), End: topology.KeyHash(2*i + 1)}
	}
	for _, test := range []struct {
		st   State
		want string
	}{
		{State{Shard: "s", Epoch: 1, Owned: long[:OwnedMax]}, ""},
		{State{Shard: "s", Epoch: 1}, ""},
		{State{Shard: "s", Epoch: 1, Owned: all}, ""},
		{State{Shard: "s", Epoch: 1, Owned: long}, "owns 65537 separate key ranges"},
		{State{Shard: "s"}, "an epoch above 0"},
		{State{Epoch: 1}, "the name of its shard"},
		{State{Shard: "s", Epoch: 1, Owned: []topology.KeyRange{{End: 5}, {Start: 5, End: 6}}}, "or touch"},
		{State{Shard: "s", Epoch: 1, Owned: []topology.KeyRange{{Start: 3}, {Start: 5, End: 6}}}, "not sorted"},
		{State{Shard: "s", Epoch: 1, Owned: []topology.KeyRange{{Start: 3, End: 3}}}, "not sorted"},
	} {
		if err := test.st.check(); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%d ranges: %v, want %q", len(test.st.Owned), err, test.want)
		}
	}
}

// drawOwned is any sorted list of ranges that do not touch, often with the ends of the ring.
func drawOwned(t *rapid.T) (owned []topology.KeyRange) {
	borders := rapid.SliceOfNDistinct(rapid.Uint64Range(1, math.MaxUint64), 0, 40, rapid.ID).Draw(t, "borders")
	st := State{}
	start := topology.KeyHash(0)
	inside := rapid.Bool().Draw(t, "from the start")
	for _, b := range sorted(borders) {
		if inside {
			st.add(topology.KeyRange{Start: start, End: topology.KeyHash(b)})
		}
		start, inside = topology.KeyHash(b), !inside
	}
	if inside {
		st.add(topology.KeyRange{Start: start})
	}
	return st.Owned
}

func TestOwnsBodyIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		owned := drawOwned(t)
		got, ok := parseOwns(ownsBody(owned))
		if !ok || !cmp.Equal(got, owned) {
			t.Fatalf("%v is read as %v, %v", owned, got, ok)
		}
	})
	for _, body := range []string{"", "BEGIN RETURN true; END", "'{1,x}'", "'{5,4}'", "'{5,5}'", "'{1,}'"} {
		if got, ok := parseOwns(body); ok {
			t.Errorf("%s is read as %v", body, got)
		}
	}
}

func TestSameDefinition(t *testing.T) {
	table := Table{TableName: topology.TableName{Schema: "public", Name: "users"}, Key: "id", KeyType: topology.KeyText}
	ours := triggersOf(&table)[1]
	const theirs = `CREATE TRIGGER shardproxy_owner_insert AFTER INSERT ON public.users FOR EACH ROW WHEN ((NOT ` +
		`shardproxy.owns(hashtextextended(((new.id)::text COLLATE "C"), '8816678312871386365'::bigint)))) EXECUTE FUNCTION shardproxy.refuse_foreign()`
	if !sameDefinition(ours.definition(), theirs) {
		t.Errorf("%q\n%q", words(ours.definition()), words(theirs))
	}
	for old, changed := range map[string]string{
		"new.id": "new.uid", "new.": "old.", "NOT ": "", "8816678312871386365": "1", "public.": "other.", "users": `"Users"`,
		"INSERT ON": "INSERT OR UPDATE ON", "AFTER": "BEFORE", "ROW": "STATEMENT", "refuse_foreign": "refuse_stale", "shardproxy.owns": "owns",
		`COLLATE "C"`: "", "hashtext": "hashint8", "'8816678312871386365'": `"8816678312871386365"`,
	} {
		if other := strings.Replace(theirs, old, changed, 1); sameDefinition(ours.definition(), other) {
			t.Errorf("%s passes for ours", other)
		}
	}
}

func TestTables(t *testing.T) {
	name := func(n string) topology.TableName { return topology.TableName{Schema: "public", Name: n} }
	columns := []topology.Column{{Name: "x"}, {Name: "user_id"}}
	schema := &topology.Schema{Tables: map[topology.TableName]*topology.Table{}}
	for _, table := range []*topology.Table{
		{TableName: name("users"), Kind: topology.Sharded, KeyType: topology.KeyInt, Key: 1, Columns: columns, Partitioned: true},
		{TableName: name("part"), Kind: topology.Sharded, KeyType: topology.KeyInt, Key: 1, Columns: columns, Parent: name("users")},
		{TableName: name("child"), Kind: topology.Sharded, KeyType: topology.KeyUUID, Key: 1, Columns: columns, Parent: name("base")},
		{TableName: topology.TableName{Schema: "a", Name: "plans"}, Kind: topology.Reference, Key: -1},
		{TableName: name("base"), Kind: topology.Sharded, KeyType: topology.KeyUUID, Key: 1, Columns: columns},
		{TableName: name("view"), Kind: topology.View, Key: -1},
		{TableName: name("seq"), Kind: topology.Other, Key: -1},
		{TableName: name("odd"), Kind: topology.Sharded, Key: -1, Problem: "no rule"},
	} {
		schema.Tables[table.TableName] = table
	}
	want := []Table{
		{TableName: topology.TableName{Schema: "a", Name: "plans"}},
		{TableName: name("base"), Key: "user_id", KeyType: topology.KeyUUID},
		{TableName: name("child"), Key: "user_id", KeyType: topology.KeyUUID},
		{TableName: name("part"), Key: "user_id", KeyType: topology.KeyInt, Partition: true},
		{TableName: name("users"), Key: "user_id", KeyType: topology.KeyInt, Partitioned: true},
	}
	if diff := cmp.Diff(want, Tables(schema)); diff != "" {
		t.Error(diff)
	}
	if odd := unplaced(schema); len(odd) != 1 || !strings.Contains(odd[0].String(), "public.odd: it has no fence") {
		t.Errorf("%v", odd)
	}
}
