package wire

import (
	"encoding/binary"
	"strconv"
)

// The functions of this file append one protocol message to dst, and return it. They exist beside
// pgproto3's encoders for the messages that the proxy builds while traffic runs: no allocation, no struct.

// open begins a message of the given type; close fills in its length.
func open(dst []byte, typ byte) ([]byte, int) { return append(dst, typ, 0, 0, 0, 0), len(dst) + 1 }

func closeAt(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}

func cstring(dst []byte, s string) []byte { return append(append(dst, s...), 0) }

// AppendEmpty appends a message without a body: Sync, Flush, ParseComplete, NoData and their like.
func AppendEmpty(dst []byte, typ byte) []byte { return append(dst, typ, 0, 0, 0, 4) }

// AppendHead appends the head of a message whose body of the given length follows by itself.
func AppendHead(dst []byte, typ byte, body int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, typ), uint32(4+body))
}

// AppendQuery appends a simple Query.
func AppendQuery(dst []byte, sql string) []byte {
	dst, at := open(dst, 'Q')
	return closeAt(cstring(dst, sql), at)
}

// AppendParse appends Parse. types holds the parameter type OIDs as they stand in the message: 4 bytes each.
func AppendParse(dst []byte, name, sql string, types []byte) []byte {
	dst, at := open(dst, 'P')
	dst = cstring(cstring(dst, name), sql)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(types)/4))
	return closeAt(append(dst, types...), at)
}

// AppendBind appends Bind for another portal or statement name. rest is the body behind the two names.
func AppendBind(dst []byte, portal, statement string, rest []byte) []byte {
	dst, at := open(dst, 'B')
	dst = cstring(cstring(dst, portal), statement)
	return closeAt(append(dst, rest...), at)
}

// AppendBindHead appends the head and the names of a Bind whose body goes on with rest more bytes.
func AppendBindHead(dst []byte, portal, statement string, rest int) []byte {
	dst = append(dst, 'B')
	dst = binary.BigEndian.AppendUint32(dst, uint32(4+len(portal)+1+len(statement)+1+rest))
	return cstring(cstring(dst, portal), statement)
}

// AppendDescribe appends Describe of a statement ('S') or portal ('P').
func AppendDescribe(dst []byte, kind byte, name string) []byte {
	return appendNamed(dst, 'D', kind, name)
}

// AppendClose appends Close of a statement ('S') or portal ('P').
func AppendClose(dst []byte, kind byte, name string) []byte { return appendNamed(dst, 'C', kind, name) }

func appendNamed(dst []byte, typ, kind byte, name string) []byte {
	dst, at := open(dst, typ)
	return closeAt(cstring(append(dst, kind), name), at)
}

// AppendExecute appends Execute; limit 0 means all rows.
func AppendExecute(dst []byte, portal string, limit uint32) []byte {
	dst, at := open(dst, 'E')
	dst = cstring(dst, portal)
	return closeAt(binary.BigEndian.AppendUint32(dst, limit), at)
}

// AppendCommandComplete appends CommandComplete with the given tag.
func AppendCommandComplete(dst []byte, tag string) []byte {
	dst, at := open(dst, 'C')
	return closeAt(cstring(dst, tag), at)
}

// AppendReadyForQuery appends ReadyForQuery with the transaction status I, T or E.
func AppendReadyForQuery(dst []byte, status byte) []byte { return append(dst, 'Z', 0, 0, 0, 5, status) }

// AppendParameterStatus appends ParameterStatus.
func AppendParameterStatus(dst []byte, name, value string) []byte {
	dst, at := open(dst, 'S')
	return closeAt(cstring(cstring(dst, name), value), at)
}

// AppendCopyData appends CopyData.
func AppendCopyData(dst, data []byte) []byte {
	dst, at := open(dst, 'd')
	return closeAt(append(dst, data...), at)
}

// AppendCopyFail appends CopyFail with its reason.
func AppendCopyFail(dst []byte, reason string) []byte {
	dst, at := open(dst, 'f')
	return closeAt(cstring(dst, reason), at)
}

// Field is one column of a RowDescription that the proxy makes itself: always in text format.
type Field struct {
	Name string
	Type uint32 // OID
}

// Type OIDs of the proxy's own rows.
const (
	OIDText = 25
	OIDInt8 = 20
)

// AppendRowDescription appends RowDescription of text-format columns.
func AppendRowDescription(dst []byte, fields []Field) []byte {
	dst, at := open(dst, 'T')
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(fields)))
	for _, f := range fields {
		size := int16(-1)
		if f.Type == OIDInt8 {
			size = 8
		}
		dst = cstring(dst, f.Name)
		dst = binary.BigEndian.AppendUint32(dst, 0)            // no table
		dst = binary.BigEndian.AppendUint16(dst, 0)            // no column
		dst = binary.BigEndian.AppendUint32(dst, f.Type)       //
		dst = binary.BigEndian.AppendUint16(dst, uint16(size)) //
		dst = binary.BigEndian.AppendUint32(dst, ^uint32(0))   // no modifier
		dst = binary.BigEndian.AppendUint16(dst, 0)            // text
	}
	return closeAt(dst, at)
}

// AppendDataRow appends DataRow of text values.
func AppendDataRow(dst []byte, values ...string) []byte {
	dst, at := open(dst, 'D')
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(values)))
	for _, v := range values {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(v)))
		dst = append(dst, v...)
	}
	return closeAt(dst, at)
}

// SplitTag takes the row count off a command tag: "INSERT 0 5" is "INSERT 0", 5, true; "BEGIN" has none.
func SplitTag(tag string) (verb string, rows int64, counted bool) {
	for i := len(tag) - 1; i > 0; i-- {
		if tag[i] == ' ' {
			n, err := strconv.ParseInt(tag[i+1:], 10, 64)
			return tag[:i], n, err == nil
		}
		if tag[i] < '0' || tag[i] > '9' {
			break
		}
	}
	return tag, 0, false
}
