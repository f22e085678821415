package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// copyBatch is how much COPY data of one shard is gathered before it is sent.
const copyBatch = 12 << 10

// binarySignature is the length of the head of the binary COPY format, without its extension.
const binarySignature = 19

// copy runs COPY of a table that is on several shards.
func (s *Session) copy(ctx context.Context, t *router.Template, sql string) error {
	c := t.Copy
	switch {
	case s.bound != unbound:
		return s.one(ctx, s.bound, sql, t.Write)
	case !c.From && (c.Table == nil || c.Table.Kind != topology.Sharded):
		return s.one(ctx, s.anyShard(), sql, t.Write)
	case !c.From:
		if err := s.heldKeys(); err != nil {
			return err
		}
		if err := s.heedAll(s.everyShard()); err != nil {
			return err
		}
		return s.copyOut(ctx, t, sql)
	case c.Nowhere: // no row can be stored: any shard says why
		return s.one(ctx, s.anyShard(), sql, t.Write)
	case c.Table.Kind == topology.Sharded && c.Key < 0:
		return wire.Errorf(wire.CodeNotNullViolation, "COPY into \"%s\" does not give its shard key \"%s\"", c.Table.Name, c.Table.KeyColumn()).
			WithHint("Add the column to the column list and to the data.")
	case c.Table.Kind == topology.Sharded && !router.SafeEncoding(s.copyEncoding(c)):
		return wire.Errorf(wire.CodeFeatureNotSupported, "COPY in encoding %s cannot be split by key", s.copyEncoding(c)).
			WithHint("SET client_encoding = 'UTF8'.")
	}
	var shards []topology.ShardID
	var err error
	if c.Table.Kind == topology.Sharded {
		shards, err = s.everyShard(), s.heldKeys()
	} else {
		shards, err = s.allShards()
	}
	if err != nil {
		return err
	}
	if err := s.heedAll(shards); err != nil {
		return err
	}
	sql = string([]byte(sql)) // the client's buffer is read into from here on
	in := &copyIn{s: s, sql: sql, split: c.Table.Kind == topology.Sharded}
	tag, err := s.atomically(ctx, func() (string, error) { return in.run(ctx, c) })
	if err != nil {
		return err
	}
	s.complete(tag)
	return nil
}

// copyEncoding is the encoding of COPY's data.
func (s *Session) copyEncoding(c *router.CopyStmt) string {
	return cmp.Or(c.Encoding, s.clientEncoding())
}

func (s *Session) clientEncoding() string {
	if s.tx.local != nil {
		if v, ok := s.tx.local.Get("client_encoding"); ok {
			return v
		}
	}
	return s.encodingOf(s.settings)
}

func (s *Session) encodingOf(settings *backend.Settings) string {
	v, _ := effective(s.srv.defaults.Load().params, settings, "client_encoding")
	return v
}

// pump passes COPY data from the client to the one shard that has asked for it.
func (s *Session) pump(l *lane, ask []byte, want reply) error {
	if want != queryReply && want != executeReply {
		return s.lost(l, errors.New("the server asked for COPY data unexpectedly"))
	}
	s.client.Write(ask)
	if err := s.client.Flush(); err != nil {
		return &clientError{err}
	}
	for {
		typ, body, err := s.client.Head()
		if err != nil {
			return &clientError{err}
		}
		switch typ {
		case 'd', 'c', 'f':
			l.be.Write(wire.AppendHead(nil, typ, body))
			s.client.Skip(5)
			if err := s.client.ForwardBody(l.be.Stream); err != nil {
				if w, ok := err.(*wire.WriteError); ok {
					_ = s.passRest()
					return s.lost(l, w.Err)
				}
				return &clientError{err}
			}
			if typ != 'd' {
				if err := l.be.Flush(); err != nil {
					return s.lost(l, err)
				}
				return nil
			}
		case 'H', 'S': // PostgreSQL passes over these during COPY
			if err := s.passOver(); err != nil {
				return &clientError{err}
			}
		default:
			return wire.Fatalf(wire.CodeProtocolViolation, "unexpected message type 0x%02X during COPY from stdin", typ)
		}
	}
}

