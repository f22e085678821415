package proxy

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// streamAbove is the size from which a Bind is passed on while it comes in, instead of being held.
const streamAbove = 64 << 10

// prepared is a statement that the client has prepared.
type prepared struct {
	sql       string
	types     []byte // declared parameter types, 4 bytes each
	described []byte // parameter types as a shard described them, nil before
	template  *router.Template
	literals  []router.Literal
	snap      *topology.Snapshot // that template was made with
	env       *router.Env
	statement *backend.Statement // as backends know it; its name is "" for the unnamed statement
	drawn     *drawn             // its sequences, nil: it uses none
	token     uint64             // of the unnamed statement: which Parse it is
}

// doubt is a statement that may turn out not to exist: its Parse has not succeeded yet.
type doubt struct {
	name string
	p    *prepared
}

// proven notes that the oldest doubted statement exists.
func (s *Session) proven() {
	if len(s.doubted) > 0 {
		s.doubted = append(s.doubted[:0], s.doubted[1:]...)
	}
}

// disproven forgets the statements whose Parse, and the portals whose Bind, has failed or was passed over behind an error.
func (s *Session) disproven() {
	for _, name := range s.binding {
		delete(s.portals, name)
	}
	s.binding = s.binding[:0]
	for _, d := range s.doubted {
		if d.name == "" && s.unnamed == d.p {
			s.unnamed = nil
		} else if s.prepared[d.name] == d.p {
			delete(s.prepared, d.name)
		}
	}
	s.doubted = s.doubted[:0]
}

var emptyStatement = &router.Template{Kind: router.Any}

// extend handles a message of the extended protocol.
func (s *Session) extend(ctx context.Context, typ byte, body int) error {
	if !s.extended || s.asked.IsZero() {
		s.asked, s.extended = time.Now(), true
	}
	if s.skip && typ != 'S' {
		return s.passOver()
	}
	var err error
	switch {
	case typ == 'B' && body > streamAbove:
		err = s.bindLarge(ctx, body)
	case typ == 'P' && body > s.srv.now().QueryBytes:
		if err = s.passOver(); err == nil {
			err = wire.Errorf(wire.CodeProgramLimitExceeded, "query of %d bytes is above the limit of %d", body, s.srv.now().QueryBytes)
		}
	default:
		var m []byte
		if m, err = s.next(body); err == nil {
			for again := true; again; {
				err = s.extendedMessage(ctx, typ, m[5:])
				if again = typ == 'P' || typ == 'B' || typ == 'D'; again { // these leave nothing behind when they fail
					again, err = s.again(ctx, err)
				}
			}
		}
	}
	if err != nil {
		return s.failPipeline(err)
	}
	return nil
}

func (s *Session) extendedMessage(ctx context.Context, typ byte, body []byte) error {
	if typ == 'E' || typ == 'C' || typ == 'D' && len(body) > 0 && body[0] == 'P' {
		if err := s.pay(ctx); err != nil {
			return err
		}
	}
	switch typ {
	case 'P':
		return s.parse(ctx, body)
	case 'B':
		return s.bind(ctx, body)
	case 'D':
		return s.describe(ctx, body)
	case 'E':
		return s.execute(ctx, body)
	case 'C':
		return s.closeNamed(body)
	case 'H':
		if err := s.pay(ctx); err != nil {
			return err
		}
		if err := s.drainAll(); err != nil {
			return err
		}
		if err := s.client.Flush(); err != nil {
			return &clientError{err}
		}
		return nil
	}
	return s.sync(ctx)
}

// failPipeline tells the client of an error, behind the answers that come before it, and passes over all up to Sync.
func (s *Session) failPipeline(err error) error {
	if s.explain(err) == nil && err != errSent {
		return err
	}
	if err != errSent {
		if earlier := s.drainAll(); earlier != nil {
			err = earlier
		}
	}
	s.owed = nil
	s.skip = true
	s.disproven()
	return s.report(err)
}

// drainAll reads what the lanes owe. At most one of them owes something visible.
func (s *Session) drainAll() error {
	var failed error
	for i := 0; i < len(s.lanes); i++ {
		l := s.lanes[i]
		if err := s.drain(l); err != nil && failed == nil {
			failed = err
		}
		if i < len(s.lanes) && s.lanes[i] != l {
			i--
		}
	}
	return failed
}

