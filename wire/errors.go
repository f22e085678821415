package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The SQLSTATEs that shardproxy itself sends. Drivers act on them, so none is invented.
const (
	CodeConnectionException       = "08000"
	CodeConnectionDoesNotExist    = "08003"
	CodeConnectionFailure         = "08006"
	CodeTransactionUnknown        = "08007" // the outcome of a COMMIT is not known
	CodeProtocolViolation         = "08P01"
	CodeFeatureNotSupported       = "0A000"
	CodeCardinalityViolation      = "21000"
	CodeDataException             = "22000"
	CodeInvalidParameterValue     = "22023"
	CodeInvalidTextRepresentation = "22P02"
	CodeInvalidBinary             = "22P03"
	CodeBadCopyFormat             = "22P04"
	CodeNotNullViolation          = "23502"
	CodeForeignKeyViolation       = "23503"
	CodeUniqueViolation           = "23505"
	CodeActiveTransaction         = "25001"
	CodeReadOnlyTransaction       = "25006"
	CodeNoActiveTransaction       = "25P01"
	CodeFailedTransaction         = "25P02"
	CodeIdleInTransactionTimeout  = "25P03"
	CodeInvalidStatementName      = "26000"
	CodeInvalidAuthorization      = "28000"
	CodeInvalidPassword           = "28P01"
	CodeInvalidCursorName         = "34000"
	CodeInvalidCatalogName        = "3D000"
	CodeSerializationFailure      = "40001"
	CodeStatementUnknown          = "40003" // whether the statement took effect is not known
	CodeDeadlock                  = "40P01"
	CodeSyntaxError               = "42601"
	CodeInsufficientPrivilege     = "42501"
	CodeUndefinedTable            = "42P01"
	CodeUndefinedParameter        = "42P02"
	CodeDuplicateCursor           = "42P03"
	CodeDuplicateStatement        = "42P05"
	CodeUndefinedObject           = "42704"
	CodeIndeterminateDatatype     = "42P18"
	CodeOutOfMemory               = "53200"
	CodeTooManyConnections        = "53300"
	CodeProgramLimitExceeded      = "54000"
	CodeStatementTooComplex       = "54001"
	CodeObjectNotInPrerequisite   = "55000"
	CodeLockNotAvailable          = "55P03"
	CodeQueryCanceled             = "57014"
	CodeAdminShutdown             = "57P01"
	CodeCannotConnectNow          = "57P03"
	CodeIdleSessionTimeout        = "57P05"
	CodeInternalError             = "XX000"
)

// The severities of ErrorResponse and NoticeResponse, as PostgreSQL spells them untranslated.
const (
	SeverityError   = "ERROR"
	SeverityFatal   = "FATAL"
	SeverityPanic   = "PANIC"
	SeverityWarning = "WARNING"
	SeverityNotice  = "NOTICE"
)

// Error is the content of an ErrorResponse or NoticeResponse. The zero value of a field means
// that the message does not have it.
type Error struct {
	Severity     string // untranslated: field V, or S where a server sends no V; empty is ERROR when appended
	SeverityText string // field S, in the server's language; empty is Severity when appended
	Code         string // SQLSTATE; empty is XX000 when appended
	Message      string
	Detail       string
	Hint         string
	Position     int // in characters of the client's text, from 1

	InternalPosition int
	InternalQuery    string
	Where            string
	Schema           string
	Table            string
	Column           string
	DataType         string
	Constraint       string
	File             string
	Line             int
	Routine          string

	Other []ErrorField // fields of a later protocol, in the order they came
}

// ErrorField is a field that this package does not know.
type ErrorField struct {
	Type  byte
	Value string
}

