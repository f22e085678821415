package rebalance

import (
	"context"
	"errors"
	"time"

	"shardproxy/rebalance/mover"
)

// flow is a stream that runs beside the tasks of a move, from one stage to the next.
type flow struct {
	stream *mover.Stream
	mover  *mover.Mover // tells its direction
	cancel context.CancelFunc
	over   chan struct{} // closed before anybody is told that it has ended: who begins another one then must not find this one
	done   chan struct{}
}

func (f *flow) ended() bool {
	select {
	case <-f.over:
		return true
	default:
		return false
	}
}

func (f *flow) catchUp(ctx context.Context, lsn LSN) error {
	if f == nil {
		return errors.New("there is no stream")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-f.over: // maybe before it ran, which is what CatchUp waits for
			cancel(errors.New("the stream has ended"))
		case <-ctx.Done():
		}
	}()
	return f.stream.CatchUp(ctx, mover.LSN(lsn))
}

// stream makes a stream run, and with a Seq answers when it has nearly caught up.
func (r *runner) stream(ctx context.Context, e Stream) {
	m := r.direction(&r.m, e.Back)
	if r.flow == nil || r.flow.mover != m || r.flow.ended() {
		r.stopFlow()
		r.startFlow(ctx, e, m)
	}
	if e.Seq == 0 {
		return
	}
	f, move := r.flow, r.m
	r.do(ctx, e.Seq, func(ctx context.Context) (Done, error) {
		for at := range Side(2) {
			if err := r.look(ctx, &move, at); err != nil {
				return Done{}, err
			}
		}
		lsn, err := m.SourceLSN(ctx)
		if err == nil {
			err = f.catchUp(ctx, LSN(lsn))
		}
		return Done{}, err
	})
}

// noStream answers where there is none for want of movers.
func (r *runner) noStream(ctx context.Context, e Stream, err error) {
	r.stopFlow()
	if e.Seq != 0 {
		r.do(ctx, e.Seq, func(context.Context) (Done, error) { return Done{}, err })
		return
	}
	r.after(ctx, retryPauseMax, StreamLost{Guard: r.m.Guard(0), Err: err.Error()})
}

func (r *runner) startFlow(ctx context.Context, e Stream, m *mover.Mover) {
	flowing, cancel := context.WithCancel(ctx)
	f := &flow{stream: m.NewStream(mover.StreamOptions{}), mover: m, cancel: cancel, over: make(chan struct{}), done: make(chan struct{})}
	r.flow = f
	r.streaming.Store(f.stream)
	guard, opened, first, began := r.m.Guard(0), mover.LSN(r.m.OpenedAt), e.Back && !r.m.Reverse, time.Now()
	go func() {
		defer close(f.done)
		defer cancel()
		var err error
		if first { // before the target was opened, only the mover wrote there
			err = m.StartAt(flowing, opened)
		}
		if err == nil {
			err = f.stream.Run(flowing)
		}
		close(f.over)
		if flowing.Err() != nil {
			return
		}
		if e.Back && !mover.Permanent(err) { // it is asked for again at once
			select {
			case <-flowing.Done():
				return
			case <-time.After(streamPause - time.Since(began)):
			}
		}
		text := "it has ended"
		if err != nil {
			text = err.Error()
		}
		r.send(ctx, StreamLost{Guard: guard, Err: text, Final: mover.Permanent(err)})
	}()
}

// streamPause is how long a stream back takes at least, from its beginning to the word that it is lost.
const streamPause = time.Second

func (r *runner) stopFlow() {
	if r.flow == nil {
		return
	}
	r.flow.cancel()
	<-r.flow.done
	r.flow = nil
	r.streaming.Store(nil)
}
