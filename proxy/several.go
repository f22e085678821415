package proxy

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// fanOut bounds how many shards of a read work for one statement at the same time.
const fanOut = 64

// part is what one shard is sent of a statement that runs on several.
type part struct {
	shard topology.ShardID
	sql   string
	rows  []int // INSERT: the numbers of its rows in the client's statement

	restore func(*wire.Error) // makes an error of sql one of the client's text; nil where sql is that

	// In the extended protocol:
	statement *backend.Statement
	bind      []byte // Bind, behind its names
}

// several runs a statement on more than one shard. A write is one transaction over all of them.
// bind is the client's Bind message, nil in the simple protocol.
func (s *Session) several(ctx context.Context, t *router.Template, shards []topology.ShardID, sql string, bind *boundPortal) error {
	if t.Finishes() {
		return s.finished(ctx, &finishing{t: t, shards: slices.Clone(shards), sql: strings.Clone(sql), bound: bind})
	}
	return s.severalOf(ctx, t, shards, func() ([]part, error) { return s.parts(t, shards, sql, bind) })
}

// severalOf is several with the parts that parts gives.
func (s *Session) severalOf(ctx context.Context, t *router.Template, shards []topology.ShardID, parts func() ([]part, error)) error {
	all := t.Kind == router.All || t.Kind == router.AllBare
	if !t.Combine && !all {
		if t.Reason != nil {
			return t.Reason
		}
		return wire.Errorf(wire.CodeFeatureNotSupported, "this statement does not run on several shards")
	}
	s.ownRead = false
	if err := s.claimAll(ctx, shards, t.Write || all || s.tx.open); err != nil {
		return err
	}
	list, err := parts()
	if err != nil {
		return err
	}
	var tag string
	switch {
	case !t.Write && !all:
		tag, err = s.severalReads(ctx, list)
	case all:
		fences := s.makesFences(t)
		tag, err = s.atomically(ctx, func() (string, error) {
			tag, err := s.onAll(ctx, list)
			if err == nil && fences {
				err = s.fenceNew(ctx)
			}
			return tag, err
		})
	case t.Kind == router.Insert && t.Returns:
		tag, err = s.atomically(ctx, func() (string, error) { return s.interleaved(ctx, list) })
	default:
		tag, err = s.atomically(ctx, func() (string, error) { return s.scatter(ctx, list, true, true) })
	}
	if err != nil {
		return err
	}
	s.complete(tag)
	return nil
}

// claimAll is claim for the shards of a statement that goes to several. Where it need not have them all at the same time, it takes
// some at a time, if they are many.
func (s *Session) claimAll(ctx context.Context, shards []topology.ShardID, together bool) error {
	if together {
		if err := s.affords(shards); err != nil {
			return err
		}
	}
	if err := s.heedAll(shards); err != nil {
		return err
	}
	if together || len(shards) <= s.readsAtOnce() {
		return s.claim(ctx, shards...)
	}
	return nil
}

// atomically runs f within the open transaction, or in one of its own that ends with it (simple protocol)
// or with the next Sync.
func (s *Session) atomically(ctx context.Context, f func() (string, error)) (string, error) {
	if s.tx.open {
		return f()
	}
	if err := s.beginImplicit(); err != nil {
		return "", err
	}
	for _, l := range slices.Clone(s.lanes) {
		if err := s.enter(l); err != nil {
			return "", err
		}
	}
	tag, err := f()
	switch {
	case s.extended:
		return tag, err
	case err != nil:
		if err = s.report(err); err != nil {
			return "", err
		}
		if err = s.rollback(); err != nil {
			return "", err
		}
		return "", errSent
	}
	return tag, s.commit(ctx)
}

// parts gives what each shard is sent: the same for all but those that hold rows which count elsewhere, for INSERT its own rows.
func (s *Session) parts(t *router.Template, shards []topology.ShardID, sql string, bind *boundPortal) ([]part, error) {
	parts := make([]part, 0, len(shards))
	if t.Kind == router.Insert {
		pieces, err := t.Split(s.snap, &s.args)
		if err != nil {
			return nil, err
		}
		for _, p := range pieces {
			q := part{shard: p.Shard, sql: p.SQL, rows: p.Rows}
			if bind != nil {
				var err error
				if q.bind, err = bind.message.Subset(nil, p.Params); err != nil {
					return nil, asProtocol(err)
				}
				q.statement = &backend.Statement{SQL: p.SQL, Types: subset(bind.message.Types, p.Params)}
			}
			parts = append(parts, q)
		}
		return parts, nil
	}
	for _, shard := range shards {
		q := part{shard: shard, sql: sql}
		if bind != nil {
			q.statement, q.bind = bind.statement, bind.message.Rest
		}
		q, err := s.owned(t, q)
		if err != nil {
			return nil, err
		}
		parts = append(parts, q)
	}
	return parts, nil
}

