package topology

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// MoveRecord is one row of the journal of moves. The catalog knows of a move what people ask for; what it must do next is in
// State, which is for the package rebalance.
type MoveRecord struct {
	ID        int64
	Rev       int64 // a row is written only over the one before
	Kind      string
	Source    string // names of shards
	Target    string
	Phase     string
	Done      bool       // read only: it follows from the phase
	Ranges    []KeyRange // Shard does not matter
	Epoch     Epoch      // of its last cutover
	Flipped   Epoch      // read only: with which the owner was last changed; 0: never
	Error     string
	Actor     string // who asked for it
	State     json.RawMessage
	CreatedAt time.Time // read only, as UpdatedAt is
	UpdatedAt time.Time
}

// ErrMoveConflict says that the journal has another revision of a move than the one before. Nothing was written; the move must
// be loaded.
var ErrMoveConflict = errors.New("the journal has another revision of the move")

// ErrMoveOverlap says that some of the key hashes are on their way already.
var ErrMoveOverlap = errors.New("some of these key hashes are moving already; `shardctl moves` shows them")

const movesChannel = "shardproxy_moves"

// AddMoves puts new moves in the journal, all or none, and tells who carries them out. IDs and revisions of the records are set.
func (c *Catalog) AddMoves(ctx context.Context, records []MoveRecord) error {
	err := c.transact(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := readHead(ctx, tx); err != nil {
			return err
		}
		for i := range records {
			if err := insertMove(ctx, tx, &records[i]); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "SELECT pg_notify($1, '')", movesChannel)
		return err
	})
	if err != nil {
		return fmt.Errorf("adding moves to the journal: %w", err)
	}
	return nil
}

func insertMove(ctx context.Context, tx pgx.Tx, r *MoveRecord) error {
	const move = `INSERT INTO shardproxy.moves (kind, source, target, phase, epoch, error, actor, state, rev)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1) RETURNING id, rev`
	err := tx.QueryRow(ctx, move, r.Kind, r.Source, r.Target, r.Phase, int64(r.Epoch), r.Error, r.Actor, []byte(r.State)).Scan(&r.ID, &r.Rev)
	if err != nil {
		return err
	}
	lasts := make([]int64, len(r.Ranges))
	for i, a := range r.Ranges {
		lasts[i] = (a.End - 1).Signed()
	}
	const ranges = "INSERT INTO shardproxy.move_ranges (move_id, first, last) SELECT $1, u.first, u.last FROM unnest($2::bigint[], $3::bigint[]) u(first, last)"
	_, err = tx.Exec(ctx, ranges, r.ID, firsts(r.Ranges), lasts)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.ConstraintName == "move_ranges_do_not_overlap" {
		return ErrMoveOverlap
	}
	return err
}

// SaveMove writes the next revision of a move. It may be repeated if it is not known what came of it. ErrLeaseLost and
// ErrMoveConflict are said where somebody else writes.
func (c *Catalog) SaveMove(ctx context.Context, l Lease, r MoveRecord) error {
	err := c.transact(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := checkLease(ctx, tx, l); err != nil {
			return err
		}
		return updateMove(ctx, tx, l, &r, 0)
	})
	if err != nil {
		return fmt.Errorf("journalling move %d: %w", r.ID, err)
	}
	return nil
}

// updateMove writes a row over the revision before, with the epoch of a flip or 0.
func updateMove(ctx context.Context, tx pgx.Tx, l Lease, r *MoveRecord, flip Epoch) error {
	const update = `UPDATE shardproxy.moves SET phase = $2, epoch = $3, flipped = coalesce(nullif($4::bigint, 0), flipped), error = $5, state = $6,
			token = $7, rev = $8, updated_at = clock_timestamp()
		WHERE id = $1 AND rev = $8 - 1`
	tag, err := tx.Exec(ctx, update, r.ID, r.Phase, int64(r.Epoch), int64(flip), r.Error, []byte(r.State), int64(l.Token), r.Rev)
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		return sameMove(ctx, tx, l, r)
	}
	_, err = tx.Exec(ctx, "UPDATE shardproxy.move_ranges SET open = false WHERE move_id = $1 AND open AND (SELECT done FROM shardproxy.moves WHERE id = $1)", r.ID)
	return err
}

