package proxy

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"shardproxy/backend"
	"shardproxy/fence"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// reply is an answer that a lane still owes for a message that was sent to it.
type reply byte

const (
	parseReply      reply = 'P' // ParseComplete
	parseHidden     reply = 'p'
	parseProbe      reply = 'o' // the same, and an error is the session's to deal with
	bindReply       reply = 'B' // BindComplete
	bindHidden      reply = 'b'
	describeReply   reply = 'D' // [ParameterDescription] RowDescription or NoData
	executeReply    reply = 'E' // rows, then CommandComplete, EmptyQueryResponse or PortalSuspended
	executeTag      reply = 'e' // rows for the client, the tag for the session: one of several shards
	executeHidden   reply = 'x'
	executeIdentity reply = 'i' // its row is lane.identity
	executePull     reply = 'u' // rows for the first of lane.pulls
	describeKept    reply = 'd' // [ParameterDescription] RowDescription or NoData, for lane.params and lane.described
	closeReply      reply = 'C' // CloseComplete
	closeHidden     reply = 'c' // of a statement
	closePortal     reply = 'k' // the same, of the proxy's own portal
	queryReply      reply = 'Q' // a simple Query for the client, up to ReadyForQuery
	queryRows       reply = 'r' // the same, but rows only: not the first of several shards
	queryTag        reply = 't' // the same, but the tag only: the first shard's rows stand for all
	queryHidden     reply = 'q' // a simple Query of the proxy's own: rows go to lane.rows
	syncReply       reply = 'S' // ReadyForQuery

	// Answers of the proxy itself that have their place behind those of the lane: the message's type.
	localParse  reply = '1'
	localBind   reply = '2'
	localClose  reply = '3'
	localNoData reply = 'n'
)

// endsReady says that ReadyForQuery ends the answer, also after an error.
func (r reply) endsReady() bool {
	return r == queryReply || r == queryRows || r == queryTag || r == queryHidden || r == syncReply
}

// undrainedMax bounds what is sent to a backend before its answers are read. It is well below what the
// kernel buffers, so that a backend that is itself blocked in writing to us never blocks us.
const undrainedMax = 32 << 10

// errorMax bounds the messages that are decoded on the way back: errors, notices, tags.
const errorMax = 1 << 20

// lane is one backend in a session's hands, with what was sent to it and not yet answered.
type lane struct {
	shard  topology.ShardID
	be     *backend.Conn
	begun  bool // inside a transaction block that we or the client opened
	wrote  bool // has done something that is not provably read-only in this transaction
	locks  bool // has tables locked in this transaction as who writes does, by what it was asked last; see Session.locks
	synced bool // nothing was sent since the last Sync or simple Query
	failed bool // an error: the server skips all up to Sync
	pinned bool // kept past the transaction
	listen bool // LISTENs
	headed bool // COPY: has been sent the header

	notices bool // hidden queries: their notices are the client's
	silent  bool // what it reports of parameters is not for the client

	identity identity          // of the transaction, where it was asked for
	stamped  topology.Epoch    // by which the transaction that has begun on it writes, 0: not known
	joined   *backend.Settings // that it carried when the transaction began on it
	joinedAt int               // transaction.sequence at that time
	expect   []reply           // oldest first, from next on
	next     int
	parsing  []*backend.Statement // whose ParseComplete is expected, oldest first
	asked    []*prepared          // whose ParameterDescription is expected, oldest first
	closing  []*backend.Statement // whose CloseComplete is expected, oldest first
	undrain  int                  // bytes sent since the answers were last read
	tag      string               // of the last CommandComplete that was kept from the client
	rows     [][]string           // of the hidden queries since it was last emptied
	keepTag  bool                 // queryReply: keep CommandComplete from the client too
	restore  func(*wire.Error)    // see part

	pulls             []*pulledRows // take the rows of executePull, oldest first; without one they are passed over
	params, described []byte        // of describeKept: the types of the parameters, and RowDescription
}

// laneError is a lost or confused backend.
type laneError struct {
	shard string
	err   error
}

func (e *laneError) Error() string {
	return fmt.Sprintf("shard %s: connection lost: %v", e.shard, e.err)
}
func (e *laneError) Unwrap() error { return e.err }

// noBackendError says why a session got no backend. Nothing was sent.
type noBackendError struct{ err error }

func (e *noBackendError) Error() string { return e.err.Error() }
func (e *noBackendError) Unwrap() error { return e.err }

