package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// Sequences are those of the first shard, for all shards: what a statement takes from one is asked for there, and put into the
// statement's text, or its parameters, before it is planned (docs/decisions/0014-sequences-live-on-the-first-shard.md).

// sequenceHome is the shard whose sequences count.
const sequenceHome topology.ShardID = 0

// sequences is what the session knows of those that it has used.
type sequences struct {
	current map[string]int64 // what currval gives
	last    string           // of which lastval is
}

// runDrawn runs a statement once its numbers are in its text.
func (s *Session) runDrawn(ctx context.Context, d *router.Drawing, sql string) error {
	numbers, err := s.draw(ctx, d)
	if err != nil {
		return err
	}
	text, inserted := d.Fill(sql, func(i int) string {
		if numbers[i] < 0 {
			return "(" + strconv.FormatInt(numbers[i], 10) + ")"
		}
		return strconv.FormatInt(numbers[i], 10)
	})
	t, err := s.template(ctx, text)
	if err != nil {
		return err
	}
	s.filled = filledText{sql, inserted}
	defer func() { s.filled = filledText{} }()
	return s.run(ctx, t, text)
}

// filledText is a text of the client's into which numbers were put.
type filledText struct {
	sql      string
	inserted []router.Insertion
}

// restore makes a position in the text that was sent one of the client's.
func (f *filledText) restore(e *wire.Error) {
	shift := 0
	for _, in := range f.inserted {
		at := utf8.RuneCountInString(f.sql[:in.At])
		if e.Position <= at+shift {
			break
		}
		shift += min(in.Grown, e.Position-at-shift)
	}
	if e.Position > 0 {
		e.Position = max(e.Position-shift, 1)
	}
}

// prepareDrawn makes the numbers of a statement further parameters of it: bigints behind the client's own.
func (s *Session) prepareDrawn(m *wire.Parse, t *router.Template) (*drawn, error) {
	d := &drawn{Drawing: t.Draws, params: max(t.Params, len(m.Types)/4)}
	if d.params+len(t.Draws.Draws) > 1<<16-1 {
		return nil, wire.Errorf(wire.CodeProgramLimitExceeded, "the statement has too many parameters with those that its sequences need")
	}
	text, inserted := t.Draws.Fill(m.SQL, func(i int) string { return "$" + strconv.Itoa(d.params+i+1) })
	d.filledText = filledText{m.SQL, inserted}
	types := append(bytes.Clone(m.Types), make([]byte, 4*d.params-len(m.Types))...)
	for range t.Draws.Draws {
		types = binary.BigEndian.AppendUint32(types, wire.OIDInt8)
	}
	m.SQL, m.Types = text, types
	return d, nil
}

// drawn is a prepared statement with parameters of the proxy's own.
type drawn struct {
	*router.Drawing
	filledText
	params int // the client's
}

// describe takes the proxy's own parameters out of a ParameterDescription.
func (d *drawn) describe(m []byte) []byte {
	if n := 7 + 4*d.params; len(m) > n {
		m = bytes.Clone(m[:n])
		binary.BigEndian.PutUint32(m[1:], uint32(n-1))
		binary.BigEndian.PutUint16(m[5:], uint16(d.params))
	}
	return m
}

// drawnOf is the sequences of the statement that a Bind names, nil where it uses none.
func (s *Session) drawnOf(bind []byte) *drawn {
	_, rest, err := wire.String(bind)
	if err != nil {
		return nil
	}
	name, _, err := wire.String(rest)
	if err != nil {
		return nil
	}
	p := s.prepared[name]
	if name == "" {
		p = s.unnamed
	}
	if p == nil {
		return nil
	}
	return p.drawn
}

// bindDrawn gives the body of a Bind with the numbers behind the client's parameters.
func (s *Session) bindDrawn(ctx context.Context, d *drawn, body []byte) ([]byte, error) {
	b, err := wire.ParseBind(body)
	results, ok := b.ResultFormats()
	if err != nil || !ok {
		return nil, asProtocol(wire.ErrMalformed)
	}
	if b.Count() != d.params {
		return nil, wire.Errorf(wire.CodeProtocolViolation, "bind message supplies %d parameters, but prepared statement \"%s\" requires %d", b.Count(), b.Statement, d.params)
	}
	numbers, err := s.draw(ctx, d.Drawing)
	if err != nil {
		return nil, err
	}
	params, more := make([]int, d.params), make([][]byte, len(numbers))
	for i := range params {
		params[i] = i
	}
	for i, n := range numbers {
		more[i] = binary.BigEndian.AppendUint64(nil, uint64(n))
	}
	return b.With(body[:len(body)-len(b.Rest):len(body)-len(b.Rest)], params, more, results)
}

