package topology

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// question asks a peer for its record.
type question struct {
	nonce  uint64
	wanted Epoch  // the peer answers once more when it has got there
	heard  uint64 // the last stamp heard of the peer
}

// asksMax is how many peers are asked in one round of askLoop. A cluster up to that size knows all its states after
// one Probe interval, one of 500 peers after a minute, for 1 KB/s.
const asksMax = 8

// askLoop keeps the records fresh: it asks those who were silent for longest. So a peer that missed all news learns
// of them, and a dead one becomes suspect.
func (g *Gossip) askLoop(ctx context.Context) {
	tick := time.NewTicker(g.cfg.Timing.Probe)
	defer tick.Stop()
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		g.settle()
		g.ask(0, g.peers.silent(asksMax, g.cfg.Timing.Probe/2))
		if round%64 == 0 {
			g.health.sweep()
		}
	}
}

// ask sends a question to each of the peers named.
func (g *Gossip) ask(wanted Epoch, names []string) {
	rec := g.peers.record()
	for _, name := range names {
		if q, to, ok := g.peers.question(name, wanted, g.cfg.Timing.ProbeTimeout); ok {
			g.send(to, askMessage(g.tag, rec, q))
		}
	}
}

// silent is up to n members that have not spoken to us for so long, the longest silent first.
func (t *peerTable) silent(n int, since time.Duration) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	type quiet struct {
		name string
		last time.Time
	}
	var list []quiet
	for name, e := range t.peers {
		q := quiet{name, e.heard}
		if e.asked.After(q.last) {
			q.last = e.asked
		}
		if e.member && time.Since(q.last) >= since {
			list = append(list, q)
		}
	}
	slices.SortFunc(list, func(a, b quiet) int { return a.last.Compare(b.last) })
	list = list[:min(n, len(list))]
	names := make([]string, len(list))
	for i, q := range list {
		names[i] = q.name
	}
	return names
}

// question opens a question to a member. One that is open for longer than timeout counts as not answered.
func (t *peerTable) question(name string, wanted Epoch, timeout time.Duration) (question, memberlist.Address, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.peers[name]
	if e == nil || !e.member {
		return question{}, memberlist.Address{}, false
	}
	if e.nonce == 0 || time.Since(e.asked) >= timeout {
		if e.nonce != 0 {
			if e.unanswered++; e.unanswered == suspectAfter {
				t.change()
			}
		}
		e.nonce, e.asked = rand.Uint64()|1, time.Now()
	}
	return question{nonce: e.nonce, wanted: wanted, heard: e.rec.stamp}, e.addr, true
}

// Peers is the other proxies by name, with those that died or left within a day.
func (g *Gossip) Peers() []Peer { return g.peers.list() }

// AckedBy names the members that have confirmed a map of this epoch or a later one. It is what is known by now; Wait
// asks.
func (g *Gossip) AckedBy(epoch Epoch) []string {
	acked, _ := g.peers.acks(epoch)
	return acked
}

// acks parts the members into those that have the epoch and those that do not, or have another map of that epoch
// than we.
func (t *peerTable) acks(epoch Epoch) (acked, missing []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.refresh().state
	for name, e := range t.peers {
		switch s := e.rec.state; {
		case !e.member || e.rec.leaving:
		case s.Epoch < epoch || s.Epoch == own.Epoch && s.Checksum != own.Checksum:
			missing = append(missing, name)
		default:
			acked = append(acked, name)
		}
	}
	slices.Sort(acked)
	slices.Sort(missing)
	return acked, missing
}

// Wait returns once this proxy and all members have confirmed a map of this epoch or a later one. Peers that are
// suspected are waited for until they are dead. A peer cut off from us may be taken for dead and still serve: that
// is what leases and fences are for.
func (g *Gossip) Wait(ctx context.Context, epoch Epoch) error {
	pause := g.cfg.Timing.Gossip
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		changed := g.peers.watch()
		_, missing := g.peers.acks(epoch)
		own := g.peers.record().state.Epoch
		if len(missing) == 0 && own >= epoch {
			return nil
		}
		select {
		case <-changed:
		case <-again.C:
			g.ask(epoch, missing)
			again.Reset(jitter(pause))
			pause = min(2*pause, g.cfg.Timing.Probe/2)
		case <-ctx.Done():
			if own < epoch {
				missing = append([]string{g.cfg.Node}, missing...)
			}
			n := len(missing)
			if n > 10 {
				missing = append(missing[:10], "…")
			}
			return fmt.Errorf("gossip: epoch %d not confirmed by %d peers (%s): %w", epoch, n, strings.Join(missing, ", "), ctx.Err())
		}
	}
}
