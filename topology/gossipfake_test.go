package topology

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeProxy has a map that is just bytes. Its change of kind 1 leads from one epoch to the next.
type fakeProxy struct {
	g      *Gossip
	cancel context.CancelFunc
	ended  chan error
	log    *lockedBuffer

	mu        sync.Mutex
	state     MapState
	body      []byte
	delivered []delivery
	fetched   int
	schemas   int  // calls of SchemaNews
	deaf      bool // ignores what is delivered
	changed   chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (p *fakeProxy) Local() MapState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// set makes s the map.
func (p *fakeProxy) set(s MapState, body []byte) {
	p.mu.Lock()
	p.state = s
	if body != nil {
		p.body = body
	}
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
}

func (p *fakeProxy) watch() (MapState, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state, p.changed
}

// had is what it got so far.
func (p *fakeProxy) had() (delivered []delivery, fetched int, body []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.delivered), p.fetched, p.body
}

// change goes to the next epoch and tells the others.
func (p *fakeProxy) change(payload []byte) MapState {
	next := p.Local()
	next.Epoch++
	next.Checksum = next.Checksum*31 + 1
	p.set(next, nil)
	p.g.Broadcast(1, payload)
	return next
}

func (p *fakeProxy) Deliver(from string, at MapState, kind byte, payload []byte) {
	p.mu.Lock()
	p.delivered = append(p.delivered, delivery{from, at, kind, payload})
	apply := !p.deaf && at.Epoch == p.state.Epoch+1
	p.mu.Unlock()
	if apply {
		p.set(at, nil)
	}
}

func (p *fakeProxy) SchemaNews() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.schemas++
}

func (p *fakeProxy) schemaNews() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.schemas
}

func (p *fakeProxy) CatchUp(ctx context.Context, peer string, _ MapState) error {
	b, err := p.g.Fetch(ctx, peer)
	if err != nil {
		return err
	}
	if len(b) < 16 {
		return io.ErrUnexpectedEOF
	}
	s := MapState{Epoch: Epoch(binary.BigEndian.Uint64(b)), Checksum: binary.BigEndian.Uint64(b[8:])}
	if own := p.Local(); s.Epoch > own.Epoch || s.Epoch == own.Epoch && s.Checksum > own.Checksum {
		p.mu.Lock()
		p.fetched++
		p.mu.Unlock()
		p.set(s, b[16:])
	}
	return nil
}

func (p *fakeProxy) WriteMap(_ MapState, w io.Writer) error {
	p.mu.Lock()
	head := binary.BigEndian.AppendUint64(nil, uint64(p.state.Epoch))
	head = binary.BigEndian.AppendUint64(head, p.state.Checksum)
	body := p.body
	p.mu.Unlock()
	_, err := w.Write(head)
	if err == nil {
		_, err = w.Write(body)
	}
	return err
}

// startProxy runs a proxy until the test ends, or until stop.
func startProxy(t testing.TB, state MapState, cfg GossipConfig) *fakeProxy {
	t.Helper()
	p := &fakeProxy{state: state, ended: make(chan error, 1), log: &lockedBuffer{}, changed: make(chan struct{})}
	if cfg.Cluster == "" {
		cfg.Cluster = "test"
	}
	if cfg.BindAddr == "" {
		cfg.BindAddr = "127.0.0.1"
	}
	if cfg.Timing == (GossipTiming{}) {
		cfg.Timing = GossipLoopback
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	g, err := NewGossip(cfg, p)
	if err != nil {
		t.Fatal(err)
	}
	p.g = g
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go func() { p.ended <- g.Run(ctx) }()
	select {
	case <-g.Started():
	case err := <-p.ended:
		t.Fatalf("Run: %v", err)
	}
	t.Cleanup(func() { p.stop(t) })
	return p
}

func (p *fakeProxy) stop(t testing.TB) {
	t.Helper()
	p.cancel()
	if err := <-p.ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	p.ended <- nil
	if t.Failed() {
		t.Logf("log of %s:\n%s", p.g.cfg.Node, p.log)
	}
}

// until waits for cond to hold of the peers of p, and fails after a while.
func (p *fakeProxy) until(t testing.TB, what string, cond func([]Peer) bool) {
	t.Helper()
	p.untilWithin(t, 30*time.Second, what, cond)
}

func (p *fakeProxy) untilWithin(t testing.TB, limit time.Duration, what string, cond func([]Peer) bool) {
	t.Helper()
	late := time.After(limit)
	for {
		changed := p.g.peers.watch()
		_, maps := p.watch()
		if cond(p.g.Peers()) {
			return
		}
		select {
		case <-changed:
		case <-maps:
		case <-time.After(50 * time.Millisecond): // conditions on other things
		case <-late:
			t.Fatalf("%s: not within %v; peers of %s: %+v", what, limit, p.g.cfg.Node, p.g.Peers())
		}
	}
}

func (p *fakeProxy) untilEpoch(t testing.TB, s MapState) {
	t.Helper()
	p.until(t, "map", func([]Peer) bool { return p.Local() == s })
}

func (p *fakeProxy) untilStatus(t testing.TB, name string, status PeerStatus) {
	t.Helper()
	p.until(t, name+" "+status.String(), func(peers []Peer) bool {
		i := slices.IndexFunc(peers, func(o Peer) bool { return o.Name == name })
		return i >= 0 && peers[i].Status == status
	})
}

func (p *fakeProxy) untilLogged(t testing.TB, text string) {
	t.Helper()
	p.until(t, "log line "+text, func([]Peer) bool { return strings.Contains(p.log.String(), text) })
}

func simConfig(n *simNet, name string, seeds ...string) GossipConfig {
	return GossipConfig{Node: name, Seeds: seeds, Timing: GossipLAN, network: n.open}
}

// startThree is three proxies that know each other, at epoch 5, on a simulated net.
func startThree(t *testing.T, n *simNet) []*fakeProxy {
	t.Helper()
	var list []*fakeProxy
	for i, name := range []string{"a", "b", "c"} {
		var seeds []string
		if i > 0 {
			seeds = []string{list[0].g.Address()}
		}
		list = append(list, startProxy(t, MapState{5, 55}, simConfig(n, name, seeds...)))
	}
	for _, p := range list {
		p.until(t, "members", func(peers []Peer) bool { return len(peers) == 2 })
	}
	return list
}

func keyOf(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
