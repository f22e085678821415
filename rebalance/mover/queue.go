package mover

import (
	"context"
	"sync"
)

// queue hands changes from the receiver to the applier, in order. It holds at most limit bytes (one change more, however
// large that is), so that a slow target makes the source's sender wait instead of filling memory.
type queue struct {
	limit int
	more  chan struct{} // has an element when something came
	room  chan struct{} // has an element when something went

	mu     sync.Mutex
	items  []change
	bytes  int
	closed error // why nothing more will come
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// push waits for room.
func (q *queue) push(ctx context.Context, c change) error {
	for {
		q.mu.Lock()
		if q.bytes < q.limit {
			q.items = append(q.items, c)
			q.bytes += c.size
			q.mu.Unlock()
			signal(q.more)
			return nil
		}
		q.mu.Unlock()
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-q.room:
		}
	}
}

// close says why nothing more will come; what is in the queue can still be had.
func (q *queue) close(err error) {
	q.mu.Lock()
	q.closed = err
	q.mu.Unlock()
	signal(q.more)
}

// take gives all that is there and leaves buffer in its place; it waits for something.
func (q *queue) take(ctx context.Context, buffer []change) ([]change, error) {
	for {
		q.mu.Lock()
		items, err := q.items, q.closed
		if len(items) > 0 {
			q.items, q.bytes = buffer[:0], 0
		}
		q.mu.Unlock()
		switch {
		case len(items) > 0:
			signal(q.room)
			return items, nil
		case err != nil:
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-q.more:
		}
	}
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) == 0
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
