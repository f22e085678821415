package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// firstUserOID is PostgreSQL's FirstNormalObjectId: OIDs from here on differ between databases.
const firstUserOID = 16384

// reported are the parameters whose ParameterStatus is compared: those that applications set.
var reported = []string{
	"DateStyle", "IntervalStyle", "TimeZone", "application_name", "client_encoding", "standard_conforming_strings",
}

// ownNotice is a notice in the proxy's own name, which PostgreSQL cannot give.
var ownNotice = regexp.MustCompile(`(?i)shardproxy|reference table|each shard`)

// transcript is what a server answered, one line a message, in a form that does not depend on which
// server it was: no OIDs of user objects, no process ids. Rows are sorted unless ordered.
type transcript struct {
	ordered bool // keep the rows' order
	shape   bool // leave the rows and their count out
	strict  bool // keep what depends on when an error is found: BindComplete and rows before it

	lines   []string
	rows    []string
	formats []int16
	status  []string // ParameterStatus, shown before ReadyForQuery
	copied  []byte   // CopyData of one COPY TO
	binary  bool     // of copied
}

// add notes one message. msg is not kept.
func (tr *transcript) add(msg pgproto3.BackendMessage) {
	switch m := msg.(type) {
	case *pgproto3.RowDescription:
		tr.formats = tr.formats[:0]
		for _, f := range m.Fields {
			tr.formats = append(tr.formats, f.Format)
			tr.line("column %q %s size=%d typmod=%d format=%d attnum=%d",
				f.Name, oid(f.DataTypeOID), f.DataTypeSize, f.TypeModifier, f.Format, f.TableAttributeNumber)
		}
	case *pgproto3.DataRow:
		tr.rows = append(tr.rows, tr.row(m.Values))
	case *pgproto3.CommandComplete:
		tr.flush()
		tr.line("tag %s", tr.tag(string(m.CommandTag)))
	case *pgproto3.EmptyQueryResponse:
		tr.line("empty query")
	case *pgproto3.PortalSuspended:
		tr.flush()
		tr.line("suspended")
	case *pgproto3.ErrorResponse:
		if n := len(tr.lines); !tr.strict && n > 0 && tr.lines[n-1] == "BindComplete" {
			tr.lines = tr.lines[:n-1]
		}
		if !tr.strict && !tr.ordered { // which rows come before the error is chance
			tr.rows = nil
		}
		tr.flush()
		tr.line("error %s %s %q detail=%q hint=%q on=%q position=%d", m.Severity, m.Code, m.Message, m.Detail, m.Hint,
			strings.Join([]string{m.SchemaName, m.TableName, m.ColumnName, m.DataTypeName, m.ConstraintName}, "."), m.Position)
	case *pgproto3.NoticeResponse:
		if !ownNotice.MatchString(m.Message) {
			tr.line("notice %s %s %q", m.Severity, m.Code, m.Message)
		}
	case *pgproto3.NotificationResponse:
		tr.line("notify %s %q", m.Channel, m.Payload)
	case *pgproto3.ParameterStatus:
		if slices.Contains(reported, m.Name) {
			tr.status = append(tr.status, fmt.Sprintf("parameter %s=%s", m.Name, m.Value))
		}
	case *pgproto3.ParameterDescription:
		types := make([]string, len(m.ParameterOIDs))
		for i, o := range m.ParameterOIDs {
			types[i] = oid(o)
		}
		tr.line("parameters %s", strings.Join(types, " "))
	case *pgproto3.CopyInResponse:
		tr.line("copy in format=%d columns=%v", m.OverallFormat, m.ColumnFormatCodes)
	case *pgproto3.CopyOutResponse:
		tr.line("copy out format=%d columns=%v", m.OverallFormat, m.ColumnFormatCodes)
		tr.binary = m.OverallFormat == 1
	case *pgproto3.CopyData:
		tr.copied = append(tr.copied, m.Data...)
	case *pgproto3.CopyDone:
		tr.copyRows()
		tr.line("copy done")
	case *pgproto3.ReadyForQuery:
		tr.flush()
		slices.Sort(tr.status)
		tr.lines = append(tr.lines, slices.Compact(tr.status)...)
		tr.status = nil
		tr.line("ready %c", m.TxStatus)
	default:
		tr.line("%s", strings.TrimPrefix(fmt.Sprintf("%T", m), "*pgproto3."))
	}
}

func (tr *transcript) line(format string, args ...any) {
	tr.lines = append(tr.lines, fmt.Sprintf(format, args...))
}

// flush ends a run of rows.
func (tr *transcript) flush() {
	if len(tr.copied) > 0 { // an error in mid-copy: how much came before it is not said
		tr.copied = nil
	}
	if !tr.ordered {
		slices.Sort(tr.rows)
	}
	if !tr.shape {
		tr.lines = append(tr.lines, tr.rows...)
	}
	tr.rows = nil
}

func (tr *transcript) row(values [][]byte) string {
	cells := make([]string, len(values))
	for i, v := range values {
		switch {
		case v == nil:
			cells[i] = "NULL"
		case i < len(tr.formats) && tr.formats[i] == 1:
			cells[i] = fmt.Sprintf("%x", v)
		default:
			cells[i] = fmt.Sprintf("%q", v)
		}
	}
	return "row " + strings.Join(cells, " | ")
}

func (tr *transcript) tag(tag string) string {
	if word, _, ok := strings.Cut(tag, " "); ok && tr.shape {
		return word
	}
	return tag
}

// copyRows turns what COPY TO sent into rows: how it is cut into messages is the server's choice.
func (tr *transcript) copyRows() {
	if tr.binary {
		tr.rows = binaryTuples(tr.copied)
	} else {
		for line := range bytes.Lines(tr.copied) {
			tr.rows = append(tr.rows, fmt.Sprintf("row %q", line))
		}
	}
	tr.copied = nil
	tr.flush()
}

// binaryTuples takes COPY's binary format apart (PostgreSQL's documentation of COPY, "File Formats").
func binaryTuples(data []byte) []string {
	const header = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" // no flags, no extension
	rest, ok := bytes.CutPrefix(data, []byte(header))
	if !ok {
		return []string{fmt.Sprintf("no header: %x", data)}
	}
	var rows []string
	for len(rest) >= 2 && !bytes.Equal(rest, []byte{0xff, 0xff}) {
		n := int(binary.BigEndian.Uint16(rest))
		rest = rest[2:]
		row := "row"
		for range n {
			if len(rest) < 4 {
				return append(rows, row+" cut short")
			}
			size := int(int32(binary.BigEndian.Uint32(rest)))
			rest = rest[4:]
			if size < 0 {
				row += " NULL"
				continue
			}
			if size > len(rest) {
				return append(rows, row+" cut short")
			}
			row += fmt.Sprintf(" %x", rest[:size])
			rest = rest[size:]
		}
		rows = append(rows, row)
	}
	return append(rows, fmt.Sprintf("end %x", rest))
}

func oid(o uint32) string {
	if o >= firstUserOID {
		return "user"
	}
	return fmt.Sprintf("type=%d", o)
}

// refusal gives the hint of the transcript's first 0A000, which is how the proxy refuses.
func (tr *transcript) refusal() (line string, ok bool) {
	for _, l := range tr.lines {
		if strings.HasPrefix(l, "error ERROR 0A000 ") {
			return l, true
		}
	}
	return "", false
}

// failed gives the transcript's first error.
func (tr *transcript) failed() (line string, ok bool) {
	for _, l := range tr.lines {
		if strings.HasPrefix(l, "error ") || strings.HasPrefix(l, "closed") {
			return l, true
		}
	}
	return "", false
}
