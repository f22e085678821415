package proxy

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"unicode/utf8"

	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// describe handles Describe of a statement or a portal.
func (s *Session) describe(ctx context.Context, body []byte) error {
	if len(body) < 2 {
		return asProtocol(wire.ErrMalformed)
	}
	name, _, err := wire.String(body[1:])
	if err != nil {
		return asProtocol(err)
	}
	switch body[0] {
	case 'S':
		return s.describeStatement(ctx, name)
	case 'P':
		return s.describePortal(ctx, name)
	}
	return wire.Errorf(wire.CodeProtocolViolation, "invalid DESCRIBE message subtype %d", body[0])
}

func (s *Session) describeStatement(ctx context.Context, name string) error {
	p, err := s.lookup(name)
	if err != nil {
		return err
	}
	if s.owed != p {
		if err := s.pay(ctx); err != nil {
			return err
		}
	}
	if isOurs(p.template) {
		if err := s.pay(ctx); err != nil {
			return err
		}
		if err := s.drainAll(); err != nil {
			return err
		}
		s.client.SetAppended(append(s.client.Append(), 't', 0, 0, 0, 6, 0, 0)) // no parameters
		s.describeOurs(p.template)
		return nil
	}
	if s.tx.failed {
		return errAborted()
	}
	l, err := s.join(ctx, s.shardForParse(p), false)
	if err != nil {
		return err
	}
	s.sendParse(l, p.statement, s.parseReply(p))
	l.send(func(dst []byte) []byte { return wire.AppendDescribe(dst, 'S', p.statement.Name) })
	l.await(describeReply)
	l.asked = append(l.asked, p)
	return nil
}

// describeOurs describes the rows that the proxy itself gives.
func (s *Session) describeOurs(t *router.Template) {
	switch t.Kind {
	case router.Show:
		s.client.SetAppended(wire.AppendRowDescription(s.client.Append(), []wire.Field{{Name: t.Set.Name, Type: wire.OIDText}}))
	case router.Explain:
		s.client.SetAppended(wire.AppendRowDescription(s.client.Append(), []wire.Field{{Name: explainColumn, Type: wire.OIDText}}))
	default:
		s.local(localNoData)
	}
}

func (s *Session) describePortal(ctx context.Context, name string) error {
	at, err := s.portalOf(name)
	if err != nil {
		return err
	}
	switch at.kind {
	case ours:
		if err := s.drainAll(); err != nil {
			return err
		}
		s.describeOurs(at.prep.template)
		return nil
	case onShards: // every shard describes it alike
		if err := s.reroute(ctx, at); err != nil {
			return err
		}
		l, err := s.join(ctx, at.bound.shards[0], false)
		if err != nil {
			return err
		}
		s.sendParse(l, at.bound.statement, parseHidden)
		l.send(func(dst []byte) []byte {
			dst = wire.AppendBind(dst, ownPortal, at.bound.statement.Name, at.bound.message.Rest)
			dst = wire.AppendDescribe(dst, 'P', ownPortal)
			return wire.AppendClose(dst, 'P', ownPortal)
		})
		l.await(bindHidden)
		l.await(describeReply)
		l.await(closePortal)
		return nil
	}
	l, err := s.join(ctx, at.shard, false)
	if err != nil {
		return err
	}
	l.send(func(dst []byte) []byte { return wire.AppendDescribe(dst, 'P', name) })
	l.await(describeReply)
	return nil
}

