package router

import (
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/maypok86/otter/v2"
)

// planCache holds the Templates of normal forms. It is shared by all sessions; a hit takes no
// lock and allocates nothing.
type planCache struct {
	entries      *otter.Cache[string, *Template]
	hits, misses atomic.Uint64
}

// entryBytes is how much of a normal form counts as one entry.
const entryBytes = 512

func newPlanCache(entries int) (*planCache, error) {
	c, err := otter.New(&otter.Options[string, *Template]{
		MaximumWeight: uint64(entries),
		Weigher:       func(key string, _ *Template) uint32 { return 1 + uint32(len(key)/entryBytes) },
	})
	if err != nil {
		return nil, err
	}
	return &planCache{entries: c}, nil
}

// get does not keep key.
func (c *planCache) get(key []byte) (*Template, bool) {
	t, ok := c.entries.GetIfPresent(unsafe.String(unsafe.SliceData(key), len(key)))
	if ok {
		c.hits.Add(1)
	}
	return t, ok
}

func (c *planCache) put(key []byte, t *Template) {
	c.misses.Add(1)
	c.entries.Set(strings.Clone(unsafe.String(unsafe.SliceData(key), len(key))), t)
}

// len is about the number of Templates held.
func (c *planCache) len() int { return c.entries.EstimatedSize() }

// CacheStats counts the statements that were found in the plan cache, and those that were put there.
func (r *Router) CacheStats() (hits, misses uint64) {
	return r.cache.hits.Load(), r.cache.misses.Load()
}

// CacheSize is about the number of statements whose plan is in the cache.
func (r *Router) CacheSize() int { return r.cache.len() }
