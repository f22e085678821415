package backend

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The connections of a node in use stay, and those of nodes that were used once go, the longest idle first.
func TestBusyPoolsAreSpared(t *testing.T) {
	run(t, Limits{Max: 5, Total: 4, Wait: time.Second}, func(t *testing.T, pools *Pools, dialer *fakes) {
		busy := pools.Get(Key{Address: "busy"}, "s1")
		first := acquire(t, busy)
		busy.Release(first)
		for i := range 20 {
			p := pools.Get(Key{Address: fmt.Sprint(i)}, "s1")
			p.Release(acquire(t, p))
			c := acquire(t, busy)
			if c != first {
				t.Fatalf("after %d other nodes, the connection of the busy one was closed", i+1)
			}
			busy.Release(c)
		}
		for i := range 20 {
			want := 0
			if i >= 17 {
				want = 1
			}
			if s := pools.Get(Key{Address: fmt.Sprint(i)}, "s1").Stats(); s.Idle != want {
				t.Errorf("node %d has %d idle connections, want %d", i, s.Idle, want)
			}
		}
		if n := dialer.most.Load(); n > 4 {
			t.Errorf("%d connections at a time, the budget is 4", n)
		}
	})
}

// One node with more clients than the budget has connections: they pass them on, and none is closed to open another.
func TestStarvingTakeOverFromTheirOwnPool(t *testing.T) {
	run(t, Limits{Max: 50, Total: 3, Wait: time.Hour}, func(t *testing.T, pools *Pools, _ *fakes) {
		p := pools.Get(Key{Address: "a"}, "s1")
		var wg sync.WaitGroup
		var mu sync.Mutex
		seen := map[*Conn]bool{}
		for range 20 {
			wg.Go(func() {
				w := &Waiter{}
				for range 10 {
					c, err := p.Acquire(t.Context(), w)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					seen[c] = true
					mu.Unlock()
					time.Sleep(time.Millisecond)
					p.Release(c)
				}
			})
		}
		wg.Wait()
		if len(seen) != 3 {
			t.Errorf("%d connections were made, want 3", len(seen))
		}
		if s := p.Stats(); s.Idle != 3 || s.Used != 0 {
			t.Errorf("%+v at the end", s)
		}
	})
}

// Sessions of many nodes that wait for each other's connections: none waits while one is idle.
func TestNobodyStarvesBesideAnIdleConnection(t *testing.T) {
	run(t, Limits{Max: 8, Total: 3, Wait: time.Minute}, func(t *testing.T, pools *Pools, dialer *fakes) {
		var wg sync.WaitGroup
		for i := range 12 {
			wg.Go(func() {
				w := &Waiter{}
				for j := range 200 {
					p := pools.Get(Key{Address: fmt.Sprint((i*7 + j*j) % 5)}, "s1")
					c, err := p.Acquire(t.Context(), w)
					if err != nil {
						t.Error(err)
						return
					}
					p.Release(c)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if n := dialer.most.Load(); n > 3 {
			t.Errorf("%d connections at a time, the budget is 3", n)
		}
	})
}

// BenchmarkEvict moves the whole budget from node to node among very many.
func BenchmarkEvict(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			pools := NewPools(&fakes{}, Limits{Max: 2, Total: 64})
			w := &Waiter{}
			use := func(i int) {
				p := pools.Get(Key{Address: fmt.Sprint(i % n)}, "s1")
				c, err := p.Acquire(b.Context(), w)
				if err != nil {
					b.Fatal(err)
				}
				p.Release(c)
			}
			for i := range n {
				use(i)
			}
			for i := 0; b.Loop(); i++ {
				use(i)
			}
			b.StopTimer()
			pools.close()
		})
	}
}

// A limit that comes later finds what is idle.
func TestLimitThatComesLater(t *testing.T) {
	run(t, Limits{Max: 5, Wait: time.Second}, func(t *testing.T, pools *Pools, _ *fakes) {
		for i := range 3 {
			p := pools.Get(Key{Address: fmt.Sprint(i)}, "s1")
			p.Release(acquire(t, p))
		}
		pools.SetLimits(Limits{Max: 5, Total: 3, Wait: time.Second})
		p := pools.Get(Key{Address: "new"}, "s1")
		p.Release(acquire(t, p))
	})
}