// execute handles Execute.
func (s *Session) execute(ctx context.Context, body []byte) error {
	name, rest, err := wire.String(body)
	if err != nil || len(rest) != 4 {
		return asProtocol(wire.ErrMalformed)
	}
	limit := binary.BigEndian.Uint32(rest)
	at, err := s.portalOf(name)
	if err != nil {
		return err
	}
	t := at.prep.template
	s.srv.stats.planned(t.Kind)
	switch at.kind {
	case ours:
		return s.executeOurs(ctx, at.prep)
	case onShards:
		if limit != 0 && t.Returns && !t.Finishes() {
			return wire.Errorf(wire.CodeFeatureNotSupported, "a row limit is not supported for a statement that runs on several shards").
				WithHint("Fetch all rows at once, or add a condition on the shard key.")
		}
		if err := s.drainAll(); err != nil {
			return err
		}
		if err := s.reroute(ctx, at); err != nil {
			return err
		}
		if at.prep.template.Finishes() {
			return s.executeFinish(ctx, at, name, limit)
		}
		return s.executeSeveral(ctx, at.prep.template, at)
	}
	l, err := s.join(ctx, at.shard, t.Write)
	if err != nil {
		return err
	}
	s.identify(l, t)
	l.wrote = l.wrote || t.Write
	l.send(func(dst []byte) []byte { return wire.AppendExecute(dst, name, limit) })
	l.await(executeReply)
	if t.Pin || t.Declare != "" || t.Config || t.Schema {
		if err := s.drain(l); err != nil {
			return err
		}
		return s.afterwards(ctx, t, []topology.ShardID{at.shard})
	}
	return nil
}

// executeFinish runs a portal whose last step is one shard's. Afterwards the portal is on that shard.
func (s *Session) executeFinish(ctx context.Context, at *portal, name string, limit uint32) error {
	if len(at.bound.shards) == 1 { // by a later map
		return s.executeSeveral(ctx, at.prep.template, at)
	}
	w := &finishing{t: at.prep.template, shards: at.bound.shards, sql: at.prep.sql, bound: at.bound, portal: strings.Clone(name), limit: limit}
	if err := s.finished(ctx, w); err != nil {
		return err
	}
	at.kind, at.shard = onShard, w.first.shard
	return nil
}

// executeSeveral runs a portal that belongs to several shards.
func (s *Session) executeSeveral(ctx context.Context, t *router.Template, at *portal) error {
	s.warn(t)
	s.args = router.Args{SQL: at.prep.sql, Literals: at.prep.literals, Params: &at.bound.message, Foreign: s.foreign, Through: s.through}
	if err := s.several(ctx, t, at.bound.shards, at.prep.sql, at.bound); err != nil {
		return err
	}
	if t.Schema {
		return s.changedSchema(ctx)
	}
	return nil
}

// executeOurs runs a statement that the proxy itself answers, in the middle of a pipeline.
func (s *Session) executeOurs(ctx context.Context, p *prepared) error {
	if err := s.drainAll(); err != nil {
		return err
	}
	t := p.template
	if t.Kind == router.Execute {
		return wire.Errorf(wire.CodeFeatureNotSupported, "EXECUTE is not supported in the extended protocol").
			WithHint("Bind the prepared statement by its name, or send EXECUTE as a simple query.")
	}
	if t.Kind == router.Set && !t.Set.Local && t.Set.Verb != router.SetTransaction && !s.tx.open { // an error later in the pipeline undoes it
		if err := s.beginImplicit(); err != nil {
			return err
		}
	}
	if t.Kind != router.Tx {
		if err := s.holdPipeline(); err != nil {
			return err
		}
	}
	return s.run(ctx, t, p.sql)
}

// closeNamed handles Close of a statement or a portal.
func (s *Session) closeNamed(body []byte) error {
	if len(body) < 2 {
		return asProtocol(wire.ErrMalformed)
	}
	name, _, err := wire.String(body[1:])
	if err != nil {
		return asProtocol(err)
	}
	switch body[0] {
	case 'S':
		if name == "" {
			s.unnamed = nil
		} else {
			delete(s.prepared, name)
		}
	case 'P':
		at, err := s.portalOf(name)
		if err == nil && at.kind == onShard {
			if i := slices.IndexFunc(s.lanes, func(l *lane) bool { return l.shard == at.shard }); i >= 0 {
				l := s.lanes[i]
				if err := s.focus(l); err != nil {
					return err
				}
				l.send(func(dst []byte) []byte { return wire.AppendClose(dst, 'P', name) })
				l.await(closeReply)
				s.removePortal(name)
				return nil
			}
		}
		s.removePortal(name)
	default:
		return wire.Errorf(wire.CodeProtocolViolation, "invalid CLOSE message subtype %d", body[0])
	}
	s.local(localClose)
	return nil
}

func (s *Session) removePortal(name string) {
	if name == "" {
		s.portal = portal{}
	} else {
		delete(s.portals, name)
	}
}

