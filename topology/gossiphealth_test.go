package topology

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHealthLastWriterWins(t *testing.T) {
	now := uint64(time.Now().UnixMicro())
	a, b, c := HealthItem{"k", []byte("a"), now}, HealthItem{"k", []byte("b"), now}, HealthItem{"k", []byte("c"), now + 1}
	var first *HealthMap
	for _, order := range [][]HealthItem{{a, b, c}, {c, b, a}, {b, a, c}, {a, c, b, a}} {
		h := newHealthMap(nil)
		for _, it := range order {
			h.merge(it)
		}
		if it, ok := h.Get("k"); !ok || string(it.Value) != "c" {
			t.Errorf("got %v, %v", it, ok)
		}
		if first == nil {
			first = h
		}
		if h.digest() != first.digest() {
			t.Error("the digest depends on the order")
		}
	}
	if first.merge(c) {
		t.Error("the same item was news twice")
	}
}

func TestHealthBounds(t *testing.T) {
	sent := 0
	h := newHealthMap(func(HealthItem) { sent++ })
	for key, value := range map[string][]byte{
		"": nil, strings.Repeat("k", healthKeyMax+1): nil, "k": make([]byte, healthValueMax+1),
	} {
		if h.Set(key, value) == nil {
			t.Errorf("a key of %d bytes with %d bytes was taken", len(key), len(value))
		}
	}
	for i := range healthItemsMax {
		if err := h.Set(fmt.Sprint(i), []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if h.Set("more", []byte{1}) == nil || h.merge(HealthItem{"more", []byte{1}, uint64(time.Now().UnixMicro())}) {
		t.Error("no bound on the number of items")
	}
	if err := h.Set("7", []byte{2}); err != nil { // replacing is always possible
		t.Error(err)
	}
	if sent != healthItemsMax+1 {
		t.Errorf("sent %d", sent)
	}
	future := HealthItem{"7", []byte{3}, uint64(time.Now().Add(time.Hour).UnixMicro())}
	if h.merge(future) || h.merge(HealthItem{"7", []byte{3}, ^uint64(0)}) {
		t.Error("an item of the future was taken")
	}
}

func TestHealthRunsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHealthMap(func(HealthItem) {})
		_ = h.Set("lag/a", []byte("1"))
		old, _ := h.Get("lag/a")
		time.Sleep(HealthTTL - time.Second)
		_ = h.Set("lag/b", []byte("2"))
		_ = h.Set("lag/c", []byte("3"))
		_ = h.Set("lag/c", nil) // withdrawn
		_ = h.Set("other", []byte("4"))
		time.Sleep(time.Second)
		var keys []string
		for _, it := range h.List("lag/") {
			keys = append(keys, it.Key)
		}
		if diff := cmp.Diff([]string{"lag/b"}, keys); diff != "" {
			t.Error(diff)
		}
		h.sweep()
		if h.merge(old) {
			t.Error("what had run out came back")
		}
		time.Sleep(HealthTTL)
		h.sweep()
		if h.digest() != [healthBuckets]uint64{} || len(h.items) != 0 {
			t.Error("something is left in an empty map")
		}
	})
}

func TestHealthSpreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet(t)
		n.lose(0.05)
		list := startThree(t, n)
		a, b, c := list[0], list[1], list[2]
		if err := a.g.Health().Set("lag/s1", []byte("120")); err != nil {
			t.Fatal(err)
		}
		has := func(key, value string) func([]Peer) bool {
			return func([]Peer) bool {
				it, ok := c.g.Health().Get(key)
				return ok && string(it.Value) == value
			}
		}
		start := time.Now()
		c.until(t, "item", has("lag/s1", "120"))
		t.Logf("by packet after %v", time.Since(start))
		if err := b.g.Health().Set("lag/s1", []byte("130")); err != nil { // another proxy goes on with the key
			t.Fatal(err)
		}
		c.until(t, "item of another proxy", has("lag/s1", "130"))

		// More than the queue holds: the rest comes with a full exchange.
		for i := range queuedItems + 500 {
			if err := a.g.Health().Set(fmt.Sprintf("node/%d", i), bytes.Repeat([]byte{1}, 50)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(3 * time.Minute)
		for _, p := range list {
			if got := len(p.g.Health().List("node/")); got != queuedItems+500 {
				t.Errorf("%s has %d items", p.g.cfg.Node, got)
			}
			if p.g.Health().digest() != a.g.Health().digest() {
				t.Errorf("%s has other items", p.g.cfg.Node)
			}
		}
	})
}
