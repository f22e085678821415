package proxy

import (
	"context"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// simple handles a Query message.
func (s *Session) simple(ctx context.Context, body int) error {
	s.asked, s.extended, s.refusals = time.Now(), false, 0
	s.skip, s.owed, s.unnamed = false, nil, nil
	s.disproven()
	if body > s.srv.now().QueryBytes {
		if err := s.passOver(); err != nil {
			return err
		}
		s.sendError(wire.Errorf(wire.CodeProgramLimitExceeded, "query of %d bytes is above the limit of %d", body, s.srv.now().QueryBytes).
			WithHint("Send large values as parameters or by COPY, or raise limits.query_bytes."))
		s.tx.fail()
		if err := s.undoPipeline(); err != nil {
			return err
		}
		s.ready(ctx)
		return nil
	}
	m, err := s.next(body)
	if err != nil {
		return err
	}
	sql, err := wire.QueryText(m[5:])
	if err != nil {
		return err
	}
	if len(s.lanes) > 0 { // a pipeline without its Sync is one transaction with this query
		err := s.drainAll()
		if err == nil {
			err = s.holdPipeline()
		}
		if err != nil {
			return s.failPipeline(err)
		}
	}
	if single(sql) {
		err = s.statement(ctx, sql)
	} else {
		err = s.statements(ctx, sql)
	}
	if err = s.report(err); err != nil {
		return err
	}
	if s.tx.implicit {
		if err = s.report(s.endImplicit(ctx)); err != nil {
			return err
		}
	}
	s.ready(ctx)
	return nil
}

// single says that sql is surely one statement that is not empty.
func single(sql string) bool {
	const blanks = " \t\r\n\f\v"
	if i := strings.IndexByte(sql, ';'); i >= 0 && strings.TrimLeft(sql[i+1:], blanks) != "" {
		return false
	}
	sql = strings.TrimLeft(sql, blanks)
	return sql != "" && sql[0] != '-' && sql[0] != '/' && sql[0] != ';'
}

// statements runs the statements of one simple Query, which are one transaction where no other is open.
func (s *Session) statements(ctx context.Context, sql string) error {
	s.spans = router.Split(sql, s.env.StdStrings, s.spans[:0])
	switch len(s.spans) {
	case 0:
		s.client.SetAppended(wire.AppendEmpty(s.client.Append(), 'I'))
		return nil
	case 1:
		return s.statement(ctx, sql[s.spans[0].Start:s.spans[0].End])
	}
	spans := slices.Clone(s.spans)
	sql = strings.Clone(sql) // COPY reads from the client in the middle
	if err := s.grammatical(ctx, sql, spans); err != nil {
		return err
	}
	for again := !s.tx.open; again; {
		shard, write, ok := s.together(sql, spans)
		if !ok {
			break
		}
		if again, err := s.again(ctx, s.one(ctx, shard, sql, write)); !again {
			return err
		}
		if err := s.grammatical(ctx, sql, spans); err != nil { // with the later map
			return err
		}
	}
	for i, span := range spans {
		if !s.tx.open {
			if i == len(spans)-1 {
				return s.statement(ctx, inPlace(sql, span))
			}
			s.tx.begin("BEGIN", s.settings)
			s.tx.implicit = true
		}
		if err := s.statement(ctx, inPlace(sql, span)); err != nil {
			if err = s.report(err); err != nil {
				return err
			}
			if s.tx.implicit {
				return s.rollback()
			}
			return nil
		}
	}
	return s.endImplicit(ctx)
}

// inPlaceMax bounds the blanks that inPlace adds: a long script would be sent many times over.
const inPlaceMax = 4 << 10

// inPlace gives one statement of several, behind blanks, so that a shard reports positions in the whole text.
func inPlace(sql string, span router.Span) string {
	if span.Start > inPlaceMax {
		return sql[span.Start:span.End]
	}
	return strings.Repeat(" ", utf8.RuneCountInString(sql[:span.Start])) + sql[span.Start:span.End]
}

// grammatical refuses the whole text where one of its statements has a syntax error, before the first has run.
func (s *Session) grammatical(ctx context.Context, sql string, spans []router.Span) error {
	for _, span := range spans {
		s.snap = s.topology()
		t, err := s.srv.router.Template(s.snap, s.env, sql[span.Start:span.End], &s.scratch)
		if err != nil {
			return err
		}
		if t.Kind != router.Syntax || len(t.Unknown) > 0 {
			continue
		}
		if err := s.parseOnly(ctx, sql); !isManyCommands(err) {
			return err
		}
	}
	return nil
}

// isManyCommands says that a text of several statements failed to parse only because it has several.
func isManyCommands(err error) bool {
	e, ok := err.(*serverError)
	return ok && e.Code == wire.CodeSyntaxError && e.Position == 0
}

// endImplicit commits a transaction that the client did not open.
func (s *Session) endImplicit(ctx context.Context) error {
	if !s.tx.open || !s.tx.implicit {
		return nil
	}
	if s.tx.failed {
		return s.rollback()
	}
	return s.commit(ctx)
}

// together says whether several statements belong to one shard as they stand, so that it can run them
// all by itself with PostgreSQL's own rules for them.
func (s *Session) together(sql string, spans []router.Span) (shard topology.ShardID, write, ok bool) {
	shard = unbound
	for _, span := range spans {
		text := sql[span.Start:span.End]
		t, err := s.srv.router.Template(s.snap, s.env, text, &s.scratch)
		if err != nil || len(t.Unknown) > 0 || t.Pin || t.Config || t.Unbound != "" || t.Declare != "" || t.Schema {
			return 0, false, false
		}
		switch t.Kind {
		case router.Any, router.Show:
			if t.First || strings.HasPrefix(t.Set.Name, "shardproxy.") {
				return 0, false, false
			}
		case router.Keyed, router.Insert:
			if s.bound == unbound {
				if err := s.route(t, text, nil); err != nil || len(s.shards) != 1 || (shard != unbound && shard != s.shards[0]) {
					return 0, false, false
				}
				shard = s.shards[0]
			}
		default:
			return 0, false, false
		}
		write = write || t.Write
	}
	if shard == unbound {
		shard = s.anyShard()
	}
	return shard, write, true
}

// route finds the shards of a statement with its literals or parameters: s.shards.
func (s *Session) route(t *router.Template, sql string, params router.ParamSource) error {
	s.args = router.Args{SQL: sql, Literals: s.scratch.Literals, Params: params, Foreign: s.foreign, Through: s.through}
	var err *router.Error
	s.shards, err = t.Route(s.snap, &s.args, s.shards[:0])
	if err != nil {
		return err
	}
	return nil
}

// statement plans and runs one statement of the simple protocol.
func (s *Session) statement(ctx context.Context, sql string) error {
	for {
		again, err := s.again(ctx, s.attempt(ctx, sql))
		if !again {
			return err
		}
	}
}

func (s *Session) attempt(ctx context.Context, sql string) error {
	t, err := s.template(ctx, sql)
	if err != nil {
		return err
	}
	s.srv.stats.planned(t.Kind)
	if s.tx.failed && !ends(t) {
		if len(s.lanes) == 1 && s.lanes[0].be.Status == 'E' {
			return s.one(ctx, s.lanes[0].shard, sql, false)
		}
		return errAborted()
	}
	if t.Draws != nil {
		return s.runDrawn(ctx, t.Draws, sql)
	}
	return s.run(ctx, t, sql)
}

// run runs one planned statement whose answer goes to the client without ReadyForQuery. Messages of the
// extended protocol that need the proxy's own work end here too.
func (s *Session) run(ctx context.Context, t *router.Template, sql string) error {
	if t.Unbound != "" && s.bound == unbound {
		return errUnbound(t)
	}
	switch t.Kind {
	case router.Any, router.Keyed, router.Insert, router.Scatter, router.All, router.AllBare, router.Notify, router.Cursor:
		return s.data(ctx, t, sql)
	case router.Tx:
		return s.control(ctx, t, sql)
	case router.Set:
		return s.set(ctx, t, sql)
	case router.Show:
		if strings.HasPrefix(t.Set.Name, "shardproxy.") {
			return s.showOwn(t.Set.Name)
		}
		return s.one(ctx, s.anyShard(), sql, false)
	case router.Copy:
		return s.copy(ctx, t, sql)
	case router.Discard:
		return s.discard(t, sql)
	case router.Prepare:
		return s.prepareSQL(ctx, t, sql)
	case router.Execute:
		return s.executeSQL(ctx, t, sql)
	case router.Deallocate:
		return s.deallocate(t)
	case router.Close:
		return s.closeCursor(ctx, t, sql)
	case router.Listen:
		return s.listen(ctx, sql)
	case router.Explain:
		return s.explainPlan(t)
	case router.Syntax:
		return s.syntax(ctx, t, sql)
	}
	if t.Reason == nil {
		return wire.Errorf(wire.CodeInternalError, "statement of kind %d was refused without a reason", t.Kind)
	}
	return t.Reason
}

// data runs a statement on the shards that it belongs to.
func (s *Session) data(ctx context.Context, t *router.Template, sql string) error {
	s.warn(t)
	shards, err := s.destination(t, sql)
	if err != nil {
		return err
	}
	var after *router.Template
	if t.Pin || t.Declare != "" || t.Config || t.Schema {
		after = t
	}
	switch {
	case s.alone(t, shards):
		err = s.oneOf(ctx, shards[0], t, sql)
	case t.Kind == router.AllBare && !s.tx.open:
		err = s.bare(ctx, shards, sql)
	default:
		err = s.several(ctx, t, shards, sql, nil)
	}
	if err != nil || after == nil {
		return err
	}
	return s.afterwards(ctx, t, shards)
}

// warn tells the client what it should know of a statement before its answer.
func (s *Session) warn(t *router.Template) {
	for _, n := range t.Notices {
		s.notice(wire.SeverityWarning, "01000", n)
	}
	if t.Create != nil && t.Create.Notice != "" {
		s.notice(wire.SeverityNotice, "00000", t.Create.Notice)
	}
}

// closeCursor runs CLOSE on the shard of the cursor, CLOSE ALL on every one of the transaction.
func (s *Session) closeCursor(ctx context.Context, t *router.Template, sql string) error {
	if t.Name == "" {
		if err := s.everyLane(sql); err != nil {
			return err
		}
		clear(s.tx.cursors)
		s.complete("CLOSE CURSOR ALL")
		return nil
	}
	shard, ok := s.cursor(t.Name)
	if !ok {
		shard = s.anyShard()
	}
	l, err := s.lane(ctx, shard)
	if err != nil {
		return err
	}
	l.query(sql, queryHidden)
	if err := s.drain(l); err != nil {
		return err
	}
	delete(s.tx.cursors, t.Name)
	delete(s.portals, t.Name)
	s.complete("CLOSE CURSOR")
	return nil
}

// destination gives the shards of a statement.
func (s *Session) destination(t *router.Template, sql string) ([]topology.ShardID, error) {
	if shard, open := s.cursor(t.Name); open && t.Kind == router.Cursor && s.tx.open { // where it stays, also when the key has moved
		return append(s.shards[:0], shard), nil
	}
	if s.bound != unbound {
		return append(s.shards[:0], s.bound), s.heldBound()
	}
	if t.Block && !s.tx.open {
		return append(s.shards[:0], s.anyShard()), nil // any shard refuses it in PostgreSQL's words
	}
	if _, open := s.tx.cursors[t.Declare]; open && t.Declare != "" {
		return nil, wire.Errorf(wire.CodeDuplicateCursor, "cursor \"%s\" already exists", t.Declare)
	}
	switch t.Kind {
	case router.Keyed, router.Insert:
		if err := s.route(t, sql, nil); err != nil {
			return nil, err
		}
		return s.shards, nil
	case router.Scatter:
		return s.everyShard(), s.heldKeys()
	case router.All, router.AllBare:
		sharded := func(table *topology.Table) bool { return table.Kind == topology.Sharded } // a reference table has no keys
		if t.Schema || t.Kind == router.AllBare || slices.ContainsFunc(t.Tables, sharded) {
			if err := s.heldKeys(); err != nil {
				return nil, err
			}
		}
		return s.allShards()
	case router.Cursor:
		if shard, ok := s.cursor(t.Name); ok {
			return append(s.shards[:0], shard), nil
		}
	case router.Notify:
		return append(s.shards[:0], 0), nil
	case router.Any:
		if t.First {
			return append(s.shards[:0], 0), nil
		}
	}
	return append(s.shards[:0], s.anyShard()), nil
}

// everyShard gives those that may own keys.
func (s *Session) everyShard() []topology.ShardID {
	s.shards = s.shards[:0]
	for i := range s.snap.Shards {
		if s.snap.Shards[i].State != topology.ShardJoining {
			s.shards = append(s.shards, topology.ShardID(i))
		}
	}
	return s.shards
}

// one runs a statement on one shard; its answer passes as it is.
func (s *Session) one(ctx context.Context, shard topology.ShardID, sql string, write bool) error {
	l, err := s.claimed(ctx, shard)
	if err != nil {
		return err
	}
	return s.query(l, sql, write)
}

// oneOf is one, of a statement that is known.
func (s *Session) oneOf(ctx context.Context, shard topology.ShardID, t *router.Template, sql string) error {
	l, err := s.claimed(ctx, shard)
	if err != nil {
		return err
	}
	s.identify(l, t)
	return s.query(l, sql, t.Write)
}

// claimed is claim and lane.
func (s *Session) claimed(ctx context.Context, shard topology.ShardID) (*lane, error) {
	if err := s.claim(ctx, shard); err != nil {
		return nil, err
	}
	return s.lane(ctx, shard)
}

// query runs a simple Query for the client on one lane.
func (s *Session) query(l *lane, sql string, write bool) error {
	l.wrote = l.wrote || write
	s.unanswered = s.clientPosition()
	l.query(sql, queryReply)
	err := s.drain(l)
	if stale, ok := err.(*staleError); ok && mayCommit(sql) {
		return stale.forClient(true)
	}
	return err
}

// mayCommit says that a statement runs code which may have committed a part of its work before it failed.
func mayCommit(sql string) bool {
	sql = strings.TrimLeft(sql, " \t\r\n\f\v")
	for _, comment := range [][2]string{{"--", "\n"}, {"/*", "*/"}} {
		if strings.HasPrefix(sql, comment[0]) {
			_, rest, _ := strings.Cut(sql, comment[1])
			return comment[0] == "/*" && strings.Contains(rest, "*/") || mayCommit(rest) // perhaps one within another
		}
	}
	if i := strings.IndexFunc(sql, func(r rune) bool { return r < 'A' || r > 'z' }); i >= 0 {
		sql = sql[:i]
	}
	return strings.EqualFold(sql, "CALL") || strings.EqualFold(sql, "DO")
}

// afterwards notes what a statement has left behind on its shards.
func (s *Session) afterwards(ctx context.Context, t *router.Template, shards []topology.ShardID) error {
	for _, l := range s.lanes {
		if t.Pin && slices.Contains(shards, l.shard) {
			l.pinned = true
		}
	}
	if t.Declare != "" && s.tx.open {
		if s.tx.cursors == nil {
			s.tx.cursors = make(map[string]topology.ShardID)
		}
		s.tx.cursors[t.Declare] = shards[0]
	}
	if t.Config {
		if err := s.followCalls(t.SetConfig, shards[0]); err != nil {
			return err
		}
	}
	if t.Schema {
		return s.changedSchema(ctx)
	}
	return nil
}

// syntax lets a shard say what is wrong with a text that our grammar does not know. It is parsed there, never run.
func (s *Session) syntax(ctx context.Context, t *router.Template, sql string) error {
	if err := s.parseOnly(ctx, sql); err != nil {
		return err
	}
	if isCopy(sql) {
		return s.probeCopy(ctx, sql)
	}
	if t.Reason != nil {
		return t.Reason
	}
	return wire.Errorf(wire.CodeFeatureNotSupported, "this statement is newer than the grammar of shardproxy").
		WithHint("Name its shard: /* shardproxy: key=… */ in front of it.")
}

// isCopy says that PostgreSQL looks at the names and options of a statement only when it runs.
func isCopy(sql string) bool {
	verb := strings.TrimLeft(sql, " \t\r\n")
	return len(verb) > 4 && strings.EqualFold(verb[:4], "COPY")
}

// parseOnly lets a shard parse and analyse a statement without running it.
func (s *Session) parseOnly(ctx context.Context, sql string) error {
	if err := s.drainAll(); err != nil {
		return err
	}
	l, err := s.lane(ctx, s.anyShard())
	if err != nil {
		return err
	}
	fresh := l.synced
	l.parse(&backend.Statement{SQL: sql}, parseProbe)
	l.be.Unnamed = 0
	err = s.drain(l)
	if fresh { // nothing of a pipeline is undone or committed by it
		l.sync()
		if e := s.drain(l); e != nil && err == nil {
			err = e
		}
	}
	return err
}
