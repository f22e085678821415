package topology

import (
	"context"
	"encoding/binary"
	"hash/fnv"
	"io"
	"sync"
	"time"
)

// A CancelRequest carries no more than a key, and a load balancer brings it to any proxy. Part of the key says which
// proxy gave it out, so that another one can pass it on:
//
//	client ──CancelRequest──► proxy B ──ForwardCancel──► proxy A: OnCancel
//
// The secret is sealed with the ring. Without a ring, who reads the network can read it.

const (
	// PeerTagBits is the size of a PeerTag: what fits a process id beside the number of the session.
	PeerTagBits = 10

	cancelPeersMax = 8                // of one tag that are asked; among 500 peers, five may share one
	cancelRate     = 50               // forwarded a second, and twice as many at once: each costs a connection
	cancelTime     = 10 * time.Second // until the peer has passed it on to its shards
)

// PeerTag is the part of a cancel key that says which proxy gave it out. It is never 0, and several proxies may share one.
func PeerTag(name string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return 1 + h.Sum32()%(1<<PeerTagBits-1)
}

// Tag is the part of the cancel keys of this proxy that says so.
func (g *Gossip) Tag() uint32 { return PeerTag(g.cfg.Node) }

// ForwardCancel passes a client's CancelRequest on to the peers with the tag, and returns when they have seen to it. It says
// how many there were.
func (g *Gossip) ForwardCancel(ctx context.Context, tag, pid uint32, secret string) int {
	names := g.peers.tagged(tag, cancelPeersMax)
	if len(names) == 0 {
		return 0
	}
	if !g.cancels.take(time.Now()) {
		g.counts.cancelsDropped.Add(1)
		g.limited.warn("gossip: too many cancel requests for other proxies, some are dropped")
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, cancelTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() {
			rec := g.peers.record()
			body := appendText(binary.BigEndian.AppendUint32(rec.append([]byte{requestCancel}), pid), secret)
			if _, _, err := g.exchange(ctx, name, body, smallAnswerMax); err != nil {
				g.limited.warn("gossip: a cancel request did not reach "+name, "error", err)
				return
			}
			g.counts.cancelsSent.Add(1)
		})
	}
	wg.Wait()
	return len(names)
}

// serveCancel takes a CancelRequest from a peer.
func (g *Gossip) serveCancel(_ gossipRecord, r *messageReader, w io.Writer) error {
	pid, secret := r.uint32(), r.text()
	if r.bad {
		return errGossipFormat
	}
	g.counts.cancelsReceived.Add(1)
	if on := g.cfg.OnCancel; on != nil {
		ctx, cancel := context.WithTimeout(context.Background(), cancelTime)
		defer cancel()
		on(ctx, pid, secret)
	}
	_, err := w.Write([]byte{responseOK})
	return err
}

// tagged names members with a tag.
func (t *peerTable) tagged(tag uint32, most int) (names []string) {
	for _, name := range t.memberNames() {
		if PeerTag(name) == tag && len(names) < most {
			names = append(names, name)
		}
	}
	return names
}

// allowance lets so many events through a second, and twice as many at once.
type allowance struct {
	mu   sync.Mutex
	left float64
	at   time.Time
}

func (a *allowance) take(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.at.IsZero() {
		a.left = 2 * cancelRate
	} else {
		a.left = min(a.left+now.Sub(a.at).Seconds()*cancelRate, 2*cancelRate)
	}
	a.at = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}
