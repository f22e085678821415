package proxy

import (
	"context"
	"encoding/binary"
	"slices"

	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// pulledRows are the rows that shards have given for one input, column by column as the elements of arrays of text.
type pulledRows struct {
	shards  []topology.ShardID // that give them
	columns [][]byte
	rows    int
	bounds  *pullBounds
}

// pullBounds bound what the inputs of a statement hold together.
type pullBounds struct {
	rows, rowsMax   int
	bytes, bytesMax int
	full            bool
}

// add takes a DataRow. The first row above a bound is an error, those behind it are passed over.
func (p *pulledRows) add(body []byte) error {
	b := p.bounds
	if b.full {
		return nil
	}
	p.rows++
	b.rows++
	if b.bytes += len(body); b.bytes > b.bytesMax || b.rows > b.rowsMax {
		b.full = true
		p.columns = nil
		return wire.Errorf(wire.CodeOutOfMemory, "this statement needs more than %d bytes or %d rows of the shards at one place", b.bytesMax, b.rowsMax).
			WithHint("Add a condition or a LIMIT, or raise limits.finish_bytes and limits.finish_rows.")
	}
	if len(body) < 2 {
		return wire.ErrMalformed
	}
	n := int(binary.BigEndian.Uint16(body))
	body = body[2:]
	if p.columns == nil {
		p.columns = make([][]byte, n)
	}
	if n != len(p.columns) {
		return wire.Errorf(wire.CodeInternalError, "shards give rows of %d and of %d columns", n, len(p.columns)).
			WithHint("Compare the tables of the shards.")
	}
	for i := range n {
		if len(body) < 4 {
			return wire.ErrMalformed
		}
		size := int(int32(binary.BigEndian.Uint32(body)))
		size = 4 + max(size, 0)
		if size > len(body) {
			return wire.ErrMalformed
		}
		p.columns[i] = append(p.columns[i], body[:size]...)
		body = body[size:]
	}
	return nil
}

// arrays gives each column as an array of text in binary format.
func (p *pulledRows) arrays(columns int) [][]byte {
	list := make([][]byte, columns)
	for i := range list {
		var elements []byte
		dimensions, nulls := uint32(1), uint32(1) // there may be some
		if i < len(p.columns) {
			elements = p.columns[i]
		}
		if p.rows == 0 {
			dimensions = 0
		}
		a := make([]byte, 0, 20+len(elements))
		a = binary.BigEndian.AppendUint32(a, dimensions)
		a = binary.BigEndian.AppendUint32(a, nulls)
		a = binary.BigEndian.AppendUint32(a, wire.OIDText)
		if p.rows > 0 {
			a = binary.BigEndian.AppendUint32(a, uint32(p.rows))
			a = binary.BigEndian.AppendUint32(a, 1)
			if i < len(p.columns) {
				p.columns[i] = nil
			}
		}
		list[i] = append(a, elements...)
	}
	return list
}

// pull collects the rows of all shards, some shards at a time.
func (s *Session) pull(ctx context.Context, w *finishing) error {
	shards := w.shards
	for len(shards) > 0 {
		n := min(s.readsAtOnce(), len(shards))
		held := len(s.lanes)
		var lanes []*lane
		for _, shard := range shards[:n] {
			l, err := s.pullFrom(ctx, w, shard)
			if err != nil {
				return w.unfinished(err)
			}
			lanes = append(lanes, l)
		}
		for _, l := range lanes {
			err := s.drain(l)
			l.pulls, l.restore = nil, nil
			if err != nil {
				for _, other := range lanes {
					other.restore = nil
				}
				return w.unfinished(err)
			}
		}
		if shards = shards[n:]; s.tx.open {
			continue
		}
		for _, l := range slices.Clone(s.lanes[min(held, len(s.lanes)):]) {
			l.sync()
			if err := s.drain(l); err != nil {
				return err
			}
			if !l.pinned && l != w.first {
				w.lanes = slices.DeleteFunc(w.lanes, func(other *lane) bool { return other == l })
				s.drop(l)
			}
		}
	}
	return nil
}

// pullFrom asks a shard for its rows of all inputs, without waiting for the last of them.
func (s *Session) pullFrom(ctx context.Context, w *finishing, shard topology.ShardID) (*lane, error) {
	l, err := s.lane(ctx, shard)
	if err != nil {
		return nil, err
	}
	if l != w.first {
		w.lanes = append(w.lanes, l)
	}
	l.pulls, l.restore = nil, func(e *wire.Error) { e.Position = 0 }
	for i, in := range w.f.Inputs {
		if !slices.Contains(w.inputs[i].shards, shard) {
			continue
		}
		if l.undrain > undrainedMax {
			if err := s.drain(l); err != nil {
				return nil, err
			}
		}
		if err := s.sendPull(w, l, in, &w.inputs[i]); err != nil {
			return nil, err
		}
	}
	l.be.SetAppended(wire.AppendEmpty(l.be.Append(), 'H'))
	if err := l.be.Flush(); err != nil {
		return nil, s.lost(l, err)
	}
	return l, nil
}

// sendPull sends the text of an input to a lane.
func (s *Session) sendPull(w *finishing, l *lane, in *router.Input, rows *pulledRows) error {
	sql, keep, err := s.pullText(in, l.shard)
	if err != nil {
		return err
	}
	rest, err := s.pullBind(w, in)
	if err != nil {
		return err
	}
	st := s.statementOf(w, sql, s.typesOf(w, in.Params), keep)
	s.sendParse(l, st, parseProbe)
	l.pulls = append(l.pulls, rows)
	l.runOwn(st.Name, rest, executePull)
	return nil
}

// pullBind is the Bind of what gives an input's rows, behind its names.
func (s *Session) pullBind(w *finishing, in *router.Input) ([]byte, error) {
	client, _ := w.client()
	rest, err := client.With(nil, in.Params, nil, []byte{0, 0})
	if err != nil {
		return nil, asProtocol(err)
	}
	return rest, nil
}
