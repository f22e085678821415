package mover

import (
	"context"
	"sync"
	"time"
)

// throttle lets a number of units through per second, for all who share it. Who comes waits for the time at which
// what was let through before is paid for; up to a tenth of a second may be had in advance.
type throttle struct {
	perSecond func() int64 // as it is now; 0 for no limit

	mu   sync.Mutex
	paid time.Time
}

func (t *throttle) wait(ctx context.Context, n int) error {
	perSecond := t.perSecond()
	if perSecond <= 0 || n == 0 {
		return ctx.Err()
	}
	each := max(1, 1000*time.Second/time.Duration(perSecond)) // what a thousand units cost
	const advance = 100 * time.Millisecond
	t.mu.Lock()
	now := time.Now()
	if t.paid.Before(now.Add(-advance)) {
		t.paid = now.Add(-advance)
	}
	t.paid = t.paid.Add(time.Duration(n) * each / 1000)
	until := t.paid.Sub(now)
	t.mu.Unlock()
	for end := now.Add(until); until > 0 && t.perSecond() == perSecond; until = time.Until(end) { // another limit counts at once
		if err := pause(ctx, min(until, time.Second)); err != nil {
			return err
		}
	}
	return ctx.Err()
}
