package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// ownedStatement is the name of a prepared statement that leaves out the rows which count on another shard. Its text is of
// one map, and so it is made anew for each EXECUTE.
const ownedStatement = "shardproxy-owned"

// owned gives the part for a shard of a statement that runs on several: where the shard may hold rows that count elsewhere,
// its text is one that leaves them out, and a statement of its own in the extended protocol.
func (s *Session) owned(t *router.Template, p part) (part, error) {
	foreign := s.snap.ForeignOf(s.srv.snapshot.Load(), p.shard)
	if len(foreign) == 0 {
		return p, nil
	}
	o, err := t.Owned(p.sql, foreign)
	if err != nil {
		return p, err
	}
	if !o.Changed() {
		return p, nil
	}
	p.sql = o.SQL
	p.restore = func(e *wire.Error) { e.Position = o.Position(e.Position) }
	if p.statement != nil {
		p.statement = &backend.Statement{SQL: o.SQL, Types: p.statement.Types}
	}
	return p, nil
}

// executeParts gives what each shard is sent for EXECUTE, whose statement it has then been given.
func (s *Session) executeParts(ctx context.Context, inner *router.Template, p *prepared, t *router.Template, sql string, shards []topology.ShardID) ([]part, error) {
	span := t.Prepare.NameSpan
	named := func(name string) string {
		return sql[:span.Start] + quoteIdentifier(name) + sql[span.End:]
	}
	parts := make([]part, 0, len(shards))
	for _, shard := range shards {
		q := part{shard: shard, sql: p.sql}
		if len(shards) > 1 {
			var err error
			if q, err = s.owned(inner, q); err != nil {
				return nil, err
			}
		}
		l, err := s.lane(ctx, shard)
		if err != nil {
			return nil, err
		}
		if q.restore == nil {
			if err := s.give(l, p.statement); err != nil {
				return nil, err
			}
			q.sql = named(p.statement.Name)
			parts = append(parts, q)
			continue
		}
		if err := s.giveAnew(l, &backend.Statement{Name: ownedStatement, SQL: q.sql, Types: p.statement.Types}); err != nil {
			return nil, err
		}
		q.sql = named(ownedStatement)
		from := utf8.RuneCountInString(sql[:span.Start])
		shift := len(quoteIdentifier(ownedStatement)) - utf8.RuneCountInString(sql[span.Start:span.End])
		q.restore = func(e *wire.Error) {
			if e.Position > from {
				e.Position -= shift
			}
			e.Message = strings.ReplaceAll(e.Message, `"`+ownedStatement+`"`, `"`+t.Prepare.Name+`"`)
		}
		parts = append(parts, q)
	}
	return parts, nil
}

// give makes sure that a lane's backend has a statement.
func (s *Session) give(l *lane, st *backend.Statement) error {
	if l.be.Has(st) {
		return nil
	}
	s.sendParse(l, st, parseHidden)
	l.sync()
	return s.drain(l)
}

// giveAnew gives a lane's backend a statement that takes the place of another of its name.
func (s *Session) giveAnew(l *lane, st *backend.Statement) error {
	l.send(func(dst []byte) []byte {
		dst = wire.AppendClose(dst, 'S', st.Name)
		return wire.AppendParse(dst, st.Name, st.SQL, st.Types)
	})
	l.await(closePortal)
	l.await(parseHidden)
	l.parsing = append(l.parsing, st)
	l.sync()
	return s.drain(l)
}

// ownedLines says on which shards a statement is told to leave rows out.
func (s *Session) ownedLines(t *router.Template, shards []topology.ShardID) (lines []string) {
	guarded, refused := t.Guarded()
	if !guarded {
		return nil
	}
	for _, shard := range shards {
		foreign := s.snap.ForeignOf(s.srv.snapshot.Load(), shard)
		switch {
		case len(foreign) == 0:
		case refused != nil:
			return refusedLines(refused)
		default:
			lines = append(lines, fmt.Sprintf("Left out on %s: the rows that count on another shard (key ranges: %d)", s.shardName(shard), len(foreign)))
		}
	}
	return lines
}

// restored is err as the client's own text would have caused it.
func restored(err error, restore func(*wire.Error)) error {
	var e *serverError
	if restore != nil && errors.As(err, &e) {
		restore((*wire.Error)(e))
	}
	return err
}
