package mover

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const (
	// queueBytes is how much received data waits for the target.
	queueBytes = 8 << 20
	// An idle stream stores its position after so long, or after so much log, so that the source can forget the log.
	idleFlush      = 10 * time.Second
	idleFlushBytes = 16 << 20
	// carefulBytes is for how much of the log a table's updates are applied one by one after one of them has missed.
	carefulBytes = 16 << 20
	// activePatience is how long a stream waits for the sender of an earlier one to go.
	activePatience = 10 * time.Second
)

// StreamOptions of a stream; the zero value is a good one.
type StreamOptions struct {
	// StopAt, if not 0, ends the stream: all transactions that committed before it are applied, none that did later,
	// but for rows that came into the ranges with TOAST values unchanged and changed again (replace.go).
	StopAt LSN
	// Wait, if not nil, is called before each transaction on the target; it may take its time, such as while
	// replicas of the target lag.
	Wait func(context.Context) error
}

// StreamStatus is how far a stream is. Positions are of the source.
type StreamStatus struct {
	Received LSN // sent by the source
	Applied  LSN // on the target is all that committed before
	Durable  LSN // the same, stored on the target
	// Lag is the bytes of log between Received and Applied.
	Lag          int64
	Changes      int64 // rows written
	Skipped      int64 // rows of other ranges
	Transactions int64 // on the target
	Missed       int64 // updates that found no row, which were then inserted
	// Doubtful rows may have values of later than Applied until the stream comes to their last change (replace.go). None of
	// them is wrong any more once the source stands still and all is applied.
	Doubtful int64
}

// Stream brings what is written to the source to the target. Several goroutines may ask it while it runs.
type Stream struct {
	mover   *Mover
	options StreamOptions

	received, applied, durable                       atomic.Uint64
	changes, skipped, transactions, misses, doubtful atomic.Int64

	watch watch

	careful map[int]LSN // by table: until where updates are applied one by one; only Run touches it

	mu       sync.Mutex
	progress chan struct{} // closed, and made anew, when applied has grown or the stream has ended
	ended    error         // why the last Run ended; nil while it runs and before the first
}

// NewStream starts nothing.
func (m *Mover) NewStream(options StreamOptions) *Stream {
	return &Stream{mover: m, options: options, progress: make(chan struct{}), careful: map[int]LSN{}}
}

// Status may be asked at any time.
func (s *Stream) Status() StreamStatus {
	st := StreamStatus{
		Received: LSN(s.received.Load()), Applied: LSN(s.applied.Load()), Durable: LSN(s.durable.Load()),
		Changes: s.changes.Load(), Skipped: s.skipped.Load(), Transactions: s.transactions.Load(), Missed: s.misses.Load(), Doubtful: s.doubtful.Load(),
	}
	st.Lag = max(0, int64(st.Received)-int64(st.Applied))
	return st
}

// Applied is the position before which all is on the target.
func (s *Stream) Applied() LSN { return LSN(s.applied.Load()) }

// Run streams until ctx or the stream ends. It goes on where the target is, and may be called again after an error
// that is not Permanent. Nil says that StopAt is reached.
func (s *Stream) Run(ctx context.Context) error {
	s.begin()
	var err error
	for again := true; again; {
		err = s.run(ctx)
		var missed errMissed
		if again = errors.As(err, &missed); again {
			// What was sent after that update may depend on it. The transaction is rolled back; from where it began, the updates
			// of that table are applied one by one.
			s.misses.Add(1)
			s.careful[missed.table] = missed.lsn + carefulBytes
		}
	}
	if errors.Is(err, errStopped) {
		err = nil
	}
	if code(err) == "23503" {
		err = fmt.Errorf("a foreign key of the target that is not DEFERRABLE is checked row by row: %w; %w", errNeedsReplica, err)
	}
	s.end(err)
	return err
}

func (s *Stream) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = nil
}

func (s *Stream) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended = err; err == nil {
		s.ended = errStopped
	}
	close(s.progress)
	s.progress = make(chan struct{})
}

func (s *Stream) run(ctx context.Context) error {
	m := s.mover
	target, replica, err := m.writer(ctx, Target)
	if err != nil {
		return err
	}
	defer closeWriter(target)
	if err := m.claim(ctx, target); err != nil {
		return err
	}
	source, err := m.connect(ctx, Source)
	if err != nil {
		return err
	}
	defer source.Close(context.WithoutCancel(ctx))
	p, err := m.readProgress(ctx, target)
	if err == nil && !p.copied {
		err = ErrNotPrepared
	}
	if err != nil {
		return err
	}
	if err := m.takeSlot(ctx, source, p.lsn); err != nil {
		return err
	}
	// From here on the connection is the watch's.
	now, err := s.watch.open(ctx, m, source, p.shape)
	if err != nil {
		return err
	}
	defer s.watch.close()
	a := &applier{mover: m, conn: target, replica: replica, durable: p.lsn, fetch: &fetcher{mover: m}}
	a.careful = func(c *change) bool { return c.lsn <= s.careful[c.table.index] }
	defer a.fetch.close()
	if err := a.loadDoubtful(ctx); err != nil {
		return err
	}
	s.doubtful.Store(int64(len(a.doubtful)))
	tables, err := trackAll(now)
	if err != nil {
		return err
	}
	if a.tables, err = m.onTarget(ctx, target, tables); err != nil {
		return err
	}
	rep, err := m.startReplication(ctx, p.lsn)
	if err != nil {
		return err
	}
	defer closeReplication(rep.conn)
	rep.applied, rep.durable = &s.applied, &s.durable
	s.applied.Store(uint64(p.lsn))
	s.durable.Store(uint64(p.lsn))
	out := newQueue(queueBytes)
	r := &receiver{mover: m, tables: tables, shape: now, relations: map[uint32]*relation{}, resolve: m.resolver(now), out: out, skipped: &s.skipped, stopAt: s.options.StopAt}
	return s.pump(ctx, rep, r, a)
}