// sameMove says whether the row was written already as r.
func sameMove(ctx context.Context, tx pgx.Tx, l Lease, r *MoveRecord) error {
	const query = `SELECT EXISTS (SELECT FROM shardproxy.moves
		WHERE id = $1 AND rev = $2 AND token = $3 AND phase = $4 AND epoch = $5 AND error = $6 AND state = $7::jsonb)`
	var same bool
	err := tx.QueryRow(ctx, query, r.ID, r.Rev, int64(l.Token), r.Phase, int64(r.Epoch), r.Error, []byte(r.State)).Scan(&same)
	if err == nil && !same {
		return ErrMoveConflict
	}
	return err
}

// CommitForMove makes a change of the topology that a move needs before or after its flip, or to take one back. Otherwise it is Commit, but
// refused where the lease was lost or the journal has another revision of the move: what was asked for before does not come late.
func (c *Catalog) CommitForMove(ctx context.Context, base *Snapshot, change Change, l Lease, move, rev int64, who Actor) (*Snapshot, error) {
	return c.commitWith(ctx, base, change, who, func(tx pgx.Tx) error {
		if err := checkLease(ctx, tx, l); err != nil {
			return err
		}
		var found int64
		err := tx.QueryRow(ctx, "SELECT rev FROM shardproxy.moves WHERE id = $1 FOR SHARE", move).Scan(&found)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && found != rev {
			return ErrMoveConflict
		}
		return err
	})
}

// FlipMove makes a change of the topology and writes the next revision of the move that it belongs to, in one transaction: who
// reads the one knows the other. Otherwise it is Commit. It may be repeated if it is not known what came of it, with the same base.
func (c *Catalog) FlipMove(ctx context.Context, base *Snapshot, change Change, l Lease, r MoveRecord, who Actor) (*Snapshot, error) {
	next, err := c.commitWith(ctx, base, change, who, func(tx pgx.Tx) error {
		if err := checkLease(ctx, tx, l); err != nil {
			return err
		}
		return updateMove(ctx, tx, l, &r, base.Epoch+1)
	})
	if errors.As(err, new(ErrConflict)) {
		return c.flippedBefore(ctx, base, change, l, r, err)
	}
	return next, err
}

// flippedBefore finds out whether an earlier try was what raised the epoch.
func (c *Catalog) flippedBefore(ctx context.Context, base *Snapshot, change Change, l Lease, r MoveRecord, conflict error) (*Snapshot, error) {
	err := c.transact(ctx, readOnly, func(tx pgx.Tx) error { return sameMove(ctx, tx, l, &r) })
	switch {
	case errors.Is(err, ErrMoveConflict):
		return nil, conflict
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
	return base.Apply(change)
}

// LoadMoves gives the moves under way, and with all set those that have ended too, in the order in which they were added.
func (c *Catalog) LoadMoves(ctx context.Context, all bool) (records []MoveRecord, err error) {
	err = c.transact(ctx, readOnly, func(tx pgx.Tx) error {
		if _, err := readHead(ctx, tx); err != nil {
			return err
		}
		records, err = readMoves(ctx, tx, all)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the journal of moves: %w", err)
	}
	return records, nil
}

func readMoves(ctx context.Context, tx pgx.Tx, all bool) (records []MoveRecord, err error) {
	const query = `SELECT m.id, m.rev, m.kind, m.source, m.target, m.phase, m.done, m.epoch, coalesce(m.flipped, 0), m.error, m.actor, m.state,
			m.created_at, m.updated_at, r.firsts, r.lasts
		FROM shardproxy.moves m LEFT JOIN LATERAL (
			SELECT array_agg(first ORDER BY first) AS firsts, array_agg(last ORDER BY first) AS lasts
			FROM shardproxy.move_ranges WHERE move_id = m.id) r ON true
		WHERE $1 OR NOT m.done ORDER BY m.id`
	rows, err := tx.Query(ctx, query, all)
	if err != nil {
		return nil, err
	}
	var r MoveRecord
	var epoch, flipped int64
	var state []byte
	var starts, lasts []int64
	into := []any{
		&r.ID, &r.Rev, &r.Kind, &r.Source, &r.Target, &r.Phase, &r.Done, &epoch, &flipped, &r.Error, &r.Actor, &state,
		&r.CreatedAt, &r.UpdatedAt, &starts, &lasts,
	}
	_, err = pgx.ForEachRow(rows, into, func() error {
		r.Epoch, r.Flipped, r.State = Epoch(epoch), Epoch(flipped), append(json.RawMessage(nil), state...)
		r.Ranges = make([]KeyRange, len(starts))
		for i := range starts {
			r.Ranges[i] = KeyRange{Start: fromSigned(starts[i]), End: fromSigned(lasts[i]) + 1}
		}
		records = append(records, r)
		return nil
	})
	return records, err
}
