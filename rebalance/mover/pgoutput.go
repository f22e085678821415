package mover

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The messages of PostgreSQL's output plugin pgoutput, protocol version 1 with logical messages. Byte slices
// point into the message.
type (
	beginMessage struct {
		commitLSN LSN // where its commit record begins
		xid       uint32
	}
	commitMessage   struct{ endLSN LSN } // where its commit record ends
	logicalMessage  struct{ prefix, content []byte }
	truncateMessage struct{ relations []uint32 }
	relationMessage struct {
		relation     uint32
		schema, name string
		columns      []relationColumn
	}
	relationColumn struct {
		name     string
		typeOID  uint32
		identity bool // part of the replica identity
	}
	// rowMessage is an insert (I), update (U) or delete (D). oldKind says what old is: K the replica identity (the
	// other columns are NULL), O the whole row, 0 nothing.
	rowMessage struct {
		kind     byte
		relation uint32
		oldKind  byte
		old, new []datum
	}
)

// datum is one column of a tuple.
type datum struct {
	value     []byte // in text; nil for NULL
	unchanged bool   // a TOAST value that the update left as it was, not sent
}

var errShort = errors.New("pgoutput: the message is cut off")

// decode reads one message. Those of no interest (type, origin) are nil.
func decode(data []byte) (any, error) {
	if len(data) == 0 {
		return nil, errShort
	}
	r := reader{data: data[1:]}
	var m any
	switch data[0] {
	case 'B':
		b := beginMessage{commitLSN: LSN(r.uint64())}
		r.skip(8)
		b.xid = r.uint32()
		m = b
	case 'C':
		r.skip(1 + 8)
		m = commitMessage{LSN(r.uint64())}
	case 'R':
		m = r.relation()
	case 'I', 'U', 'D':
		m = r.row(data[0])
	case 'T':
		m = r.truncate()
	case 'M':
		r.skip(1 + 8)
		m = logicalMessage{r.text(), r.bytes(int(r.uint32()))}
	case 'Y', 'O':
		return nil, nil
	default:
		return nil, fmt.Errorf("pgoutput: unknown message %q", data[0])
	}
	return m, r.err
}

// reader takes fields off the front; after the first failure it gives zeros.
type reader struct {
	data []byte
	err  error
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.data) {
		r.data, r.err = nil, errShort
		return nil
	}
	b := r.data[:n:n]
	r.data = r.data[n:]
	return b
}

func (r *reader) skip(n int) { r.bytes(n) }

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// text ends with a zero byte.
func (r *reader) text() []byte {
	for i, c := range r.data {
		if c == 0 {
			return r.bytes(i + 1)[:i]
		}
	}
	r.data, r.err = nil, errShort
	return nil
}

func (r *reader) relation() relationMessage {
	m := relationMessage{relation: r.uint32(), schema: string(r.text()), name: string(r.text())}
	if m.schema == "" {
		m.schema = "pg_catalog" // as pgoutput abbreviates it
	}
	r.skip(1)
	n := int(r.uint16())
	for range n {
		c := relationColumn{identity: r.byte()&1 != 0, name: string(r.text()), typeOID: r.uint32()}
		r.skip(4)
		m.columns = append(m.columns, c)
	}
	return m
}

func (r *reader) row(kind byte) rowMessage {
	m := rowMessage{kind: kind, relation: r.uint32()}
	part := r.byte()
	if part == 'K' || part == 'O' {
		m.oldKind, m.old = part, r.tuple()
		if kind == 'D' {
			return m
		}
		part = r.byte()
	}
	if part != 'N' {
		r.err = fmt.Errorf("pgoutput: unexpected part %q of a row", part)
		return m
	}
	m.new = r.tuple()
	return m
}

func (r *reader) tuple() []datum {
	tuple := make([]datum, r.uint16())
	for i := range tuple {
		switch kind := r.byte(); kind {
		case 'n':
		case 'u':
			tuple[i].unchanged = true
		case 't':
			tuple[i].value = r.bytes(int(r.uint32()))
		default:
			if r.err == nil {
				r.err = fmt.Errorf("pgoutput: unexpected kind %q of a column", kind)
			}
			return nil
		}
	}
	return tuple
}

func (r *reader) truncate() truncateMessage {
	n := int(r.uint32())
	r.skip(1)
	var m truncateMessage
	for range n {
		if r.err != nil {
			break
		}
		m.relations = append(m.relations, r.uint32())
	}
	return m
}
