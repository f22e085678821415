package rebalance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"shardproxy/fence"
	"shardproxy/rebalance/mover"
	"shardproxy/topology"
)

// runner carries out one move: it takes events in, one after the other, and begins the effects that follow from them.
type runner struct {
	c      *Coordinator
	lease  topology.Lease
	log    *slog.Logger
	events chan taken
	done   chan struct{} // closed when run has ended
	of     Move          // as it was first: what never changes is read from here, from any goroutine
	status atomic.Pointer[Status]
	handed int64 // the last order, by its number; belongs to the coordinator

	// The fields below belong to the goroutine of run.
	m       Move
	there   *mover.Mover // source to target
	back    *mover.Mover
	task    *work // what the move waits for
	flow    *flow
	answers []answer // that the catalog has not taken yet
	clock   stopwatch

	// Those below belong to the task, of which there is one at a time.
	sides     [2]*side
	nodes     [2]topology.Node   // that they are
	base      *topology.Snapshot // the map with the hold, which the flip changes
	heldAt    time.Time
	copying   *mover.Snapshot
	views     [2]*mover.Frozen
	fences    [2]*prepared
	suspended atomic.Bool

	chunks, chunksTotal atomic.Int64 // of the copy
	copyBegan           atomic.Int64 // in nanoseconds since 1970; 0: none runs
	lagging             atomic.Pointer[string]
	waits               atomic.Pointer[[]string] // transactions that a new slot waits for; nil: none is being made
	streaming           atomic.Pointer[mover.Stream]
}

// taken is an event, with the number of the order in the catalog if it is one.
type taken struct {
	event Event
	order int64
}

// answer to an order.
type answer struct {
	order   int64
	refusal string
}

// Status of a move under way.
type Status struct {
	Move    Move
	Told    bool          // by the coordinator: of Move there are ID, Rev, Task, Error, Blockers, Alarmed, Rows and Bytes
	Lag     int64         // bytes of log that the stream is behind; -1: it does not run
	Copied  int64         // chunks
	Chunks  int64         // that there are
	Copying time.Duration // since the copy began; 0: none runs
	// Throttle says what slows the copy down or keeps it waiting, "" if nothing does.
	Throttle string
}

// work is one effect that is being carried out.
type work struct {
	cancel context.CancelFunc
	done   chan struct{}
}

const eventsMax = 256 // answers, timers, progress: a move makes a few at a time

func newRunner(c *Coordinator, lease topology.Lease, m Move) *runner {
	r := &runner{
		c: c, lease: lease, of: m, m: m, events: make(chan taken, eventsMax), done: make(chan struct{}),
		log: c.cfg.Log.With("move", int64(m.ID), "source", m.Source, "target", m.Target),
	}
	r.status.Store(&Status{Move: m})
	return r
}

func (r *runner) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// order gives an operator's order to the move, once.
func (r *runner) order(ctx context.Context, o Order, id int64) {
	if id <= r.handed { // its answer is on the way
		return
	}
	r.handed = id
	select {
	case r.events <- taken{o, id}:
	case <-r.done:
	case <-ctx.Done():
	}
}

// send gives an event to the move. It is called by tasks, streams and timers.
func (r *runner) send(ctx context.Context, e Event) {
	select {
	case r.events <- taken{event: e}:
	case <-ctx.Done():
	}
}

// run carries the move out until it has ended. An error means that the coordinator must stop: it has lost its lease. Where the journal
// has gone on without this runner, as by a flip of which nobody heard, the coordinator takes the move up anew.
func (r *runner) run(ctx context.Context) error {
	defer close(r.done)
	err := r.carryOut(ctx)
	if errors.Is(err, topology.ErrMoveConflict) {
		r.log.Warn("the move is taken up again from the journal", "reason", err)
		return nil
	}
	return err
}

func (r *runner) carryOut(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer r.cleanUp()
	var watching sync.WaitGroup
	watching.Go(func() { r.watch(ctx) })
	defer watching.Wait()
	defer cancel()
	m, effects := Resume(r.m, r.lease.Token)
	if err := r.become(ctx, m, effects, 0); err != nil {
		return err
	}
	for !r.m.State.Terminal() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case t := <-r.events:
			before := r.m.State
			m, effects := Step(r.m, t.event)
			if err := r.become(ctx, m, effects, t.order); err != nil {
				return err
			}
			if m.State != before {
				r.log.Info("move", "state", m.State, "task", m.Task, "reason", m.Error)
			}
		}
	}
	return nil
}

// become takes the next value of the move and begins its effects, in their order.
func (r *runner) become(ctx context.Context, m Move, effects []Effect, order int64) error {
	stage := r.m.Stage
	if r.clock.step(&r.m, &m, time.Now()) {
		r.log.Info("cutover", append([]any{"flips", m.Flips, "reason", m.Error, "pause", m.Pause.Round(10 * time.Microsecond)}, r.clock.parts...)...)
		r.c.cfg.Catalog.Cool()
	}
	r.m = m
	if m.Stage != stage {
		r.stopFlow()
		if m.State == Prepared { // the copy begins anew, maybe of other tables
			r.endTask()
			r.there, r.back = nil, nil
		}
	}
	refusal := ""
	for _, e := range effects {
		switch e := e.(type) {
		case Journal:
			if err := r.journal(ctx); err != nil {
				return err
			}
		case Refuse:
			refusal = e.Why
		default:
			r.begin(ctx, e)
		}
	}
	if order != 0 {
		r.answers = append(r.answers, answer{order, refusal})
	}
	if err := r.answer(ctx); err != nil {
		return err
	}
	r.c.settle(&r.m)
	r.publish()
	return nil
}

