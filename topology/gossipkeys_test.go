package topology

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// ringed starts three proxies with the same ring on a simulated net.
func ringed(t *testing.T, n *simNet, keys ...[]byte) []*fakeProxy {
	t.Helper()
	var list []*fakeProxy
	for _, name := range []string{"a", "b", "c"} {
		cfg := simConfig(n, name)
		cfg.Keys = keys
		if list != nil {
			cfg.Seeds = []string{list[0].g.Address()}
		}
		list = append(list, startProxy(t, MapState{1, 1}, cfg))
	}
	for _, p := range list {
		p.until(t, "members", func(peers []Peer) bool { return len(peers) == 2 })
	}
	return list
}

// allHear checks that a change by each of the proxies gets to all others by packet, and one by Fetch.
func allHear(t *testing.T, list []*fakeProxy, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, p := range list {
		s := p.change([]byte(what))
		if err := p.g.Wait(ctx, s.Epoch); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	list[1].set(MapState{list[1].Local().Epoch + 1, 3}, nil)
	list[1].g.Announce()
	if err := list[0].g.Wait(ctx, list[1].Local().Epoch); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func errorsOf(rings []PeerKeys) (list []string) {
	for _, p := range rings {
		if p.Err != nil {
			list = append(list, p.Peer+": "+p.Err.Error())
		}
	}
	return list
}

// Rotation through one of three proxies: nobody is lost at any step, and the old key is no way in afterwards.
func TestGossipKeyRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet(t)
		older, old, fresh := keyOf(0), keyOf(1), keyOf(2)
		list := ringed(t, n, old, older)
		b := list[1].g
		allHear(t, list, "before")
		ctx := t.Context()
		for _, step := range []struct {
			name string
			do   func() ([]PeerKeys, error)
			want []KeyFingerprint
		}{
			{"add", func() ([]PeerKeys, error) { return b.AddKey(ctx, fresh) }, []KeyFingerprint{FingerprintKey(old), FingerprintKey(older), FingerprintKey(fresh)}},
			{"add again", func() ([]PeerKeys, error) { return b.AddKey(ctx, fresh) }, []KeyFingerprint{FingerprintKey(old), FingerprintKey(older), FingerprintKey(fresh)}},
			{"use", func() ([]PeerKeys, error) { return b.UseKey(ctx, FingerprintKey(fresh)) }, []KeyFingerprint{FingerprintKey(fresh), FingerprintKey(old), FingerprintKey(older)}},
			{"remove", func() ([]PeerKeys, error) { return b.RemoveKey(ctx, FingerprintKey(old)) }, []KeyFingerprint{FingerprintKey(fresh), FingerprintKey(older)}},
		} {
			rings, err := step.do()
			if err != nil || len(rings) != 3 || errorsOf(rings) != nil {
				t.Fatalf("%s: %v, %+v", step.name, err, rings)
			}
			for i, want := range []string{"b", "a", "c"} { // the one that was asked first
				if p := rings[i]; p.Peer != want || !slices.Equal(p.Keys, step.want) {
					t.Errorf("%s: the ring of %s is %v, want %v", step.name, p.Peer, p.Keys, step.want)
				}
			}
			allHear(t, list, step.name)
		}
		for _, p := range list {
			for _, peer := range p.g.Peers() {
				if peer.Status != PeerAlive {
					t.Errorf("%s is %v for %s", peer.Name, peer.Status, p.g.cfg.Node)
				}
			}
			if log := p.log.String(); strings.Contains(log, "WARN") || strings.Contains(log, "is gone") {
				t.Errorf("%s says\n%s", p.g.cfg.Node, log)
			}
		}
		for want, got := range map[error]error{
			ErrKeyInUse: b.keys.Remove(FingerprintKey(fresh)), ErrUnknownKey: b.keys.Use(FingerprintKey(old)),
		} {
			if !errors.Is(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		}
		if _, err := b.AddKey(ctx, []byte("short")); err == nil {
			t.Error("a key of 5 bytes was added")
		}
		stranger := simConfig(n, "x", list[0].g.Address())
		stranger.Keys = [][]byte{old}
		x := startProxy(t, MapState{}, stranger)
		x.untilLogged(t, "no seed let this proxy in")
		if got := len(list[0].g.Peers()); got != 2 {
			t.Errorf("%d peers with a stranger at the door", got)
		}
	})
}

// No step is begun that would cut a proxy off.
func TestGossipKeyStepsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet(t)
		old, fresh := keyOf(1), keyOf(2)
		list := ringed(t, n, old)
		a, b, c := list[0].g, list[1].g, list[2].g
		ctx := t.Context()
		refused := func(what string, err error, want string) {
			t.Helper()
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %s", what, err, want)
			}
		}
		_, err := a.UseKey(ctx, FingerprintKey(fresh))
		refused("use of an unknown key", err, ErrUnknownKey.Error())
		_, err = a.RemoveKey(ctx, FingerprintKey(old))
		refused("removal of the key in use", err, "a uses the key, b uses the key, c uses the key")
		for _, g := range []*Gossip{a, b} {
			if err := g.keys.Install(fresh); err != nil {
				t.Fatal(err)
			}
		}
		_, err = a.UseKey(ctx, FingerprintKey(fresh))
		refused("use of a key that one lacks", err, "nothing was done: c does not have the key")
		if c.keys.List()[0] != FingerprintKey(old) || a.keys.List()[0] != FingerprintKey(old) {
			t.Error("the key is in use all the same")
		}
		if rings, err := a.AddKey(ctx, fresh); err != nil || errorsOf(rings) != nil {
			t.Fatal(err, rings)
		}
		if err := c.keys.Use(FingerprintKey(fresh)); err != nil {
			t.Fatal(err)
		}
		_, err = a.RemoveKey(ctx, FingerprintKey(fresh))
		refused("removal of a key that one uses", err, "c uses the key")

		gone := c.Address()
		n.cut(func(x, y string) bool { return x == gone || y == gone })
		_, err = a.UseKey(ctx, FingerprintKey(fresh))
		refused("use while one cannot be asked", err, "c cannot be asked")
		list[0].untilStatus(t, "c", PeerDead)
		if rings, err := a.UseKey(ctx, FingerprintKey(fresh)); err != nil || len(rings) != 2 || errorsOf(rings) != nil {
			t.Errorf("without the dead: %v, %+v", err, rings)
		}
		for range gossipKeysMax {
			_, err = a.AddKey(ctx, keyOf(byte(100+len(a.keys.List()))))
		}
		refused("too many keys", err, ErrManyKeys.Error())
	})
}

// Without keys there is nothing to rotate.
func TestGossipKeysOfPlainGossip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := startThree(t, newSimNet(t))[0].g
		_, add := a.AddKey(t.Context(), keyOf(1))
		_, use := a.UseKey(t.Context(), FingerprintKey(keyOf(1)))
		if !errors.Is(add, ErrPlainGossip) || !errors.Is(use, ErrPlainGossip) {
			t.Errorf("%v, %v", add, use)
		}
		if rings := a.RingKeys(t.Context()); len(rings) != 3 || errorsOf(rings) != nil || len(rings[2].Keys) != 0 {
			t.Errorf("%+v", rings)
		}
	})
}

func TestFingerprintTellsNothing(t *testing.T) {
	a, b := FingerprintKey(keyOf(1)), FingerprintKey(keyOf(2))
	if a == b || len(a) != 16 || strings.Contains(string(keyOf(1)), string(a)) {
		t.Errorf("%s and %s", a, b)
	}
}
