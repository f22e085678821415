package router

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// copyBinary is the binary format: a head, rows of a column count and columns that each begin
// with their length, and the count -1 at the end.
type copyBinary struct {
	stmt       *CopyStmt
	start, end int  // of the last row's key; end is -1 where it is NULL
	failed     bool // the last row ends with a key of a wrong length, at which the server will end the COPY
}

const binarySignature = "PGCOPY\n\xff\r\n\x00"

// binaryHeader is the length of the head that data begins with, 0 where more is needed.
func binaryHeader(data []byte) (int, error) {
	const fixed = len(binarySignature) + 8 // flags, and the length of an extension
	if !strings.HasPrefix(binarySignature, string(data[:min(len(data), len(binarySignature))])) {
		return 0, &Error{Code: "22P04", Message: "COPY file signature not recognized"}
	}
	if len(data) < fixed {
		return 0, nil
	}
	flags := binary.BigEndian.Uint32(data[len(binarySignature):])
	extension := binary.BigEndian.Uint32(data[len(binarySignature)+4:])
	switch {
	case flags&(1<<16) != 0:
		return 0, &Error{Code: "22P04", Message: "invalid COPY file header (WITH OIDS)"}
	case flags>>16 != 0:
		return 0, &Error{Code: "22P04", Message: "unrecognized critical flags in COPY file header"}
	case extension > 1<<20:
		return 0, &Error{Code: "22P04", Message: "invalid COPY file header (wrong length)"}
	case len(data) < fixed+int(extension):
		return 0, nil
	}
	return fixed + int(extension), nil
}

func (b *copyBinary) row(data []byte, _ bool) (size, send int, end bool, err error) {
	if len(data) < 2 {
		return 0, 0, false, nil
	}
	count := int(int16(binary.BigEndian.Uint16(data)))
	if count == -1 {
		return 2, 0, true, nil
	}
	if count != b.stmt.Columns {
		return 0, 0, false, &Error{Code: "22P04", Message: fmt.Sprintf("row field count is %d, expected %d", count, b.stmt.Columns)}
	}
	at := 2
	for column := range count {
		if len(data) < at+4 {
			return 0, 0, false, nil
		}
		length := int(int32(binary.BigEndian.Uint32(data[at:])))
		if length < -1 {
			return 0, 0, false, &Error{Code: "22P04", Message: "invalid field size"}
		}
		at += 4
		if column == b.stmt.Key {
			b.start, b.end = at, at+length
			if length < 0 {
				b.end = -1
			}
		}
		if at += max(length, 0); len(data) < at {
			return 0, 0, false, nil
		}
		if column == b.stmt.Key && length >= 0 && !b.fits(length) {
			b.failed = true
			return len(data), at, true, nil
		}
	}
	return at, at, false, nil
}

// fits says that the key's type has a binary format of this length.
func (b *copyBinary) fits(length int) bool {
	switch table := b.stmt.Table; table.Columns[table.Key].Type {
	case oidInt2:
		return length == 2
	case oidInt4:
		return length == 4
	case oidInt8:
		return length == 8
	case oidUUID:
		return length == 16
	}
	return true
}

func (b *copyBinary) key(row []byte) ([]byte, keyFound) {
	if b.end < 0 {
		return nil, keyNull
	}
	return row[b.start:b.end], keyValue
}