// answer says what became of orders. What the catalog does not take is said again with the next event.
func (r *runner) answer(ctx context.Context) error {
	for len(r.answers) > 0 {
		err := r.c.cfg.Catalog.AnswerMoveOrder(ctx, r.lease, r.answers[0].order, r.answers[0].refusal)
		if errors.Is(err, topology.ErrLeaseLost) {
			return err
		}
		if err != nil {
			r.log.Warn("an order for a move was followed, but not answered", "error", err)
			return nil
		}
		r.answers = r.answers[1:]
	}
	return nil
}

// journal stores the move. Nothing goes on before that: while the catalog is away, it is tried again.
func (r *runner) journal(ctx context.Context) error {
	record, err := r.m.Record()
	if err != nil {
		return err
	}
	for {
		err := r.c.cfg.Catalog.SaveMove(ctx, r.lease, record)
		if err == nil || errors.Is(err, topology.ErrLeaseLost) || errors.Is(err, topology.ErrMoveConflict) {
			return err
		}
		r.log.Warn("the journal of moves cannot be written", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryPause):
		}
	}
}

func (r *runner) publish() {
	r.status.Store(&Status{Move: r.m})
}

// now is what the move is doing at this moment.
func (r *runner) now() Status {
	st := *r.status.Load()
	st.Lag, st.Copied, st.Chunks = -1, r.chunks.Load(), r.chunksTotal.Load()
	if began := r.copyBegan.Load(); began != 0 {
		st.Copying = time.Since(time.Unix(0, began))
		if limit := r.c.cfg.Limits().BytesPerSecond; limit > 0 {
			st.Throttle = fmt.Sprintf("at most %.1f MB/s", float64(limit)/1e6)
		}
		if lagging := r.lagging.Load(); lagging != nil {
			st.Throttle = *lagging
		}
	}
	if waits := r.waits.Load(); waits != nil {
		st.Move.Blockers = *waits
	}
	if stream := r.streaming.Load(); stream != nil {
		st.Lag = stream.Status().Lag
	}
	return st
}

// begin begins one effect.
func (r *runner) begin(ctx context.Context, e Effect) {
	switch e := e.(type) {
	case Timer:
		r.after(ctx, e.After, TimedOut{e.Seq})
	case BudgetTimer:
		r.after(ctx, e.After, BudgetOver{e.Epoch})
	case Alarm:
		r.log.Error("a move needs somebody to look at it", "reason", e.Text)
	case Suspend:
		r.suspended.Store(e.On)
	case Stream:
		if err := r.ready(); err != nil {
			r.noStream(ctx, e, err)
			return
		}
		r.stream(ctx, e)
	case Preflight, Prepare: // by the tables that there are now
		r.endTask()
		r.there, r.back = nil, nil
		seq, f := r.effect(e)
		r.do(ctx, seq, f)
	case Copy:
		r.suspended.Store(r.m.Paused) // the copy before may have been stopped in its place
		seq, f := r.effect(e)
		r.do(ctx, seq, f)
	default:
		seq, f := r.effect(e)
		r.do(ctx, seq, f)
	}
}

func (r *runner) after(ctx context.Context, d time.Duration, e Event) {
	time.AfterFunc(d, func() { r.send(ctx, e) }) // one that comes too late is ignored
}

// do carries out an effect in the background, in the place of the one before, and answers with Done or Failed.
func (r *runner) do(ctx context.Context, seq uint64, f func(ctx context.Context) (Done, error)) {
	before := r.task
	if before != nil {
		before.cancel()
	}
	working, cancel := context.WithCancel(ctx)
	w := &work{cancel: cancel, done: make(chan struct{})}
	r.task = w
	go func() {
		defer close(w.done)
		defer cancel()
		if before != nil {
			<-before.done
		}
		done, err := f(working)
		if working.Err() != nil {
			return // nobody waits for it any more
		}
		done.Seq = seq
		if err == nil {
			r.send(ctx, done)
			return
		}
		r.log.Debug("an effect of a move has failed", "seq", seq, "error", err)
		r.send(ctx, failure(seq, err))
	}()
}

// failure words an error as the answer to an effect.
func failure(seq uint64, err error) Event {
	var blocked blockedError
	var differs differsError
	var late *fence.EpochError
	switch {
	case errors.As(err, &blocked):
		return Blocked{seq, blocked}
	case errors.As(err, &differs):
		return Differs{seq, string(differs)}
	}
	f := Failed{Seq: seq, Err: err.Error(), Final: mover.Permanent(err) || errors.Is(err, errFinal)}
	if errors.As(err, &late) {
		f.Fence = late.Fence
	}
	return f
}

// errFinal is in errors that asking again will not mend.
var errFinal = errors.New("this will not change by itself")

// blockedError names what would keep a fence waiting.
type blockedError []string

func (e blockedError) Error() string { return fmt.Sprintf("blocked by %v", []string(e)) }

// differsError says where the rows of the two shards differ.
type differsError string

func (e differsError) Error() string { return string(e) }

// endTask waits for the task to end, which is told to.
func (r *runner) endTask() {
	if r.task != nil {
		r.task.cancel()
		<-r.task.done
		r.task = nil
	}
}

// cleanUp ends all that the runner has begun.
func (r *runner) cleanUp() {
	r.endTask()
	r.stopFlow()
	r.coolDown()
	r.closeCopy()
	if r.m.State.InCutover() {
		r.c.cfg.Catalog.Cool()
	}
	for _, s := range r.sides {
		if s != nil {
			s.close()
		}
	}
}
