package backend

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"shardproxy/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakes dials connections to nothing, and counts them.
type fakes struct {
	open, most atomic.Int32
	err        error
}

func (f *fakes) Dial(context.Context, Key) (*wire.ServerConn, error) {
	if f.err != nil {
		return nil, f.err
	}
	near, far := net.Pipe()
	n := f.open.Add(1)
	for m := f.most.Load(); n > m && !f.most.CompareAndSwap(m, n); m = f.most.Load() {
	}
	go func() { _, _ = io.Copy(io.Discard, far) }() // swallows Terminate
	return &wire.ServerConn{Conn: &counted{Conn: near, open: &f.open}}, nil
}

// counted counts itself as closed once.
type counted struct {
	net.Conn
	open *atomic.Int32
	once sync.Once
}

func (c *counted) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

func (f *fakes) Cancel(context.Context, Key, wire.CancelKey) error { return nil }

func acquire(t *testing.T, p *Pool) *Conn {
	t.Helper()
	c, err := p.Acquire(t.Context(), &Waiter{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run gives pools under a running sweeper, in a bubble of fake time.
func run(t *testing.T, limits Limits, f func(t *testing.T, pools *Pools, dialer *fakes)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		dialer := &fakes{}
		pools := NewPools(dialer, limits)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			_ = pools.Run(ctx)
			close(done)
		}()
		f(t, pools, dialer)
		stop()
		<-done
		synctest.Wait()
		if n := dialer.open.Load(); n != 0 {
			t.Errorf("%d connections are left open", n)
		}
		if n := pools.Open(); n != 0 {
			t.Errorf("the budget counts %d connections at the end", n)
		}
	})
}

func TestPoolReusesNewest(t *testing.T) {
	run(t, Limits{Max: 5, Total: 5}, func(t *testing.T, pools *Pools, dialer *fakes) {
		p := pools.Get(Key{Address: "a"}, "s1")
		a, b := acquire(t, p), acquire(t, p)
		p.Release(a)
		p.Release(b)
		if c := acquire(t, p); c != b {
			t.Error("not the newest")
		} else {
			p.Release(c)
		}
		if dialer.most.Load() != 2 {
			t.Errorf("%d dialled, want 2", dialer.most.Load())
		}
	})
}

func TestPoolWaitsAndGivesUp(t *testing.T) {
	run(t, Limits{Max: 1, Total: 5, Wait: time.Second}, func(t *testing.T, pools *Pools, _ *fakes) {
		p := pools.Get(Key{Address: "a"}, "s1")
		c := acquire(t, p)
		from := time.Now()
		if _, err := p.Acquire(t.Context(), &Waiter{}); !errors.Is(err, ErrFull) {
			t.Errorf("a full pool: %v", err)
		}
		if waited := time.Since(from); waited < time.Second || waited > time.Second+2*expelEvery {
			t.Errorf("waited %v", waited)
		}
		got := make(chan *Conn)
		go func() { got <- acquire(t, p) }()
		synctest.Wait()
		if s := p.Stats(); s.Waiting != 1 || s.Used != 1 {
			t.Errorf("%+v", s)
		}
		p.Release(c)
		if d := <-got; d != c {
			t.Error("the waiter got another connection")
		}
		p.Release(c)
	})
}

// A waiter must get a connection of its own when the one that it waited for turns out to be broken.
func TestBrokenConnectionFreesItsPlace(t *testing.T) {
	run(t, Limits{Max: 1, Total: 1, Wait: time.Minute}, func(t *testing.T, pools *Pools, dialer *fakes) {
		p := pools.Get(Key{Address: "a"}, "s1")
		c := acquire(t, p)
		got := make(chan *Conn)
		go func() { got <- acquire(t, p) }()
		synctest.Wait()
		c.Broken = true
		p.Release(c)
		d := <-got
		if d == c {
			t.Error("a broken connection was used again")
		}
		d.Status = 'T'
		p.Release(d)
		e := acquire(t, p)
		if e == d {
			t.Error("a connection in a transaction was used again")
		}
		p.Release(e)
		if dialer.most.Load() > 1 {
			t.Errorf("%d connections at a time, want 1", dialer.most.Load())
		}
	})
}

func TestBudgetMovesBetweenPools(t *testing.T) {
	run(t, Limits{Max: 5, Total: 2, Wait: time.Minute}, func(t *testing.T, pools *Pools, dialer *fakes) {
		a, b := pools.Get(Key{Address: "a"}, "s1"), pools.Get(Key{Address: "b"}, "s1")
		c, d := acquire(t, a), acquire(t, a)
		a.Release(c) // idle: must make room
		e := acquire(t, b)
		got := make(chan *Conn)
		go func() { got <- acquire(t, b) }()
		synctest.Wait()
		a.Release(d) // in use when b began to starve: must make room as well
		f := <-got
		b.Release(e)
		b.Release(f)
		synctest.Wait()
		if n := dialer.most.Load(); n > 2 {
			t.Errorf("%d connections at a time, the budget is 2", n)
		}
	})
}

