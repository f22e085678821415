package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// clients who write, half of them through each proxy.
const clients = 16

// write is one that was made.
type write struct {
	kind  int // of its key
	began time.Time
	took  time.Duration
}

// writers count rows up, at a rate that does not depend on the answers: who had to wait catches up.
type writers struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	made   [clients][]write // by client; to be read once all have ended
	mu     sync.Mutex
	err    error // the first write that failed
}

// write begins to write: every second time in one of the lanes.
func (c *cluster) write(ctx context.Context, rate int) (*writers, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &writers{cancel: cancel}
	begin := time.Now()
	for i := range clients {
		conn, err := pgconn.Connect(ctx, c.Proxies[i%len(c.Proxies)].DSN)
		if err != nil {
			w.stop()
			return nil, err
		}
		w.wg.Go(func() {
			defer conn.Close(context.Background())
			every := time.Second * clients / time.Duration(rate)
			next := begin.Add(every * time.Duration(i) / clients)
			for n := i; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Until(next)):
				}
				next = next.Add(every)
				kind := []int{0, 2, 1, 2}[n%4]
				key := c.keys[kind][(n*7919)%users]
				began := time.Now()
				results, err := conn.Exec(context.WithoutCancel(ctx), fmt.Sprintf("UPDATE accounts SET n = n + 1 WHERE user_id = %d", key)).ReadAll()
				if err == nil && results[0].CommandTag.RowsAffected() != 1 {
					err = fmt.Errorf("%d rows were changed", results[0].CommandTag.RowsAffected())
				}
				if err != nil {
					w.fail(fmt.Errorf("a write of user %d failed: %w", key, err))
					return
				}
				w.made[i] = append(w.made[i], write{kind, began, time.Since(began)})
			}
		})
	}
	return w, nil
}

func (w *writers) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.cancel()
}

func (w *writers) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *writers) stop() {
	w.cancel()
	w.wg.Wait()
}

// sleep lets the writers write for a time.
func (w *writers) sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return w.failed()
	}
}

// all gives what was written, in its order. The writers have been stopped.
func (w *writers) all() (list []write) {
	for _, made := range w.made {
		list = append(list, made...)
	}
	slices.SortFunc(list, func(a, b write) int { return a.began.Compare(b.began) })
	return list
}
