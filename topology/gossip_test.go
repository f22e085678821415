package topology

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Real sockets: join, news with its payload, acks, a payload too large for a packet, goodbye.
func TestGossipOverSockets(t *testing.T) {
	key := keyOf(1)
	a := startProxy(t, MapState{1, 1}, GossipConfig{Node: "a", Keys: [][]byte{key}})
	seed := []string{a.g.Address()}
	b := startProxy(t, MapState{1, 1}, GossipConfig{Node: "b", Keys: [][]byte{key}, Seeds: seed})
	c := startProxy(t, MapState{1, 1}, GossipConfig{Node: "c", Keys: [][]byte{key}, Seeds: seed})
	for _, p := range []*fakeProxy{a, b, c} {
		p.until(t, "members", func(peers []Peer) bool { return len(peers) == 2 })
	}

	start := time.Now()
	s := b.change([]byte("split"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := b.g.Wait(ctx, s.Epoch); err != nil {
		t.Fatal(err)
	}
	t.Logf("a change was confirmed by all after %v", time.Since(start))
	if got := b.g.AckedBy(s.Epoch); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("AckedBy = %v", got)
	}
	for _, p := range []*fakeProxy{a, c} {
		if got, _, _ := p.had(); p.Local() != s || len(got) != 1 || string(got[0].payload) != "split" || got[0].from != "b" || got[0].kind != 1 {
			t.Errorf("delivered %+v, map %v", got, p.Local())
		}
	}

	// Too large: the news goes without it, and the others fetch.
	big := MapState{3, 99}
	b.set(big, bytes.Repeat([]byte("range"), 1<<20))
	if b.g.Broadcast(1, make([]byte, GossipPayloadMax+1)) {
		t.Error("a payload above the limit was sent whole")
	}
	if err := b.g.Wait(ctx, big.Epoch); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*fakeProxy{a, c} {
		if got, fetched, body := p.had(); !bytes.Equal(body, b.body) || fetched != 1 || len(got) != 1 {
			t.Errorf("fetched %d times, %d bytes; delivered %d", fetched, len(body), len(got))
		}
	}
	// The largest payload that goes by packet.
	s = b.change(bytes.Repeat([]byte{7}, GossipPayloadMax))
	if err := b.g.Wait(ctx, s.Epoch); err != nil {
		t.Fatal(err)
	}
	if got, _, _ := a.had(); len(got) != 2 || len(got[1].payload) != GossipPayloadMax {
		t.Errorf("delivered %d", len(got))
	}

	c.stop(t)
	a.untilStatus(t, "c", PeerLeft)
	b.untilStatus(t, "c", PeerLeft)
	if log := a.log.String(); strings.Contains(log, "WARN") {
		t.Errorf("warnings in a quiet life:\n%s", log)
	}
}

func TestGossipRefusesOthers(t *testing.T) {
	a := startProxy(t, MapState{1, 1}, GossipConfig{Node: "a", Keys: [][]byte{keyOf(1)}})
	seed := []string{a.g.Address()}
	for _, tt := range []struct {
		name, here, there string
		cfg               GossipConfig
	}{
		{
			"cluster", `is of cluster \"other\", this one of \"test\"`, `is of cluster \"test\", this one of \"other\"`,
			GossipConfig{Cluster: "other", Keys: [][]byte{keyOf(1)}},
		},
		{"key", "no installed keys could decrypt", "no installed keys could decrypt", GossipConfig{Keys: [][]byte{keyOf(2)}}},
		{"nokey", "remote state is not encrypted", "with the same cluster name and key?", GossipConfig{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := tt.cfg
			cfg.Node, cfg.Seeds = "x"+tt.name, seed
			x := startProxy(t, MapState{9, 9}, cfg)
			a.untilLogged(t, tt.here)
			x.untilLogged(t, tt.there)
			x.untilLogged(t, "no seed let this proxy in")
			if peers := append(a.g.Peers(), x.g.Peers()...); len(peers) != 0 {
				t.Errorf("peers: %+v", peers)
			}
			if a.Local() != (MapState{1, 1}) {
				t.Errorf("map changed to %v", a.Local())
			}
		})
	}
}

func TestGossipGarbageOnTCP(t *testing.T) {
	a := startProxy(t, MapState{1, 1}, GossipConfig{Node: "a", Keys: [][]byte{keyOf(1)}})
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\n\r\n",
		"\xD5", "\xD5\x01", "\xD5\x07" + strings.Repeat("r", 16),
		"\xD5\x01" + strings.Repeat("r", 16) + "\xff\xff\xff\xff",
		"\xD5\x01" + strings.Repeat("r", 16) + "\x80\x00\x00\x10" + strings.Repeat("x", 16),
		"\x0a\xff\xff\xff\xff", "\xf4\x00", "\x08\x00",
	} {
		c, err := net.Dial("tcp", a.g.Address())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		b, err := io.ReadAll(c)
		if err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%q: %v", garbage, err)
		}
		if bytes.Contains(b, []byte("range")) {
			t.Errorf("%q was given %q", garbage, b)
		}
		_ = c.Close()
	}
	u, err := net.Dial("udp", a.g.Address())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = u.Write([]byte("nonsense"))
	_ = u.Close()
	b := startProxy(t, MapState{1, 1}, GossipConfig{Node: "b", Keys: [][]byte{keyOf(1)}, Seeds: []string{"127.0.0.1:1", a.g.Address()}})
	b.untilStatus(t, "a", PeerAlive)
}