// copyIn is one COPY … FROM STDIN over several shards: rows by key for a sharded table, all rows to all shards
// for a reference table.
type copyIn struct {
	s     *Session
	sql   string
	split bool
	lanes []*lane // that are in COPY, the first one from the start
	rows  *router.CopySplitter
}

func (in *copyIn) run(ctx context.Context, c *router.CopyStmt) (tag string, err error) {
	s := in.s
	if in.split {
		in.rows = router.NewCopySplitter(c)
		server := s.srv.defaults.Load().params["server_encoding"]
		in.rows.Foreign = s.foreign
		if c.Encoding != "" {
			in.rows.Foreign = !strings.EqualFold(strings.ReplaceAll(c.Encoding, "-", ""), server)
		}
		if _, err := in.open(ctx, s.anyShard(), true); err != nil {
			return "", err
		}
	} else {
		shards, err := s.allShards()
		if err != nil {
			return "", err
		}
		for i, shard := range slices.Clone(shards) {
			l, err := in.open(ctx, shard, i == 0)
			if err != nil {
				return "", in.fail(err)
			}
			l.wrote = true
		}
	}
	if err := s.client.Flush(); err != nil {
		return "", &clientError{err}
	}
	if err := in.receive(ctx); err != nil {
		return "", in.fail(err)
	}
	return in.finish()
}

// open starts the COPY on a shard. The first one's CopyInResponse is the client's.
func (in *copyIn) open(ctx context.Context, shard topology.ShardID, first bool) (*lane, error) {
	s := in.s
	l, err := s.lane(ctx, shard)
	if err != nil {
		return nil, err
	}
	l.query(in.sql, queryTag)
	if err := l.be.Flush(); err != nil {
		return nil, s.lost(l, err)
	}
	for l.pending() && l.expect[l.next] != queryTag {
		if err := s.answer(l); err != nil {
			return nil, err
		}
	}
	typ, err := l.be.Forward(nil, stopsRows)
	if err != nil {
		return nil, s.streamError(l, err)
	}
	if typ != 'G' {
		if err := s.drain(l); err != nil {
			return nil, err
		}
		return nil, s.lost(l, fmt.Errorf("message %q instead of CopyInResponse", typ))
	}
	m, err := l.be.Next(errorMax)
	if err != nil {
		return nil, s.lost(l, err)
	}
	if first {
		s.client.Write(m)
	}
	in.lanes = append(in.lanes, l)
	return l, nil
}

// receive takes the client's data until CopyDone.
func (in *copyIn) receive(ctx context.Context) error {
	s := in.s
	for {
		typ, body, err := s.client.Head()
		if err != nil {
			return &clientError{err}
		}
		switch typ {
		case 'd':
			s.client.Skip(5)
			for {
				chunk, err := s.client.Chunk()
				if err != nil {
					return &clientError{err}
				}
				if chunk == nil {
					break
				}
				if err := in.take(ctx, chunk); err != nil {
					if e := s.passRest(); e != nil {
						return &clientError{e}
					}
					return err
				}
			}
		case 'c':
			if err := s.passOver(); err != nil {
				return &clientError{err}
			}
			if in.split {
				return in.rows.Finish(func(h topology.KeyHash, row []byte) error { return in.send(ctx, h, row) })
			}
			return nil
		case 'f':
			m, err := s.next(min(body, errorMax))
			if err != nil {
				return &clientError{err}
			}
			reason, err := wire.QueryText(m[5:])
			if err != nil {
				return asProtocol(err)
			}
			return wire.Errorf(wire.CodeQueryCanceled, "COPY from stdin failed: %s", reason)
		case 'H', 'S':
			if err := s.passOver(); err != nil {
				return &clientError{err}
			}
		default:
			return wire.Fatalf(wire.CodeProtocolViolation, "unexpected message type 0x%02X during COPY from stdin", typ)
		}
	}
}