// draw takes the numbers of a statement.
func (s *Session) draw(ctx context.Context, d *router.Drawing) (numbers []int64, err error) {
	sets, count := false, make(map[string]int)
	for _, one := range d.Draws {
		sets = sets || one.Verb == router.DrawSet
		if one.Verb == router.DrawNext {
			count[one.Sequence]++
		}
	}
	ahead := make(map[string][]int64)
	for _, one := range d.Draws {
		var number int64
		current, known := s.sequences.current[one.Sequence]
		switch one.Verb {
		case router.DrawNext:
			list := ahead[one.Sequence]
			if len(list) == 0 {
				n := count[one.Sequence]
				if sets { // each in its turn
					n = 1
				}
				if list, err = s.atHome(ctx, one.Identity, fmt.Sprintf("SELECT pg_catalog.nextval(%s) FROM pg_catalog.generate_series(1, %d)", quote(one.Sequence), n)); err != nil {
					return nil, err
				}
			}
			number, ahead[one.Sequence] = list[0], list[1:]
			s.sequences.note(one.Sequence, number)
			s.sequences.last = one.Sequence
		case router.DrawCurrent:
			if !known {
				return nil, wire.Errorf(wire.CodeObjectNotInPrerequisite, "currval of sequence %s is not yet defined in this session", bareName(one.Sequence))
			}
			number = current
		case router.DrawLast:
			if s.sequences.last == "" {
				return nil, wire.Errorf(wire.CodeObjectNotInPrerequisite, "lastval is not yet defined in this session")
			}
			number = s.sequences.current[s.sequences.last]
		case router.DrawSet:
			list, err := s.atHome(ctx, false, fmt.Sprintf("SELECT pg_catalog.setval(%s, %s, %t)", quote(one.Sequence), one.Value, one.Called))
			if err != nil {
				return nil, err
			}
			if number = list[0]; one.Called {
				s.sequences.note(one.Sequence, number)
			}
		}
		numbers = append(numbers, number)
	}
	return numbers, nil
}

func (q *sequences) note(sequence string, number int64) {
	if q.current == nil {
		q.current = make(map[string]int64)
	}
	q.current[sequence] = number
}

// bareName is the name of a sequence as PostgreSQL's messages have it.
func bareName(sequence string) string {
	if _, name, ok := strings.Cut(sequence, `"."`); ok {
		return `"` + name
	}
	return `"` + sequence + `"`
}

// atHome runs a query of one bigint a row where the sequences are. Numbers are taken by another connection than the
// session's transaction has, so that they are on disk before anything is that depends on them, and stay taken if it is rolled
// back; but one that has changed the schema may be about to make the sequence, and commits on that shard in any case.
func (s *Session) atHome(ctx context.Context, identity bool, sql string) (numbers []int64, err error) {
	var rows [][]string
	if s.tx.open && s.tx.everywhere {
		rows, err = s.onHomeLane(ctx, sql)
	} else {
		rows, err = s.besideHome(ctx, identity, sql)
	}
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		n, err := strconv.ParseInt(row[0], 10, 64)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	if len(numbers) == 0 {
		return nil, errors.New("a sequence gave no number")
	}
	return numbers, nil
}

func (s *Session) onHomeLane(ctx context.Context, sql string) ([][]string, error) {
	if err := s.drainAll(); err != nil {
		return nil, err
	}
	l, err := s.lane(ctx, sequenceHome)
	if err != nil {
		return nil, err
	}
	l.rows, l.wrote = nil, true
	l.query(sql, queryHidden)
	err = s.drain(l)
	rows := l.rows
	l.rows = nil
	if server, ok := err.(*serverError); ok {
		err = (*wire.Error)(server)
	}
	return rows, err
}

// besideHome runs the query on a connection of its own, for an identity column as the service user: whoever may insert may have its numbers.
func (s *Session) besideHome(ctx context.Context, identity bool, sql string) ([][]string, error) {
	user := s.user
	if identity {
		user = s.srv.now().Service
	}
	pool := s.srv.poolOf(user, s.routes.snap, sequenceHome)
	s.waiter.Inside = len(s.lanes) > 0
	c, err := pool.Acquire(ctx, &s.waiter)
	if err != nil {
		return nil, &noBackendError{err}
	}
	defer pool.Release(c)
	rows, err := c.Rows(ctx, sql)
	var refused *wire.Error
	if err != nil && !errors.As(err, &refused) {
		return nil, &laneError{s.shardName(sequenceHome), err}
	}
	return rows, err
}
