package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/wire"
)

// A transaction is asked for its id before its first write, so that the shard can be asked what became of it where the answer
// to COMMIT is lost (docs/decisions/0012-a-lost-commit-is-looked-up.md).

// identity of a transaction that writes on a shard.
type identity struct {
	xid string // "" where it is not known
	// history of the server: another one after a crash, where ids are given again that had not reached the disk, and
	// on a replica that was promoted.
	history string
}

// historySQL is what makes a history: when statistics were last set to zero, as a crash does and a clean restart does not, and the timeline.
const historySQL = `pg_catalog.to_char(pg_catalog.timezone('UTC', pg_catalog.pg_stat_get_bgwriter_stat_reset_time()), 'YYYYMMDDHH24MISSUS'),
	pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8)`

var identityQuery = &backend.Statement{
	Name: backend.StatementPrefix + "identity", SQL: "SELECT pg_catalog.pg_current_xact_id(), " + historySQL,
}

// identify asks for the id of the lane's transaction in front of its first write. It takes a snapshot, as the write
// itself does: what does not (LOCK, LISTEN) must not come behind one.
func (s *Session) identify(l *lane, t *router.Template) {
	if !l.begun || l.wrote || !t.Write || t.Block || t.Pin || t.Kind != router.Keyed && t.Kind != router.Insert {
		return
	}
	s.sendParse(l, identityQuery, parseHidden)
	l.runOwn(identityQuery.Name, bindNothing, executeIdentity)
}

// fate is what became of a transaction.
type fate uint8

const (
	fateOpen fate = iota // not known yet
	fateCommitted
	fateAborted
	fateUnknown // it will not be known
)

const lookUpEvery = 50 * time.Millisecond

// lookUp asks a shard for the fate of a transaction after the answer to its COMMIT was lost, for as long as a client may wait
// for a backend. It gives nil where the transaction is committed.
func (s *Session) lookUp(ctx context.Context, lost *laneError, tx identity, gid string) error {
	ctx, cancel := context.WithTimeout(ctx, s.srv.now().Pools.Wait)
	defer cancel()
	is, err := s.srv.fateOf(ctx, lost.shard, tx, gid)
	for is == fateOpen && ctx.Err() == nil {
		select {
		case <-time.After(lookUpEvery):
			is, err = s.srv.fateOf(ctx, lost.shard, tx, gid)
		case <-ctx.Done():
		}
	}
	s.logger().Warn("the answer to COMMIT was lost", "shard", lost.shard, "committed", is == fateCommitted, "rolled back", is == fateAborted, "error", err)
	switch is {
	case fateCommitted:
		return nil
	case fateAborted:
		return wire.Errorf(wire.CodeSerializationFailure, "%v", lost).
			WithHint("The connection broke before COMMIT took effect: the transaction was rolled back. Try again.")
	}
	return wire.Errorf(wire.CodeTransactionUnknown, "%v", lost).
		WithHint("The connection broke during COMMIT: whether the transaction took effect is not known.")
}

// fateOf asks the primary of a shard, by the newest map, for the fate of a transaction: by the record of its decision if gid
// names one, else by its id.
func (s *Server) fateOf(ctx context.Context, shard string, tx identity, gid string) (is fate, err error) {
	snap := s.snapshot.Load()
	id, ok := snap.ShardByName(shard)
	switch {
	case !ok:
		return fateUnknown, fmt.Errorf("shard %s is no longer in the map", shard)
	case gid != "":
		committed, err := s.outcome(ctx, snap, id, gid)
		switch {
		case err != nil:
			return fateOpen, err
		case committed:
			return fateCommitted, nil
		}
		return fateAborted, nil
	case tx.xid == "":
		return fateUnknown, nil
	}
	err = s.withService(ctx, snap, id, func(c *backend.Conn) error {
		rows, err := c.Rows(ctx, tx.question())
		is, err = tx.judge(rows, err)
		return err
	})
	return is, err
}

// question about the transaction. A replica refuses it: it may still be told of a commit.
func (tx identity) question() string {
	return "SELECT " + historySQL + ", coalesce(pg_catalog.pg_xact_status(" + quote(tx.xid) + "), '')"
}

// judge reads the answer to question.
func (tx identity) judge(rows [][]string, err error) (fate, error) {
	var refused *wire.Error
	switch {
	case errors.As(err, &refused) && refused.Code == wire.CodeInvalidParameterValue:
		return fateAborted, nil // "is in the future": a crash has lost all that the transaction wrote
	case err != nil:
		return fateOpen, err
	case len(rows) != 1 || len(rows[0]) != 3:
		return fateOpen, errors.New("the answer is not a row of three")
	}
	ours := tx.history == rows[0][0]+" "+rows[0][1]
	switch status := rows[0][2]; {
	case status == "committed" && ours:
		return fateCommitted, nil
	case status == "aborted", status == "in progress" && !ours: // the id is another transaction's by now
		return fateAborted, nil
	case status == "in progress":
		return fateOpen, nil
	}
	return fateUnknown, nil // forgotten, or committed by this transaction or by one that was given its id after a crash
}