// sync handles Sync: the end of a pipeline, and of the transaction that it was where no other is open.
func (s *Session) sync(ctx context.Context) error {
	err := s.pay(ctx)
	if err == nil && !s.skip {
		err = s.endPipeline(ctx)
	}
	if err != nil {
		if err = s.failPipeline(err); err != nil {
			return err
		}
	}
	if s.skip {
		if err := s.undoPipeline(); err != nil {
			return err
		}
	}
	s.skip, s.owed = false, nil
	s.doubted, s.binding = s.doubted[:0], s.binding[:0]
	if !s.tx.open {
		s.forgetPortals()
	}
	s.ready(ctx)
	return nil
}

func (s *Session) endPipeline(ctx context.Context) error {
	for _, l := range s.lanes {
		l.sync()
	}
	if len(s.lanes) > 1 {
		for _, l := range s.lanes {
			_ = l.be.Flush() // all at work before the first is waited for; drain sees a failure
		}
	}
	if err := s.drainAll(); err != nil {
		return err
	}
	return s.endImplicit(ctx)
}

// undoPipeline ends a pipeline that failed.
func (s *Session) undoPipeline() error {
	if !s.tx.open {
		return s.abortUnsynced()
	}
	s.tx.fail()
	s.muted = true
	defer func() { s.muted = false }()
	for _, l := range slices.Clone(s.lanes) {
		l.sync()
		if err := s.drain(l); err != nil {
			if _, ok := err.(*clientError); ok {
				return err
			}
		}
	}
	if s.tx.implicit {
		return s.rollback()
	}
	return nil
}

// prepareSQL runs SQL PREPARE: the statement joins those of the extended protocol, which share its names.
func (s *Session) prepareSQL(ctx context.Context, t *router.Template, sql string) error {
	if s.prepared[t.Prepare.Name] != nil {
		return wire.Errorf(wire.CodeDuplicateStatement, "prepared statement \"%s\" already exists", t.Prepare.Name)
	}
	if len(s.prepared) >= s.srv.now().PreparedStatements {
		return wire.Errorf(wire.CodeProgramLimitExceeded, "more than %d prepared statements in one session", s.srv.now().PreparedStatements)
	}
	text := strings.Clone(sql[t.Prepare.Body.Start:t.Prepare.Body.End])
	inner, err := s.template(ctx, text)
	if err != nil {
		return err
	}
	if inner.Kind == router.Reject && inner.Reason != nil {
		return inner.Reason
	}
	literals := slices.Clone(s.scratch.Literals)
	types, err := s.typeOIDs(ctx, t.Prepare.Types)
	if err != nil {
		return err
	}
	p := &prepared{
		sql: text, types: types, template: inner, literals: literals, snap: s.snap, env: s.env,
		statement: s.srv.statements.Intern(text, types, s.snap.Schema.Version, s.reading),
	}
	l, err := s.lane(ctx, s.anyShard())
	if err != nil {
		return err
	}
	s.sendParse(l, p.statement, parseProbe)
	err = s.drain(l)
	if e, ok := err.(*serverError); ok && e.Position > 0 {
		e.Position += utf8.RuneCountInString(sql[:t.Prepare.Body.Start])
	}
	l.sync()
	if e := s.drain(l); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if s.prepared == nil {
		s.prepared = make(map[string]*prepared)
	}
	s.prepared[t.Prepare.Name] = p
	s.complete("PREPARE")
	return nil
}

// typeOIDs asks a shard for the OIDs of type names as they stand in PREPARE.
func (s *Session) typeOIDs(ctx context.Context, names []string) ([]byte, error) {
	if len(names) == 0 {
		return nil, nil
	}
	l, err := s.lane(ctx, s.anyShard())
	if err != nil {
		return nil, err
	}
	var sql strings.Builder
	for i, n := range names {
		if i > 0 {
			sql.WriteString(" UNION ALL ")
		}
		sql.WriteString("SELECT pg_catalog.to_regtype(" + quote(n) + ")::pg_catalog.oid")
	}
	l.rows = nil
	l.query(sql.String(), queryHidden)
	if err := s.drain(l); err != nil {
		return nil, err
	}
	var types []byte
	for i, row := range l.rows {
		oid := parseUint(row[0])
		if oid == 0 {
			return nil, wire.Errorf(wire.CodeUndefinedObject, "type \"%s\" does not exist", names[i])
		}
		types = binary.BigEndian.AppendUint32(types, uint32(oid))
	}
	return types, nil
}

