package topology

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	healthKeyMax   = 128
	healthValueMax = 256
	healthItemsMax = 1 << 16 // nodes in use, with a few items each; at most 30 MB
	healthBuckets  = 64
	healthBytesMax = healthItemsMax * (healthKeyMax + healthValueMax + 16)

	// HealthTTL is how long an item holds unless it is set again.
	HealthTTL = 5 * time.Minute

	// healthSkewMax is how far ahead of our clock the version of an item may be: one of a far future could not be
	// told from news, and would never run out.
	healthSkewMax = 2 * time.Minute
)

// HealthItem is something that a proxy found out and all should know, such as the lag of a node. Of two items of one
// key, that with the higher version holds.
type HealthItem struct {
	Key     string
	Value   []byte // empty: withdrawn
	Version uint64 // microseconds since 1970 when it was set, or one more than that of the item it replaced
}

// Age is how long ago the item was set, by the clock of who set it.
func (it HealthItem) Age() time.Duration { return time.Since(time.UnixMicro(int64(it.Version))) }

// HealthMap holds the health items of the whole cluster. Any proxy may set any key; whoever set it last wins.
type HealthMap struct {
	send func(HealthItem)

	mu    sync.RWMutex
	items map[string]HealthItem
	sums  [healthBuckets]uint64 // of each bucket: the XOR of its items' hashes
}

func newHealthMap(send func(HealthItem)) *HealthMap {
	return &HealthMap{send: send, items: map[string]HealthItem{}}
}

var errHealthFull = fmt.Errorf("gossip: more than %d health items", healthItemsMax)

// Set gives key a value and tells the peers. An empty value withdraws the item.
func (h *HealthMap) Set(key string, value []byte) error {
	if key == "" || len(key) > healthKeyMax {
		return fmt.Errorf("gossip: health key %q must have 1 to %d bytes", key, healthKeyMax)
	}
	if len(value) > healthValueMax {
		return fmt.Errorf("gossip: health value of %s has %d bytes, more than %d", key, len(value), healthValueMax)
	}
	h.mu.Lock()
	it := HealthItem{Key: key, Value: bytes.Clone(value), Version: nextStamp(h.items[key].Version)}
	ok := h.put(it)
	h.mu.Unlock()
	if !ok {
		return errHealthFull
	}
	h.send(it)
	return nil
}

// Get is the item of a key, if there is one that holds.
func (h *HealthMap) Get(key string) (HealthItem, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	it, ok := h.items[key]
	return it, ok && len(it.Value) > 0 && it.Age() < HealthTTL
}

// List is the items whose keys start with prefix, by key. The caller must not change the values.
func (h *HealthMap) List(prefix string) []HealthItem {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var list []HealthItem
	for key, it := range h.items {
		if strings.HasPrefix(key, prefix) && len(it.Value) > 0 && it.Age() < HealthTTL {
			list = append(list, it)
		}
	}
	slices.SortFunc(list, func(a, b HealthItem) int { return cmp.Compare(a.Key, b.Key) })
	return list
}

// merge takes in an item of a peer, and says whether it was news.
func (h *HealthMap) merge(it HealthItem) bool {
	if age := it.Age(); age >= HealthTTL || age < -healthSkewMax {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	old, ok := h.items[it.Key]
	if ok && (it.Version < old.Version || it.Version == old.Version && bytes.Compare(it.Value, old.Value) <= 0) {
		return false
	}
	return h.put(it)
}

// put stores an item, unless it is a new one too many. mu is held.
func (h *HealthMap) put(it HealthItem) bool {
	old, ok := h.items[it.Key]
	if !ok && len(h.items) >= healthItemsMax {
		return false
	}
	bucket := healthBucket(it.Key)
	if ok {
		h.sums[bucket] ^= old.hash()
	}
	h.sums[bucket] ^= it.hash()
	h.items[it.Key] = it
	return true
}

// sweep drops what has run out.
func (h *HealthMap) sweep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, it := range h.items {
		if it.Age() >= HealthTTL {
			h.sums[healthBucket(key)] ^= it.hash()
			delete(h.items, key)
		}
	}
}

// digest is a sum over each bucket: two maps are alike in those where the sums are.
func (h *HealthMap) digest() [healthBuckets]uint64 {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.sums
}

// differ is the set of buckets where the digest of a peer is another one than ours, and not that of an empty bucket.
func (h *HealthMap) differ(theirs [healthBuckets]uint64) (buckets uint64) {
	for i, sum := range h.digest() {
		if theirs[i] != sum && theirs[i] != 0 {
			buckets |= 1 << i
		}
	}
	return buckets
}

// encode is the items of these buckets, one after the other.
func (h *HealthMap) encode(buckets uint64) []byte {
	h.mu.RLock()
	defer h.mu.RUnlock()
	var b []byte
	for key, it := range h.items {
		if buckets&(1<<healthBucket(key)) != 0 {
			b = it.append(b)
		}
	}
	return b
}

func healthBucket(key string) int {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	return int(h.Sum64() % healthBuckets)
}

func (it HealthItem) hash() uint64 {
	h := fnv.New64a()
	_, _ = h.Write(it.append(nil))
	return h.Sum64()
}

func (it HealthItem) append(dst []byte) []byte {
	dst = appendText(dst, it.Key)
	dst = binary.BigEndian.AppendUint64(dst, it.Version)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(it.Value)))
	return append(dst, it.Value...)
}

func (r *messageReader) item() HealthItem {
	it := HealthItem{Key: r.text(), Version: r.uint64()}
	it.Value = bytes.Clone(r.take(int(r.uint16())))
	if it.Key == "" || len(it.Key) > healthKeyMax || len(it.Value) > healthValueMax {
		r.bad = true
	}
	return it
}
