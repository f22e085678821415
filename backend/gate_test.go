package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// started runs f, and gives a channel that holds what came of it.
func started[T any](f func() T) <-chan T {
	done := make(chan T, 1)
	go func() { done <- f() }()
	synctest.Wait()
	return done
}

// pending says whether nothing has come of it so far.
func pending[T any](done <-chan T) bool {
	synctest.Wait()
	select {
	case <-done:
		return false
	default:
		return true
	}
}

func pausing(pools *Pools, shard string) <-chan error {
	return started(func() error { return pools.Pause(context.Background(), shard) })
}

// want starts to acquire.
func want(p *Pool, inside bool) <-chan *Conn {
	return started(func() *Conn {
		c, err := p.Acquire(context.Background(), &Waiter{Inside: inside})
		if err != nil {
			panic(err)
		}
		return c
	})
}

func TestPause(t *testing.T) {
	run(t, Limits{Max: 5, Total: 5, Wait: time.Second}, func(t *testing.T, pools *Pools, dialer *fakes) {
		a, b := pools.Get(Key{Address: "a"}, "s1"), pools.Get(Key{Address: "b"}, "s2")
		used, idle := acquire(t, a), acquire(t, b)
		b.Release(idle)
		paused := pausing(pools, "")
		if dialer.open.Load() != 1 {
			t.Errorf("%d connections are open beside the one in use", dialer.open.Load()-1)
		}
		waiting := want(b, false)
		time.Sleep(time.Hour) // no limit of waiting holds
		if !pending(paused) || !pending(waiting) {
			t.Fatal("the pause did not wait for the connection in use, or it did not hold new work back")
		}
		if s := b.Stats(); s.Waiting != 1 || s.LongestWait != time.Hour {
			t.Errorf("%d wait, for %v", s.Waiting, s.LongestWait)
		}
		if err := pools.Pause(t.Context(), ""); !errors.Is(err, ErrPaused) {
			t.Errorf("a second pause: %v", err)
		}
		a.Release(used)
		if err := <-paused; err != nil {
			t.Error(err)
		}
		if n := dialer.open.Load(); n != 0 {
			t.Errorf("%d connections are open after the pause", n)
		}
		if !pending(waiting) || !pools.Paused("") || !pools.Paused("s1") {
			t.Error("it is not paused")
		}
		if err := pools.Resume(""); err != nil {
			t.Error(err)
		}
		b.Release(<-waiting)
		if err := pools.Resume(""); !errors.Is(err, ErrNotPaused) || pools.Paused("") {
			t.Errorf("a second resume: %v", err)
		}
	})
}

// A transaction that has begun gets what it needs to end, also of a shard that was not used before.
func TestPauseLetsTransactionsEnd(t *testing.T) {
	run(t, Limits{Max: 5, Total: 5}, func(t *testing.T, pools *Pools, _ *fakes) {
		a := pools.Get(Key{Address: "a"}, "s1")
		first := acquire(t, a)
		paused := pausing(pools, "")
		b := pools.Get(Key{Address: "b"}, "s2")
		second := want(b, true)
		a.Release(first)
		if !pending(paused) {
			t.Fatal("the pause did not wait for the second shard")
		}
		b.Release(<-second)
		if err := <-paused; err != nil {
			t.Error(err)
		}
		if err := pools.Resume(""); err != nil {
			t.Error(err)
		}
	})
}

func TestPauseShard(t *testing.T) {
	run(t, Limits{Max: 5, Total: 5}, func(t *testing.T, pools *Pools, _ *fakes) {
		a, b := pools.Get(Key{Address: "a"}, "s1"), pools.Get(Key{Address: "b"}, "s2")
		used := acquire(t, a)
		paused := pausing(pools, "s1")
		other := acquire(t, b) // of another shard: it is not held back

		begun := time.Now()
		inside, outside := want(a, true), want(a, false)
		if !pending(inside) || !pending(outside) {
			t.Fatal("the shard takes work on")
		}
		blocked := <-inside // a transaction of s1 may wait for a lock of this one
		if waited := time.Since(begun); waited < gatePatience || waited > gatePatience+2*expelEvery {
			t.Errorf("it waited for %v", waited)
		}
		a.Release(used)
		if !pending(paused) {
			t.Error("the pause did not wait for the one that was let in")
		}
		a.Release(blocked)
		if err := <-paused; err != nil {
			t.Error(err)
		}
		late := want(a, true)
		time.Sleep(time.Hour)
		if !pending(late) || !pending(outside) {
			t.Error("a paused shard gives connections")
		}
		// What took the place of the node is paused with the shard.
		promoted := want(pools.Get(Key{Address: "a2"}, "s1"), false)
		if !pending(promoted) || pools.Paused("s2") {
			t.Error("the pause is not that of the shard")
		}
		b.Release(other)
		if err := pools.Resume("s1"); err != nil {
			t.Error(err)
		}
		a.Release(<-late)
		a.Release(<-outside)
		pools.Get(Key{Address: "a2"}, "s1").Release(<-promoted)
	})
}