// A seed that is down when the proxy starts, and up later.
func TestGossipSeedComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet(t)
		late := "10.0.0.3:7946" // the address of the second peer
		a := startProxy(t, MapState{1, 1}, simConfig(n, "a", late))
		a.untilLogged(t, "no seed let this proxy in")
		time.Sleep(time.Minute)
		b := startProxy(t, MapState{1, 1}, simConfig(n, "b"))
		if b.g.Address() != late {
			t.Fatalf("second peer at %s", b.g.Address())
		}
		b.untilStatus(t, "a", PeerAlive)
		a.untilLogged(t, "found the other proxies")
	})
}

func TestGossipKillAndComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet(t)
		list := startThree(t, n)
		a, c := list[0], list[2]
		gone := c.g.Address()
		n.cut(func(x, y string) bool { return x == gone || y == gone }) // as after kill -9: not a word more
		start := time.Now()
		a.untilStatus(t, "c", PeerSuspect)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if err := a.g.Wait(ctx, 6); err == nil || !strings.Contains(err.Error(), "c") {
			t.Errorf("Wait with a suspect: %v", err)
		}
		cancel()
		a.untilStatus(t, "c", PeerDead)
		t.Logf("dead after %v", time.Since(start))
		c.stop(t)

		var s MapState
		for range 3 { // c misses more than the last change
			s = list[1].change([]byte("x"))
			a.untilEpoch(t, s)
			if err := a.g.Wait(t.Context(), s.Epoch); err != nil { // the dead are not waited for
				t.Error(err)
			}
			time.Sleep(5 * time.Second)
		}

		// Under the same name, at another address, and behind.
		n.cut(nil)
		c = startProxy(t, MapState{5, 55}, simConfig(n, "c", a.g.Address()))
		a.untilStatus(t, "c", PeerAlive)
		c.untilEpoch(t, s)
		if _, fetched, _ := c.had(); fetched == 0 {
			t.Error("the map came without Fetch")
		}
	})
}

// The proxy dies and is back at another address before the others noticed.
func TestGossipRestartAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet(t)
		list := startThree(t, n)
		old := list[2].g.Address()
		n.cut(func(x, y string) bool { return x == old || y == old })
		c := startProxy(t, MapState{5, 55}, simConfig(n, "c", list[0].g.Address()))
		for _, p := range list[:2] {
			p.until(t, "c at its new address", func(peers []Peer) bool {
				i := slices.IndexFunc(peers, func(o Peer) bool { return o.Name == "c" })
				return peers[i].Addr == c.g.Address() && peers[i].Status == PeerAlive
			})
		}
		s := c.change([]byte("x"))
		if err := c.g.Wait(t.Context(), s.Epoch); err != nil {
			t.Error(err)
		}
		list[0].untilEpoch(t, s)
	})
}