// focus makes sure that no other lane owes an answer: those of l come behind them.
func (s *Session) focus(l *lane) error {
	if len(s.lanes) == 1 {
		return nil
	}
	for _, other := range slices.Clone(s.lanes) {
		if other != l {
			if err := s.drain(other); err != nil {
				return err
			}
		}
	}
	return nil
}

// local answers with an empty message of the proxy's own, behind what a lane still owes.
func (s *Session) local(r reply) {
	for _, l := range s.lanes {
		if l.pending() {
			l.await(r)
			return
		}
	}
	if r == localParse {
		s.proven()
	}
	s.client.SetAppended(wire.AppendEmpty(s.client.Append(), byte(r)))
}

// parse handles Parse. It is not sent before a backend is known that the statement runs on: ParseComplete is owed.
func (s *Session) parse(ctx context.Context, body []byte) error {
	m, err := wire.ParseParse(body)
	if err != nil {
		return asProtocol(err)
	}
	if err := s.pay(ctx); err != nil {
		return err
	}
	if m.Name != "" && s.prepared[m.Name] != nil {
		return wire.Errorf(wire.CodeDuplicateStatement, "prepared statement \"%s\" already exists", m.Name)
	}
	if m.Name == "" && s.reparse(m) {
		return nil
	}
	t, err := s.plan(ctx, m.SQL)
	if err != nil {
		return err
	}
	if s.tx.failed && !ends(t) {
		return errAborted()
	}
	var numbers *drawn
	if t.Draws != nil {
		if numbers, err = s.prepareDrawn(&m, t); err != nil {
			return err
		}
		if t, err = s.plan(ctx, m.SQL); err != nil {
			return err
		}
		s.filled = numbers.filledText
	} else {
		s.filled = filledText{}
	}
	switch {
	case t.Kind == router.Syntax && s.bound == unbound && !isCopy(m.SQL):
		return s.syntax(ctx, t, strings.Clone(m.SQL))
	case t.Kind == router.Reject && t.Reason != nil:
		return t.Reason
	case m.Name != "" && len(s.prepared) >= s.srv.now().PreparedStatements:
		return wire.Errorf(wire.CodeProgramLimitExceeded, "more than %d prepared statements in one session", s.srv.now().PreparedStatements).
			WithHint("Close statements that are no longer used, or raise limits.prepared_statements.")
	}
	p := &prepared{
		sql: strings.Clone(m.SQL), types: bytes.Clone(m.Types), template: t, literals: slices.Clone(s.scratch.Literals),
		snap: s.snap, env: s.env, drawn: numbers,
	}
	if t.Kind == router.Cursor {
		// Parsed anew each time: PostgreSQL 15 crashes when a prepared FETCH is described after its cursor has gone.
		p.statement = &backend.Statement{SQL: p.sql, Types: p.types}
	}
	if m.Name == "" {
		p.statement = &backend.Statement{SQL: p.sql, Types: p.types}
		s.parses++
		p.token = s.id<<32 | s.parses&0xffffffff
		s.unnamed = p
		s.doubted = append(s.doubted, doubt{p: p})
	} else {
		if p.statement == nil {
			p.statement = s.srv.statements.Intern(p.sql, p.types, s.snap.Schema.Version, s.reading)
		}
		if s.prepared == nil {
			s.prepared = make(map[string]*prepared)
		}
		name := strings.Clone(m.Name)
		s.prepared[name] = p
		s.doubted = append(s.doubted, doubt{name, p})
	}
	s.owed = p
	return nil
}

// reparse takes the short way where the client prepares the same text as the unnamed statement again.
func (s *Session) reparse(m wire.Parse) bool {
	p := s.unnamed
	if p == nil || s.tx.failed || p.sql != m.SQL || p.env != s.env || p.snap != s.topology() || !bytes.Equal(p.types, m.Types) {
		return false
	}
	s.snap = p.snap
	s.parses++
	p.token = s.id<<32 | s.parses&0xffffffff
	s.owed = p
	s.doubted = append(s.doubted, doubt{p: p})
	return true
}

// plan is template for a text of Parse, which must be one statement or none.
func (s *Session) plan(ctx context.Context, sql string) (*router.Template, error) {
	if !single(sql) {
		s.spans = router.Split(sql, s.env.StdStrings, s.spans[:0])
		switch len(s.spans) {
		case 0:
			s.snap = s.topology()
			s.scratch.Literals = s.scratch.Literals[:0]
			return emptyStatement, nil
		case 1:
		default:
			return nil, wire.Errorf(wire.CodeSyntaxError, "cannot insert multiple commands into a prepared statement")
		}
	}
	return s.template(ctx, sql)
}

