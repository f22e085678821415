package topology

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// PeerStatus says whether a peer takes part.
type PeerStatus uint8

const (
	PeerAlive   PeerStatus = iota
	PeerSuspect            // a member that left some of our questions in a row without an answer
	PeerDead               // the members agree that it is gone
	PeerLeft               // it said goodbye
)

func (s PeerStatus) String() string {
	return [...]string{"alive", "suspect", "dead", "left"}[s]
}

// Peer is another proxy as this one knows it.
type Peer struct {
	Name      string
	Addr      string
	Status    PeerStatus
	Map       MapState      // as it last said
	LastHeard time.Time     // when it last spoke to us itself, zero for never
	RTT       time.Duration // of the last question, 0 for none
}

const (
	suspectAfter = 3 // questions in a row without an answer; one of them may well be a lost packet

	// goneMax and goneFor bound what is kept of peers that are dead or left: for the console, and for tries to find
	// the other half of a cluster that was cut in two.
	goneMax = 1024
	goneFor = 24 * time.Hour

	waitersMax = 64 // peers that wait for an epoch of ours; one left out asks again
)

// peerTable is what this proxy knows of itself and of the others.
type peerTable struct {
	name   string
	local  func() MapState
	schema chan struct{} // of size 1: a peer knows of a later change of tables

	mu      sync.Mutex
	self    gossipRecord
	peers   map[string]*peerEntry
	members int // of peers
	waiters map[string]Epoch
	changed chan struct{} // closed and replaced at each change of a record or status
}

type peerEntry struct {
	rec        gossipRecord
	addr       memberlist.Address
	member     bool
	since      time.Time // when member last changed
	heard      time.Time
	rtt        time.Duration
	nonce      uint64 // of the question that is open, 0 for none
	asked      time.Time
	unanswered int
}

func newPeerTable(name string, local func() MapState) *peerTable {
	t := &peerTable{name: name, local: local, schema: make(chan struct{}, 1), peers: map[string]*peerEntry{}, waiters: map[string]Epoch{}, changed: make(chan struct{})}
	t.self = gossipRecord{name: name, stamp: nextStamp(0), state: local()}
	return t
}

// change wakes all who watch. mu is held.
func (t *peerTable) change() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// watch is closed at the next change.
func (t *peerTable) watch() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// refresh brings the record of this proxy up to date. mu is held.
func (t *peerTable) refresh() gossipRecord {
	if now := t.local(); now != t.self.state {
		t.self.state, t.self.stamp = now, nextStamp(t.self.stamp)
		t.change()
	}
	return t.self
}

// record is what this proxy says of itself now.
func (t *peerTable) record() gossipRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.refresh()
}

// news is a record with a stamp of its own, which names a broadcast.
func (t *peerTable) news() gossipRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh()
	t.self.stamp = nextStamp(t.self.stamp)
	return t.self
}

func (t *peerTable) leave() gossipRecord {
	t.mu.Lock()
	t.self.leaving = true
	t.mu.Unlock()
	return t.news()
}

// settle gives the record of this proxy, and the peers that waited for its epoch.
func (t *peerTable) settle() (gossipRecord, []memberlist.Address) {
	t.mu.Lock()
	defer t.mu.Unlock()
	rec := t.refresh()
	var to []memberlist.Address
	for name, epoch := range t.waiters {
		if rec.state.Epoch >= epoch {
			delete(t.waiters, name)
			if e := t.peers[name]; e != nil && e.member {
				to = append(to, e.addr)
			}
		}
	}
	return rec, to
}

// joined is told of each new member and of each change of its metadata.
func (t *peerTable) joined(n *memberlist.Node, rec gossipRecord) {
	if n.Name == t.name {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.peers[n.Name]
	if e == nil {
		e = &peerEntry{rec: gossipRecord{name: n.Name}}
		t.peers[n.Name] = e
	}
	e.addr = n.FullAddress()
	if !e.member {
		t.members++
		e.member, e.since = true, time.Now()
		e.unanswered, e.nonce = 0, 0
	}
	if rec.stamp > e.rec.stamp {
		e.rec = rec
	}
	t.heardSchema(rec.schema)
	t.forget()
	t.change()
}

// left is told of each member that died or went, and gives its status.
func (t *peerTable) left(name string) PeerStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.peers[name]
	if e == nil || !e.member {
		return PeerDead
	}
	t.members--
	e.member, e.since = false, time.Now()
	delete(t.waiters, name)
	t.change()
	return e.status()
}

