package admin

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"shardproxy/wire"
)

// portal is a statement on its way: its rows are made at the first Execute.
type portal struct {
	statement *statement
	formats   []byte // 2 bytes a column; empty: all text
	started   bool
	rows      [][]any // that are still to be sent
}

// extended answers a message of the extended protocol. An error means that the client broke the protocol.
func (s *session) extended(ctx context.Context, typ byte, body []byte) error {
	switch typ {
	case 'S':
		s.skip = false
		if s.status == 'I' {
			clear(s.portals) // they end with their transaction
		}
		return s.ready()
	case 'H':
		_ = s.client.Flush() // the stream keeps the error
		return nil
	}
	if s.skip {
		return nil
	}
	var refusal *wire.Error
	var err error
	switch typ {
	case 'P':
		refusal, err = s.parse(body)
	case 'B':
		refusal, err = s.bind(body)
	case 'D':
		refusal, err = s.describe(body)
	case 'E':
		refusal, err = s.executePortal(ctx, body)
	case 'C':
		err = s.close(body)
	}
	if refusal != nil {
		s.fail(refusal)
		s.skip = true
	}
	return err
}

func (s *session) parse(body []byte) (*wire.Error, error) {
	p, err := wire.ParseParse(body)
	if err != nil {
		return nil, err
	}
	commands, refusal := parse(strings.Clone(p.SQL)) // the statement outlives the message
	if refusal != nil {
		return refusal, nil
	}
	st := &statement{exits: true} // the empty one
	switch len(commands) {
	case 0:
	case 1:
		if st, refusal = s.understand(commands[0]); refusal != nil {
			return refusal, nil
		}
	default:
		return wire.Errorf(wire.CodeSyntaxError, "cannot insert multiple commands into a prepared statement"), nil
	}
	if _, exists := s.prepared[p.Name]; exists && p.Name != "" {
		return wire.Errorf(wire.CodeDuplicateStatement, "prepared statement \"%s\" already exists", p.Name), nil
	}
	if len(s.prepared) >= preparedMax && p.Name != "" {
		return wire.Errorf(wire.CodeProgramLimitExceeded, "too many prepared statements").
			WithHint("The console keeps %d for a session.", preparedMax), nil
	}
	s.prepared[strings.Clone(p.Name)] = st
	s.write(wire.AppendEmpty(nil, '1'))
	return nil, nil
}

func (s *session) bind(body []byte) (*wire.Error, error) {
	b, err := wire.ParseBind(body)
	if err != nil {
		return nil, err
	}
	tail, ok := b.ResultFormats()
	if !ok || len(tail) < 2 || len(tail) != 2+2*int(binary.BigEndian.Uint16(tail)) {
		return nil, fmt.Errorf("%w: result formats of Bind", wire.ErrMalformed)
	}
	st, ok := s.prepared[b.Statement]
	if !ok {
		return noStatement(b.Statement), nil
	}
	if refusal := s.mayRun(st); refusal != nil {
		return refusal, nil
	}
	if b.Count() != 0 {
		return wire.Errorf(wire.CodeProtocolViolation,
			"bind message supplies %d parameters, but prepared statement \"%s\" requires 0", b.Count(), b.Statement), nil
	}
	formats, refusal := columnFormats(tail[2:], len(st.fields))
	if refusal != nil {
		return refusal, nil
	}
	if _, exists := s.portals[b.Portal]; exists && b.Portal != "" {
		return wire.Errorf(wire.CodeDuplicateCursor, "cursor \"%s\" already exists", b.Portal), nil
	}
	if len(s.portals) >= preparedMax && b.Portal != "" {
		return wire.Errorf(wire.CodeProgramLimitExceeded, "too many portals").
			WithHint("The console keeps %d for a session.", preparedMax), nil
	}
	s.portals[strings.Clone(b.Portal)] = &portal{statement: st, formats: formats}
	s.write(wire.AppendEmpty(nil, '2'))
	return nil, nil
}

// columnFormats spreads the formats of a Bind, none, one or one a column, over the columns.
func columnFormats(formats []byte, columns int) ([]byte, *wire.Error) {
	given := len(formats) / 2
	if given > 1 && given != columns {
		return nil, wire.Errorf(wire.CodeProtocolViolation, "bind message has %d result formats but query has %d columns", given, columns)
	}
	for i := range given {
		if f := binary.BigEndian.Uint16(formats[2*i:]); f > 1 {
			return nil, wire.Errorf(wire.CodeInvalidParameterValue, "unsupported format code: %d", f)
		}
	}
	if given == 0 {
		return nil, nil
	}
	var spread []byte
	for i := range columns {
		spread = append(spread, formats[2*(i%given):2*(i%given)+2]...)
	}
	return spread, nil
}