// subset gives the declared types of the parameters numbered in params.
func subset(types []byte, params []int) []byte {
	var of []byte
	for _, i := range params {
		if 4*i+4 <= len(types) {
			of = append(of, types[4*i:4*i+4]...)
		} else {
			of = append(of, 0, 0, 0, 0)
		}
	}
	return of
}

// dispatch sends a part to its shard without waiting. first says that its RowDescription is the client's,
// rows that its rows are; the tag stays in the lane.
func (s *Session) dispatch(ctx context.Context, p part, write, first, rows bool) (*lane, error) {
	l, err := s.lane(ctx, p.shard)
	if err != nil {
		return nil, err
	}
	l.wrote = l.wrote || write
	l.keepTag, l.restore = true, p.restore
	switch {
	case p.bind != nil:
		s.sendParse(l, p.statement, parseHidden)
		answer := executeHidden
		if rows {
			answer = executeTag
		}
		l.runOwn(p.statement.Name, p.bind, answer)
		l.be.SetAppended(wire.AppendEmpty(l.be.Append(), 'H'))
	case !rows:
		l.query(p.sql, queryTag)
	case first:
		l.query(p.sql, queryReply)
	default:
		l.query(p.sql, queryRows)
	}
	if err := l.be.Flush(); err != nil {
		return nil, s.lost(l, err)
	}
	return l, nil
}

// severalReads reads from many shards, some at a time, and puts the rows one after another.
func (s *Session) severalReads(ctx context.Context, parts []part) (string, error) {
	var sum tagSum
	for first := true; len(parts) > 0; first = false {
		n := min(s.readsAtOnce(), len(parts))
		held := len(s.lanes)
		tag, err := s.scatter(ctx, parts[:n], false, first)
		if err != nil {
			return "", err
		}
		sum.add(tag)
		if parts = parts[n:]; len(parts) == 0 || s.tx.open {
			continue
		}
		for _, l := range slices.Clone(s.lanes[held:]) {
			l.sync()
			if err := s.drain(l); err != nil {
				return "", err
			}
			if !l.pinned {
				s.drop(l)
			}
		}
	}
	return sum.String(), nil
}

// scatter sends each part to its shard before it reads the first answer. The rows go to the client in the
// order of the parts. After an error the client gets no more of them.
func (s *Session) scatter(ctx context.Context, parts []part, write, first bool) (string, error) {
	lanes := make([]*lane, 0, len(parts))
	for i, p := range parts {
		l, err := s.dispatch(ctx, p, write, first && i == 0, true)
		if err != nil {
			return "", s.abandon(lanes, err)
		}
		lanes = append(lanes, l)
	}
	return s.gather(lanes)
}

// gather reads the answers of the lanes one after another and adds up their tags.
func (s *Session) gather(lanes []*lane) (string, error) {
	var sum tagSum
	for i, l := range lanes {
		err := s.drain(l)
		l.keepTag, l.restore = false, nil
		if err != nil {
			return "", s.abandon(lanes[i+1:], err)
		}
		sum.add(l.tag)
	}
	return sum.String(), nil
}

// abandon reads what the lanes still answer, unseen, after the client has been told of err.
func (s *Session) abandon(lanes []*lane, err error) error {
	if e := s.report(err); e != nil {
		return e
	}
	s.muted = true
	defer func() { s.muted = false }()
	for _, l := range lanes {
		l.keepTag, l.restore = false, nil
		if slices.Contains(s.lanes, l) {
			_ = s.drain(l)
		}
	}
	return errSent
}

// onAll runs the same write on every shard and demands the same result of each. The first shard goes first:
// its locks put concurrent writers of a reference table in one order for all shards.
func (s *Session) onAll(ctx context.Context, parts []part) (string, error) {
	first, err := s.dispatch(ctx, parts[0], true, !s.extended, true)
	if err != nil {
		return "", err
	}
	want, err := s.gather([]*lane{first})
	if err != nil {
		return "", err
	}
	var lanes []*lane
	for _, p := range parts[1:] {
		l, err := s.dispatch(ctx, p, true, false, false)
		if err != nil {
			return "", s.abandon(lanes, err)
		}
		lanes = append(lanes, l)
	}
	for i, l := range lanes {
		if err := s.drain(l); err != nil {
			return "", s.abandon(lanes[i+1:], s.onShard(l.shard, err))
		}
		l.keepTag = false
		if l.tag != first.tag {
			return "", s.abandon(lanes[i+1:], wire.Errorf("XX001", "shards differ: %q on %s, %q on %s",
				first.tag, s.shardName(first.shard), l.tag, s.shardName(l.shard)).
				WithHint("Nothing was changed. Compare the table on both shards."))
		}
	}
	return want, nil
}