// forget drops what has been gone for long, and the longest gone of too many. mu is held.
func (t *peerTable) forget() {
	var oldest string
	for name, e := range t.peers {
		if e.member {
			continue
		}
		if time.Since(e.since) > goneFor {
			delete(t.peers, name)
		} else if oldest == "" || e.since.Before(t.peers[oldest].since) {
			oldest = name
		}
	}
	if oldest != "" && len(t.peers)-t.members > goneMax {
		delete(t.peers, oldest)
	}
}

// apply takes a record in. direct says that the peer itself sent it to us. It is false for a peer that is not known.
func (t *peerTable) apply(rec gossipRecord, direct bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if rec.name == t.name {
		t.overtake(rec.stamp)
		return false
	}
	e := t.peers[rec.name]
	if e == nil {
		return false
	}
	if rec.stamp > e.rec.stamp {
		changed := rec.state != e.rec.state || rec.leaving != e.rec.leaving
		e.rec = rec
		if changed {
			t.change()
		}
		t.heardSchema(rec.schema)
	}
	if direct {
		if e.unanswered >= suspectAfter {
			defer t.change()
		}
		e.heard, e.unanswered, e.nonce = time.Now(), 0, 0
	}
	return true
}

// overtake raises our stamp above one that an earlier life of this proxy sent, whose clock was ahead; else the peers
// would not believe us until our clock gets there. mu is held.
func (t *peerTable) overtake(stamp uint64) {
	if stamp > t.self.stamp {
		t.self.stamp = nextStamp(stamp)
	}
}

// asked takes in a question, and gives the record to answer with and where to.
func (t *peerTable) asked(rec gossipRecord, q question) (gossipRecord, memberlist.Address, bool) {
	if !t.apply(rec, true) {
		return gossipRecord{}, memberlist.Address{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.overtake(q.heard)
	own := t.refresh()
	if q.wanted > own.state.Epoch && (len(t.waiters) < waitersMax || t.waiters[rec.name] != 0) {
		t.waiters[rec.name] = q.wanted
	}
	return own, t.peers[rec.name].addr, true
}

// answered takes in an answer; the nonce tells which question it is to.
func (t *peerTable) answered(rec gossipRecord, nonce uint64) {
	t.mu.Lock()
	if e := t.peers[rec.name]; e != nil && nonce != 0 && nonce == e.nonce {
		e.rtt = time.Since(e.asked)
	}
	t.mu.Unlock()
	t.apply(rec, true)
}

func (e *peerEntry) status() PeerStatus {
	switch {
	case !e.member && e.rec.leaving:
		return PeerLeft
	case !e.member:
		return PeerDead
	case e.unanswered >= suspectAfter:
		return PeerSuspect
	}
	return PeerAlive
}

// list is all peers by name, without this proxy.
func (t *peerTable) list() []Peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]Peer, 0, len(t.peers))
	for name, e := range t.peers {
		list = append(list, Peer{Name: name, Addr: e.addr.Addr, Status: e.status(), Map: e.rec.state, LastHeard: e.heard, RTT: e.rtt})
	}
	slices.SortFunc(list, func(a, b Peer) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// records is what this proxy knows of itself and of all members, itself first.
func (t *peerTable) records() []gossipRecord {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := append(make([]gossipRecord, 0, t.members+1), t.refresh())
	for _, e := range t.peers {
		if e.member && e.rec.stamp != 0 {
			list = append(list, e.rec)
		}
	}
	return list
}

// size is the number of members with this proxy.
func (t *peerTable) size() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.members + 1
}

// random is up to k members.
func (t *peerTable) random(k int) []memberlist.Address {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]memberlist.Address, 0, t.members)
	for _, e := range t.peers {
		if e.member {
			all = append(all, e.addr)
		}
	}
	k = min(k, len(all))
	for i := range k {
		j := i + rand.IntN(len(all)-i)
		all[i], all[j] = all[j], all[i]
	}
	return all[:k]
}

// ahead is a member with the highest epoch of those whose map is later than ours, or other at the same epoch. One
// that answers is preferred, and avoid is taken only if there is no other.
func (t *peerTable) ahead(avoid string) (name string, at MapState, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.refresh().state
	var best int
	for n, e := range t.peers { // in random order
		if !e.member || e.rec.leaving || e.rec.state.Epoch == 0 || !own.behind(e.rec.state) {
			continue
		}
		score := 0
		if e.status() == PeerAlive {
			score += 2
		}
		if n != avoid {
			score++
		}
		if c := cmp.Compare(e.rec.state.Epoch, at.Epoch); !ok || c > 0 || c == 0 && score > best {
			name, at, best, ok = n, e.rec.state, score, true
		}
	}
	return name, at, ok
}

// address is where a member is reached.
func (t *peerTable) address(name string) (memberlist.Address, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.peers[name]; e != nil && e.member {
		return e.addr, true
	}
	return memberlist.Address{}, false
}
