package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unsafe"
)

// String takes the null-terminated string at the start of b. It shares b's memory.
func String(b []byte) (s string, rest []byte, err error) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return "", nil, fmt.Errorf("%w: unterminated string", ErrMalformed)
	}
	return unsafe.String(unsafe.SliceData(b), i), b[i+1:], nil
}

// QueryText is the text of a Query message's body; it shares the body's memory.
func QueryText(body []byte) (string, error) {
	s, rest, err := String(body)
	if err == nil && len(rest) != 0 {
		err = fmt.Errorf("%w: bytes behind the text of a query", ErrMalformed)
	}
	return s, err
}

// Parse is a Parse message taken apart; it shares the body's memory.
type Parse struct {
	Name, SQL string
	Types     []byte // 4 bytes each
}

// ParseParse takes the body of a Parse message apart.
func ParseParse(body []byte) (p Parse, err error) {
	if p.Name, body, err = String(body); err != nil {
		return p, err
	}
	if p.SQL, body, err = String(body); err != nil {
		return p, err
	}
	if len(body) < 2 || len(body) != 2+4*int(binary.BigEndian.Uint16(body)) {
		return p, fmt.Errorf("%w: parameter types of Parse", ErrMalformed)
	}
	p.Types = body[2:]
	return p, nil
}

// DataRow gives the columns of a DataRow's body in text format, NULL as "". They are copies.
func DataRow(body []byte) ([]string, error) {
	if len(body) < 2 {
		return nil, fmt.Errorf("%w: DataRow without a count", ErrMalformed)
	}
	row := make([]string, binary.BigEndian.Uint16(body))
	body = body[2:]
	for i := range row {
		if len(body) < 4 {
			return nil, fmt.Errorf("%w: DataRow ends early", ErrMalformed)
		}
		n := int(int32(binary.BigEndian.Uint32(body)))
		body = body[4:]
		if n < 0 {
			continue
		}
		if n > len(body) {
			return nil, fmt.Errorf("%w: DataRow ends early", ErrMalformed)
		}
		row[i], body = string(body[:n]), body[n:]
	}
	return row, nil
}

// Bind is a Bind message taken apart as far as routing needs it. It shares the body's memory.
// It is the router's source of parameter values.
type Bind struct {
	Portal, Statement string
	Rest              []byte // the body behind the names, as far as it was given
	Types             []byte // declared parameter types, set by the caller: 4 bytes each
	Missed            bool   // Param was asked for a parameter that lies behind the bytes at hand
	Absent            bool   // Param was asked for a parameter that the client has not given

	formats []byte // 2 bytes each
	count   int
	values  []byte // from the first value's length on
}

// ParseBind takes the body of a Bind message apart. body may be only its beginning: parameters behind
// its end then read as absent.
func ParseBind(body []byte) (b Bind, err error) {
	if b.Portal, body, err = String(body); err != nil {
		return b, err
	}
	if b.Statement, body, err = String(body); err != nil {
		return b, err
	}
	b.Rest = body
	if len(body) < 2 {
		return b, fmt.Errorf("%w: Bind without formats", ErrMalformed)
	}
	n := int(binary.BigEndian.Uint16(body))
	if len(body) < 2+2*n+2 {
		return b, fmt.Errorf("%w: formats of Bind", ErrMalformed)
	}
	b.formats, body = body[2:2+2*n], body[2+2*n:]
	b.count, b.values = int(binary.BigEndian.Uint16(body)), body[2:]
	if n > 1 && n != b.count {
		return b, fmt.Errorf("%w: Bind has %d formats for %d parameters", ErrMalformed, n, b.count)
	}
	return b, nil
}

// Count is the number of parameters.
func (b *Bind) Count() int { return b.count }

// Param gives parameter i (from 0). ok is false where there is none, or it lies behind the bytes at hand.
func (b *Bind) Param(i int) (value []byte, binaryFormat, null, ok bool) {
	if i < 0 || i >= b.count {
		b.Absent = true
		return nil, false, false, false
	}
	p, format := b.values, b.format(i)
	for ; ; i-- {
		if len(p) < 4 {
			b.Missed = true
			return nil, false, false, false
		}
		n := int(int32(binary.BigEndian.Uint32(p)))
		p = p[4:]
		if null = n < 0; null {
			n = 0
		}
		if n > len(p) {
			b.Missed = true
			return nil, false, false, false
		}
		if i == 0 {
			value = p[:n]
			break
		}
		p = p[n:]
	}
	return value, format, null, true
}