// errSent says that the statement failed and that the client has been told.
var errSent = errors.New("statement failed on the shard")

func (l *lane) pending() bool { return l.next < len(l.expect) }

func (l *lane) await(r reply) { l.expect = append(l.expect, r) }

func (l *lane) pop() {
	l.next++
	if l.next == len(l.expect) {
		l.expect, l.next = l.expect[:0], 0
	}
}

// send appends what build makes to the backend's output.
func (l *lane) send(build func(dst []byte) []byte) {
	n := l.be.Unsent()
	l.be.SetAppended(build(l.be.Append()))
	l.undrain += l.be.Unsent() - n
	l.synced = false
}

// query sends a simple Query of the proxy's own.
func (l *lane) query(sql string, r reply) {
	l.be.SetAppended(wire.AppendQuery(l.be.Append(), sql))
	l.await(r)
	l.be.Unnamed = 0
	l.synced = true
}

// parse sends Parse, and Close of the interned statement that an interned one pushes out.
func (l *lane) parse(st *backend.Statement, r reply) {
	if st.Name != "" {
		if out := l.be.Hold(st); out != nil {
			l.send(func(dst []byte) []byte { return wire.AppendClose(dst, 'S', out.Name) })
			l.await(closeHidden)
			l.closing = append(l.closing, out)
		}
	}
	l.send(func(dst []byte) []byte { return wire.AppendParse(dst, st.Name, st.SQL, st.Types) })
	l.await(r)
	l.parsing = append(l.parsing, st)
}

// sync sends Sync where something was sent since the last.
func (l *lane) sync() {
	if !l.synced {
		l.send(func(dst []byte) []byte { return wire.AppendEmpty(dst, 'S') })
		l.await(syncReply)
		l.synced, l.failed = true, false
	}
}

// stops are the messages of a backend that a session looks at; all others pass.
var (
	stops      = wire.TypesOf("123TntCIsEZSGW")
	stopsQuiet = wire.TypesOf("123TntCIsEZSGWDAN") // hidden queries: the rows too
	stopsQuery = wire.TypesOf("EZSGW")             // a simple Query for the client
	stopsRows  = wire.TypesOf("TCIEZSGW")          // one of several shards
)

// drain reads the answers that the lane owes, and passes on those that are the client's. It returns errSent
// after an ErrorResponse that the client has been given; what was sent up to the next Sync is then void.
func (s *Session) drain(l *lane) error {
	if !l.pending() {
		return nil
	}
	if !l.synced {
		l.be.SetAppended(wire.AppendEmpty(l.be.Append(), 'H'))
	}
	if err := l.be.Flush(); err != nil {
		return s.lost(l, err)
	}
	l.undrain = 0
	var failed error
	for l.pending() {
		err := s.answer(l)
		if err == nil {
			continue
		}
		if _, ok := err.(*serverError); !ok && err != errSent {
			return err
		}
		if failed == nil {
			failed = err
		}
	}
	return failed
}

