package mover

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/topology"
)

var (
	// ErrNotPrepared says that there is no progress row, or none of a finished copy: Prepare and Copy come first.
	ErrNotPrepared = errors.New("the move is not prepared")
	// ErrSlotLost says that the replication slot is gone or invalid, as after a failover of the source. What
	// was written since cannot be had from it any more: the move must be copied again.
	ErrSlotLost = errors.New("the replication slot of the move is lost")
	// ErrSlotAhead says that the slot was confirmed beyond the progress stored on the target, as after a
	// failover of the target to a replica that lagged. Transactions between the two are lost to the stream.
	ErrSlotAhead = errors.New("the replication slot is ahead of the target")
	// ErrTakenOver says that another coordinator works on the move.
	ErrTakenOver = errors.New("another coordinator took the move over")
	// ErrOwned says that a side owns the range by its own fence, so that its rows must stay.
	ErrOwned = errors.New("the rows belong to this side")
)

// ErrTruncated says that somebody truncated a moving table: the target has rows that the source has not.
type ErrTruncated struct{ Table topology.TableName }

func (e ErrTruncated) Error() string {
	return fmt.Sprintf("table %s was truncated while its rows moved; the move must be aborted and begun again", e.Table)
}

// ErrSchemaChanged says that a table is not what it was when the move was prepared.
type ErrSchemaChanged struct {
	Table topology.TableName
	What  string
}

func (e ErrSchemaChanged) Error() string {
	return fmt.Sprintf("table %s changed while its rows moved: %s; the move must be aborted and begun again", e.Table, e.What)
}

// ErrNotEmpty says that the target has rows of the range before they were copied.
type ErrNotEmpty struct{ Table topology.TableName }

func (e ErrNotEmpty) Error() string {
	return fmt.Sprintf("the target has rows of the range in table %s", e.Table)
}

// Permanent says whether err ends a move: what it tells of does not go away by calling again. All else
// (a lost connection, a server that restarts, a lock not granted) may be tried again.
func Permanent(err error) bool {
	var truncated ErrTruncated
	var changed ErrSchemaChanged
	var full ErrNotEmpty
	switch {
	case errors.As(err, &truncated), errors.As(err, &changed), errors.As(err, &full):
		return true
	case errors.Is(err, ErrNotPrepared), errors.Is(err, ErrSlotLost), errors.Is(err, ErrSlotAhead), errors.Is(err, ErrTakenOver), errors.Is(err, ErrOwned):
		return true
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || len(pg.Code) != 5 {
		return false
	}
	if pg.Code == "25006" { // a replica refuses to write: it is about to be the primary, or another one is
		return false
	}
	// Connection, resources, operator intervention, locks and serialization pass by themselves.
	switch class := pg.Code[:2]; class {
	case "08", "53", "55", "57", "58", "40":
		return false
	case "28": // wrong password or role: an operator may mend it, but not in the next seconds
		return true
	}
	return !strings.HasPrefix(pg.Code, "XX")
}

func code(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// ended gives ctx's error where it is the reason for err.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
