package rebalance

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"shardproxy/topology"
)

// The world of the simulation: shards with rows, logs, fences, slots and guards, and a catalog. It knows the truth, and
// panics with a violation as soon as something is not as it must be.

const (
	simKeys    = 8 // key k has the hash k << 61
	simFixed   = 2 // the last keys: their rows are never deleted, so scatter reads must find each once
	simShards  = 3
	simProxies = 3
)

type violation string

func fail(format string, args ...any) { panic(violation(fmt.Sprintf(format, args...))) }

// keySet has bit k for key k.
type keySet uint8

func (s keySet) has(k int) bool { return s>>k&1 != 0 }

// row is a history of writes in one number: equal rows had the same writes in the same order, each once.
type row struct {
	there bool
	value uint64
}

type opKind uint8

const (
	opInsert opKind = iota
	opUpdate
	opDelete
	opsMax
)

// op is one write, as it stands in the log.
type op struct {
	kind  opKind
	key   int
	id    uint64
	mover MoveID // that wrote it; 0: a client
}

func (r row) after(o op) row {
	switch o.kind {
	case opInsert:
		return row{true, o.id}
	case opUpdate:
		return row{true, r.value*31 + o.id}
	}
	return row{}
}

type simSlot struct {
	pos  int // acknowledged
	user *simStream
}

type progress struct {
	lsn   int
	ready bool // all rows were copied
}

type simShard struct {
	up       bool
	primary  Primary
	unopened *simFence // what a replica has that did not hear of the last widening; nil: there was none since the last change
	rows     [simKeys]row
	log      []op
	fence    topology.Epoch
	owned    keySet
	guards   map[MoveID]Guard
	slots    map[MoveID]*simSlot
	progress map[MoveID]*progress // of what is applied here
	open     []*simTx
	locked   time.Duration // until then a fence waits for its lock, and writers behind it
}

// pass checks and raises the guard of a move.
func (s *simShard) pass(m *Move, seq uint64) bool {
	g := m.Guard(seq)
	if s.guards[m.ID].Refuses(g) {
		return false
	}
	s.guards[m.ID] = s.guards[m.ID].Raise(g)
	return true
}

func (s *simShard) write(o op) {
	s.rows[o.key] = s.rows[o.key].after(o)
	s.log = append(s.log, o)
}

type simFence struct {
	epoch topology.Epoch
	owned keySet
}

type simTx struct {
	proxy, shard int
	op           op
}

type simMap struct {
	epoch  topology.Epoch
	owner  [simKeys]int
	moving keySet
	held   keySet
	hold   topology.Epoch // 0: none
}

// raise makes the map of the next epoch.
func (m *simMap) raise(what func(m *simMap)) {
	m.epoch++
	what(m)
}

type simLease struct {
	fence topology.Epoch
	at    time.Duration
}

type simProxy struct {
	cut    bool // from catalog and gossip, not from shards
	know   simMap
	until  time.Duration // of a hold
	leases [simShards]simLease
}

type simScatter struct {
	proxy int
	plan  simMap
	todo  uint8 // shards
	seen  [simKeys]int
}

type simCatalog struct {
	simMap
	token   uint64
	journal map[MoveID]Move
}

type world struct {
	rng      *rand.Rand
	now      time.Duration
	quiet    bool // no faults any more
	calm     int  // one of so many faults happens
	trace    func(string, ...any)
	catalog  simCatalog
	shards   [simShards]*simShard
	proxies  [simProxies]*simProxy
	truth    [simKeys]row
	flipped  [simKeys]time.Duration
	used     map[topology.Epoch]string
	cause    map[MoveID]bool // there was a reason to lose the way back
	doomed   MoveID          // rows of which cannot be copied; 0: none
	scatters []*simScatter
	streams  []*simStream
	pending  []*pending
	coords   []*simCoordinator
	nextID   uint64
	moves    []MoveID
}

func newWorld(seed uint64, trace func(string, ...any)) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 7)), trace: trace, used: map[topology.Epoch]string{}, cause: map[MoveID]bool{}}
	w.catalog = simCatalog{simMap: simMap{epoch: 1}, journal: map[MoveID]Move{}}
	w.calm = 1 + w.rng.IntN(8)
	for i := range w.shards {
		w.shards[i] = &simShard{up: true, primary: Primary{uint64(i) + 1, 1}, guards: map[MoveID]Guard{}, slots: map[MoveID]*simSlot{}, progress: map[MoveID]*progress{}}
	}
	for k := range simKeys {
		owner := w.rng.IntN(simShards)
		w.catalog.owner[k] = owner
		s := w.shards[owner]
		s.owned |= 1 << k
		if k >= simKeys-simFixed || w.rng.IntN(2) == 0 {
			w.nextID++
			s.write(op{kind: opInsert, key: k, id: w.nextID})
			w.truth[k] = s.rows[k]
		}
		w.flipped[k] = -time.Hour
	}
	for i := range w.proxies {
		w.proxies[i] = &simProxy{know: w.catalog.simMap}
	}
	return w
}