// take deals with one chunk of data.
func (in *copyIn) take(ctx context.Context, chunk []byte) error {
	if in.split {
		return in.rows.Feed(chunk, func(h topology.KeyHash, row []byte) error { return in.send(ctx, h, row) })
	}
	for _, l := range in.lanes {
		if err := in.put(l, chunk); err != nil {
			return err
		}
	}
	return nil
}

// send gives one row to the shard that owns its key.
func (in *copyIn) send(ctx context.Context, h topology.KeyHash, row []byte) error {
	shard := in.s.snap.Owner(h)
	for _, l := range in.lanes {
		if l.shard == shard {
			l.wrote = true
			return in.put(l, row)
		}
	}
	l, err := in.open(ctx, shard, false)
	if err != nil {
		return err
	}
	l.wrote = true
	return in.put(l, row)
}

func (in *copyIn) put(l *lane, data []byte) error {
	if in.split && !l.headed {
		l.headed = true
		if h := in.rows.Header(); len(h) > 0 {
			l.be.SetAppended(wire.AppendCopyData(l.be.Append(), h))
		}
	}
	if len(data) > copyBatch {
		l.be.Write(wire.AppendHead(nil, 'd', len(data)))
		l.be.Write(data)
	} else {
		l.be.SetAppended(wire.AppendCopyData(l.be.Append(), data))
	}
	if l.be.Unsent() > copyBatch {
		if err := l.be.Flush(); err != nil {
			return in.s.lost(l, err)
		}
	}
	return nil
}

// finish ends the data on every shard and adds up the rows.
func (in *copyIn) finish() (string, error) {
	s := in.s
	for _, l := range in.lanes {
		if in.split {
			if !l.headed {
				if h := in.rows.Header(); len(h) > 0 {
					l.be.SetAppended(wire.AppendCopyData(l.be.Append(), h))
				}
			}
			if t := in.rows.Trailer(); len(t) > 0 {
				l.be.SetAppended(wire.AppendCopyData(l.be.Append(), t))
			}
		}
		l.be.SetAppended(wire.AppendEmpty(l.be.Append(), 'c'))
		l.headed = false
		if err := l.be.Flush(); err != nil {
			return "", in.fail(s.lost(l, err))
		}
	}
	var sum tagSum
	for i, l := range in.lanes {
		if err := s.drain(l); err != nil {
			return "", s.abandon(in.lanes[i+1:], err)
		}
		if in.split || i == 0 {
			sum.add(l.tag)
		} else if l.tag != in.lanes[0].tag {
			return "", s.abandon(in.lanes[i+1:], wire.Errorf("XX001", "shards differ: %q on %s, %q on %s",
				in.lanes[0].tag, s.shardName(in.lanes[0].shard), l.tag, s.shardName(l.shard)))
		}
	}
	return sum.String(), nil
}

// fail ends the COPY on all shards without effect and returns err.
func (in *copyIn) fail(err error) error {
	for _, l := range in.lanes {
		l.headed = false
		if slices.Contains(in.s.lanes, l) {
			l.be.SetAppended(wire.AppendCopyFail(l.be.Append(), "shardproxy"))
			_ = l.be.Flush()
		}
	}
	if in.s.explain(err) == nil && err != errSent {
		for _, l := range in.lanes {
			l.be.Broken = true
		}
		return err
	}
	return in.s.abandon(in.lanes, err)
}

// copyOut runs COPY TO STDOUT of a sharded table: the data of one shard after the other, as one.
func (s *Session) copyOut(ctx context.Context, t *router.Template, sql string) error {
	parts, err := s.parts(t, slices.Clone(s.everyShard()), sql, nil)
	if err != nil {
		return err
	}
	held := len(s.lanes)
	var sum tagSum
	for i, p := range parts {
		l, err := s.lane(ctx, p.shard)
		if stale, ok := err.(*staleError); ok && i > 0 { // the client has rows: it must not run again
			return stale.forClient(true)
		}
		if err != nil {
			return err
		}
		l.query(p.sql, queryTag)
		if err := s.copyFrom(l, t.Copy, i == 0, i == len(parts)-1); err != nil {
			return err
		}
		if err := s.drain(l); err != nil {
			return restored(err, p.restore)
		}
		sum.add(l.tag)
		if !s.tx.open && len(s.lanes) > held && !l.pinned {
			s.drop(l)
		}
	}
	s.client.SetAppended(wire.AppendEmpty(s.client.Append(), 'c'))
	s.complete(sum.String())
	return nil
}