func (s *session) describe(body []byte) (*wire.Error, error) {
	kind, name, err := kindAndName(body)
	if err != nil {
		return nil, err
	}
	var st *statement
	var formats []byte
	if kind == 'S' {
		var ok bool
		if st, ok = s.prepared[name]; !ok {
			return noStatement(name), nil
		}
		s.write([]byte{'t', 0, 0, 0, 6, 0, 0}) // no parameters
	} else {
		p, ok := s.portals[name]
		if !ok {
			return noPortal(name), nil
		}
		st, formats = p.statement, p.formats
	}
	if st.fields == nil {
		s.write(wire.AppendEmpty(nil, 'n'))
		return nil, nil
	}
	s.write(rowDescription(st.fields, formats))
	return nil, nil
}

func noPortal(name string) *wire.Error {
	return wire.Errorf(wire.CodeInvalidCursorName, "portal \"%s\" does not exist", name)
}

func kindAndName(body []byte) (kind byte, name string, err error) {
	if len(body) < 2 || body[0] != 'S' && body[0] != 'P' {
		return 0, "", fmt.Errorf("%w: neither a statement nor a portal", wire.ErrMalformed)
	}
	name, err = wire.QueryText(body[1:])
	return body[0], name, err
}

func (s *session) close(body []byte) error {
	kind, name, err := kindAndName(body)
	if err != nil {
		return err
	}
	if kind == 'S' {
		delete(s.prepared, name)
	} else {
		delete(s.portals, name)
	}
	s.write(wire.AppendEmpty(nil, '3'))
	return nil
}

func (s *session) executePortal(ctx context.Context, body []byte) (*wire.Error, error) {
	name, rest, err := wire.String(body)
	if err != nil || len(rest) != 4 {
		return nil, fmt.Errorf("%w: Execute", wire.ErrMalformed)
	}
	p, ok := s.portals[name]
	if !ok {
		return noPortal(name), nil
	}
	if refusal := s.mayRun(p.statement); refusal != nil {
		return refusal, nil
	}
	return s.execute(ctx, p, int(int32(binary.BigEndian.Uint32(rest)))), nil
}

// execute runs a portal and answers with up to limit rows; all of them where limit is not positive.
func (s *session) execute(ctx context.Context, p *portal, limit int) (err *wire.Error) {
	st := p.statement
	again := p.started
	p.started = true
	switch {
	case st.fields != nil:
		if !again {
			if p.rows, err = st.rows(ctx, s); err != nil {
				return err
			}
		}
		s.sendRows(p, limit)
		return nil
	case st.act == nil:
		s.write(wire.AppendEmpty(nil, 'I'))
		return nil
	case again:
		return wire.Errorf(wire.CodeObjectNotInPrerequisite, "portal cannot be run anymore")
	}
	o := st.act(ctx, s)
	for _, n := range o.notices {
		s.write(n.AppendNotice(nil))
	}
	if o.err != nil {
		return o.err
	}
	if o.tag == "" {
		o.tag = st.tag
	}
	s.write(wire.AppendCommandComplete(nil, o.tag))
	return nil
}

func (s *session) sendRows(p *portal, limit int) {
	if limit <= 0 {
		limit = len(p.rows) + 1
	}
	n := min(limit, len(p.rows))
	var buf []byte
	for _, row := range p.rows[:n] {
		buf = appendRow(buf[:0], row, p.formats)
		if s.write(buf); s.client.Err() != nil {
			break // the session ends once it looks at the stream
		}
	}
	p.rows = p.rows[n:]
	if n == limit { // as PostgreSQL, which does not look whether there are more
		s.write(wire.AppendEmpty(nil, 's'))
		return
	}
	s.write(wire.AppendCommandComplete(nil, p.statement.tag))
}

// rowDescription gives RowDescription with the formats of a portal.
func rowDescription(fs []wire.Field, formats []byte) []byte {
	message := wire.AppendRowDescription(nil, fs)
	at := 7
	for i := 0; 2*i < len(formats); i++ {
		at += len(fs[i].Name) + 1 + 18 // the format is the last of the fixed parts
		copy(message[at-2:], formats[2*i:2*i+2])
	}
	return message
}

// appendRow appends DataRow. Text is alike in both formats; int8 in binary is a big-endian number.
func appendRow(dst []byte, row []any, formats []byte) []byte {
	start := len(dst)
	dst = append(dst, 'D', 0, 0, 0, 0)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(row)))
	for i, value := range row {
		dst = append(dst, 0, 0, 0, 0)
		at := len(dst)
		switch v := value.(type) {
		case nil:
			binary.BigEndian.PutUint32(dst[at-4:], ^uint32(0))
			continue
		case string:
			dst = append(dst, v...)
		case int64:
			if formats != nil && formats[2*i+1] == 1 {
				dst = binary.BigEndian.AppendUint64(dst, uint64(v))
			} else {
				dst = strconv.AppendInt(dst, v, 10)
			}
		default:
			panic(fmt.Sprintf("a row of the console holds a %T", value))
		}
		binary.BigEndian.PutUint32(dst[at-4:], uint32(len(dst)-at))
	}
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
	return dst
}
