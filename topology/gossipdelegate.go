package topology

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// gossipDelegate is what memberlist calls. The calls about members come under its lock: they must not call it back.
type gossipDelegate struct{ g *Gossip }

// NodeMeta is the version, the cluster, and what this proxy says of itself. It is sent when the proxy joins, not at
// each epoch: memberlist would tell every peer of every peer, N² messages a change. askLoop keeps states fresh.
func (d *gossipDelegate) NodeMeta(_ int) []byte {
	rec := d.g.peers.record()
	return rec.append(appendText([]byte{gossipVersion}, d.g.cfg.Cluster)) // 2 names of 64 bytes at most, 30 bytes more
}

// member checks the metadata of a node that wants to take part.
func (d *gossipDelegate) member(n *memberlist.Node) (gossipRecord, error) {
	r := messageReader{b: n.Meta}
	version := r.byte()
	if !r.bad && version != gossipVersion {
		return gossipRecord{}, fmt.Errorf("gossip: peer %q at %s speaks version %d, this one %d", n.Name, n.Address(), version, gossipVersion)
	}
	cluster, rec := r.text(), r.record()
	switch {
	case r.bad || rec.name != n.Name:
		return gossipRecord{}, fmt.Errorf("gossip: %q at %s is not a shardproxy", n.Name, n.Address())
	case cluster != d.g.cfg.Cluster:
		return gossipRecord{}, fmt.Errorf("gossip: peer %q at %s is of cluster %q, this one of %q", n.Name, n.Address(), cluster, d.g.cfg.Cluster)
	}
	return rec, nil
}

func (d *gossipDelegate) refuse(n *memberlist.Node) error {
	_, err := d.member(n)
	if err != nil {
		d.g.limited.warn("gossip: peer refused", "error", err)
	}
	return err
}

// NotifyAlive refuses a node of which another peer told.
func (d *gossipDelegate) NotifyAlive(n *memberlist.Node) error { return d.refuse(n) }

// NotifyMerge refuses a whole other cluster, on both sides of a join.
func (d *gossipDelegate) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		if err := d.refuse(n); err != nil {
			return err
		}
	}
	return nil
}

func (d *gossipDelegate) NotifyJoin(n *memberlist.Node) {
	if n.Name != d.g.cfg.Node {
		d.g.log.Info("gossip: peer is here", "name", n.Name, "address", n.Address())
	}
	d.NotifyUpdate(n)
}

func (d *gossipDelegate) NotifyUpdate(n *memberlist.Node) {
	if rec, err := d.member(n); err == nil { // NotifyAlive has refused the others
		d.g.peers.joined(n, rec)
		d.g.lookAhead()
	}
}

func (d *gossipDelegate) NotifyLeave(n *memberlist.Node) {
	if n.Name == d.g.cfg.Node {
		return
	}
	// The goodbye may come after memberlist's own word, so that dead can turn into left.
	d.g.log.Info("gossip: peer is gone", "name", n.Name, "address", n.Address(), "status", d.g.peers.left(n.Name))
}

// NotifyConflict is told of a living peer whose name another address claims: a proxy that came back elsewhere before
// its old self was known to be dead, or two proxies configured alike.
func (d *gossipDelegate) NotifyConflict(here, other *memberlist.Node) {
	if here.Name == d.g.cfg.Node {
		d.g.conflict.Store(time.Now().UnixNano())
	}
	d.g.limited.warn("gossip: two addresses under one name: a proxy came back at another address, or two are configured alike",
		"name", here.Name, "address", here.Address(), "other", other.Address())
}

// NotifyMsg takes in one of our own messages.
func (d *gossipDelegate) NotifyMsg(b []byte) {
	if err := d.g.receive(b); err != nil {
		d.g.limited.warn("gossip: message dropped", "error", err)
	}
}

// GetBroadcasts fills a packet: news first.
func (d *gossipDelegate) GetBroadcasts(overhead, limit int) [][]byte {
	list := d.g.news.GetBroadcasts(overhead, limit)
	for _, b := range list {
		limit -= overhead + len(b)
	}
	return append(list, d.g.items.GetBroadcasts(overhead, limit)...)
}

