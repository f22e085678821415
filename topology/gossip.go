package topology

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
)

// MapState names one map: snapshots of the same epoch and checksum are the same. Epoch 0 is no map at all.
type MapState struct {
	Epoch    Epoch
	Checksum uint64
}

// behind says whether o is a later map than s, or another one of the same epoch.
func (s MapState) behind(o MapState) bool {
	return o.Epoch > s.Epoch || o.Epoch == s.Epoch && o.Checksum != s.Checksum
}

// GossipHandler is the rest of the proxy as gossip sees it.
type GossipHandler interface {
	// Local is the map that this proxy goes by. It is called often and from any goroutine: it must be quick and
	// must not call Gossip.
	Local() MapState

	// Deliver hands over what a peer broadcast when it went by the map at. Calls come one after the other, each
	// message once, as a rule in the order sent, yet any may be missing or late: it must do no harm when repeated
	// or too old. The handler owns payload.
	Deliver(from string, at MapState, kind byte, payload []byte)

	// SchemaNews is called when a peer has told of a change of tables: at once as a rule, else when this proxy hears of it in
	// some other way, as after a cut. It may be called more than once for one change. It must be quick.
	SchemaNews()

	// CatchUp, which may run at the same time as Deliver, is called while a live peer has a later map, or another one of the same epoch, which no delivery has
	// mended: one call at a time, again and again with growing pauses. It may call Fetch, or read the catalog.
	CatchUp(ctx context.Context, peer string, at MapState) error

	// WriteMap writes what brings a peer that has the map have to ours: the changes since, or the whole map.
	WriteMap(have MapState, w io.Writer) error
}

// Gossip carries news between the proxies of a cluster; it has no authority over the map.
//
//	Broadcast ──► queue ──UDP──► peers: Deliver ──► their own queues …       (epidemic, at most 1 KB a message)
//	askLoop ◄────UDP────► answer: epoch and checksum of each peer            (acks, and who is behind)
//	CatchUp ──► Fetch ◄──TCP── WriteMap of a peer                            (maps, sealed with the same keys)
//	memberlist: who is alive; its full exchanges carry states, and digests of the health items
//
// What a peer says of itself is a gossipRecord with a stamp that only grows, so the latest wins by whatever way it came.
type Gossip struct {
	cfg     GossipConfig
	handler GossipHandler
	log     *slog.Logger
	limited *limitedLog
	keys    *GossipKeys
	health  *HealthMap
	peers   *peerTable
	tag     uint32 // of the cluster name, in each of our messages

	news    memberlist.TransmitLimitedQueue // broadcasts of this proxy and of others
	items   memberlist.TransmitLimitedQueue // health items
	seen    seenNews
	deliver chan delivery
	wake    chan struct{}   // to the catch-up loop: somebody may be ahead
	differ  chan healthDiff // to the health loop: a peer has other items
	urgent  atomic.Bool     // the news came without its payload: do not wait for it
	serving servedMaps
	counts  gossipCounts
	cancels allowance     // of those that are forwarded
	started chan struct{} // closed once peers can reach us

	list      atomic.Pointer[memberlist.Memberlist]
	transport *gossipTransport // set before list
	conflict  atomic.Int64     // Unix nanoseconds when another address was last seen under our name
	ran       atomic.Bool
}

// delivery is a broadcast on its way to the handler.
type delivery struct {
	from    string
	at      MapState
	kind    byte
	payload []byte
}

const (
	deliveriesMax = 256  // waiting for the handler; one that is left out is made good by CatchUp
	queuedNews    = 512  // broadcasts waiting to be sent; a proxy that is alone never sends them
	queuedItems   = 4096 // health items waiting to be sent; older ones are left to the full exchange
)

// NewGossip checks cfg. It opens and starts nothing.
func NewGossip(cfg GossipConfig, handler GossipHandler) (*Gossip, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Timing == (GossipTiming{}) {
		cfg.Timing = GossipLAN
	}
	keys, err := newGossipKeys(cfg.Keys)
	if err != nil {
		return nil, err
	}
	log := cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)).With("peer", cfg.Node)
	g := &Gossip{
		cfg: cfg, handler: handler, log: log, limited: newLimitedLog(log), keys: keys,
		peers: newPeerTable(cfg.Node, handler.Local), tag: clusterTag(cfg.Cluster),
		deliver: make(chan delivery, deliveriesMax), wake: make(chan struct{}, 1),
		differ: make(chan healthDiff, 1), started: make(chan struct{}),
	}
	g.health = newHealthMap(func(it HealthItem) { g.queueItem(it) })
	g.news = memberlist.TransmitLimitedQueue{NumNodes: g.peers.size, RetransmitMult: 3}
	g.items = memberlist.TransmitLimitedQueue{NumNodes: g.peers.size, RetransmitMult: 2}
	return g, nil
}

// Run takes part in the gossip until ctx ends, and then says goodbye. It fails if the address cannot be bound, never
// because a seed is away. It may be called once.
func (g *Gossip) Run(ctx context.Context) error {
	if g.ran.Swap(true) {
		return errors.New("gossip: Run was called before")
	}
	if err := g.open(); err != nil {
		return fmt.Errorf("gossip: %w", err)
	}
	close(g.started)
	group, ctx := errgroup.WithContext(ctx)
	for _, loop := range []func(context.Context){g.deliverLoop, g.catchUpLoop, g.healthLoop, g.askLoop, g.joinLoop} {
		group.Go(func() error { loop(ctx); return nil })
	}
	stop := context.AfterFunc(ctx, g.transport.hangUp) // a join that waits for an answer
	_ = group.Wait()                                   // the loops end with ctx only
	stop()
	g.leave()
	return nil
}