// The clock of a proxy was ahead and is right after a restart: its word must count all the same.
func TestGossipClockSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := startThree(t, newSimNet(t))
		a, b := list[0], list[1]
		future := uint64(time.Now().Add(24 * time.Hour).UnixMicro())
		a.g.peers.apply(gossipRecord{name: "b", stamp: future, state: MapState{4, 44}}, false)
		s := b.change(nil)
		a.until(t, "b believed", func(peers []Peer) bool { return peers[0].Name == "b" && peers[0].Map == s })
	})
}

func TestGossipPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet(t)
		list := startThree(t, n)
		a, b, c := list[0], list[1], list[2]
		alone := c.g.Address()
		n.cut(func(x, y string) bool { return (x == alone) != (y == alone) })
		var s MapState
		for range 200 { // more than any queue keeps
			s = a.change([]byte("change"))
			time.Sleep(100 * time.Millisecond)
		}
		b.untilEpoch(t, s)
		a.untilStatus(t, "c", PeerDead)
		c.untilStatus(t, "a", PeerDead)
		time.Sleep(10 * time.Minute) // memberlist has forgotten them by now
		if got := c.Local(); got != (MapState{5, 55}) {
			t.Fatalf("news got through the cut: %v", got)
		}
		n.cut(nil)
		healed := time.Now()
		c.untilEpoch(t, s)
		t.Logf("whole again %v after the cut ended", time.Since(healed))
		if took := time.Since(healed); took > 2*GossipLAN.Rejoin+5*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// Two maps of one epoch: both sides are told, and go on until one gives way.
func TestGossipDiverged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := startThree(t, newSimNet(t))
		list[0].set(MapState{5, 56}, nil)
		list[0].g.Announce()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := list[0].g.Wait(ctx, 5); err != nil { // our fake gives way to the higher checksum
			t.Fatal(err)
		}
		for _, p := range list {
			if p.Local() != (MapState{5, 56}) {
				t.Errorf("%s has %v", p.g.cfg.Node, p.Local())
			}
		}
	})
}

func TestGossipConfigIsChecked(t *testing.T) {
	good := GossipConfig{Cluster: "c", Node: "n", BindAddr: "127.0.0.1", Seeds: []string{"host", "host:1", "::1", "[::1]:7"}}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*GossipConfig){
		"cluster":      func(c *GossipConfig) { c.Cluster = "" },
		"node":         func(c *GossipConfig) { c.Node = strings.Repeat("x", 65) },
		"bind address": func(c *GossipConfig) { c.BindAddr = "localhost" },
		"advertise":    func(c *GossipConfig) { c.BindAddr = "::" },
		"port":         func(c *GossipConfig) { c.BindPort = 70000 },
		"seed":         func(c *GossipConfig) { c.Seeds = []string{"host:x"} },
		"key 1":        func(c *GossipConfig) { c.Keys = [][]byte{{1}} },
		"interval":     func(c *GossipConfig) { c.Timing = GossipTiming{Gossip: 1} },
	} {
		c := good
		spoil(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := NewGossip(GossipConfig{Cluster: "c", Node: "n", BindAddr: "::1", Keys: [][]byte{keyOf(1), keyOf(1)}}, &fakeProxy{}); err == nil {
		t.Error("a key given twice was taken")
	}
}

// What nobody is there to hear is not kept for ever.
func TestGossipAloneStaysSmall(t *testing.T) {
	g, err := NewGossip(GossipConfig{Cluster: "c", Node: "n", BindAddr: "127.0.0.1"}, &fakeProxy{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 * queuedItems {
		g.Broadcast(1, []byte("x"))
		if err := g.Health().Set(strconv.Itoa(i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if news, items := g.news.NumQueued(), g.items.NumQueued(); news != queuedNews || items != queuedItems || len(g.seen.set) > len(g.seen.ring) {
		t.Errorf("%d broadcasts, %d items, %d seen", news, items, len(g.seen.set))
	}
}