// A shard gives connections when neither it nor all are paused.
func TestPausesAddUp(t *testing.T) {
	run(t, Limits{Max: 5, Total: 5}, func(t *testing.T, pools *Pools, _ *fakes) {
		p := pools.Get(Key{Address: "a"}, "s1")
		for _, shard := range []string{"s1", ""} {
			if err := pools.Pause(t.Context(), shard); err != nil {
				t.Fatal(err)
			}
		}
		waiting := want(p, false)
		if err := pools.Resume(""); err != nil {
			t.Error(err)
		}
		if !pending(waiting) {
			t.Error("the shard's own pause has ended")
		}
		if err := pools.Resume("s1"); err != nil {
			t.Error(err)
		}
		p.Release(<-waiting)
	})
}

func TestPauseIsTakenBack(t *testing.T) {
	for _, shard := range []string{"", "s1"} {
		run(t, Limits{Max: 5, Total: 5}, func(t *testing.T, pools *Pools, _ *fakes) {
			p := pools.Get(Key{Address: "a"}, "s1")
			used := acquire(t, p)
			ctx, cancel := context.WithCancel(context.Background())
			paused := started(func() error { return pools.Pause(ctx, shard) })
			waiting := want(p, false)
			cancel()
			if err := <-paused; !errors.Is(err, context.Canceled) || pools.Paused("s1") {
				t.Errorf("cancelled: %v", err)
			}
			p.Release(<-waiting)

			paused = pausing(pools, shard)
			if err := pools.Resume(shard); err != nil {
				t.Error(err)
			}
			if err := <-paused; !errors.Is(err, ErrResumed) {
				t.Errorf("resumed: %v", err)
			}
			p.Release(used)
		})
	}
}

// Sessions that wait for a connection when a pause begins are not worked off first.
func TestPauseSendsBack(t *testing.T) {
	run(t, Limits{Max: 1, Total: 1, Wait: 10 * time.Second}, func(t *testing.T, pools *Pools, dialer *fakes) {
		a, b := pools.Get(Key{Address: "a"}, "s1"), pools.Get(Key{Address: "b"}, "s2")
		used := acquire(t, a)
		queued, starving := want(a, false), want(b, false)
		paused := pausing(pools, "")
		time.Sleep(time.Hour)
		a.Release(used)
		if err := <-paused; err != nil {
			t.Error(err)
		}
		if !pending(queued) || !pending(starving) || dialer.most.Load() != 1 {
			t.Error("somebody got a connection")
		}
		if err := pools.Resume(""); err != nil {
			t.Error(err)
		}
		for range 2 {
			select {
			case c := <-queued:
				a.Release(c)
			case c := <-starving:
				b.Release(c)
			}
		}
	})
}

