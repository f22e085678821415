package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"shardproxy/wire"
)

// The decision of a two-phase commit is a row in shardproxy.commits on the transaction's first writer. It is
// inserted by the transaction itself, so that its COMMIT is the decision. A row with aborted set is a tombstone:
// whoever recovers puts it there before he rolls back, and a late COMMIT then fails on the primary key.
const (
	gidPrefix   = "shardproxy:"
	commitTable = `CREATE SCHEMA IF NOT EXISTS shardproxy;
GRANT USAGE ON SCHEMA shardproxy TO PUBLIC;
CREATE TABLE IF NOT EXISTS shardproxy.commits (
	gid text PRIMARY KEY,
	at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	aborted boolean NOT NULL DEFAULT false,
	participants text[] NOT NULL DEFAULT '{}'); -- the shards that were prepared
GRANT SELECT, INSERT ON shardproxy.commits TO PUBLIC`
	recoverAfter = 10 * time.Second // a prepared transaction of this age has lost its proxy
	recoverEvery = 5 * time.Second
	recoverMost  = 64          // shards looked at in one round, in turn: each may cost a connection
	forgetAfter  = time.Minute // decision records older than this go, once no participant is prepared any more
	forgetMost   = 1000        // at a time
)

// newGID names a distributed transaction: cluster, first shard, random. What is prepared has the name of its own
// shard behind that: shards may be databases of one server, which knows each name only once.
func (s *Server) newGID(first string) string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return gidPrefix + s.cfg.Cluster + ":" + first + ":" + hex.EncodeToString(id[:])
}

func (s *Session) preparedName(l *lane, gid string) string {
	return quote(gid + ":" + s.shardName(l.shard))
}

// commitTwoPhase commits on all lanes that wrote, or on none.
func (s *Session) commitTwoPhase(ctx context.Context) error {
	var first *lane
	var others, readers []*lane
	for _, l := range s.lanes {
		switch {
		case !l.begun:
		case !l.wrote:
			readers = append(readers, l)
		case first == nil:
			first = l
		case l.shard == 0: // where NOTIFY runs, which PREPARE TRANSACTION does not take
			others = append(others, first)
			first = l
		default:
			others = append(others, l)
		}
	}
	if err := s.srv.recovery.install(ctx, s.srv, s.routes.snap, first.shard); err != nil {
		_ = s.rollback()
		return err
	}
	gid := s.srv.newGID(s.shardName(first.shard))
	prepared, err := s.prepareLanes(others, gid)
	if err != nil {
		s.rollbackPrepared(prepared, gid)
		_ = s.rollback()
		return err
	}
	if err := s.decide(ctx, first, others, gid); err != nil {
		var unknown *wire.Error
		if errors.As(err, &unknown) && unknown.Code == wire.CodeTransactionUnknown {
			s.release(others, readers) // recovery finishes what is prepared
			s.ended(false)
			return err
		}
		s.rollbackPrepared(prepared, gid)
		_ = s.rollback()
		return err
	}
	for _, l := range others {
		l.query("COMMIT PREPARED "+s.preparedName(l, gid), queryHidden)
		_ = l.be.Flush()
	}
	for _, l := range readers {
		l.query("COMMIT", queryHidden)
		_ = l.be.Flush()
	}
	for _, l := range slices.Concat(others, readers) {
		if err := s.drain(l); err != nil {
			// It is decided: the client's COMMIT has succeeded, and recovery finishes it here.
			s.logger().Warn("commit of a prepared transaction is left to recovery", "gid", gid, "error", err)
		}
	}
	s.ended(true)
	return nil
}

// prepareLanes prepares the transaction on each lane, and gives those where it is.
func (s *Session) prepareLanes(lanes []*lane, gid string) (prepared []*lane, err error) {
	for _, l := range lanes {
		if e := s.drain(l); e != nil {
			return nil, e
		}
	}
	if err := s.asLoginUser(lanes); err != nil {
		return nil, err
	}
	for _, l := range lanes {
		l.tag = ""
		l.query("PREPARE TRANSACTION "+s.preparedName(l, gid), queryHidden)
		if e := l.be.Flush(); e != nil {
			_ = s.lost(l, e) // drain finds nothing to read, and the tag is missing
		}
	}
	for _, l := range lanes {
		shard := s.shardName(l.shard)
		e := s.drain(l)
		var server *serverError
		switch {
		case e == nil && l.tag == "PREPARE TRANSACTION":
			l.begun = false
			prepared = append(prepared, l)
			continue
		case e == nil:
			e = wire.Errorf(wire.CodeFailedTransaction, "shard %s rolled the transaction back", shard)
		case errors.As(e, &server) && server.Code == wire.CodeObjectNotInPrerequisite:
			server.Hint = "A transaction over several shards needs max_prepared_transactions above 0 on each of them."
		}
		if err == nil {
			err = e
		}
	}
	return prepared, err
}

// asLoginUser makes the transactions of the lanes the login user's own before they are prepared: what a role has
// prepared, only that role may commit. Deferred constraints are checked first, under the role that wrote.
func (s *Session) asLoginUser(lanes []*lane) error {
	changed := slices.ContainsFunc(s.tx.log, func(e logged) bool { return e.sql != "" && mayChangeRole(e.sql) })
	for _, name := range []string{"role", "session_authorization"} {
		if v, ok := s.settings.Get(name); ok && v != "none" {
			changed = true
		}
	}
	if !changed {
		return nil
	}
	for _, sql := range []string{"SET CONSTRAINTS ALL IMMEDIATE", "RESET SESSION AUTHORIZATION", "RESET ROLE"} {
		for _, l := range lanes {
			l.query(sql, queryHidden)
			if err := s.drain(l); err != nil {
				return err
			}
		}
	}
	for _, l := range lanes {
		l.be.Settings = nil // they are set back when it is used again
		l.joined = nil
	}
	return nil
}

func mayChangeRole(sql string) bool {
	sql = strings.ToLower(sql)
	return strings.Contains(sql, "role") || strings.Contains(sql, "authorization")
}

// decide commits on the first writer, with the record of the decision.
func (s *Session) decide(ctx context.Context, l *lane, others []*lane, gid string) error {
	if err := s.drain(l); err != nil {
		return err
	}
	names := make([]string, len(others))
	for i, o := range others {
		names[i] = quote(s.shardName(o.shard))
	}
	l.query("INSERT INTO shardproxy.commits (gid, participants) VALUES ("+quote(gid)+", ARRAY["+strings.Join(names, ",")+"])", queryHidden)
	if err := s.drain(l); err != nil {
		var server *serverError
		if errors.As(err, &server) && server.Code == wire.CodeUniqueViolation { // a tombstone
			return wire.Errorf(wire.CodeSerializationFailure, "the transaction took too long to commit and was rolled back").WithHint("Try again.")
		}
		return err
	}
	return s.commitLane(ctx, l, gid)
}

func (s *Session) rollbackPrepared(lanes []*lane, gid string) {
	for _, l := range lanes {
		l.query("ROLLBACK PREPARED "+s.preparedName(l, gid), queryHidden)
		if err := s.drain(l); err != nil {
			s.logger().Warn("rollback of a prepared transaction is left to recovery", "gid", gid, "error", err)
		}
	}
}

// release closes lanes whose part of the transaction is not known.
func (s *Session) release(groups ...[]*lane) {
	for _, l := range slices.Concat(groups...) {
		if slices.Contains(s.lanes, l) {
			l.be.Broken = l.be.Broken || l.be.Status != 'I'
			s.drop(l)
		}
	}
}
