package router

import "bytes"

// lineEnds is how the lines of text or CSV end: as the first one does. PostgreSQL refuses data
// that mixes them, which a shard with some of the lines could not see.
type lineEnds uint8

const (
	endUnknown lineEnds = iota
	endNL
	endCR
	endCRNL
)

// lineEnd looks at the line break that data[i] begins. size is its length, 0 for a break that
// more bytes are needed to see.
func (e *lineEnds) lineEnd(data []byte, i int, last bool, quoting string) (size int, err error) {
	if data[i] == '\n' {
		if *e == endCR || *e == endCRNL {
			return 0, lineEndError("newline", quoting)
		}
		*e = endNL
		return 1, nil
	}
	if *e == endUnknown || *e == endCRNL {
		switch {
		case i+1 < len(data) && data[i+1] == '\n':
			*e = endCRNL
			return 2, nil
		case i+1 == len(data) && !last:
			return 0, nil
		case *e == endCRNL:
			return 0, lineEndError("carriage return", quoting)
		}
		*e = endCR
		return 1, nil
	}
	if *e == endNL {
		return 0, lineEndError("carriage return", quoting)
	}
	return 1, nil
}

// lineEndError speaks of a "literal" break in text, an "unquoted" one in CSV.
func lineEndError(what, quoting string) *Error {
	e := &Error{Code: "22P04", Message: quoting + " " + what + " found in data"}
	switch {
	case quoting == "unquoted":
		e.Hint = "Use quoted CSV field to represent " + what + "."
	case what == "newline":
		e.Hint = `Use "\n" to represent newline.`
	default:
		e.Hint = `Use "\r" to represent carriage return.`
	}
	return e
}

// endMark reads what follows a \. that ends at data[i]. size is the length of its line break, 0
// where more bytes are needed; is says whether it is an end mark at all.
func (e lineEnds) endMark(data []byte, i int, last, csv bool) (size int, is bool, err error) {
	refuse := func(message string) (int, bool, error) {
		if csv { // then it is data
			return 0, false, nil
		}
		return 0, false, &Error{Code: "22P04", Message: message}
	}
	const mismatch = "end-of-copy marker does not match previous newline style"
	if i == len(data) && !last {
		return 0, true, nil
	}
	if i == len(data) {
		return refuse("end-of-copy marker corrupt")
	}
	c := data[i]
	if e == endCRNL {
		switch {
		case c == '\n':
			return refuse(mismatch)
		case c != '\r':
			return refuse("end-of-copy marker corrupt")
		case i+1 == len(data) && last:
			return refuse("end-of-copy marker corrupt")
		case i+1 == len(data):
			return 0, true, nil
		case data[i+1] != '\r' && data[i+1] != '\n':
			return refuse("end-of-copy marker corrupt")
		case data[i+1] != '\n':
			return 0, false, &Error{Code: "22P04", Message: mismatch}
		}
		return 2, true, nil
	}
	switch {
	case c != '\r' && c != '\n':
		return refuse("end-of-copy marker corrupt")
	case e == endNL && c != '\n', e == endCR && c != '\r':
		return 0, false, &Error{Code: "22P04", Message: mismatch}
	}
	return 1, true, nil
}

// copyText is the text format: lines of columns, a backslash takes from the character behind it
// what it would mean.
type copyText struct {
	stmt  *CopyStmt
	ends  lineEnds
	seen  int    // bytes of the begun row that need not be looked at again
	line  int    // length of the last row without its line break
	value []byte // room for a key with escapes
}

func (t *copyText) row(data []byte, last bool) (size, send int, end bool, err error) {
	i := t.seen
	for i < len(data) {
		switch data[i] {
		case '\n', '\r':
			n, err := t.ends.lineEnd(data, i, last, "literal")
			if n == 0 {
				t.seen = i
				return 0, 0, false, err
			}
			t.seen, t.line = 0, i
			return i + n, i + n, false, nil
		case '\\':
			if i+1 < len(data) && data[i+1] == '.' {
				return t.endMark(data, i, last)
			}
			if i+1 == len(data) && !last {
				t.seen = i
				return 0, 0, false, nil
			}
			i++
		}
		i++
	}
	if last {
		t.seen, t.line = 0, len(data)
		return len(data), len(data), false, nil
	}
	t.seen = i
	return 0, 0, false, nil
}

// endMark handles the \. at i. What stands before it in its line is a row.
func (t *copyText) endMark(data []byte, i int, last bool) (size, send int, end bool, err error) {
	n, is, err := t.ends.endMark(data, i+2, last, false)
	if err != nil || !is {
		return 0, 0, false, err
	}
	if n == 0 {
		t.seen = i
		return 0, 0, false, nil
	}
	if i > 0 {
		send, t.line = i+2+n, i // its shard sees the mark as well: the row has no other end
	}
	return len(data), send, true, nil
}

func (t *copyText) key(row []byte) ([]byte, keyFound) {
	row = row[:t.line]
	for column := 0; ; column++ {
		n := t.fieldEnd(row)
		if column == t.stmt.Key {
			return t.unescape(row[:n])
		}
		if n == len(row) {
			return nil, keyMissing
		}
		row = row[n+1:]
	}
}

// fieldEnd is the position of the delimiter that ends the first field of row, or its length.
func (t *copyText) fieldEnd(row []byte) int {
	for i := 0; i < len(row); i++ {
		switch row[i] {
		case t.stmt.Delimiter:
			return i
		case '\\':
			i++
		}
	}
	return len(row)
}

// unescape reads one field as CopyReadAttributesText does. The NULL mark is compared before.
func (t *copyText) unescape(field []byte) ([]byte, keyFound) {
	if string(field) == t.stmt.Null {
		return nil, keyNull
	}
	if bytes.IndexByte(field, '\\') < 0 {
		return field, keyValue
	}
	t.value = t.value[:0]
	for i := 0; i < len(field); i++ {
		c := field[i]
		if c != '\\' || i+1 == len(field) {
			t.value = append(t.value, c)
			continue
		}
		i++
		escape := string(field[i:min(i+3, len(field))])
		switch c = field[i]; c {
		case '0', '1', '2', '3', '4', '5', '6', '7':
			v, n := digits(escape, 8, 3)
			c = byte(v)
			i += n - 1
		case 'x':
			if v, n := digits(escape[1:], 16, 2); n > 0 {
				c = byte(v)
				i += n
			}
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'v':
			c = '\v'
		}
		t.value = append(t.value, c)
	}
	return t.value, keyValue
}