// format says whether parameter i is in binary format.
func (b *Bind) format(i int) bool {
	switch len(b.formats) / 2 {
	case 0:
		return false
	case 1:
		return b.formats[1] == 1
	default:
		return 2*i+1 < len(b.formats) && b.formats[2*i+1] == 1
	}
}

// ParamType is the declared type OID of parameter i, 0 where none was declared.
func (b *Bind) ParamType(i int) uint32 {
	if i < 0 || 4*i+4 > len(b.Types) {
		return 0
	}
	return binary.BigEndian.Uint32(b.Types[4*i:])
}

// ResultFormats gives the bytes of Rest behind the parameters: the result formats. ok is false where they
// are not at hand.
func (b *Bind) ResultFormats() (formats []byte, ok bool) {
	p := b.values
	for range b.count {
		if len(p) < 4 {
			return nil, false
		}
		n := int(int32(binary.BigEndian.Uint32(p)))
		p = p[4:]
		if n > len(p) {
			return nil, false
		}
		if n > 0 {
			p = p[n:]
		}
	}
	return p, true
}

// Subset builds the Rest of a Bind that has only the parameters numbered in params, in that order.
func (b *Bind) Subset(dst []byte, params []int) ([]byte, error) {
	formats, ok := b.ResultFormats()
	if !ok {
		return nil, fmt.Errorf("%w: Bind is shorter than its parameters", ErrMalformed)
	}
	if len(b.formats) > 2 {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(params)))
		for _, i := range params {
			dst = append(dst, b.formats[2*i:2*i+2]...)
		}
	} else {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(b.formats)/2))
		dst = append(dst, b.formats...)
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(params)))
	for _, i := range params {
		value, _, null, ok := b.Param(i)
		if !ok {
			return nil, fmt.Errorf("%w: Bind lacks parameter %d", ErrMalformed, i+1)
		}
		if null {
			dst = binary.BigEndian.AppendUint32(dst, ^uint32(0))
			continue
		}
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(value)))
		dst = append(dst, value...)
	}
	return append(dst, formats...), nil
}

// With builds the Rest of a Bind that has the parameters numbered in params, in that order, behind them more values in binary
// format, and the result formats.
func (b *Bind) With(dst []byte, params []int, more [][]byte, results []byte) ([]byte, error) {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(params)+len(more)))
	for _, i := range params {
		format := uint16(0)
		if b.format(i) {
			format = 1
		}
		dst = binary.BigEndian.AppendUint16(dst, format)
	}
	for range more {
		dst = binary.BigEndian.AppendUint16(dst, 1)
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(params)+len(more)))
	for _, i := range params {
		value, _, null, ok := b.Param(i)
		if !ok {
			return nil, fmt.Errorf("%w: Bind lacks parameter %d", ErrMalformed, i+1)
		}
		if null {
			dst = binary.BigEndian.AppendUint32(dst, ^uint32(0))
			continue
		}
		dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(value))), value...)
	}
	for _, value := range more {
		dst = append(binary.BigEndian.AppendUint32(dst, uint32(len(value))), value...)
	}
	return append(dst, results...), nil
}

// RowDescription gives the columns of a RowDescription's body.
func RowDescription(body []byte) ([]Field, error) {
	if len(body) < 2 {
		return nil, fmt.Errorf("%w: RowDescription without a count", ErrMalformed)
	}
	fields := make([]Field, binary.BigEndian.Uint16(body))
	body = body[2:]
	for i := range fields {
		name, rest, err := String(body)
		if err != nil || len(rest) < 18 {
			return nil, fmt.Errorf("%w: RowDescription ends early", ErrMalformed)
		}
		fields[i] = Field{Name: strings.Clone(name), Type: binary.BigEndian.Uint32(rest[6:])}
		body = rest[18:]
	}
	return fields, nil
}
