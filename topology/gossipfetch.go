package topology

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// MapBytesMax bounds a map that Fetch takes: 100,000 shards with 3 nodes each come to about 15 MB.
	MapBytesMax = 256 << 20

	// servesMax is how many maps are sent at the same time. Who comes later is told whom else to ask, so that a map
	// spreads as a tree and not from one peer.
	servesMax   = 4
	servedNames = 16

	fetchTries = 6
)

// ErrNoMap is why Fetch got nothing: no peer that was asked has a later map, or time for us.
var ErrNoMap = errors.New("gossip: no peer gave its map")

// servedMaps counts the streams in work, and remembers who got our map last.
type servedMaps struct {
	mu      sync.Mutex
	streams int
	maps    int
	epoch   Epoch
	names   []string
}

func (s *servedMaps) begin(what *int, limit int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if *what >= limit {
		return false
	}
	*what++
	return true
}

func (s *servedMaps) end(what *int) {
	s.mu.Lock()
	*what--
	s.mu.Unlock()
}

func (s *servedMaps) served(name string, epoch Epoch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch != s.epoch {
		s.epoch, s.names = epoch, nil
	}
	if len(s.names) >= servedNames {
		s.names = s.names[1:]
	}
	s.names = append(slices.Clone(s.names), name)
}

func (s *servedMaps) others(epoch Epoch) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if epoch != s.epoch {
		return nil
	}
	return s.names
}

// Fetch asks peer over TCP for what brings us from our map to its own, as its WriteMap gives it. Where the peer is busy,
// others that have got it from there are asked. It is all or nothing: the bytes are whole and unchanged.
func (g *Gossip) Fetch(ctx context.Context, peer string) ([]byte, error) {
	for try := range fetchTries {
		b, others, err := g.fetch(ctx, peer)
		if err != nil {
			g.counts.fetchesFailed.Add(1)
			return nil, fmt.Errorf("gossip: map from %s: %w", peer, err)
		}
		if others == nil {
			g.counts.fetches.Add(1)
			return b, nil
		}
		if len(others) > 0 && (try%2 == 0 || rand.IntN(2) == 0) {
			peer = others[rand.IntN(len(others))]
		}
		if !sleep(ctx, jitter(g.cfg.Timing.Gossip<<try)) {
			return nil, ctx.Err()
		}
	}
	g.counts.fetchesFailed.Add(1)
	return nil, ErrNoMap
}

func (g *Gossip) fetch(ctx context.Context, peer string) (data []byte, others []string, err error) {
	rec := g.peers.record()
	status, data, err := g.exchange(ctx, peer, rec.append([]byte{requestMap}), MapBytesMax)
	if err != nil || status == responseOK {
		return data, nil, err
	}
	others = []string{}
	for m := (messageReader{b: data}); len(m.b) > 0 && !m.bad; {
		if name := m.text(); name != g.cfg.Node && name != "" {
			others = append(others, name)
		}
	}
	return nil, others, nil
}

// serveMap writes our map for the peer that sent rec, or whom else to ask.
func (g *Gossip) serveMap(rec gossipRecord, w io.Writer) error {
	own := g.peers.record().state
	idle := g.serving.begin(&g.serving.maps, servesMax)
	if idle {
		defer g.serving.end(&g.serving.maps)
	}
	if !idle || !rec.state.behind(own) {
		body := []byte{responseOther}
		for _, name := range g.serving.others(own.Epoch) {
			body = appendText(body, name)
		}
		_, err := w.Write(body)
		return err
	}
	if _, err := w.Write([]byte{responseOK}); err != nil {
		return err
	}
	if err := g.handler.WriteMap(rec.state, w); err != nil {
		return err
	}
	g.counts.served.Add(1)
	g.serving.served(rec.name, own.Epoch)
	return nil
}

const catchUpPauseMax = 10 * time.Second

// catchUpLoop calls CatchUp while a member has a later map. It first gives the change that leads there time to arrive.
func (g *Gossip) catchUpLoop(ctx context.Context) {
	grace := 2*g.cfg.Timing.Gossip + 50*time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.wake:
		}
		tried, last := MapState{}, ""
		for pause := grace; ; {
			_, at, ok := g.peers.ahead(last)
			if !ok {
				break
			}
			if at.Epoch > tried.Epoch {
				pause = grace // news, whatever we were waiting for
			}
			if g.urgent.Swap(false) {
				pause = g.cfg.Timing.Gossip
			}
			if !g.pause(ctx, jitter(pause), at) {
				return
			}
			peer, at, ok := g.peers.ahead(last)
			if !ok {
				break
			}
			if err := g.handler.CatchUp(ctx, peer, at); err != nil && ctx.Err() == nil {
				g.limited.warn("gossip: cannot catch up", "with", peer, "epoch", at.Epoch, "error", err)
			}
			tried, last = at, peer
			pause = min(2*pause, catchUpPauseMax)
			g.settle()
		}
	}
}

// pause waits, less long if a later map than at turns up or ours is no longer behind; false at the end of ctx.
func (g *Gossip) pause(ctx context.Context, d time.Duration, at MapState) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		case <-g.wake:
			if _, now, ok := g.peers.ahead(""); !ok || now.Epoch > at.Epoch && d > g.cfg.Timing.Probe {
				return true
			}
		}
	}
}