func TestDialFailureGivesItsPlaceBack(t *testing.T) {
	run(t, Limits{Max: 1, Total: 1, Wait: time.Second}, func(t *testing.T, pools *Pools, dialer *fakes) {
		p := pools.Get(Key{Address: "a"}, "s1")
		dialer.err = errors.New("no route")
		for range 3 {
			if _, err := p.Acquire(t.Context(), &Waiter{}); !errors.Is(err, dialer.err) {
				t.Fatalf("%v", err)
			}
		}
		dialer.err = nil
		p.Release(acquire(t, p))
	})
}

func TestSweep(t *testing.T) {
	limits := Limits{Min: 1, Max: 5, Total: 5, Idle: 10 * time.Second, Lifetime: time.Hour}
	run(t, limits, func(t *testing.T, pools *Pools, _ *fakes) {
		p := pools.Get(Key{Address: "a"}, "s1")
		a, b, c := acquire(t, p), acquire(t, p), acquire(t, p)
		p.Release(a)
		p.Release(b)
		p.Release(c)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if s := p.Stats(); s.Idle != 1 {
			t.Errorf("%d idle after the idle timeout, want the minimum of 1", s.Idle)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := p.Stats(); s.Idle != 0 {
			t.Errorf("%d idle after the lifetime", s.Idle)
		}
	})
}

// Many sessions over few connections: nobody is forgotten, nobody shares.
func TestPoolUnderLoad(t *testing.T) {
	run(t, Limits{Max: 3, Total: 4, Wait: time.Hour}, func(t *testing.T, pools *Pools, dialer *fakes) {
		var wg sync.WaitGroup
		inUse := sync.Map{}
		for i := range 50 {
			p := pools.Get(Key{Address: string(rune('a' + i%3))}, "s1")
			wg.Go(func() {
				w := &Waiter{}
				for j := range 40 {
					c, err := p.Acquire(t.Context(), w)
					if err != nil {
						t.Error(err)
						return
					}
					if _, taken := inUse.LoadOrStore(c, i); taken {
						t.Error("two sessions have one connection")
					}
					if (i+j)%7 == 0 {
						time.Sleep(time.Millisecond)
					}
					inUse.Delete(c)
					c.Broken = (i+j)%31 == 0
					p.Release(c)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if n := dialer.most.Load(); n > 4 {
			t.Errorf("%d connections at a time, the budget is 4", n)
		}
	})
}

func TestSettingsDifference(t *testing.T) {
	a := NoSettings.With("timezone", "UTC").With("role", "x")
	b := NoSettings.With("search_path", `a, "B'\`)
	for _, test := range []struct {
		from, to *Settings
		want     string
	}{
		{a, a, ""},
		{a, NoSettings.With("role", "x").With("timezone", "UTC"), ""},
		{NoSettings, a, `SELECT pg_catalog.set_config(E'timezone',E'UTC',false);SELECT pg_catalog.set_config(E'role',E'x',false);`},
		{a, b, `RESET "role";RESET "timezone";SELECT pg_catalog.set_config(E'search_path',E'a, "B\'\\',false);`},
		{nil, NoSettings, `RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL;`},
	} {
		if got := test.from.Difference(test.to); got != test.want {
			t.Errorf("from %v to %v:\n got %s\nwant %s", test.from, test.to, got, test.want)
		}
	}
}

func TestStatementsAreShared(t *testing.T) {
	s := NewStatements(100)
	a := s.Intern("SELECT $1", []byte{0, 0, 0, 20}, 1, "")
	if b := s.Intern("SELECT $1", []byte{0, 0, 0, 20}, 1, ""); a != b {
		t.Error("one text has two names")
	}
	for _, other := range []*Statement{s.Intern("SELECT $1", nil, 1, ""), s.Intern("SELECT $1", []byte{0, 0, 0, 20}, 2, ""), s.Intern("SELECT $2", nil, 1, "")} {
		if other.Name == a.Name {
			t.Error("different statements share a name")
		}
	}
	var limits atomic.Pointer[Limits]
	limits.Store(&Limits{Statements: 2})
	c := &Conn{pool: &Pool{limits: &limits}}
	b, d := s.Intern("b", nil, 1, ""), s.Intern("d", nil, 1, "")
	if c.Hold(a) != nil || c.Hold(b) != nil || !c.Has(a) {
		t.Error("two must fit")
	}
	if out := c.Hold(d); out != b {
		t.Errorf("%v had to go, not %v", b, out)
	}
	c.ForgetAll()
	if c.Has(a) || c.Has(d) {
		t.Error("forgotten statements are held")
	}
}