func keysOf(m *Move) (s keySet) {
	for k := range simKeys {
		if m.Has(topology.KeyHash(k) << 61) {
			s |= 1 << k
		}
	}
	return s
}

func shardNo(name string) int { return int(name[1] - '0') }

func (w *world) side(m *Move, s Side) *simShard { return w.shards[shardNo(m.Shard(s))] }

// check holds what must be true at all times.
func (w *world) check() {
	w.checkWayBack()
	for i, a := range w.shards {
		for j := range i {
			if both := a.owned & w.shards[j].owned; both != 0 {
				fail("keys %08b are writable on shards %d and %d", both, i, j)
			}
		}
	}
}

// checkWayBack holds that a move which soaks is followed by its stream, and loses the way back for a reason only.
func (w *world) checkWayBack() {
	c := w.current()
	for _, id := range w.moves {
		m, known := c.moves[id]
		if !known || c.dead {
			continue
		}
		if m.ReverseLost && !w.cause[id] {
			fail("move %d cannot be reversed any more, for no reason: %s", id, m.Error)
		}
		if m.State != Soak || m.Task != TaskSoak || m.ReverseLost {
			continue
		}
		runs := slices.ContainsFunc(w.streams, func(s *simStream) bool { return s.by == c && s.m.ID == id && s.back && !s.stopped })
		asked := slices.ContainsFunc(w.pending, func(p *pending) bool {
			_, is := p.effect.(Stream)
			return is && p.by == c && p.m.ID == id
		})
		if !runs && !asked {
			fail("move %d soaks without its stream", id)
		}
	}
}

// write begins a write of one row through a proxy.
func (w *world) write() {
	p, k := w.rng.IntN(simProxies), w.rng.IntN(simKeys)
	w.nextID++
	o := op{kind: opKind(w.rng.IntN(int(opsMax))), key: k, id: w.nextID}
	if k >= simKeys-simFixed {
		o.kind = opUpdate
	}
	n := w.proxies[p].know.owner[k]
	s := w.shards[n]
	stamp, held := w.proxies[p].stamp(k, w.now)
	if held || !s.up || stamp < s.fence || w.now < s.locked {
		return // it waits, or is told an error, or is tried again with a later map
	}
	for _, tx := range s.open {
		if tx.op.key == k {
			return // waits for its lock
		}
	}
	touches := s.rows[k].there != (o.kind == opInsert)
	if !touches { // 0 rows, or a duplicate key: that is an answer too
		if s.rows[k].there != w.truth[k].there {
			fail("proxy %d with epoch %d is told by shard %d that the row of key %d is there: %t, but that is wrong", p, stamp, n, k, s.rows[k].there)
		}
		return
	}
	if !s.owned.has(k) {
		return // the row trigger
	}
	w.trace("write of key %d begins on shard %d by proxy %d, epoch %d", k, n, p, stamp)
	s.open = append(s.open, &simTx{p, n, o})
}

// stamp is the epoch for work on a key; held says that it must wait.
func (p *simProxy) stamp(k int, now time.Duration) (epoch topology.Epoch, held bool) {
	if p.know.hold == 0 || now >= p.until {
		return p.know.epoch, false
	}
	return max(p.know.epoch, p.know.hold), p.know.held.has(k)
}

// learn takes a map. A hold lasts its budget by the proxy's own clock.
func (p *simProxy) learn(m simMap, now time.Duration) {
	if m.epoch <= p.know.epoch {
		return
	}
	if m.hold != p.know.hold {
		p.until = now + HoldBudget
	}
	p.know = m
}

func (w *world) commit() {
	s := w.shards[w.rng.IntN(simShards)]
	if len(s.open) == 0 {
		return
	}
	i := w.rng.IntN(len(s.open))
	tx := s.open[i]
	s.open = append(s.open[:i], s.open[i+1:]...)
	if w.rng.IntN(8) == 0 {
		return // ROLLBACK
	}
	k := tx.op.key
	if s.rows[k] != w.truth[k] {
		fail("a write of key %d on shard %d finds %v where the truth is %v", k, tx.shard, s.rows[k], w.truth[k])
	}
	s.write(tx.op)
	w.truth[k] = s.rows[k]
	w.trace("write of key %d on shard %d is acknowledged, LSN %d", k, tx.shard, len(s.log))
}