// answer reads up to the end of the oldest answer that the lane owes.
func (s *Session) answer(l *lane) error {
	want := l.expect[l.next]
	dst, stop := s.client, stops
	switch want {
	case localParse, localBind, localClose, localNoData:
		s.client.SetAppended(wire.AppendEmpty(s.client.Append(), byte(want)))
		if want == localParse {
			s.proven()
		}
		l.pop()
		return nil
	case queryReply:
		stop = stopsQuery
		if l.keepTag {
			stop = stopsRows
		}
	case queryRows:
		stop = stopsRows
	case queryTag:
		dst, stop = nil, stopsRows
	case queryHidden, executeHidden, executePull, executeIdentity:
		dst, stop = nil, stopsQuiet
	}
	if s.muted {
		dst = nil
	}
	var failed error
	for {
		typ, err := l.be.Forward(dst, stop)
		if err != nil {
			return s.streamError(l, err)
		}
		var m []byte
		if m, err = l.be.Next(rowMax(typ)); err != nil {
			return s.lost(l, err)
		}
		switch typ {
		case 'Z':
			l.be.Status = m[5]
			l.pop()
			return failed
		case 'E':
			if failed = s.failedOn(l, m, want); failed == nil {
				failed = errSent
			}
			if _, gone := failed.(*laneError); gone {
				return failed
			}
			if want.endsReady() {
				continue // its ReadyForQuery follows
			}
			l.dropToSync()
			if l.pending() && l.expect[l.next] != syncReply {
				// A simple Query behind BEGIN is passed over too: ReadyForQuery comes for a Sync in its place.
				l.be.SetAppended(wire.AppendEmpty(l.be.Append(), 'S'))
				if err := l.be.Flush(); err != nil {
					return s.lost(l, err)
				}
				l.failed = false
			}
			return failed
		case 'S':
			if l.silent {
				continue
			}
			if err := s.parameterStatus(m); err != nil {
				return s.lost(l, err)
			}
		case 'A', 'N':
			switch {
			case typ == 'A':
				s.late = append(s.late, m...)
			case l.notices:
				s.client.Write(m)
			}
		case 'G':
			if err := s.pump(l, m, want); err != nil {
				return err
			}
		case 'W':
			return s.lost(l, errors.New("the server began a replication stream"))
		default:
			if typ == 'D' && want == executePull {
				if len(l.pulls) == 0 {
					continue
				}
				if err := l.pulls[0].add(m[5:]); err != nil {
					return err
				}
				continue
			}
			if typ == 'D' {
				row, err := wire.DataRow(m[5:])
				if err != nil {
					return s.lost(l, err)
				}
				if want == executeIdentity {
					l.identity = identity{xid: row[0], history: row[1] + " " + row[2]}
				} else {
					l.rows = append(l.rows, row)
				}
				continue
			}
			if s.accept(l, want, typ, m) {
				l.pop()
				return nil
			}
		}
	}
}

func rowMax(typ byte) int {
	if typ == 'T' || typ == 't' || typ == 'D' {
		return 64 << 20
	}
	return errorMax
}

// accept deals with a message that is neither an error nor ReadyForQuery, and says whether it ends the answer.
func (s *Session) accept(l *lane, want reply, typ byte, m []byte) (ends bool) {
	pass := func(visible bool) {
		if visible && !s.muted {
			s.client.Write(m)
		}
	}
	switch typ {
	case '1':
		if len(l.parsing) > 0 {
			l.parsing = append(l.parsing[:0], l.parsing[1:]...)
		}
		pass(want == parseReply)
		if want == parseReply {
			s.proven()
		}
		return want == parseReply || want == parseHidden || want == parseProbe
	case '2':
		pass(want == bindReply)
		if want == bindReply && len(s.binding) > 0 { // an unnamed portal before it only makes it known early
			s.binding = append(s.binding[:0], s.binding[1:]...)
		}
		return want == bindReply || want == bindHidden
	case '3':
		if want == closeHidden && len(l.closing) > 0 {
			l.closing = append(l.closing[:0], l.closing[1:]...)
		}
		pass(want == closeReply)
		return want == closeReply || want == closeHidden || want == closePortal
	case 't':
		if want == describeKept {
			l.params = append([]byte(nil), m[min(7, len(m)):]...)
			return false
		}
		if len(l.asked) > 0 {
			l.asked[0].described = append([]byte(nil), m[min(7, len(m)):]...)
			if l.asked[0].drawn != nil {
				m = l.asked[0].drawn.describe(m)
			}
			l.asked = append(l.asked[:0], l.asked[1:]...)
		}
		pass(want == describeReply)
	case 'T', 'n':
		if want == describeKept {
			l.described = append([]byte(nil), m...)
			return true
		}
		pass(want == describeReply || want == queryReply)
		return want == describeReply
	case 'C', 'I', 's':
		if typ == 'C' && (want != executeReply) {
			if tag, err := wire.QueryText(m[5:]); err == nil {
				l.tag = string(append([]byte(nil), tag...))
			}
		}
		if want == executePull && len(l.pulls) > 0 {
			l.pulls = append(l.pulls[:0], l.pulls[1:]...)
		}
		pass(want == executeReply)
		return want == executeReply || want == executeTag || want == executeHidden || want == executePull || want == executeIdentity
	}
	return false
}

// dropToSync forgets the answers that will not come: the server skips all up to the next Sync.
func (l *lane) dropToSync() {
	l.failed = true
	l.be.Unnamed = 0
	for l.pending() {
		if l.expect[l.next].endsReady() {
			break
		}
		l.pop()
	}
	l.forgetParsing()
}

