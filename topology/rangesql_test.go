package topology

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"shardproxy/internal/pgtest"
)

func TestAppendInRanges(t *testing.T) {
	const half = 1 << 63
	for _, test := range []struct {
		ranges []KeyRange
		list   string
	}{
		{[]KeyRange{{Start: half + 5, End: half + 9}}, "5,9"},
		{[]KeyRange{{Start: half + 5, End: half + 9}, {Start: half + 9, End: half + 10}, {Start: half + 12, End: half + 13}}, "5,10,12,13"},
		{[]KeyRange{{Start: 0, End: half}, {Start: half, End: 0}}, "-9223372036854775808"},
		{[]KeyRange{{Start: half - 1, End: half}, {Start: half + 7, End: 0}}, "-1,0,7"},
		{nil, ""},
	} {
		want := "(pg_catalog.width_bucket(h, '{" + test.list + "}'::bigint[]) OPERATOR(pg_catalog.&) 1) OPERATOR(pg_catalog.=) 1"
		if got := string(AppendInRanges(nil, "h", test.ranges)); got != want {
			t.Errorf("%v\n got %s\nwant %s", test.ranges, got, want)
		}
	}
}

// TestAppendInRangesOnServer asks a server which of some values have their key hash in random ranges, cut at such hashes.
func TestAppendInRangesOnServer(t *testing.T) {
	conn := pgtest.Shared(t).Connect(t, "postgres")
	rng := rand.New(rand.NewPCG(2025, 2))
	for round := range 40 {
		values := make([]string, 60)
		hashes := make([]KeyHash, len(values))
		cuts := []KeyHash{0}
		kind := []KeyType{KeyInt, KeyText, KeyUUID}[round%3]
		for i := range values {
			n := rng.Int64() >> rng.IntN(63)
			switch kind {
			case KeyInt:
				values[i], hashes[i] = fmt.Sprint(n), HashInt(n)
			case KeyText:
				values[i] = fmt.Sprint("é'", n)
				hashes[i] = HashText(values[i])
			case KeyUUID:
				var u [16]byte
				for j := range u {
					u[j] = byte(n >> j)
				}
				values[i], hashes[i] = fmt.Sprintf("%x", u), HashUUID(u)
			}
			cuts = append(cuts, hashes[i]+KeyHash(rng.IntN(3))-1)
		}
		slices.Sort(cuts)
		cuts = append(slices.Compact(cuts), 0)
		var ranges []KeyRange
		for i := 1; i < len(cuts); i++ {
			if rng.IntN(3) > 0 {
				ranges = append(ranges, KeyRange{Start: cuts[i-1], End: cuts[i]})
			}
		}
		types := map[KeyType]string{KeyInt: "bigint", KeyText: "text", KeyUUID: "uuid"}
		condition := string(AppendInRanges(nil, kind.HashSQL("v::"+types[kind]), ranges))
		rows, err := conn.Query(t.Context(), "SELECT "+condition+" FROM unnest($1::text[]) WITH ORDINALITY u(v, n) ORDER BY n", values)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; rows.Next(); i++ {
			var got bool
			if err := rows.Scan(&got); err != nil {
				t.Fatal(err)
			}
			if want := inRanges(ranges, hashes[i]); got != want {
				t.Errorf("%v %s, hash %016x: the server says %v, want %v", kind, values[i], uint64(hashes[i]), got, want)
			}
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	null := string(AppendInRanges(nil, KeyInt.HashSQL("NULL"), []KeyRange{{End: 5}}))
	var isNull bool
	if err := conn.QueryRow(t.Context(), "SELECT ("+null+") IS NULL").Scan(&isNull); err != nil || !isNull {
		t.Errorf("the hash of NULL: %v, %v", isNull, err)
	}
}
