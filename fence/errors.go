package fence

import (
	"context"
	"errors"
	"fmt"

	"shardproxy/topology"
)

var (
	// ErrBusy says that a lock could not be had in time. Nothing has been changed; ask again, until a deadline. Autovacuum,
	// a long transaction that writes, or somebody else's change of the fence may be in the way.
	ErrBusy = errors.New("the tables are busy")
	// ErrNotInstalled says that the shard has no fence.
	ErrNotInstalled = errors.New("the shard has no fence; shardctl fence install makes one")
)

// An EpochError says that the fence is for a later map than the caller's, and has been left alone.
type EpochError struct {
	Shard         string
	Fence, Wanted topology.Epoch
}

func (e *EpochError) Error() string {
	return fmt.Sprintf("the fence of shard %s is at epoch %d and does not go back to %d", e.Shard, e.Fence, e.Wanted)
}

// An OtherShardError says that the database holds the fence of another shard: a map leads to the wrong node, or the
// database is a copy.
type OtherShardError struct{ Shard, Found string }

func (e *OtherShardError) Error() string {
	return fmt.Sprintf("the database of shard %s has the fence of shard %s", e.Shard, e.Found)
}

// An IncompleteError says that tables lack triggers, so that [Set] would not hold. [Install] makes them.
type IncompleteError struct{ Problems []Problem }

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("the fence has gaps (%d): %v", len(e.Problems), e.Problems[0])
}

// SQLSTATEs that are acted upon.
const (
	lockNotAvailable = "55P03"
	deadlockDetected = "40P01"
	queryCanceled    = "57014"
	uniqueViolation  = "23505"
)

// sqlState is the SQLSTATE of what a server answered, "" for any other error.
func sqlState(err error) string {
	var answer interface{ SQLState() string }
	if errors.As(err, &answer) {
		return answer.SQLState()
	}
	return ""
}

// busy wraps what stands for ErrBusy. A statement that was given little time was canceled by that, if ctx still lives.
func busy(ctx context.Context, err error, limited bool) error {
	switch state := sqlState(err); {
	case state == lockNotAvailable, state == deadlockDetected, limited && state == queryCanceled && ctx.Err() == nil:
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}