// pay sends a Parse whose ParseComplete is owed, where no Bind or Describe has taken it along.
func (s *Session) pay(ctx context.Context) error {
	p := s.owed
	if p == nil {
		return nil
	}
	if isOurs(p.template) {
		s.owed = nil
		s.local(localParse)
		return nil
	}
	l, err := s.join(ctx, s.shardForParse(p), false)
	if err != nil {
		return err
	}
	s.sendParse(l, p.statement, s.parseReply(p))
	return nil
}

// shardForParse is where a statement is parsed or described when its parameters are not known.
func (s *Session) shardForParse(p *prepared) topology.ShardID {
	if p.template.Kind == router.Cursor {
		if shard, ok := s.cursor(p.template.Name); ok {
			return shard
		}
	}
	return s.anyShard()
}

// parseReply says whether the next Parse of p is the client's own.
func (s *Session) parseReply(p *prepared) reply {
	if s.owed == p {
		s.owed = nil
		return parseReply
	}
	return parseHidden
}

// sendParse makes sure that the lane's backend has the statement. r says who waits for ParseComplete.
func (s *Session) sendParse(l *lane, st *backend.Statement, r reply) {
	if st.Name == "" {
		token := uint64(0)
		if s.unnamed != nil && s.unnamed.statement == st {
			token = s.unnamed.token
		}
		if r == parseHidden && token != 0 && l.be.Unnamed == token {
			return
		}
		l.parse(st, r)
		l.be.Unnamed = token
		return
	}
	if l.be.Has(st) {
		if r == parseReply {
			l.await(localParse)
		}
		return
	}
	l.parse(st, r)
}

// join gives the lane for a statement of a pipeline, and makes one transaction of it where it writes on more than one.
func (s *Session) join(ctx context.Context, shard topology.ShardID, write bool) (*lane, error) {
	if !s.tx.open && len(s.lanes) > 0 {
		others, wrote := false, write
		for _, l := range s.lanes {
			if !l.synced {
				others = others || l.shard != shard
				wrote = wrote || l.wrote
			}
		}
		if others && wrote {
			if err := s.beginImplicit(); err != nil {
				return nil, err
			}
		}
	}
	l, err := s.lane(ctx, shard)
	if err != nil {
		return nil, err
	}
	if l.undrain > undrainedMax {
		if err := s.drain(l); err != nil {
			return nil, err
		}
	}
	return l, s.focus(l)
}

// isOurs says that the proxy itself runs the statement.
func isOurs(t *router.Template) bool {
	switch t.Kind {
	case router.Any, router.Keyed, router.Insert, router.Scatter, router.All, router.Notify, router.Cursor:
		return false
	case router.Show:
		return strings.HasPrefix(t.Set.Name, "shardproxy.")
	}
	return true
}

func (s *Session) lookup(name string) (*prepared, error) {
	p := s.prepared[name]
	if name == "" {
		p = s.unnamed
	}
	if p == nil {
		if name == "" {
			return nil, wire.Errorf(wire.CodeInvalidStatementName, "unnamed prepared statement does not exist")
		}
		return nil, wire.Errorf(wire.CodeInvalidStatementName, "prepared statement \"%s\" does not exist", name)
	}
	return p, nil
}

// current gives the statement's template for the newest snapshot.
func (s *Session) currentTemplate(ctx context.Context, p *prepared) (*router.Template, error) {
	if p.snap == s.topology() && p.env == s.env {
		s.snap = p.snap
		return p.template, nil
	}
	t, err := s.plan(ctx, p.sql)
	if err != nil {
		return nil, err
	}
	if t.Kind == router.Reject && t.Reason != nil {
		return nil, t.Reason
	}
	p.template, p.snap, p.env = t, s.snap, s.env
	p.literals = append(p.literals[:0], s.scratch.Literals...)
	return t, nil
}

// ends says that a statement may run in a failed transaction, as it ends or mends it.
func ends(t *router.Template) bool {
	return t.Kind == router.Tx && (t.Tx.Verb == router.Commit || t.Tx.Verb == router.Rollback || t.Tx.Verb == router.RollbackTo)
}

func asProtocol(err error) error { return wire.Errorf(wire.CodeProtocolViolation, "%v", err) }