// executeSQL runs SQL EXECUTE: on the backend of its shard, under the statement's shared name.
func (s *Session) executeSQL(ctx context.Context, t *router.Template, sql string) error {
	p := s.prepared[t.Prepare.Name]
	if p == nil {
		return wire.Errorf(wire.CodeInvalidStatementName, "prepared statement \"%s\" does not exist", t.Prepare.Name)
	}
	sql = strings.Clone(sql)
	inner, err := s.currentTemplate(ctx, p)
	if err != nil {
		return err
	}
	if isOurs(inner) {
		return s.run(ctx, inner, p.sql)
	}
	shards, err := s.destinationOfExecute(p, &t.Prepare)
	if err != nil {
		return err
	}
	if len(shards) != 1 {
		if inner.Kind == router.Insert || inner.Finishes() || !inner.Combine && inner.Kind != router.All {
			return wire.Errorf(wire.CodeFeatureNotSupported, "EXECUTE of this statement on several shards is not supported").
				WithHint("Send the statement itself.")
		}
	}
	name := quoteIdentifier(p.statement.Name)
	s.renamed.from = utf8.RuneCountInString(sql[:t.Prepare.NameSpan.Start])
	s.renamed.shift = len(name) - utf8.RuneCountInString(sql[t.Prepare.NameSpan.Start:t.Prepare.NameSpan.End])
	defer func() { s.renamed.shift = 0 }()
	shards = slices.Clone(shards)
	parts, err := s.executeParts(ctx, inner, p, t, sql, shards)
	if err != nil {
		return err
	}
	if len(shards) == 1 {
		err = s.oneOf(ctx, shards[0], inner, parts[0].sql)
	} else {
		err = s.severalOf(ctx, inner, shards, func() ([]part, error) { return parts, nil })
	}
	if err != nil || !inner.Pin && !inner.Config {
		return err
	}
	return s.afterwards(ctx, inner, shards)
}

// destinationOfExecute is destination with the arguments of EXECUTE for parameters.
func (s *Session) destinationOfExecute(p *prepared, e *router.PrepareStmt) ([]topology.ShardID, error) {
	if s.bound == unbound && (p.template.Kind == router.Keyed || p.template.Kind == router.Insert) {
		given := &arguments{list: e.Arguments, types: p.types}
		s.args = router.Args{SQL: p.sql, Literals: p.literals, Params: given, Foreign: s.foreign, Through: s.through}
		var err *router.Error
		if s.shards, err = p.template.Route(s.snap, &s.args, s.shards[:0]); err != nil {
			if given.absent { // the server says how many it wants
				return append(s.shards[:0], s.anyShard()), nil
			}
			return nil, err
		}
		return s.shards, nil
	}
	return s.destination(p.template, p.sql)
}

// arguments are those of EXECUTE, as the router's source of parameter values.
type arguments struct {
	list   []router.Argument
	types  []byte
	absent bool // one was asked for that is not given
}

func (a *arguments) Param(i int) (value []byte, binaryFormat, null, ok bool) {
	if i >= len(a.list) {
		a.absent = true
	}
	if i < 0 || i >= len(a.list) || !a.list[i].Known {
		return nil, false, false, false
	}
	return []byte(a.list[i].Value), false, a.list[i].Null, true
}

func (a *arguments) ParamType(i int) uint32 {
	if i < 0 || 4*i+4 > len(a.types) {
		return 0
	}
	return binary.BigEndian.Uint32(a.types[4*i:])
}

// deallocate runs DEALLOCATE. Backends keep the statement for other sessions.
func (s *Session) deallocate(t *router.Template) error {
	if t.Name == "" {
		clear(s.prepared)
		s.complete("DEALLOCATE ALL")
		return nil
	}
	if s.prepared[t.Name] == nil {
		return wire.Errorf(wire.CodeInvalidStatementName, "prepared statement \"%s\" does not exist", t.Name)
	}
	delete(s.prepared, t.Name)
	s.complete("DEALLOCATE")
	return nil
}