// open binds the address and starts memberlist.
func (g *Gossip) open() error {
	network := g.cfg.network
	if network == nil {
		network = func() (gossipNetwork, error) { return listenGossip(&g.cfg, g.memberlistLog()) }
	}
	inner, err := network()
	if err != nil {
		return err
	}
	conf := g.cfg.memberlistConfig(g.keys.ring)
	if conf.AdvertiseAddr, conf.AdvertisePort, err = g.advertise(inner); err != nil {
		_ = inner.Shutdown()
		return err
	}
	g.transport = newGossipTransport(inner, g.cfg.Timing.Stream, &g.counts, g.serveStream)
	d := &gossipDelegate{g}
	conf.Transport, conf.Logger = g.transport, g.memberlistLog()
	conf.Delegate, conf.Events, conf.Merge, conf.Alive, conf.Conflict = d, d, d, d, d
	list, err := memberlist.Create(conf)
	if err != nil {
		_ = g.transport.Shutdown()
		return err
	}
	g.list.Store(list)
	if len(g.cfg.Keys) == 0 {
		g.log.Warn("gossip runs without a key: whoever reaches its port can take part")
	}
	return nil
}

// leave tells the peers that we go on purpose, and ends memberlist. Timers of memberlist may still call the
// delegates for a moment.
func (g *Gossip) leave() {
	list := g.list.Load()
	g.spread(newsMessage(g.tag, g.peers.leave(), 0, nil))
	if err := list.Leave(5*g.cfg.Timing.Gossip + g.cfg.Timing.ProbeTimeout); err != nil {
		g.log.Debug("gossip: leave", "error", err)
	}
	if err := list.Shutdown(); err != nil {
		g.log.Warn("gossip: shutdown", "error", err)
	}
}

// Started is closed once peers can reach this proxy.
func (g *Gossip) Started() <-chan struct{} { return g.started }

// Address is where peers reach this proxy, "" before Started.
func (g *Gossip) Address() string {
	if list := g.list.Load(); list != nil {
		return list.LocalNode().Address()
	}
	return ""
}

// Keys is the ring of this proxy alone.
func (g *Gossip) Keys() *GossipKeys { return g.keys }

// Health is what the proxies tell each other of nodes.
func (g *Gossip) Health() *HealthMap { return g.health }

// Broadcast tells all peers of a change of the map, of a kind below 128. A payload above GossipPayloadMax is left out: then the peers hear of
// no more than the epoch of Handler.Local, and fetch the rest.
func (g *Gossip) Broadcast(kind byte, payload []byte) (whole bool) {
	whole = len(payload) <= GossipPayloadMax
	if !whole {
		kind, payload = 0, nil
	}
	rec := g.peers.news()
	g.seen.add(rec)
	g.spread(newsMessage(g.tag, rec, kind, payload))
	g.settle()
	return whole
}

// Announce tells the peers that wait for it that Handler.Local has changed. Broadcast and the end of Deliver and of
// CatchUp do so by themselves.
func (g *Gossip) Announce() { g.settle() }

// spread sends msg to a few peers at once, and to more with the packets to come.
func (g *Gossip) spread(msg []byte) {
	for _, to := range g.peers.random(gossipFanout) {
		g.send(to, msg)
	}
	g.news.QueueBroadcast(gossipBroadcast(msg))
	if g.news.NumQueued() > queuedNews {
		g.news.Prune(queuedNews)
	}
}

// send is one packet to one peer. It may be lost.
func (g *Gossip) send(to memberlist.Address, msg []byte) {
	list := g.list.Load()
	if list == nil {
		return
	}
	if err := list.SendToAddress(to, msg); err != nil {
		g.limited.warn("gossip: cannot send to "+to.Name, "error", err)
	}
}

// settle compares Handler.Local with what we said of ourselves, answers those who wait for it, and looks whether
// somebody is ahead.
func (g *Gossip) settle() {
	rec, waiting := g.peers.settle()
	for _, to := range waiting {
		g.send(to, answerMessage(g.tag, rec, 0))
	}
	g.lookAhead()
}

// lookAhead wakes the catch-up loop, which decides.
func (g *Gossip) lookAhead() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *Gossip) deliverLoop(ctx context.Context) {
	for {
		select {
		case d := <-g.deliver:
			g.handler.Deliver(d.from, d.at, d.kind, d.payload)
			g.settle()
		case <-g.peers.schema:
			g.handler.SchemaNews()
		case <-ctx.Done():
			return
		}
	}
}

// gossipBroadcast is a message in a queue that no other message makes void.
type gossipBroadcast []byte

func (b gossipBroadcast) Message() []byte                         { return b }
func (b gossipBroadcast) Finished()                               {}
func (b gossipBroadcast) Invalidates(_ memberlist.Broadcast) bool { return false }
func (b gossipBroadcast) UniqueBroadcast()                        {}

// seenNews remembers which broadcasts have passed. A message lives for a few seconds at most, so that many are enough.
type seenNews struct {
	mu   sync.Mutex
	set  map[newsID]struct{}
	ring [4096]newsID
	next int
}

type newsID struct {
	from  string
	stamp uint64
}

// add says whether the message is new.
func (s *seenNews) add(rec gossipRecord) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := newsID{rec.name, rec.stamp}
	if _, ok := s.set[id]; ok {
		return false
	}
	if s.set == nil {
		s.set = make(map[newsID]struct{}, len(s.ring))
	}
	delete(s.set, s.ring[s.next])
	s.set[id], s.ring[s.next] = struct{}{}, id
	s.next = (s.next + 1) % len(s.ring)
	return true
}

// jitter is d, more or less by a third, so that peers do not act in step.
func jitter(d time.Duration) time.Duration { return d*2/3 + randomUpTo(d*2/3) }
