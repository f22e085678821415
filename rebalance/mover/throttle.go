package mover

import (
	"context"
	"sync"
	"time"
)

// throttle lets a number of units through per second, for all who share it. Who comes waits for the time at which
// what was let through before is paid for; up to a tenth of a second may be had in advance.
type throttle struct {
	each time.Duration // what a thousand units cost; 0 for no limit

	mu   sync.Mutex
	paid time.Time
}

// newThrottle has no limit for 0.
func newThrottle(perSecond int64) *throttle {
	t := &throttle{}
	if perSecond > 0 {
		t.each = max(1, 1000*time.Second/time.Duration(perSecond))
	}
	return t
}

func (t *throttle) wait(ctx context.Context, n int) error {
	if t.each == 0 || n == 0 {
		return ctx.Err()
	}
	const advance = 100 * time.Millisecond
	t.mu.Lock()
	now := time.Now()
	if t.paid.Before(now.Add(-advance)) {
		t.paid = now.Add(-advance)
	}
	t.paid = t.paid.Add(time.Duration(n) * t.each / 1000)
	until := t.paid.Sub(now)
	t.mu.Unlock()
	if until <= 0 {
		return ctx.Err()
	}
	return pause(ctx, until)
}
