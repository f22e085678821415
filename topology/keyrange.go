package topology

import (
	"fmt"
	"time"
)

// KeyHash is the hashed shard key: PostgreSQL's extended hash with the sign bit flipped, so
// that unsigned order is the order of the signed result. A key range is cut from this ring.
type KeyHash uint64

// Epoch is the number of a snapshot. It only grows.
type Epoch uint64

// LeaseTime is how long a proxy may read from a shard by its map without having asked the shard whether it is fenced for
// a later one. Rows that have moved away stay on their old shard for longer than that. It is the same for all proxies of
// a cluster, and so no option.
const LeaseTime = 5 * time.Second

// HoldTime is how long proxies keep work on a held range waiting at most. The hold of a move is meant to last for some tens
// of milliseconds, and is taken back by who moves after two seconds.
const HoldTime = 5 * time.Second

// ShardID is the index of a shard in Snapshot.Shards. It is meaningful within one snapshot.
type ShardID int32

// KeyRange is the half-open range [Start, End) of key hashes owned by one shard.
// End == 0 stands for the end of the ring, so that the last range can be written.
type KeyRange struct {
	Start, End KeyHash
	Shard      ShardID
}

func (r KeyRange) String() string {
	return fmt.Sprintf("[%016x,%016x)", uint64(r.Start), uint64(r.End))
}

// Signed gives h as PostgreSQL's hashint8extended and its like return it.
func (h KeyHash) Signed() int64 { return int64(uint64(h) ^ 1<<63) }

// EqualRanges cuts the ring into n ranges whose sizes differ by at most one, range i owned by shard i.
// n is at least 0.
func EqualRanges(n int) []KeyRange {
	ranges := make([]KeyRange, n)
	for i := range ranges {
		ranges[i] = KeyRange{Start: cut(i, n), End: cut(i+1, n), Shard: ShardID(i)}
	}
	return ranges
}

// cut gives i/n of the ring, 0 for the whole of it.
func cut(i, n int) KeyHash {
	if i == n {
		return 0
	}
	// i * 2^64 / n without overflow: the quotient and the remainder of 2^64 / n, each times i.
	q := ^uint64(0) / uint64(n)
	r := ^uint64(0)%uint64(n) + 1
	if r == uint64(n) {
		q, r = q+1, 0
	}
	return KeyHash(uint64(i)*q + uint64(i)*r/uint64(n))
}
