package topology

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"shardproxy/internal/pgtest"
)

// The size that a snapshot must bear (issue: 100,000 shards with 3 nodes).
const (
	scaleShards = 100_000
	scaleNodes  = 3
)

// scaleContent is a map of n shards as an operator would name them, each with a primary and two replicas.
func scaleContent(n int) Content {
	c := Content{Cluster: "production", Epoch: 1, Rules: DefaultKeyRules(), Shards: make([]Shard, n), Ranges: EqualRanges(n)}
	for i := range c.Shards {
		s := Shard{Name: fmt.Sprintf("s%06d", i)}
		for j := range scaleNodes {
			role := Replica
			if j == 0 {
				role = Primary
			}
			s.Nodes = append(s.Nodes, Node{Host: fmt.Sprintf("pg-%06d-%c.db.example.com", i, 'a'+j), Port: 5432, Database: "app", Role: role})
		}
		c.Shards[i] = s
	}
	return c
}

var scale = sync.OnceValue(func() *Snapshot {
	s, err := New(scaleContent(scaleShards))
	if err != nil {
		panic(err)
	}
	return s
})

// heap gives the bytes in use after a collection.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// measureMemory reports what the snapshot of load holds.
func measureMemory(b *testing.B, load func() *Snapshot) {
	var held uint64
	for b.Loop() {
		before := heap()
		s := load()
		held = heap() - before
		runtime.KeepAlive(s)
	}
	b.ReportMetric(float64(held)/1e6, "MB")
	if held > 100e6 {
		b.Errorf("a snapshot of %d shards holds %d MB", scaleShards, held/1e6)
	}
}

// TestScaleMemory holds the bound that is promised for 100,000 shards with 3 nodes. How long a change takes, and a lookup, is
// for the benchmarks to say.
func TestScaleMemory(t *testing.T) {
	before := heap()
	s, err := DecodeSnapshot(scale().Encode())
	if err != nil {
		t.Fatal(err)
	}
	if held := int64(heap()) - int64(before); held > 100e6 {
		t.Errorf("a snapshot holds %d MB", held/1e6)
	}
	runtime.KeepAlive(s)
}

func BenchmarkScaleMemory(b *testing.B) {
	data := scale().Encode()
	b.Run("decoded", func(b *testing.B) {
		measureMemory(b, func() *Snapshot {
			s, err := DecodeSnapshot(data)
			if err != nil {
				b.Fatal(err)
			}
			return s
		})
	})
	b.Run("loaded", func(b *testing.B) {
		c := scaleCatalog(b)
		measureMemory(b, func() *Snapshot {
			s, err := c.Load(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			return s
		})
	})
}

// scaleCatalog is a catalog that holds the scale's map.
func scaleCatalog(b *testing.B) *Catalog {
	pg := pgtest.Shared(b)
	c, err := OpenCatalog(pg.DSN(pg.CreateDatabase(b)))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := c.Init(b.Context(), scale(), Actor{User: "bench"}); err != nil {
		b.Fatal(err)
	}
	return c
}

func BenchmarkScaleInit(b *testing.B) {
	scale()
	for b.Loop() {
		scaleCatalog(b)
	}
}

func BenchmarkScaleLoad(b *testing.B) {
	c := scaleCatalog(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Load(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScaleCommit(b *testing.B) {
	c, s := scaleCatalog(b), scale()
	for i := 0; b.Loop(); i++ {
		next, err := c.Commit(b.Context(), s, scaleMove(i), Actor{User: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		s = next
	}
}

func BenchmarkScaleNew(b *testing.B) {
	c := scaleContent(scaleShards)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := New(c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScaleEncode(b *testing.B) {
	size := 0
	for b.Loop() {
		size = len(scale().Encode())
	}
	b.ReportMetric(float64(size)/1e6, "MB")
}

func BenchmarkScaleDecode(b *testing.B) {
	data := scale().Encode()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeSnapshot(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScaleStateFile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "state")
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			if err := WriteStateFile(path, scale()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := ReadStateFile(path, "production"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// scaleMove gives a part of a range to the shard after the next.
func scaleMove(i int) MoveRange {
	r := scale().Ranges()[(i*7919)%scaleShards]
	return MoveRange{Start: r.Start, End: r.Start + 1<<20 + KeyHash(i), Shard: scale().Shards[(int(r.Shard)+2)%scaleShards].Name}
}

func BenchmarkScaleApply(b *testing.B) {
	node := Node{Host: "new.example.com", Port: 5432, Database: "app", Role: Replica}
	first := node
	first.Role = Primary
	for name, change := range map[string]Change{
		"move":  scaleMove(1),
		"split": SplitRange{12345},
		"table": SetTable{Table: TableName{"public", "t"}, Column: "id"},
		"shard": AddShard{Shard{Name: "new", Nodes: []Node{first}}},
		"drain": SetShardState{"s000007", ShardDraining},
		"node":  AddNode{"s000007", node},
	} {
		b.Run(name, func(b *testing.B) {
			s := scale()
			delta := Delta{Change: change}.Encode()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Apply(change); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(delta)), "delta-bytes")
		})
	}
	b.Run("batch of 1000 moves", func(b *testing.B) {
		var batch Batch
		for i := range 1000 {
			batch = append(batch, scaleMove(i))
		}
		for b.Loop() {
			if _, err := scale().Apply(batch); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkScaleLookup(b *testing.B) {
	s := scale()
	rng := rand.New(rand.NewPCG(1, 2))
	hashes := make([]KeyHash, 1<<16)
	for i := range hashes {
		hashes[i] = KeyHash(rng.Uint64())
	}
	b.Run("owner", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			sink += uint64(s.Owner(hashes[i&(len(hashes)-1)]))
		}
	})
	b.Run("by name", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			id, _ := s.ShardByName(s.Shards[hashes[i&(len(hashes)-1)]%scaleShards].Name)
			sink += uint64(id)
		}
	})
}