// mayRead says that a proxy may send a read with a plan of this epoch.
func (w *world) mayRead(p, shard int, plan topology.Epoch) bool {
	l := w.proxies[p].leases[shard]
	return w.shards[shard].up && l.at > 0 && w.now-l.at <= topology.LeaseTime && l.fence <= plan
}

func (w *world) read() {
	p, k := w.rng.IntN(simProxies), w.rng.IntN(simKeys)
	n := w.proxies[p].know.owner[k]
	stamp, held := w.proxies[p].stamp(k, w.now)
	if held || !w.mayRead(p, n, stamp) {
		return
	}
	if w.shards[n].rows[k] != w.truth[k] && w.now-w.flipped[k] > topology.LeaseTime {
		fail("proxy %d reads key %d on shard %d long after it has moved", p, k, n)
	}
}

func (w *world) renewLease() {
	p, n := w.proxies[w.rng.IntN(simProxies)], w.rng.IntN(simShards)
	if w.shards[n].up {
		p.leases[n] = simLease{w.shards[n].fence, w.now + 1}
	}
}

// scatter begins a read of all shards, or takes one step of one.
func (w *world) scatter() {
	if len(w.scatters) < 2 {
		p := w.rng.IntN(simProxies)
		if x := w.proxies[p]; x.know.hold == 0 || w.now >= x.until {
			w.scatters = append(w.scatters, &simScatter{proxy: p, plan: w.proxies[p].know, todo: 1<<simShards - 1})
		}
		return
	}
	i := w.rng.IntN(len(w.scatters))
	c := w.scatters[i]
	n := w.rng.IntN(simShards)
	for c.todo>>n&1 == 0 {
		n = (n + 1) % simShards
	}
	if !w.mayRead(c.proxy, n, c.plan.epoch) {
		w.scatters = append(w.scatters[:i], w.scatters[i+1:]...)
		return
	}
	c.todo &^= 1 << n
	for k := simKeys - simFixed; k < simKeys; k++ {
		if w.shards[n].rows[k].there && (c.plan.owner[k] == n || !c.plan.moving.has(k)) { // the ownership predicate
			c.seen[k]++
		}
	}
	if c.todo != 0 {
		return
	}
	w.scatters = append(w.scatters[:i], w.scatters[i+1:]...)
	for k := simKeys - simFixed; k < simKeys; k++ {
		if c.seen[k] != 1 {
			fail("a scatter of proxy %d with epoch %d has seen the row of key %d %d times", c.proxy, c.plan.epoch, k, c.seen[k])
		}
	}
}

// news brings a proxy the newest map.
func (w *world) news() {
	if p := w.proxies[w.rng.IntN(simProxies)]; !p.cut {
		p.learn(w.catalog.simMap, w.now)
	}
}

// deleteRows is guarded by what the shard owns.
func (w *world) deleteRows(m *Move, n int) {
	s := w.shards[n]
	for k := range simKeys {
		if !keysOf(m).has(k) || s.owned.has(k) || !s.rows[k].there {
			continue
		}
		for i, p := range w.proxies {
			if p.know.owner[k] == n && w.mayRead(i, n, p.know.epoch) {
				fail("the row of key %d is deleted from shard %d, where proxy %d still reads it", k, n, i)
			}
		}
		s.write(op{kind: opDelete, key: k, mover: m.ID})
	}
}

// finished holds that nothing is left over.
func (w *world) finished() {
	for _, id := range w.moves {
		if m := w.catalog.journal[id]; !m.State.Terminal() {
			fail("%v does not end: task %v, waiting %t, error %q", &m, m.Task, m.Waiting, m.Error)
		}
	}
	for n, s := range w.shards {
		if len(s.slots) > 0 {
			fail("shard %d has %d slots left", n, len(s.slots))
		}
		if s.fence > w.catalog.epoch {
			fail("the fence of shard %d is at epoch %d, above the catalog's %d", n, s.fence, w.catalog.epoch)
		}
		for k := range simKeys {
			owner := w.catalog.owner[k] == n
			switch {
			case owner != s.owned.has(k):
				fail("key %d: catalog and fence of shard %d do not agree", k, n)
			case owner && s.rows[k] != w.truth[k]:
				fail("key %d is %v on its shard, not %v", k, s.rows[k], w.truth[k])
			case !owner && s.rows[k].there:
				fail("the row of key %d is left over on shard %d", k, n)
			}
		}
	}
	if w.catalog.moving != 0 || w.catalog.hold != 0 {
		fail("the map tells of moves %08b and a hold for epoch %d", w.catalog.moving, w.catalog.hold)
	}
	if n := bits.OnesCount8(uint8(w.shards[0].owned | w.shards[1].owned | w.shards[2].owned)); n != simKeys {
		fail("only %d keys can be written", n)
	}
}