func (l *lane) forgetParsing() {
	for _, st := range l.parsing {
		l.be.Forget(st)
	}
	l.asked = l.asked[:0]
	for _, st := range l.closing { // passed over: the backend still has it
		l.be.Restore(st)
	}
	l.closing = l.closing[:0]
	l.parsing = l.parsing[:0]
}

// failedOn handles an ErrorResponse: it goes to the client unless it answers something of the proxy's own.
func (s *Session) failedOn(l *lane, m []byte, want reply) error {
	e, err := wire.DecodeError(m[5:])
	if err != nil {
		return s.lost(l, err)
	}
	if e.Severity == "FATAL" || e.Severity == "PANIC" {
		return s.lost(l, e)
	}
	if e.Schema == fence.Schema && e.Constraint == fence.ConstraintEpoch {
		if stale := s.fenced(l, want); stale != nil {
			return stale
		}
	}
	reworded := s.reword(e)
	if want == queryHidden {
		l.be.Epoch = 0 // the SET of the stamp may be what has failed
	}
	if want == queryHidden || want == queryTag || want == executeHidden || want == parseProbe {
		return (*serverError)(e)
	}
	if s.muted {
		return errSent
	}
	s.srv.stats.failed(e.Code)
	if reworded {
		s.client.SetAppended(e.Append(s.client.Append()))
		return errSent
	}
	if l.restore != nil {
		l.restore(e)
		s.filled.restore(e)
		s.client.SetAppended(e.Append(s.client.Append()))
		return errSent
	}
	if len(s.filled.inserted) > 0 && e.Position > 0 {
		s.filled.restore(e)
		s.client.SetAppended(e.Append(s.client.Append()))
		return errSent
	}
	if s.renamed.shift != 0 && e.Position > s.renamed.from {
		e.Position -= s.renamed.shift
		s.client.SetAppended(e.Append(s.client.Append()))
		return errSent
	}
	if strings.Contains(e.Message, backend.StatementPrefix) {
		e.Message = s.clientNames(e.Message)
		s.client.SetAppended(e.Append(s.client.Append()))
		return errSent
	}
	s.client.Write(m)
	return errSent
}

// reword makes of an error that a shard cannot know the reason of what it means for the client.
func (s *Session) reword(e *wire.Error) bool {
	switch {
	case e.Code == wire.CodeQueryCanceled && s.breaksDeadlock():
		s.becomeDeadlock(e)
	case e.Schema == fence.Schema && e.Constraint == fence.ConstraintOwner && s.through:
		// It has waited for as long as a hold lasts. A cutover that is taken back may last longer: its old owner is not widened yet.
		e.Code, e.Message = wire.CodeSerializationFailure, router.Held.Message
		e.Hint = router.Held.Hint
	default:
		return false
	}
	return true
}

// serverError is a shard's answer to a statement of the proxy's own.
type serverError wire.Error

func (e *serverError) Error() string { return (*wire.Error)(e).Error() }

// clientError is a failure to read from or write to the client: the session ends.
type clientError struct{ err error }

func (e *clientError) Error() string { return "client: " + e.err.Error() }
func (e *clientError) Unwrap() error { return e.err }

// clientNames puts the client's names of prepared statements in the place of those that backends know.
func (s *Session) clientNames(message string) string {
	for name, p := range s.prepared {
		if p.statement.Name != "" {
			message = strings.ReplaceAll(message, "\""+p.statement.Name+"\"", "\""+name+"\"")
		}
	}
	return message
}

// streamError tells a broken client from a broken backend after a call that reads one and writes the other.
func (s *Session) streamError(l *lane, err error) error {
	if w, ok := err.(*wire.WriteError); ok {
		return &clientError{w.Err}
	}
	if l.be.Partial() {
		l.be.Broken = true
		return &clientError{err}
	}
	return s.lost(l, err)
}

// lost takes the lane out of the session: its backend is closed.
func (s *Session) lost(l *lane, err error) error {
	if err == io.ErrUnexpectedEOF {
		err = errors.New("the server closed the connection unexpectedly")
	}
	l.be.Broken = true
	if s.tx.open && l.begun {
		s.tx.failed, s.tx.doomed = true, true
	}
	l.expect, l.next, l.parsing = l.expect[:0], 0, l.parsing[:0]
	if l.pinned && s.pooling != SessionPooling {
		s.orphaned = s.shardName(l.shard)
	}
	l.pinned = false
	s.drop(l)
	return &laneError{shard: s.shardName(l.shard), err: err}
}
