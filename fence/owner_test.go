package fence

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"shardproxy/topology"
)

func sorted(list []uint64) []uint64 { slices.Sort(list); return list }

// keyColumn is a table by a kind of shard key: its column, and a random key with its hash, as a literal.
type keyColumn struct {
	column string // with its type
	key    func(*rand.Rand) (string, topology.KeyHash)
}

func randomInt(bits int) func(*rand.Rand) (string, topology.KeyHash) {
	return func(r *rand.Rand) (string, topology.KeyHash) {
		n := int64(r.Uint64()) >> (64 - bits) >> r.IntN(bits)
		return fmt.Sprint(n), topology.HashInt(n)
	}
}

func randomText(r *rand.Rand) (string, topology.KeyHash) {
	letters := []rune("abcXYZ 019'\\\"éß日🐘")
	text := make([]rune, r.IntN(20))
	for i := range text {
		text[i] = letters[r.IntN(len(letters))]
	}
	return literal(string(text)), topology.HashText(string(text))
}

func randomUUID(r *rand.Rand) (string, topology.KeyHash) {
	var u [16]byte
	for i := range u {
		u[i] = byte(r.Uint32())
	}
	return fmt.Sprintf("'%x'", u), topology.HashUUID(u)
}

var keyColumns = []keyColumn{
	{`user_id smallint`, randomInt(16)},
	{`user_id int`, randomInt(32)},
	{`user_id bigint`, randomInt(64)},
	{`user_id text`, randomText},
	{`user_id text COLLATE "C"`, randomText},
	{`user_id varchar`, randomText},
	{`user_id varchar(40)`, randomText},
	{`user_id uuid`, randomUUID},
	{`user_id small_number`, randomInt(16)},
	{`user_id number`, randomInt(32)},
	{`user_id word`, randomText},
	{`user_id name_of_20`, randomText},
	{`user_id some_uuid`, randomUUID},
}

const keyDomains = `CREATE DOMAIN small_number AS smallint; CREATE DOMAIN number AS int CHECK (value IS NOT NULL);
	CREATE DOMAIN word AS text; CREATE DOMAIN name_of_20 AS varchar(20); CREATE DOMAIN some_uuid AS uuid;`

// TestOwnersAgree holds that a shard takes exactly the rows that topology gives it, for each type of key and any ranges.
func TestOwnersAgree(t *testing.T) {
	ddl := keyDomains
	for i, k := range keyColumns {
		ddl += fmt.Sprintf("CREATE TABLE t%d (%s);", i, k.column)
	}
	s := newShard(t, ddl)
	tables := s.tables()
	if len(tables) != len(keyColumns) {
		t.Fatalf("%d tables", len(tables))
	}
	epoch := topology.Epoch(1)
	s.install(State{Shard: "s1", Epoch: epoch, Owned: all})
	writer := s.session(math.MaxInt32)
	taken, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		owned := drawOwned(t)
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		epoch++
		if err := Set(s.Context(), s.query, State{Shard: "s1", Epoch: epoch, Owned: owned}, tables); err != nil {
			t.Fatal(err)
		}
		for i, column := range keyColumns {
			key, h := column.key(random)
			want := foreignRow
			if contains(owned, h) {
				want = ""
				taken++
			} else {
				refused++
			}
			if got := refusal(s.exec(writer, fmt.Sprintf("INSERT INTO t%d VALUES (%s)", i, key))); got != want {
				t.Fatalf("%s, key %s, hash %d, owned %v: %q, want %q", column.column, key, h.Signed(), owned, got, want)
			}
		}
	})
	if taken < 100 || refused < 100 {
		t.Errorf("%d keys were taken and %d refused", taken, refused)
	}
}

// TestOwnsAtTheEnds looks at single hashes at the borders of ranges and of the ring.
func TestOwnsAtTheEnds(t *testing.T) {
	s := newShard(t, "")
	epoch := topology.Epoch(0)
	for _, owned := range [][]topology.KeyRange{
		nil, all, half(false), half(true),
		{{Start: math.MaxUint64}},
		{{End: 1}},
		{{Start: 1}},
		{{End: math.MaxUint64}},
		{{End: 1}, {Start: math.MaxUint64}},
		{{Start: 5, End: 6}, {Start: 7, End: 8}, {Start: 1<<63 - 1, End: 1<<63 + 1}},
	} {
		epoch++
		s.install(State{Shard: "s1", Epoch: epoch, Owned: owned})
		if got := s.read(); got.Epoch != epoch || !sameRanges(got.Owned, owned) {
			t.Fatalf("%v is read as %v", owned, got)
		}
		for _, h := range []topology.KeyHash{0, 1, 2, 5, 6, 7, 8, 1<<63 - 2, 1<<63 - 1, 1 << 63, 1<<63 + 1, math.MaxUint64 - 1, math.MaxUint64} {
			want := map[bool]string{true: "t", false: "f"}[contains(owned, h)]
			if got := s.one(fmt.Sprintf("SELECT shardproxy.owns('%d')", h.Signed())); got != want {
				t.Errorf("%v, hash %016x: %s", owned, uint64(h), got)
			}
		}
	}
}

// TestManyRanges holds that a shard may own as many ranges as the limit allows.
func TestManyRanges(t *testing.T) {
	s := newShard(t, "CREATE TABLE users (id int PRIMARY KEY)")
	owned := make([]topology.KeyRange, OwnedMax)
	for i := range owned {
		owned[i] = topology.KeyRange{Start: topology.KeyHash(i) << 48, End: topology.KeyHash(2*i+1) << 47}
	}
	st := State{Shard: "s1", Epoch: 1, Owned: owned}
	s.install(st)
	writer := s.session(1)
	for id := range 200 {
		want := foreignRow
		if contains(owned, topology.HashInt(int64(id))) {
			want = ""
		}
		if got := refusal(s.exec(writer, fmt.Sprintf("INSERT INTO users VALUES (%d)", id))); got != want {
			t.Fatalf("key %d: %q, want %q", id, got, want)
		}
	}
	if found := s.check(st); found != nil {
		t.Error(found)
	}
}
