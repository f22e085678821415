package topology

import (
	"context"
	"encoding/binary"
	"io"

	"github.com/hashicorp/memberlist"
)

// healthDiff is a peer whose items differ from ours in these buckets.
type healthDiff struct {
	peer    string
	buckets uint64
}

// healthLoop fetches what a full exchange found to differ.
func (g *Gossip) healthLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-g.differ:
			if err := g.fetchHealth(ctx, d); err != nil && ctx.Err() == nil {
				g.limited.warn("gossip: health items not fetched", "from", d.peer, "error", err)
			}
		}
	}
}

func (g *Gossip) fetchHealth(ctx context.Context, d healthDiff) error {
	rec := g.peers.record()
	_, b, err := g.exchange(ctx, d.peer, binary.BigEndian.AppendUint64(rec.append([]byte{requestHealth}), d.buckets), healthBytesMax)
	if err != nil {
		return err
	}
	for r := (messageReader{b: b}); len(r.b) > 0; {
		it := r.item()
		if r.bad {
			return errGossipFormat
		}
		g.mergeItem(it, false)
	}
	return nil
}

// serveHealth writes the items that a peer asks for.
func (g *Gossip) serveHealth(r *messageReader, w io.Writer) error {
	buckets := r.uint64()
	if r.bad {
		return errGossipFormat
	}
	if _, err := w.Write([]byte{responseOK}); err != nil {
		return err
	}
	_, err := w.Write(g.health.encode(buckets))
	return err
}

// receiveItems takes in the items of a packet, and passes on what is new.
func (g *Gossip) receiveItems(r *messageReader) error {
	for len(r.b) > 0 {
		it := r.item()
		if r.bad {
			return errGossipFormat
		}
		g.mergeItem(it, true)
	}
	return nil
}

func (g *Gossip) mergeItem(it HealthItem, passOn bool) {
	if !g.health.merge(it) {
		return
	}
	if passOn {
		g.queueItem(it)
	}
	if g.cfg.OnHealth != nil {
		g.cfg.OnHealth(it)
	}
}

// queueItem sends an item with the packets to come.
func (g *Gossip) queueItem(it HealthItem) {
	msg := binary.BigEndian.AppendUint32([]byte{gossipItem}, g.tag)
	g.items.QueueBroadcast(itemBroadcast{it.Key, it.append(msg)})
	if g.items.NumQueued() > queuedItems {
		g.items.Prune(queuedItems)
	}
}

// itemBroadcast makes an older item of its key void.
type itemBroadcast struct {
	key string
	msg []byte
}

func (b itemBroadcast) Message() []byte { return b.msg }
func (b itemBroadcast) Finished()       {}
func (b itemBroadcast) Name() string    { return b.key }
func (b itemBroadcast) Invalidates(o memberlist.Broadcast) bool {
	other, ok := o.(itemBroadcast)
	return ok && other.key == b.key
}
