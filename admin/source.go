package admin

import (
	"cmp"
	"slices"

	"shardproxy/backend"
	"shardproxy/proxy"
	"shardproxy/topology"
	"shardproxy/wire"
)

// Source is what the package reads: a *proxy.Server, and in tests a fixed picture of one.
type Source interface {
	Counters() proxy.Counters
	Clients() []proxy.ClientInfo
	Pools() []backend.Stats
	Backends() []backend.ConnInfo
	Snapshot() *topology.Snapshot
	PlanCache() (hits, misses uint64)
	Caches() []proxy.CacheInfo
	Database() string // that clients see
	Live() *proxy.Live
	Leases() []proxy.LeaseInfo
	Paused(shard string) bool
	Explain(sql string) ([]string, *wire.Error)
	Drift() []proxy.ShardDrift
}

// pool is a pool with its place in the topology.
type pool struct {
	backend.Stats
	place
	active, connecting int // together Used
}

// place is a node and the shard it belongs to. Both are unset for a node that has left the topology.
type place struct {
	shard string
	index int // of the shard; behind all others where there is none
	node  topology.Node
}

// pools lists the pools by shard, node, database and user.
func pools(src Source) []pool {
	active := make(map[backend.Key]int)
	for _, b := range src.Backends() {
		if b.Active {
			active[b.Key]++
		}
	}
	at := placesOf(src.Snapshot())
	var list []pool
	for _, s := range src.Pools() {
		n := min(active[s.Key], s.Used) // the two lists were not made at the same moment
		list = append(list, pool{Stats: s, place: at.of(s.Key), active: n, connecting: s.Used - n})
	}
	slices.SortFunc(list, func(a, b pool) int { return comparePlaces(a.place, b.place, a.Key, b.Key) })
	return list
}

func comparePlaces(a, b place, ak, bk backend.Key) int {
	return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(ak.Address, bk.Address),
		cmp.Compare(ak.Database, bk.Database), cmp.Compare(ak.User, bk.User))
}

// places finds nodes by address and database; the user of its keys is empty.
type places map[backend.Key]place

func placesOf(snap *topology.Snapshot) places {
	p := make(places)
	for i, shard := range snap.Shards {
		for _, n := range shard.Nodes {
			p[backend.Key{Address: n.Address(), Database: n.Database}] = place{shard: shard.Name, index: i, node: n}
		}
	}
	return p
}

func (p places) of(key backend.Key) place {
	key.User = ""
	if at, ok := p[key]; ok {
		return at
	}
	return place{index: len(p)}
}

// picture is a Source at one moment.
type picture struct {
	proxy.Counters
	clients      int
	pools        []pool
	snapshot     *topology.Snapshot
	hits, misses uint64
	paused       int // shards
	drift        []proxy.ShardDrift
}

func pictureOf(src Source) *picture {
	p := &picture{Counters: src.Counters(), clients: len(src.Clients()), pools: pools(src), snapshot: src.Snapshot(), drift: src.Drift()}
	p.hits, p.misses = src.PlanCache()
	for _, s := range p.snapshot.Shards {
		if src.Paused(s.Name) {
			p.paused++
		}
	}
	return p
}
