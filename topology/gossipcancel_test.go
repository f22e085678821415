package topology

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A CancelRequest goes to the proxy that gave out its key, and to no other.
func TestGossipForwardsCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet(t)
		var mu sync.Mutex
		var got []string
		var list []*fakeProxy
		for _, name := range []string{"a", "b", "c"} {
			cfg := simConfig(n, name)
			cfg.Keys = [][]byte{keyOf(1)}
			cfg.OnCancel = func(_ context.Context, pid uint32, secret string) {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, fmt.Sprintf("%s %d %s", name, pid, secret))
			}
			if list != nil {
				cfg.Seeds = []string{list[0].g.Address()}
			}
			list = append(list, startProxy(t, MapState{1, 1}, cfg))
		}
		for _, p := range list {
			p.until(t, "members", func(peers []Peer) bool { return len(peers) == 2 })
		}
		a := list[0].g
		if sent := a.ForwardCancel(t.Context(), PeerTag("c"), 7, "secret"); sent != 1 {
			t.Errorf("sent to %d peers", sent)
		}
		if want := []string{"c 7 secret"}; !slices.Equal(got, want) { // it has been seen to when ForwardCancel returns
			t.Errorf("%v, want %v", got, want)
		}
		if sent := a.ForwardCancel(t.Context(), PeerTag("nobody"), 7, "secret"); sent != 0 {
			t.Errorf("sent to %d peers that are not there", sent)
		}
		if sent := a.ForwardCancel(t.Context(), PeerTag("a"), 7, "secret"); sent != 0 {
			t.Errorf("sent to %d others that go by our own tag", sent)
		}
		time.Sleep(time.Minute)
		got = nil
		for range 5 * cancelRate {
			a.ForwardCancel(t.Context(), PeerTag("b"), 1, "flood")
		}
		stats := a.Stats()
		if len(got) < 2*cancelRate || len(got) > 4*cancelRate || stats.CancelsDropped == 0 {
			t.Errorf("%d of %d at once were forwarded, %d dropped", len(got), 5*cancelRate, stats.CancelsDropped)
		}
		if stats.CancelsSent != int64(len(got))+1 || list[1].g.Stats().CancelsReceived != int64(len(got)) {
			t.Errorf("counted %d and %d", stats.CancelsSent, list[1].g.Stats().CancelsReceived)
		}
	})
}

func TestPeerTags(t *testing.T) {
	seen := map[uint32]int{}
	for i := range 500 {
		tag := PeerTag(fmt.Sprintf("proxy-%d:7946", i))
		if tag == 0 || tag >= 1<<PeerTagBits {
			t.Fatalf("tag %d", tag)
		}
		seen[tag]++
	}
	for tag, n := range seen {
		if n > cancelPeersMax {
			t.Errorf("%d of 500 proxies share the tag %d", n, tag)
		}
	}
}
