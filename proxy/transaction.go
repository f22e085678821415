package proxy

import (
	"context"
	"slices"
	"strings"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// transaction is the session's transaction block.
//
//	        BEGIN                 an error
//	none ──────────► open ────────────────► failed
//	  ▲ COMMIT, ROLLBACK │ ▲ ROLLBACK TO      │
//	  └──────────────────┘ └──────────────────┘ (ROLLBACK, COMMIT: none)
//
// It is implicit where no BEGIN of the client opened it: several statements in one simple Query, or a
// statement or pipeline that writes on several shards.
type transaction struct {
	open, failed, implicit bool
	doomed                 bool              // a shard that took part has been lost: nothing but ROLLBACK can follow
	log                    []logged          // what a lane that joins must be told, oldest first
	sequence               int               // of the newest entry; only grows
	local                  *backend.Settings // what SET LOCAL has set of the parameters that we look at, or nil
	before                 *backend.Settings
	cursors                map[string]topology.ShardID
	isolation              string // as PostgreSQL calls it, "" where no shard was asked
	everywhere             bool   // it has done something on all shards, or tried to
	untold                 error  // what has failed it between two statements: the next one says so
}

// logged is one statement that every lane of the transaction must have seen.
type logged struct {
	sql       string
	savepoint string // its name, where the statement is a SAVEPOINT
	mode      bool   // it sets the transaction's isolation level, or whether that is read-only or deferrable
	sequence  int
	settings  *backend.Settings // of the session, at that time
	local     *backend.Settings
}

// note adds a statement to the log.
func (t *transaction) note(e logged) {
	t.sequence++
	e.sequence, e.local = t.sequence, t.local
	t.log = append(t.log, e)
}

func (t *transaction) begin(sql string, settings *backend.Settings) {
	t.open, t.failed, t.implicit, t.doomed = true, false, false, false
	t.log, t.sequence, t.local = append(t.log[:0], logged{sql: sql}), 0, nil
	t.before, t.isolation, t.everywhere, t.untold = settings, "", false, nil
	clear(t.cursors)
}

func (t *transaction) end() {
	t.open, t.failed, t.implicit, t.doomed, t.before, t.everywhere = false, false, false, false, nil, false
	t.log, t.local, t.untold = t.log[:0], nil, nil
}

// tell gives what the client has not been told.
func (t *transaction) tell() error {
	err := t.untold
	t.untold = nil
	return err
}

func (t *transaction) fail() {
	t.untold = nil // it is told of another error
	if t.open {
		t.failed = true
	}
}

func (t *transaction) status() byte {
	switch {
	case !t.open || t.implicit:
		return 'I'
	case t.failed:
		return 'E'
	default:
		return 'T'
	}
}

// prelude is what a lane that joins is told first.
func (t *transaction) prelude() string {
	if len(t.log) == 1 {
		return t.log[0].sql
	}
	var sql strings.Builder
	for _, e := range t.log {
		sql.WriteString(e.sql)
		sql.WriteByte(';')
	}
	return sql.String()
}

func (t *transaction) savepoint(name string) int {
	for i := len(t.log) - 1; i >= 0; i-- {
		if t.log[i].savepoint == name {
			return i
		}
	}
	return -1
}

// control runs a transaction control statement.
func (s *Session) control(ctx context.Context, t *router.Template, sql string) error {
	switch t.Tx.Verb {
	case router.Begin:
		return s.begin(sql)
	case router.Commit, router.Rollback:
		return s.finish(ctx, t)
	default:
		return s.savepoint(t, sql)
	}
}

func (s *Session) begin(sql string) error {
	verb, _, _ := strings.Cut(strings.TrimLeft(sql, " \t\r\n"), " ")
	tag := "BEGIN"
	if strings.EqualFold(verb, "start") {
		tag = "START TRANSACTION"
	}
	if s.tx.open && s.tx.failed {
		return errAborted()
	}
	if s.tx.open && !s.tx.implicit {
		s.notice(wire.SeverityWarning, wire.CodeActiveTransaction, "there is already a transaction in progress")
		s.complete(tag)
		return nil
	}
	if s.tx.open { // an implicit block becomes an explicit one
		s.tx.implicit = false
		s.complete(tag)
		return nil
	}
	if err := s.promote(); err != nil {
		return err
	}
	lanes := len(s.lanes)
	s.tx.begin(strings.TrimRight(strings.Clone(sql), "; \t\r\n"), s.settings)
	if lanes == 0 {
		s.complete(tag)
		return nil
	}
	// Statements of the same pipeline came before BEGIN: they are part of the transaction now.
	for _, l := range slices.Clone(s.lanes) {
		if l.pinned && l.synced && !l.begun {
			continue // it joins when it is used
		}
		if err := s.enter(l); err != nil {
			return err
		}
	}
	s.complete(tag)
	return nil
}

// promote opens a transaction block on every lane that has run something since its last Sync, so that what it
// did can be committed, or rolled back, together with other shards.
func (s *Session) promote() error {
	for _, l := range s.lanes {
		if l.synced || l.begun {
			continue
		}
		l.execute("BEGIN")
		l.begun, l.joined, l.stamped = true, l.be.Settings, l.be.Epoch
		if err := s.drain(l); err != nil {
			return err
		}
	}
	return nil
}

// ownPortal is the portal of the proxy's own statements: the client's unnamed one must stay.
const ownPortal = backend.StatementPrefix + "portal"

// bindNothing is a Bind behind the names: of no parameters, and a result in text.
var bindNothing = []byte{0, 0, 0, 0, 0, 0}

// runOwn runs a statement that the lane knows in a portal of the proxy's own. bind is its Bind behind the names; r says what its rows are for.
func (l *lane) runOwn(statement string, bind []byte, r reply) {
	l.send(func(dst []byte) []byte {
		dst = wire.AppendBind(dst, ownPortal, statement, bind)
		dst = wire.AppendExecute(dst, ownPortal, 0)
		return wire.AppendClose(dst, 'P', ownPortal)
	})
	l.await(bindHidden)
	l.await(r)
	l.await(closePortal)
}

// execute runs a statement of the proxy's own between the client's, by the extended protocol and without Sync.
func (l *lane) execute(sql string) {
	l.parse(&backend.Statement{SQL: sql}, parseHidden)
	l.runOwn("", bindNothing, executeHidden)
	l.be.Unnamed = 0
}

// beginImplicit opens a transaction that the client did not open, with what its pipeline has done already.
func (s *Session) beginImplicit() error {
	if err := s.promote(); err != nil {
		return err
	}
	everywhere := s.tx.everywhere // by the statement that it is opened for
	s.tx.begin("BEGIN", s.settings)
	s.tx.implicit, s.tx.everywhere = true, everywhere
	return nil
}

// holdPipeline sees to it that a simple Query of the proxy's own does not commit what a pipeline has done so far.
func (s *Session) holdPipeline() error {
	if s.tx.open || !s.hasUnsynced() {
		return nil
	}
	return s.beginImplicit()
}

func errAborted() *wire.Error {
	return wire.Errorf(wire.CodeFailedTransaction, "current transaction is aborted, commands ignored until end of transaction block")
}

// finish runs COMMIT or ROLLBACK, with AND CHAIN too.
func (s *Session) finish(ctx context.Context, t *router.Template) error {
	commit := t.Tx.Verb == router.Commit
	if !s.tx.open || (s.tx.implicit && len(s.lanes) == 0) {
		if t.Tx.Chain {
			return wire.Errorf(wire.CodeNoActiveTransaction, "%s AND CHAIN can only be used in transaction blocks", verbName(commit))
		}
		s.notice(wire.SeverityWarning, wire.CodeNoActiveTransaction, "there is no transaction in progress")
		if s.hasUnsynced() && !commit {
			if err := s.abortUnsynced(); err != nil {
				return err
			}
		}
		s.tx.end()
		s.complete(verbName(commit))
		return nil
	}
	if s.tx.implicit {
		s.notice(wire.SeverityWarning, wire.CodeNoActiveTransaction, "there is no transaction in progress")
	}
	done := commit && !s.tx.failed
	modes := s.tx.modes(done)
	var err error
	if done {
		err = s.commit(ctx)
	} else {
		err = s.rollback()
	}
	if err != nil {
		return err
	}
	if t.Tx.Chain {
		s.tx.begin("BEGIN", s.settings)
		s.tx.log = append(s.tx.log[:0], modes...)
	}
	s.complete(verbName(done))
	return nil
}

// modes gives what AND CHAIN begins a transaction with: BEGIN, and what has set the modes of this one. As in PostgreSQL, those that an
// error or the end of a savepoint has undone by then are lost, also where BEGIN itself has set them.
func (t *transaction) modes(committed bool) []logged {
	begin, rest := t.log[0], t.log[1:]
	if i := slices.IndexFunc(rest, func(e logged) bool { return e.savepoint != "" }); i >= 0 && !committed {
		rest = rest[:i]
	} else if t.failed {
		begin.sql, rest = "BEGIN", nil
	}
	modes := []logged{begin}
	for _, e := range rest {
		if e.mode {
			modes = append(modes, e)
		}
	}
	return modes
}

func verbName(commit bool) string {
	if commit {
		return "COMMIT"
	}
	return "ROLLBACK"
}

// commit commits on every lane: in one phase where at most one has written, else in two.
// On an error nothing is committed, unless the error says that this is not known.
func (s *Session) commit(ctx context.Context) error {
	writers := 0
	var writer *lane
	for _, l := range s.lanes {
		if l.begun && l.wrote {
			writers++
			writer = l
		}
	}
	if writers > 1 {
		return s.commitTwoPhase(ctx)
	}
	if writer != nil {
		if err := s.commitLane(ctx, writer, ""); err != nil {
			_ = s.rollback()
			return err
		}
	}
	for _, l := range slices.Clone(s.lanes) {
		if l.begun && l != writer {
			l.query("COMMIT", queryHidden)
		}
	}
	var failed error
	for _, l := range slices.Clone(s.lanes) {
		if err := s.drain(l); err != nil && failed == nil {
			failed = err
		}
	}
	if writer != nil {
		failed = nil // what the client asked to be kept is kept; the others have only read
	}
	s.ended(true)
	return failed
}

// commitLane commits on one lane. A transaction that the shard rolled back instead is an error. gid is that of
// its decision record, if it has written one.
func (s *Session) commitLane(ctx context.Context, l *lane, gid string) error {
	if err := s.drain(l); err != nil {
		return err
	}
	tx := l.identity
	l.tag = ""
	l.notices = true
	l.query("COMMIT", queryHidden)
	err := s.drain(l)
	l.notices = false
	if lost, ok := err.(*laneError); ok {
		return s.lookUp(ctx, lost, tx, gid)
	}
	if err == nil && l.tag != "COMMIT" {
		err = wire.Errorf(wire.CodeFailedTransaction, "shard %s rolled the transaction back", s.shardName(l.shard))
	}
	if err == nil {
		l.begun, l.wrote, l.locks = false, false, false
	}
	return err
}

// rollback rolls back on every lane. A lane that fails to is closed, which rolls back too.
func (s *Session) rollback() error {
	for _, l := range slices.Clone(s.lanes) {
		if l.failed {
			l.sync()
		}
		if err := s.drain(l); err != nil {
			if _, ok := err.(*clientError); ok {
				return err
			}
		}
	}
	for _, l := range s.lanes {
		if l.begun || l.be.Status != 'I' {
			l.query("ROLLBACK", queryHidden)
		}
	}
	for _, l := range slices.Clone(s.lanes) {
		if err := s.drain(l); err != nil && slices.Contains(s.lanes, l) {
			l.be.Broken = true
			s.drop(l)
		}
	}
	s.ended(false)
	return nil
}

// ended brings the session's and the lanes' settings to what the end of the transaction left.
func (s *Session) ended(committed bool) {
	before := s.tx.before
	for _, l := range s.lanes {
		if l.begun && !committed && l.joined != nil {
			l.be.Settings = l.joined
		}
		l.begun, l.wrote, l.locks, l.joined, l.identity = false, false, false, nil, identity{}
	}
	local := s.tx.local
	s.tx.local = nil
	switch {
	case !committed && before != nil && before != s.settings:
		s.use(before)
		s.announce()
	case local != nil:
		s.use(s.settings)
	}
	if !committed {
		s.own = nil
		s.schemaChanged = false
	}
	s.tx.end()
	s.forgetPortals()
}

// savepoint runs SAVEPOINT, RELEASE and ROLLBACK TO on every lane of the transaction.
func (s *Session) savepoint(t *router.Template, sql string) error {
	verb := t.Tx.Verb
	if !s.tx.open || s.tx.implicit {
		name := map[router.TxVerb]string{router.Savepoint: "SAVEPOINT", router.Release: "RELEASE SAVEPOINT", router.RollbackTo: "ROLLBACK TO SAVEPOINT"}[verb]
		return wire.Errorf(wire.CodeNoActiveTransaction, "%s can only be used in transaction blocks", name)
	}
	if s.tx.failed && verb != router.RollbackTo {
		return errAborted()
	}
	if s.tx.doomed {
		return errAborted().WithHint("A shard of this transaction was lost: ROLLBACK, and try again.")
	}
	at := s.tx.savepoint(t.Tx.Name)
	if verb != router.Savepoint && at < 0 {
		return wire.Errorf("3B001", "savepoint \"%s\" does not exist", t.Tx.Name)
	}
	if err := s.everyLane(strings.Clone(sql)); err != nil {
		return err
	}
	switch verb {
	case router.Savepoint:
		s.tx.note(logged{sql: "SAVEPOINT " + quoteIdentifier(t.Tx.Name), savepoint: t.Tx.Name, settings: s.settings})
		s.complete("SAVEPOINT")
	case router.Release:
		keep := s.tx.log[:at]
		for _, e := range s.tx.log[at:] {
			if e.savepoint == "" && !e.mode { // which ends with its savepoint
				keep = append(keep, e)
			}
		}
		s.tx.log = keep
		s.complete("RELEASE")
	case router.RollbackTo:
		mark := s.tx.log[at]
		s.tx.log = s.tx.log[:at+1]
		s.tx.failed = false
		for _, l := range s.lanes {
			if l.stamped != l.be.Epoch { // it may have been stamped behind the savepoint
				l.stamped = 0
			}
			switch {
			case !l.begun:
			case l.joinedAt >= mark.sequence: // it knew the settings before its BEGIN, which nothing undoes
				l.be.Settings = l.joined
			default:
				l.be.Settings = mark.settings
			}
		}
		if s.tx.local != mark.local || s.settings != mark.settings {
			s.tx.local = mark.local
			s.use(mark.settings)
			s.announce()
		}
		s.complete("ROLLBACK")
	}
	return nil
}

// everyLane runs a statement on all lanes of the transaction, its answers unseen.
func (s *Session) everyLane(sql string) error {
	for _, l := range s.lanes {
		if l.begun {
			if err := s.enter(l); err != nil {
				return err
			}
		}
	}
	for _, l := range s.lanes {
		if l.begun {
			l.query(sql, queryHidden)
		}
	}
	var failed error
	for _, l := range slices.Clone(s.lanes) {
		if err := s.drain(l); err != nil && failed == nil {
			failed = err
		}
	}
	return failed
}

func quoteIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func (s *Session) hasUnsynced() bool {
	return slices.ContainsFunc(s.lanes, func(l *lane) bool { return !l.synced && !l.begun })
}

// abortUnsynced undoes what the lanes did since their last Sync, outside of a transaction block.
func (s *Session) abortUnsynced() error {
	for _, l := range slices.Clone(s.lanes) {
		if l.synced || l.begun {
			continue
		}
		if err := s.drain(l); err == nil && !l.synced && !l.failed {
			l.execute("ROLLBACK")
		}
		l.sync()
		if err := s.drain(l); err != nil {
			if _, ok := err.(*clientError); ok {
				return err
			}
		}
	}
	return nil
}
