package topology

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// sink keeps the compiler from dropping what a benchmark measures.
var sink uint64

func BenchmarkHashInt(b *testing.B) {
	b.ReportAllocs()
	for i := range b.N {
		sink += uint64(HashInt(int64(i)))
	}
}

func BenchmarkHashText(b *testing.B) {
	for _, size := range []int{4, 16, 36, 1000} {
		text := strings.Repeat("x", size)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				sink += uint64(HashText(text))
			}
		})
	}
}

func BenchmarkHashUUID(b *testing.B) {
	b.ReportAllocs()
	var u [16]byte
	for i := range b.N {
		u[0] = byte(i)
		sink += uint64(HashUUID(u))
	}
}

func BenchmarkOwner(b *testing.B) {
	for _, n := range []int{10, 10_000, 100_000} {
		for _, shape := range []string{"equal", "skewed"} {
			ranges := EqualRanges(n)
			if shape == "skewed" {
				ranges = skewedRanges(n)
			}
			snap, err := NewSnapshot(1, make([]Shard, n), ranges, nil)
			if err != nil {
				b.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(1, 2))
			hashes := make([]KeyHash, 1<<16) // far apart, so that the caches are as cold as in life
			for i := range hashes {
				hashes[i] = KeyHash(rng.Uint64())
				if shape == "skewed" { // half of the look-ups go where the ranges are densest
					hashes[i] >>= 20 * (i & 1)
				}
			}
			b.Run(fmt.Sprintf("%s/%d", shape, n), func(b *testing.B) {
				b.ReportAllocs()
				for i := range b.N {
					sink += uint64(snap.Owner(hashes[i&(len(hashes)-1)]))
				}
			})
		}
	}
}

// skewedRanges puts all but one of n ranges in the lowest 2^44 hashes.
func skewedRanges(n int) []KeyRange {
	ranges := make([]KeyRange, n)
	for i := range ranges {
		start := KeyHash(i) * (1 << 44 / KeyHash(n))
		ranges[i] = KeyRange{Start: start, End: KeyHash(i+1) * (1 << 44 / KeyHash(n)), Shard: ShardID(i)}
	}
	ranges[n-1].End = 0
	return ranges
}