// onShard adds to a shard's error which shard it was.
func (s *Session) onShard(shard topology.ShardID, err error) error {
	if e, ok := err.(*serverError); ok && e.Detail == "" {
		e.Detail = "On shard " + s.shardName(shard) + "."
	}
	return err
}

// bare runs a statement that cannot be part of a transaction on every shard, and reports where it did not succeed.
func (s *Session) bare(ctx context.Context, shards []topology.ShardID, sql string) error {
	var (
		done, failed []string
		first        error
		tag          string
	)
	shards = slices.Clone(shards)
	for _, shard := range shards {
		l, err := s.lane(ctx, shard)
		if err == nil {
			l.query(sql, queryTag)
			err = s.drain(l)
		}
		if err != nil {
			if s.explain(err) == nil {
				return err
			}
			failed = append(failed, s.routes.snap.Shards[shard].Name)
			if first == nil {
				first = err
			}
			continue
		}
		tag = l.tag
		done = append(done, s.shardName(shard))
		s.settle()
	}
	if first == nil {
		s.complete(tag)
		return nil
	}
	e := s.explain(first)
	if len(done) == 0 {
		return e
	}
	e.Detail = strings.TrimSpace(fmt.Sprintf("%s\nFailed on: %s. Done on: %s.", e.Detail, listOf(failed), listOf(done)))
	e.Hint = "The shards differ now. Remove the cause and run the statement again where it failed."
	return e
}

func listOf(names []string) string {
	const most = 20
	switch {
	case len(names) == 0:
		return "none"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
	}
	return strings.Join(names, ", ")
}

// interleaved runs INSERT … RETURNING over several shards and gives the rows in the order of the client's VALUES.
func (s *Session) interleaved(ctx context.Context, parts []part) (string, error) {
	lanes := make([]*lane, 0, len(parts))
	total := 0
	for i, p := range parts {
		l, err := s.dispatch(ctx, p, true, i == 0 && !s.extended, true)
		if err != nil {
			return "", s.abandon(lanes, err)
		}
		lanes = append(lanes, l)
		total += len(p.rows)
	}
	owner := make([]*lane, total)
	for i, p := range parts {
		for _, row := range p.rows {
			owner[row] = lanes[i]
		}
	}
	for _, l := range lanes { // an error of any shard comes before the first row
		if err := s.toRow(l); err != nil {
			return "", s.abandon(lanes, err)
		}
	}
	for _, l := range owner {
		if err := s.passRow(l); err != nil {
			return "", s.abandon(lanes, err)
		}
	}
	return s.gather(lanes)
}

var stopsRow = wire.TypesOf("12TDCIEZSGW")

// toRow reads up to the lane's next row.
func (s *Session) toRow(l *lane) error {
	for l.pending() {
		want := l.expect[l.next]
		if want != queryReply && want != queryRows && want != executeTag {
			if err := s.answer(l); err != nil {
				return err
			}
			continue
		}
		typ, err := l.be.Forward(s.client, stopsRow)
		switch {
		case err != nil:
			return s.streamError(l, err)
		case typ == 'D':
			return nil
		case typ == 'T':
			m, err := l.be.Next(rowMax(typ))
			if err != nil {
				return s.lost(l, err)
			}
			s.accept(l, want, typ, m)
		default: // an error, or fewer rows than values
			if err := s.drain(l); err != nil {
				return err
			}
		}
	}
	return wire.Errorf(wire.CodeInternalError, "shard %s returned fewer rows than it was given", s.shardName(l.shard))
}

// passRow passes one row of the lane to the client.
func (s *Session) passRow(l *lane) error {
	if err := s.toRow(l); err != nil {
		return err
	}
	head, err := l.be.Peek(5)
	if err != nil {
		return s.lost(l, err)
	}
	s.client.Write(head)
	l.be.Skip(len(head))
	if err := l.be.ForwardBody(s.client); err != nil {
		return s.streamError(l, err)
	}
	return nil
}

// tagSum adds up the command tags of several shards.
type tagSum struct {
	verb    string
	rows    int64
	counted bool
	parts   int
}

func (t *tagSum) add(tag string) {
	verb, rows, counted := wire.SplitTag(tag)
	t.verb, t.counted = verb, counted
	t.rows += rows
	t.parts++
}

func (t *tagSum) String() string {
	if !t.counted {
		return t.verb
	}
	return t.verb + " " + strconv.FormatInt(t.rows, 10)
}