func TestPauseEndsWithThePools(t *testing.T) {
	run(t, Limits{Max: 1, Total: 1}, func(t *testing.T, pools *Pools, _ *fakes) {
		p := pools.Get(Key{Address: "a"}, "s1")
		if err := pools.Pause(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		w := &Waiter{}
		canceled := started(func() error { _, err := p.Acquire(context.Background(), w); return err })
		pools.CancelWait(w)
		if err := <-canceled; !errors.Is(err, ErrCanceled) {
			t.Errorf("cancelled: %v", err)
		}
		go func() { // ends with the bubble
			if _, err := p.Acquire(context.Background(), &Waiter{}); !errors.Is(err, errClosed) {
				t.Errorf("at the end: %v", err)
			}
		}()
		synctest.Wait()
	})
}

// Pauses under load come to their end, and while one is in force nobody has a connection.
func TestPauseUnderLoad(t *testing.T) {
	run(t, Limits{Max: 3, Total: 5, Wait: time.Hour}, func(t *testing.T, pools *Pools, dialer *fakes) {
		const shards = 4
		get := func(i int) *Pool { return pools.Get(Key{Address: fmt.Sprint(i % shards)}, fmt.Sprint("s", i%shards)) }
		var stopped atomic.Bool
		var done atomic.Int64
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				first, second := &Waiter{}, &Waiter{Inside: true}
				for j := 0; !stopped.Load(); j++ {
					p := get(i)
					c, err := p.Acquire(context.Background(), first)
					if err != nil {
						t.Error(err)
						return
					}
					time.Sleep(time.Duration(i%3) * time.Millisecond)
					if i == 0 && j%5 == 0 { // one at a time, so that the two limits cannot lock each other out
						q := get(i + 1 + j)
						if d, err := q.Acquire(context.Background(), second); err == nil && q != p {
							time.Sleep(time.Millisecond)
							q.Release(d)
						} else if err == nil {
							q.Release(d)
						}
					}
					c.Broken = (i+j)%31 == 0
					p.Release(c)
					done.Add(1)
					time.Sleep(time.Millisecond)
				}
			})
		}
		for range 50 {
			if err := pools.Pause(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			before := done.Load()
			time.Sleep(5 * time.Millisecond)
			if n := dialer.open.Load(); n != 0 || done.Load() != before {
				t.Errorf("%d connections are open, %d were used during the pause", n, done.Load()-before)
			}
			if err := pools.Resume(""); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Millisecond)
			if err := pools.Pause(t.Context(), "s1"); err != nil {
				t.Fatal(err)
			}
			if err := pools.Resume("s1"); err != nil {
				t.Fatal(err)
			}
		}
		stopped.Store(true)
		wg.Wait()
	})
}

func TestReconnect(t *testing.T) {
	run(t, Limits{Max: 5, Total: 5}, func(t *testing.T, pools *Pools, dialer *fakes) {
		a, b := pools.Get(Key{Address: "a"}, "s1"), pools.Get(Key{Address: "b"}, "s2")
		used, idle, other := acquire(t, a), acquire(t, a), acquire(t, b)
		a.Release(idle)
		b.Release(other)
		pools.Reconnect(func(p *Pool) bool { return p.Shard() == "s1" })
		if n := dialer.open.Load(); n != 2 {
			t.Errorf("%d connections are open, want the used one and that of the other shard", n)
		}
		if conns := a.Conns(); len(conns) != 1 || !conns[0].Outdated {
			t.Errorf("%+v", conns)
		}
		a.Release(used)
		fresh := acquire(t, a)
		if fresh == used || dialer.open.Load() != 2 {
			t.Error("the connection was used again")
		}
		a.Release(fresh)
		if c := acquire(t, a); c != fresh {
			t.Error("a connection that was made afterwards was closed")
		} else {
			a.Release(c)
		}
	})
}

func TestSetLimits(t *testing.T) {
	run(t, Limits{Max: 1, Total: 2, Wait: time.Second}, func(t *testing.T, pools *Pools, dialer *fakes) {
		a, b, c := pools.Get(Key{Address: "a"}, "s1"), pools.Get(Key{Address: "b"}, "s2"), pools.Get(Key{Address: "c"}, "s3")
		one, two := acquire(t, a), acquire(t, b)
		queued, starving := want(a, false), want(c, false)
		pools.SetLimits(Limits{Max: 2, Total: 4, Wait: time.Hour})
		time.Sleep(time.Minute)
		three, four := <-queued, <-starving
		if n := dialer.open.Load(); n != 4 {
			t.Errorf("%d connections are open, now that there is room for 4", n)
		}
		pools.SetLimits(Limits{Max: 1, Total: 1, Wait: time.Hour})
		a.Release(one)
		b.Release(two)
		c.Release(four)
		if n := dialer.open.Load(); n != 1 {
			t.Errorf("%d connections are open, one is allowed", n)
		}
		a.Release(three)
		if s := a.Stats(); s.Idle != 1 {
			t.Errorf("%d are idle", s.Idle)
		}
	})
}