// LocalState is our half of a full exchange: the records of all members, ourselves first, and a digest of the health
// items. No map.
func (d *gossipDelegate) LocalState(_ bool) []byte {
	records := d.g.peers.records()
	dst := make([]byte, 0, 8+80*len(records)+8*healthBuckets)
	dst = binary.BigEndian.AppendUint32(append(dst, gossipVersion), d.g.tag)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(records)))
	for _, rec := range records {
		dst = rec.append(dst)
	}
	for _, sum := range d.g.health.digest() {
		dst = binary.BigEndian.AppendUint64(dst, sum)
	}
	return dst
}

// MergeRemoteState takes in the other half.
func (d *gossipDelegate) MergeRemoteState(b []byte, _ bool) {
	if err := d.merge(b); err != nil {
		d.g.limited.warn("gossip: exchange dropped", "error", err)
	}
}

func (d *gossipDelegate) merge(b []byte) error {
	g := d.g
	r := messageReader{b: b}
	if r.byte() != gossipVersion || r.uint32() != g.tag {
		return errGossipFormat
	}
	from := ""
	for i := range r.uint32() {
		rec := r.record()
		if r.bad {
			return errGossipFormat
		}
		if i == 0 {
			from = rec.name
		}
		g.peers.apply(rec, i == 0)
	}
	var theirs [healthBuckets]uint64
	for i := range theirs {
		theirs[i] = r.uint64()
	}
	if r.bad || len(r.b) != 0 {
		return errGossipFormat
	}
	g.lookAhead()
	if buckets := g.health.differ(theirs); buckets != 0 && from != g.cfg.Node {
		select {
		case g.differ <- healthDiff{from, buckets}:
		default: // the next exchange finds what is left
		}
	}
	return nil
}

var errOtherCluster = errors.New("gossip: message of another cluster")

// receive takes one message apart. b is only valid during the call.
func (g *Gossip) receive(b []byte) error {
	r := messageReader{b: b}
	kind, tag := r.byte(), r.uint32()
	if r.bad {
		return errGossipFormat
	}
	if tag != g.tag {
		return errOtherCluster
	}
	if kind == gossipItem {
		return g.receiveItems(&r)
	}
	rec := r.record()
	switch kind {
	case gossipNews:
		sort := r.byte()
		if r.bad || len(r.b) > GossipPayloadMax {
			return errGossipFormat
		}
		g.hear(rec, sort, b, r.b)
	case gossipAsk:
		q := question{nonce: r.uint64(), wanted: Epoch(r.uint64()), heard: r.uint64()}
		if r.bad {
			return errGossipFormat
		}
		if own, to, ok := g.peers.asked(rec, q); ok {
			g.send(to, answerMessage(g.tag, own, q.nonce))
			if own.state.behind(rec.state) {
				g.lookAhead()
			}
		}
	case gossipAnswer:
		nonce := r.uint64()
		if r.bad {
			return errGossipFormat
		}
		g.peers.answered(rec, nonce)
		if g.peers.record().state.behind(rec.state) {
			g.lookAhead()
		}
	default:
		return errGossipFormat
	}
	return nil
}

// hear passes news on and gives it to the handler, if it is new.
func (g *Gossip) hear(rec gossipRecord, kind byte, msg, payload []byte) {
	if rec.name == g.cfg.Node || !g.seen.add(rec) {
		return
	}
	g.spread(slices.Clone(msg))
	if kind == newsSchema {
		g.peers.toldSchema(rec.schema)
	}
	g.peers.apply(rec, false)
	if rec.leaving {
		return
	}
	if kind == newsSchema {
		return
	}
	if kind == 0 && len(payload) == 0 {
		g.urgent.Store(true)
		g.lookAhead()
		return
	}
	select {
	case g.deliver <- delivery{rec.name, rec.state, kind, slices.Clone(payload)}:
	default:
		g.lookAhead()
	}
}
