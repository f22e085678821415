package topology

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Lease of the coordinator: the right to carry out moves. It ends by the database's clock alone; its holder must count from
// before it asked. What is written under a lease is guarded by the token, so that a holder which does not know yet that
// somebody else has taken over can do no harm.
type Lease struct {
	Holder string
	Token  uint64 // grows with each holder
}

// ErrLeaseLost says that somebody else has become the coordinator. Nothing was written.
var ErrLeaseLost = errors.New("another proxy has become the coordinator of moves")

// ErrLeaseHeld says that somebody else is the coordinator.
type ErrLeaseHeld struct {
	Holder string
	For    time.Duration // how long its lease still lasts, unless it is renewed
}

func (e ErrLeaseHeld) Error() string {
	return fmt.Sprintf("proxy %s coordinates moves, for %v at least", e.Holder, e.For)
}

// TakeLease makes holder the coordinator for a time, if nobody else is. A holder of the same name has to wait as well: it may be an
// earlier process that still acts.
func (c *Catalog) TakeLease(ctx context.Context, holder string, lasts time.Duration) (l Lease, err error) {
	err = c.transact(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := readHead(ctx, tx); err != nil {
			return err
		}
		const take = `UPDATE shardproxy.coordinator SET holder = $1, token = token + 1, expires_at = clock_timestamp() + $2, progress = NULL
			WHERE expires_at <= clock_timestamp() RETURNING token`
		var token int64
		err := tx.QueryRow(ctx, take, holder, lasts).Scan(&token)
		if errors.Is(err, pgx.ErrNoRows) {
			return heldBy(ctx, tx)
		}
		l = Lease{holder, uint64(token)}
		return err
	})
	if err != nil {
		return Lease{}, fmt.Errorf("taking the coordinator's lease: %w", err)
	}
	return l, nil
}

func heldBy(ctx context.Context, tx pgx.Tx) error {
	var held ErrLeaseHeld
	const query = "SELECT holder, greatest(expires_at - clock_timestamp(), interval '0') FROM shardproxy.coordinator"
	if err := tx.QueryRow(ctx, query).Scan(&held.Holder, &held.For); err != nil {
		return err
	}
	return held
}

// RenewLease makes a lease last longer. One that has run out may be renewed as long as nobody has taken it. progress is a JSON document
// for Progress to give; nil leaves the one before.
func (c *Catalog) RenewLease(ctx context.Context, l Lease, lasts time.Duration, progress []byte) error {
	return c.setLease(ctx, "renewing the coordinator's lease", l, lasts, progress)
}

// Progress is what the coordinator told when it renewed its lease; nil where there is none, or it has told nothing.
func (c *Catalog) Progress(ctx context.Context) (progress []byte, err error) {
	err = c.transact(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		const query = "SELECT progress::text FROM shardproxy.coordinator WHERE expires_at > clock_timestamp()"
		err := tx.QueryRow(ctx, query).Scan(&progress)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the progress of moves: %w", err)
	}
	return progress, nil
}

// EndLease gives a lease back, so that nobody has to wait for its end.
func (c *Catalog) EndLease(ctx context.Context, l Lease) error {
	return c.setLease(ctx, "ending the coordinator's lease", l, 0, nil)
}

func (c *Catalog) setLease(ctx context.Context, what string, l Lease, lasts time.Duration, progress []byte) error {
	err := c.transact(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		const set = "UPDATE shardproxy.coordinator SET expires_at = clock_timestamp() + $1, progress = coalesce($3::text::jsonb, progress) WHERE token = $2"
		var text *string
		if progress != nil {
			s := string(progress)
			text = &s
		}
		tag, err := tx.Exec(ctx, set, lasts, int64(l.Token), text)
		if err == nil && tag.RowsAffected() == 0 {
			return ErrLeaseLost
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// checkLease keeps the lease from being taken until the transaction has ended.
func checkLease(ctx context.Context, tx pgx.Tx, l Lease) error {
	var one bool
	err := tx.QueryRow(ctx, "SELECT one FROM shardproxy.coordinator WHERE token = $1 FOR SHARE", int64(l.Token)).Scan(&one)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrLeaseLost
	}
	return err
}
