package router

// copyCSV is the csv format: quoted fields may hold line breaks.
type copyCSV struct {
	stmt    *CopyStmt
	ends    lineEnds
	seen    int  // bytes of the begun row that need not be looked at again
	quoted  bool // they end within quotes
	escaped bool // … behind an escape character
	line    int  // length of the last row without its line break
	value   []byte
}

// row follows CopyReadLineText: quotes are told apart without regard for delimiters.
func (c *copyCSV) row(data []byte, last bool) (size, send int, end bool, err error) {
	quote, escape := c.stmt.Quote, c.stmt.Escape
	for i := c.seen; i < len(data); i++ {
		b := data[i]
		switch {
		case b == quote && !c.escaped:
			c.quoted = !c.quoted
		case b == escape && c.quoted && escape != quote:
			c.escaped = !c.escaped
			continue
		case (b == '\n' || b == '\r') && !c.quoted:
			n, err := c.ends.lineEnd(data, i, last, "unquoted")
			if n == 0 {
				c.seen = i
				return 0, 0, false, err
			}
			c.reset(i)
			return i + n, i + n, false, nil
		case b == '\\' && i == 0:
			n, is, err := c.endMark(data, last)
			if err != nil || (is && n == 0) {
				return 0, 0, false, err
			}
			if is {
				return len(data), 0, true, nil
			}
		}
		c.escaped = false
	}
	if last {
		c.reset(len(data))
		return len(data), len(data), false, nil
	}
	c.seen = len(data)
	return 0, 0, false, nil
}

func (c *copyCSV) reset(line int) {
	c.seen, c.quoted, c.escaped, c.line = 0, false, false, line
}

// endMark looks for a \. alone in its line at the start of a row. is with size 0 asks for more.
func (c *copyCSV) endMark(data []byte, last bool) (size int, is bool, err error) {
	if len(data) == 1 {
		return 0, !last, nil
	}
	if data[1] != '.' {
		return 0, false, nil
	}
	return c.ends.endMark(data, 2, last, true)
}

// key follows CopyReadAttributesCSV, and NextCopyFrom in what the FORCE options make of it.
func (c *copyCSV) key(row []byte) ([]byte, keyFound) {
	row = row[:c.line]
	for column := 0; ; column++ {
		n, quotes := c.field(row, column == c.stmt.Key)
		if n < 0 {
			return nil, keyMissing
		}
		if column == c.stmt.Key {
			unquoted := !quotes && string(row[:n]) == c.stmt.Null
			switch {
			case unquoted && !c.stmt.ForceNotNull, !unquoted && c.stmt.ForceNull && string(c.value) == c.stmt.Null:
				return nil, keyNull
			}
			return c.value, keyValue
		}
		if n == len(row) {
			return nil, keyMissing
		}
		row = row[n+1:]
	}
}

// field is the length of the first field of row, -1 where a quote has no end, and whether quotes
// stand in it. It keeps the field's value where asked to.
func (c *copyCSV) field(row []byte, keep bool) (n int, quotes bool) {
	c.value = c.value[:0]
	quoted := false
	for i := 0; i < len(row); i++ {
		b := row[i]
		switch {
		case !quoted && b == c.stmt.Delimiter:
			return i, quotes
		case !quoted && b == c.stmt.Quote:
			quoted, quotes = true, true
			continue
		case quoted && b == c.stmt.Escape && i+1 < len(row) && (row[i+1] == c.stmt.Escape || row[i+1] == c.stmt.Quote):
			i++
			b = row[i]
		case quoted && b == c.stmt.Quote:
			quoted = false
			continue
		}
		if keep {
			c.value = append(c.value, b)
		}
	}
	if quoted {
		return -1, quotes
	}
	return len(row), quotes
}