var (
	stopsCopy     = wire.TypesOf("HdcCEZSGW")
	stopsCopyPass = wire.TypesOf("HcCEZSGW")
)

// copyFrom passes one shard's data on. A header is passed from the first shard only, and the end mark of the
// binary format from the last.
func (s *Session) copyFrom(l *lane, c *router.CopyStmt, first, last bool) error {
	if err := l.be.Flush(); err != nil {
		return s.lost(l, err)
	}
	for l.pending() && l.expect[l.next] != queryTag {
		if err := s.answer(l); err != nil {
			return err
		}
	}
	cut := !first && (c.Header || c.Format == router.CopyBinary)
	stop := stopsCopyPass
	if cut || c.Format == router.CopyBinary && !last {
		stop = stopsCopy
	}
	for {
		typ, err := l.be.Forward(s.client, stop)
		if err != nil {
			return s.streamError(l, err)
		}
		switch typ {
		case 'H':
			m, err := l.be.Next(errorMax)
			if err != nil {
				return s.lost(l, err)
			}
			if first {
				s.client.Write(m)
			}
		case 'd':
			if err := s.copyRow(l, c, &cut, last); err != nil {
				return err
			}
			if !cut && c.Format != router.CopyBinary {
				stop = stopsCopyPass
			}
		case 'c':
			if _, err := l.be.Next(0); err != nil {
				return s.lost(l, err)
			}
			return nil
		default:
			return nil // drain deals with an error
		}
	}
}

// copyRow passes one CopyData message, without what only one shard may give.
func (s *Session) copyRow(l *lane, c *router.CopyStmt, cut *bool, last bool) error {
	_, body, err := l.be.Head()
	if err != nil {
		return s.lost(l, err)
	}
	skip := 0
	switch {
	case c.Format == router.CopyBinary && body == 2 && !last: // the end mark
		skip = body
	case *cut && c.Format == router.CopyBinary:
		skip = min(binarySignature, body)
	case *cut:
		skip = body
	}
	*cut = false
	if _, err := l.be.Peek(5 + skip); err != nil {
		return s.lost(l, err)
	}
	l.be.Skip(5 + skip)
	if body == skip {
		return nil
	}
	s.client.Write(wire.AppendHead(nil, 'd', body-skip))
	if err := l.be.ForwardBody(s.client); err != nil {
		return s.streamError(l, err)
	}
	return nil
}

// probeCopy lets a shard say what is wrong with a COPY that the router does not understand: a table, column or option
// that does not exist. Data does not come into it.
func (s *Session) probeCopy(ctx context.Context, sql string) error {
	l, err := s.lane(ctx, s.anyShard())
	if err != nil {
		return err
	}
	l.query(sql, queryTag)
	if err := l.be.Flush(); err != nil {
		return s.lost(l, err)
	}
	for l.pending() && l.expect[l.next] != queryTag {
		if err := s.answer(l); err != nil {
			return err
		}
	}
	typ, err := l.be.Forward(nil, stopsCopy)
	if err != nil {
		return s.streamError(l, err)
	}
	switch typ {
	case 'G':
		if _, err := l.be.Next(errorMax); err != nil {
			return s.lost(l, err)
		}
		l.be.SetAppended(wire.AppendCopyFail(l.be.Append(), "shardproxy"))
		_ = s.drain(l)
	case 'H':
		_ = s.lost(l, errors.New("a COPY that must not go on was abandoned"))
	default:
		if err := s.drain(l); err != nil {
			return err
		}
	}
	return wire.Errorf(wire.CodeFeatureNotSupported, "this COPY is newer than the grammar of shardproxy").
		WithHint("Name its shard: /* shardproxy: key=… */ in front of it.")
}