// Errorf makes an ERROR: the statement failed, the session goes on.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Severity: SeverityError, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Fatalf makes a FATAL error: the session ends.
func Fatalf(code, format string, args ...any) *Error {
	return &Error{Severity: SeverityFatal, Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithDetail sets the detail and returns e.
func (e *Error) WithDetail(format string, args ...any) *Error {
	e.Detail = fmt.Sprintf(format, args...)
	return e
}

// WithHint sets the hint, which names the next step, and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

func (e *Error) Error() string {
	return e.Severity + ": " + e.Message + " (SQLSTATE " + e.Code + ")"
}

// SQLState gives Code: pgconn's error has the same method, so that one interface finds both.
func (e *Error) SQLState() string { return e.Code }

// Fatal tells whether the sender ends the session after this message.
func (e *Error) Fatal() bool {
	return e.Severity == SeverityFatal || e.Severity == SeverityPanic
}

// Append appends e as a whole ErrorResponse.
func (e *Error) Append(dst []byte) []byte { return e.append(dst, 'E', SeverityError) }

// AppendNotice appends e as a whole NoticeResponse.
func (e *Error) AppendNotice(dst []byte) []byte { return e.append(dst, 'N', SeverityNotice) }

func (e *Error) append(dst []byte, messageType byte, severity string) []byte {
	start := len(dst)
	dst = append(dst, messageType, 0, 0, 0, 0)
	if e.Severity != "" {
		severity = e.Severity
	}
	text := e.SeverityText
	if text == "" {
		text = severity
	}
	code := e.Code
	if code == "" {
		code = CodeInternalError
	}
	dst = appendField(dst, 'S', text)
	dst = appendField(dst, 'V', severity)
	dst = appendField(dst, 'C', code)
	// Clients may rely on a message: the protocol says that it is always present.
	dst = append(dst, 'M')
	dst = appendCString(dst, e.Message)
	dst = appendField(dst, 'D', e.Detail)
	dst = appendField(dst, 'H', e.Hint)
	dst = appendNumber(dst, 'P', e.Position)
	dst = appendNumber(dst, 'p', e.InternalPosition)
	dst = appendField(dst, 'q', e.InternalQuery)
	dst = appendField(dst, 'W', e.Where)
	dst = appendField(dst, 's', e.Schema)
	dst = appendField(dst, 't', e.Table)
	dst = appendField(dst, 'c', e.Column)
	dst = appendField(dst, 'd', e.DataType)
	dst = appendField(dst, 'n', e.Constraint)
	dst = appendField(dst, 'F', e.File)
	dst = appendNumber(dst, 'L', e.Line)
	dst = appendField(dst, 'R', e.Routine)
	for _, f := range e.Other {
		dst = append(dst, f.Type)
		dst = appendCString(dst, f.Value)
	}
	dst = append(dst, 0)
	binary.BigEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-1))
	return dst
}

func appendField(dst []byte, field byte, value string) []byte {
	if value == "" {
		return dst
	}
	return appendCString(append(dst, field), value)
}

func appendNumber(dst []byte, field byte, value int) []byte {
	if value == 0 {
		return dst
	}
	dst = strconv.AppendInt(append(dst, field), int64(value), 10)
	return append(dst, 0)
}

// appendCString appends s and the NUL that ends it. A NUL inside s would begin a new field,
// so it becomes a question mark.
func appendCString(dst []byte, s string) []byte {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "?")
	}
	return append(append(dst, s...), 0)
}

var errMalformedError = errors.New("malformed ErrorResponse or NoticeResponse")

// DecodeError reads the body (without type and length) of an ErrorResponse or NoticeResponse.
// The result does not alias body.
func DecodeError(body []byte) (*Error, error) {
	e := &Error{}
	rest := string(body)
	for {
		if rest == "" {
			return nil, errMalformedError
		}
		field := rest[0]
		if field == 0 {
			if len(rest) != 1 {
				return nil, errMalformedError
			}
			break
		}
		value, after, ok := strings.Cut(rest[1:], "\x00")
		if !ok {
			return nil, errMalformedError
		}
		e.set(field, value)
		rest = after
	}
	if e.Severity == "" {
		e.Severity = e.SeverityText
	}
	return e, nil
}

func (e *Error) set(field byte, value string) {
	switch field {
	case 'S':
		e.SeverityText = value
	case 'V':
		e.Severity = value
	case 'C':
		e.Code = value
	case 'M':
		e.Message = value
	case 'D':
		e.Detail = value
	case 'H':
		e.Hint = value
	case 'P':
		e.Position = number(value)
	case 'p':
		e.InternalPosition = number(value)
	case 'q':
		e.InternalQuery = value
	case 'W':
		e.Where = value
	case 's':
		e.Schema = value
	case 't':
		e.Table = value
	case 'c':
		e.Column = value
	case 'd':
		e.DataType = value
	case 'n':
		e.Constraint = value
	case 'F':
		e.File = value
	case 'L':
		e.Line = number(value)
	case 'R':
		e.Routine = value
	default:
		e.Other = append(e.Other, ErrorField{field, value})
	}
}

// number reads a field that should be a number; an odd one counts as absent, since no error
// is worth losing over its line number.
func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}