// closeWriter ends a session without waiting for a server that does not answer.
func closeWriter(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// pump runs the three goroutines of a stream until one of them ends.
func (s *Stream) pump(ctx context.Context, rep *replication, r *receiver, a *applier) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return rep.report(ctx) })
	g.Go(func() error {
		err := rep.receive(ctx,
			func(data []byte) error { s.sawReceived(rep); return r.message(ctx, data) },
			func(lsn LSN) error { s.sawReceived(rep); return r.idle(ctx, lsn) })
		r.out.close(err) // what was received before is applied first
		if errors.Is(err, errStopped) {
			return nil
		}
		return err
	})
	g.Go(func() error {
		a.start(ctx)
		return s.apply(ctx, r.out, a, rep)
	})
	return g.Wait()
}

func (s *Stream) sawReceived(rep *replication) {
	if n := rep.received.Load(); n > s.received.Load() {
		s.received.Store(n)
	}
}

// apply takes changes from the queue to the target until the stream ends.
func (s *Stream) apply(ctx context.Context, in *queue, a *applier, rep *replication) error {
	flushed := time.Now()
	var buffer []change
	for {
		list, err := in.take(ctx, buffer)
		if err != nil {
			return err
		}
		for i := range list {
			c := &list[i]
			switch {
			case c.kind < commitAt:
				if !a.inTransaction && s.options.Wait != nil {
					err = s.options.Wait(ctx)
				}
				if err == nil {
					err = a.apply(ctx, c)
				}
				s.changes.Add(1)
			case a.inTransaction:
				// Positions may come here, too: between two source transactions that share one on the target.
				last := i == len(list)-1 && in.empty()
				if last || a.changes >= batchChanges || a.bytes >= batchBytes {
					err = s.commit(a, c.lsn, rep)
					flushed = time.Now()
				}
			default:
				s.advance(c.lsn)
				if c.lsn > a.durable && (time.Since(flushed) >= idleFlush || c.lsn-a.durable >= idleFlushBytes) {
					err = s.commit(a, c.lsn, rep)
					flushed = time.Now()
				}
			}
			if err != nil {
				return err
			}
		}
		clear(list)
		buffer = list
	}
}

func (s *Stream) commit(a *applier, lsn LSN, rep *replication) error {
	if err := a.commit(max(lsn, a.durable)); err != nil {
		return err
	}
	s.transactions.Add(1)
	s.doubtful.Store(int64(len(a.doubtful)))
	s.durable.Store(uint64(a.durable))
	s.advance(a.durable)
	signal(rep.wake)
	return nil
}

func (s *Stream) advance(lsn LSN) {
	if uint64(lsn) <= s.applied.Load() {
		return
	}
	s.applied.Store(uint64(lsn))
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.progress)
	s.progress = make(chan struct{})
}

// onTarget looks the tables up on the target.
func (m *Mover) onTarget(ctx context.Context, target *pgx.Conn, tables []*tracked) ([]*tracked, error) {
	there, err := m.readShape(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	var list []*tracked
	for _, k := range tables {
		t := there.byName(k.TableName)
		if t == nil {
			return nil, ErrSchemaChanged{k.TableName, "it is gone from the target"}
		}
		if what := differentColumns(k.table, t); what != "" {
			return nil, ErrSchemaChanged{k.TableName, "on the target, " + what}
		}
		list = append(list, k.onTarget(t))
	}
	return list, nil
}

// takeSlot sees to it that the slot is there, free, and not ahead of the target.
func (m *Mover) takeSlot(ctx context.Context, source *pgx.Conn, lsn LSN) error {
	ctx, cancel := context.WithTimeoutCause(ctx, activePatience, fmt.Errorf("replication slot %s stays active", m.name))
	defer cancel()
	const look = `SELECT active, coalesce(confirmed_flush_lsn, '0/0') > $2::text::pg_lsn, coalesce(wal_status, '') = 'lost', database = current_database()
		FROM pg_replication_slots WHERE slot_name = $1`
	for {
		var active, ahead, lost, here bool
		switch err := source.QueryRow(ctx, look, m.name, lsn.String()).Scan(&active, &ahead, &lost, &here); {
		case errors.Is(err, pgx.ErrNoRows):
			return ErrSlotLost
		case err != nil:
			return ended(ctx, err)
		case lost || !here:
			return ErrSlotLost
		case !active && ahead:
			return ErrSlotAhead
		case !active:
			return nil
		}
		if err := m.endSender(ctx, source); err != nil {
			return fmt.Errorf("ending an earlier stream of %s: %w", m.name, ended(ctx, err))
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}
