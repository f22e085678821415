package topology

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Commit applies a change to base, which must be the newest snapshot, and stores the result in one transaction. Where the catalog
// is at another epoch nothing is done, and the error is ErrConflict.
//
// If the connection breaks while the transaction ends, Commit asks the catalog what came of it. Only when that fails too the
// error is ErrOutcomeUnknown.
func (c *Catalog) Commit(ctx context.Context, base *Snapshot, change Change, who Actor) (*Snapshot, error) {
	return c.commitWith(ctx, base, change, who, nil)
}

// commitWith is Commit, and what also does, if it is not nil, in the same transaction: both or none. A move's is on the connection that was
// opened for it.
func (c *Catalog) commitWith(ctx context.Context, base *Snapshot, change Change, who Actor, also func(tx pgx.Tx) error) (*Snapshot, error) {
	next, err := base.Apply(change)
	if err != nil {
		return nil, err
	}
	ended := false // the transaction was about to
	commit := func(tx pgx.Tx) error {
		err := store(ctx, tx, base, next, change, who)
		if err == nil && also != nil {
			err = also(tx)
		}
		ended = err == nil
		return err
	}
	if also != nil {
		err = c.transactWarm(ctx, commit)
	} else {
		err = c.transact(ctx, pgx.TxOptions{}, commit)
	}
	if err != nil && ended && !refusedByServer(err) {
		err = c.resolve(ctx, next, who, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", change, err)
	}
	return next, nil
}

// ErrOutcomeUnknown says that a change was made or not: the topology must be loaded to see.
var ErrOutcomeUnknown = errors.New("the catalog could not be asked whether the change was made")

// resolve finds out whether a transaction of ours was committed that ended with err.
func (c *Catalog) resolve(ctx context.Context, next *Snapshot, who Actor, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), catalogConnectTimeout)
	defer cancel()
	made := false
	failed := c.transact(ctx, readOnly, func(tx pgx.Tx) error {
		const query = "SELECT EXISTS (SELECT FROM shardproxy.changes WHERE epoch = $1 AND checksum = $2 AND actor = $3 AND origin = $4)"
		return tx.QueryRow(ctx, query, int64(next.Epoch), int64(next.sum), who.User, who.From).Scan(&made)
	})
	switch {
	case failed != nil:
		return fmt.Errorf("%w: %w: %w", ErrOutcomeUnknown, err, failed)
	case made:
		return nil
	}
	return err
}

// store writes what differs between base and next. The first statement locks the head of the catalog, so that changes
// come one after the other, and finds no row where another one was first.
func store(ctx context.Context, tx pgx.Tx, base, next *Snapshot, change Change, who Actor) error {
	head, err := readHead(ctx, tx)
	if err != nil {
		return err
	}
	if head.cluster != base.Cluster {
		return ErrExists{head.cluster}
	}
	const cas = `UPDATE shardproxy.meta SET epoch = $1, checksum = $2, key_columns = $3, refuse_unlisted = $4 WHERE epoch = $5 AND checksum = $6`
	tag, err := tx.Exec(ctx, cas, int64(next.Epoch), int64(next.sum), notNil(next.Rules.Columns), next.Rules.RefuseUnlisted, int64(base.Epoch), int64(base.sum))
	if err != nil {
		return err
	}
	if tag.RowsAffected() == 0 {
		if head, err = readHead(ctx, tx); err != nil {
			return err
		}
		if head.epoch == base.Epoch {
			return fmt.Errorf("the catalog and this proxy disagree on epoch %d (checksums %016x and %016x): load the topology again", base.Epoch, head.checksum, base.sum)
		}
		return ErrConflict{Have: head.epoch, Want: base.Epoch}
	}
	d := difference(base, next)
	if err := d.storeRules(ctx, tx, next); err != nil {
		return err
	}
	batch := &pgx.Batch{} // one round trip: clients may wait
	d.queue(batch, next)
	queueChange(batch, next, next.Delta(change).Encode(), change.String(), who)
	batch.Queue("SET CONSTRAINTS ALL IMMEDIATE") // fail here, not in the COMMIT
	return tx.SendBatch(ctx, batch).Close()
}

// Epoch asks for the newest epoch.
func (c *Catalog) Epoch(ctx context.Context) (epoch Epoch, err error) {
	err = c.transact(ctx, readOnly, func(tx pgx.Tx) error {
		head, err := readHead(ctx, tx)
		epoch = head.epoch
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("asking the catalog for its epoch: %w", err)
	}
	return epoch, nil
}
