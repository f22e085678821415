package topology

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipeSealed joins two ends; between sees each write of the server and gives what arrives.
func pipeSealed(t *testing.T, client, server [][]byte, between func(n int, b []byte) [][]byte) (c, s *sealedStream, serverErr error) {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	accepted := make(chan error, 1)
	go func() {
		if _, err := io.ReadFull(b, make([]byte, 1)); err != nil {
			accepted <- err
			return
		}
		var err error
		s, err = acceptSealed(&tamperConn{Conn: b, between: between}, 5*time.Second, server, "test")
		if err != nil {
			_ = b.Close()
		}
		accepted <- err
	}()
	c, err := openSealed(a, 5*time.Second, client, "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = c.finish()
	return c, s, <-accepted
}

type tamperConn struct {
	net.Conn
	n       int
	between func(n int, b []byte) [][]byte
}

func (c *tamperConn) Write(b []byte) (int, error) {
	parts := [][]byte{b}
	if c.between != nil {
		parts = c.between(c.n, bytes.Clone(b))
	}
	c.n++
	for _, p := range parts {
		if _, err := c.Conn.Write(p); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

func TestSealedStream(t *testing.T) {
	k1, k2 := keyOf(1), keyOf(2)
	body := make([]byte, 3*frameMax+17)
	_, _ = rand.Read(body)
	for _, tt := range []struct {
		name           string
		client, server [][]byte
		body           []byte
		between        func(n int, b []byte) [][]byte // n 0 is the server's random
		refused        bool
		broken         bool
	}{
		{name: "one frame", client: [][]byte{k1}, server: [][]byte{k1}, body: []byte("short")},
		{name: "nothing", client: [][]byte{k1}, server: [][]byte{k1}},
		{name: "exactly a frame", client: [][]byte{k1}, server: [][]byte{k1}, body: body[:frameMax]},
		{name: "frames", client: [][]byte{k1}, server: [][]byte{k2, k1}, body: body},
		{name: "no key", body: body},
		{name: "other key", client: [][]byte{k1}, server: [][]byte{k2}, refused: true},
		{name: "key against none", client: [][]byte{k1}, refused: true},
		{name: "none against key", server: [][]byte{k1}, refused: true},
		{name: "bit flipped", client: [][]byte{k1}, server: [][]byte{k1}, body: body, broken: true, between: func(n int, b []byte) [][]byte {
			if n == 2 {
				b[100] ^= 1
			}
			return [][]byte{b}
		}},
		{name: "frame left out", client: [][]byte{k1}, server: [][]byte{k1}, body: body, broken: true, between: func(n int, b []byte) [][]byte {
			if n == 2 {
				return nil
			}
			return [][]byte{b}
		}},
		{name: "frame repeated", client: [][]byte{k1}, server: [][]byte{k1}, body: body, broken: true, between: func(n int, b []byte) [][]byte {
			if n == 2 {
				return [][]byte{b, b}
			}
			return [][]byte{b}
		}},
		{name: "marked as last", client: [][]byte{k1}, server: [][]byte{k1}, body: body, broken: true, between: func(n int, b []byte) [][]byte {
			if n == 2 {
				b[0] |= 0x80
			}
			return [][]byte{b}
		}},
		{name: "cut short", client: [][]byte{k1}, server: [][]byte{k1}, body: body, broken: true, between: func(n int, b []byte) [][]byte {
			if n == 4 {
				return nil
			}
			return [][]byte{b}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, s, err := pipeSealed(t, tt.client, tt.server, tt.between)
			if tt.refused {
				if !errors.Is(err, errSealed) {
					t.Fatalf("server: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(s); err != nil || string(got) != "hello" {
				t.Fatalf("server read %q, %v", got, err)
			}
			go func() {
				if _, err := s.Write(tt.body); err == nil {
					_ = s.finish() // the other end finds what is wrong
				}
				_ = s.conn.Close()
			}()
			got, err := io.ReadAll(c)
			if tt.broken != (err != nil) {
				t.Errorf("err = %v", err)
			}
			if !tt.broken && !bytes.Equal(got, tt.body) {
				t.Errorf("read %d bytes, want %d", len(got), len(tt.body))
			}
			if tt.broken && len(got) >= len(tt.body) {
				t.Error("all was read of a broken stream")
			}
		})
	}
}

// A stream of one cluster or pair of randoms is nothing to another.
func TestSealedKeysDiffer(t *testing.T) {
	r1, r2 := make([]byte, streamRandom), bytes.Repeat([]byte{1}, streamRandom)
	seen := map[string]string{}
	for name, k := range map[string]struct {
		cluster string
		a, b    []byte
	}{"base": {"x", r1, r1}, "cluster": {"y", r1, r1}, "client": {"x", r2, r1}, "server": {"x", r1, r2}} {
		out, in, err := sealedKeys(keyOf(1), k.cluster, k.a, k.b)
		if err != nil {
			t.Fatal(err)
		}
		for dir, aead := range map[string]interface {
			Seal(dst, nonce, plaintext, additionalData []byte) []byte
		}{"to server": out, "to client": in} {
			sealed := string(aead.Seal(nil, make([]byte, 12), make([]byte, 16), nil))
			if other, ok := seen[sealed]; ok {
				t.Errorf("%s %s is sealed like %s", name, dir, other)
			}
			seen[sealed] = name + " " + dir
		}
	}
}

func TestFetchLarge(t *testing.T) {
	key := [][]byte{keyOf(3)}
	a := startProxy(t, MapState{7, 7}, GossipConfig{Node: "a", Keys: key})
	body := make([]byte, 40<<20)
	_, _ = rand.Read(body[:20<<20]) // half of it can be packed
	a.set(MapState{7, 7}, body)
	b := startProxy(t, MapState{}, GossipConfig{Node: "b", Keys: key, Seeds: []string{a.g.Address()}})
	start := time.Now()
	b.untilEpoch(t, MapState{7, 7})
	if _, fetched, got := b.had(); !bytes.Equal(got, body) || fetched != 1 {
		t.Errorf("%d bytes after %d fetches", len(got), fetched)
	}
	t.Logf("40 MB after %v", time.Since(start))

	if _, err := b.g.Fetch(t.Context(), "nobody"); err == nil {
		t.Error("fetched from nobody")
	}
	if _, err := b.g.Fetch(t.Context(), "a"); !errors.Is(err, ErrNoMap) { // it has nothing later
		t.Errorf("fetched the same map again: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a.set(MapState{8, 8}, nil)
	if _, err := b.g.Fetch(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: %v", err)
	}
}

// failingMap breaks off in the middle.
type failingMap struct{ *fakeProxy }

func (f failingMap) WriteMap(_ MapState, w io.Writer) error {
	_, _ = w.Write(make([]byte, 1<<20))
	return errors.New("the map went away")
}

func TestFetchIsAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := startThree(t, newSimNet(t))
		a, b := list[0], list[1]
		a.g.handler = failingMap{a}
		a.mu.Lock()
		a.state = MapState{6, 66}
		a.mu.Unlock()
		if data, err := b.g.Fetch(t.Context(), "a"); err == nil || data != nil {
			t.Errorf("half a map was given: %d bytes, %v", len(data), err)
		}
		a.untilLogged(t, "the map went away")
	})
}

// Many want a large map at once: it spreads from peer to peer, and nobody serves more than a few at a time.
func TestFetchSpreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet(t)
		n.rate = 1e6 // slow lines: 1 MB takes a second
		seed := startProxy(t, MapState{5, 5}, simConfig(n, "seed"))
		list := []*fakeProxy{seed}
		for i := range 20 {
			list = append(list, startProxy(t, MapState{5, 5}, simConfig(n, "p"+strings.Repeat("x", i), seed.g.Address())))
		}
		seed.until(t, "members", func(peers []Peer) bool { return len(peers) == 20 })
		body := make([]byte, 1<<20)
		_, _ = rand.Read(body)
		seed.set(MapState{6, 6}, body)
		seed.g.Broadcast(0, nil)
		start := time.Now()
		for _, p := range list {
			p.untilEpoch(t, MapState{6, 6})
		}
		took := time.Since(start)
		t.Logf("20 peers had 1 MB over lines of 1 MB/s after %v", took)
		if took > 20*time.Second { // the seed alone would take as long
			t.Errorf("took %v: the map came from one peer only", took)
		}
	})
}

func FuzzGossipReceive(f *testing.F) {
	g, err := NewGossip(GossipConfig{Cluster: "c", Node: "n", BindAddr: "127.0.0.1"}, &fakeProxy{changed: make(chan struct{})})
	if err != nil {
		f.Fatal(err)
	}
	d := &gossipDelegate{g}
	rec := gossipRecord{name: "a", stamp: 1, state: MapState{1, 2}}
	f.Add(newsMessage(g.tag, rec, 1, []byte("x")))
	f.Add(askMessage(g.tag, rec, question{1, 2, 3}))
	f.Add(answerMessage(g.tag, rec, 1))
	f.Add(d.LocalState(true))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_ = g.receive(b)
		_ = d.merge(b)
		for len(g.deliver) > 0 {
			<-g.deliver
		}
	})
}
