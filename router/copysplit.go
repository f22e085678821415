package router

import (
	"fmt"
	"strings"

	"shardproxy/topology"
)

// DefaultRowMax is the longest row, in bytes, that a CopySplitter takes.
const DefaultRowMax = 64 << 20

// CopySplitter cuts the data of COPY … FROM STDIN into rows and gives each with the hash of its
// shard key. Rows keep their bytes, line end included. The data may be cut into chunks anywhere;
// what is held between them is at most one row.
//
// Every shard that gets rows is sent the same COPY statement, then Header, its rows, Trailer.
//
// A row that the server is certain to refuse (too few columns, a key that is no value of its
// type, NULL where the column does not take it) goes with hash 0, so that a shard reports it in
// PostgreSQL's own words. What no single shard could see is an *Error: a NULL key that could be
// stored, a row without end, mixed line ends.
type CopySplitter struct {
	RowMax  int  // bytes; may be set before the first Feed
	Foreign bool // the data's encoding is not the server's: a text key beyond ASCII is refused. As RowMax

	stmt   *CopyStmt
	format copyFormat
	held   []byte // the begun row
	header []byte
	inRows bool // the header is complete
	ended  bool // all that follows is ignored, or in binary refused
	null   nullRule
}

// copyFormat finds the rows of one format.
type copyFormat interface {
	// row gives the length of the row that data begins with, and how much of it is to be sent:
	// all, or nothing of an end mark. 0 where more is needed; it is then called again with the
	// same bytes and more behind them. last says that no more will come. end says that this was
	// the end of the data, whatever follows.
	row(data []byte, last bool) (size, send int, end bool, err error)
	// key reads the shard key of the row that was just found. It is valid until the next call.
	key(row []byte) (value []byte, found keyFound)
}

// keyFound says what a row has where its key should be.
type keyFound uint8

const (
	keyMissing keyFound = iota // too few columns
	keyNull
	keyValue
)

// NewCopySplitter makes the splitter of a COPY … FROM STDIN with the key among its columns.
func NewCopySplitter(stmt *CopyStmt) *CopySplitter {
	s := &CopySplitter{RowMax: DefaultRowMax, stmt: stmt, null: nullRuleOf(stmt.Table)}
	switch stmt.Format {
	case CopyBinary:
		s.format = &copyBinary{stmt: stmt}
	case CopyCSV:
		s.format = &copyCSV{stmt: stmt}
	default:
		s.format = &copyText{stmt: stmt}
	}
	s.inRows = stmt.Format != CopyBinary && !stmt.Header
	return s
}

// Header is what the data of each shard begins with: a header line, or the head of the binary
// format. It is complete before the first row is given.
func (s *CopySplitter) Header() []byte { return s.header }

// Trailer is what the data of each shard ends with.
func (s *CopySplitter) Trailer() []byte {
	if s.stmt.Format == CopyBinary {
		return []byte{0xff, 0xff}
	}
	return nil
}

// Feed takes the next chunk and calls emit for each row that ends in it, in order. row is valid
// during the call only. An error of emit ends Feed and is returned as it is; then, and after any
// other error, the splitter is of no further use.
func (s *CopySplitter) Feed(chunk []byte, emit func(hash topology.KeyHash, row []byte) error) error {
	data := chunk
	if len(s.held) > 0 {
		s.held = append(s.held, chunk...)
		data = s.held
	}
	rest, err := s.take(data, false, emit)
	if err != nil {
		return err
	}
	if len(rest) > s.RowMax {
		return s.tooLong()
	}
	s.held = append(s.held[:0], rest...)
	return nil
}

// Finish says that the data has ended, which ends a last row without a line end.
func (s *CopySplitter) Finish(emit func(hash topology.KeyHash, row []byte) error) error {
	rest, err := s.take(s.held, true, emit)
	switch {
	case err != nil:
	case s.stmt.Format == CopyBinary && !s.inRows:
		err = &Error{Code: "22P04", Message: "COPY file signature not recognized"}
	case len(rest) > 0:
		err = &Error{Code: "22P04", Message: "unexpected EOF in COPY data"}
	}
	s.held = nil
	return err
}

// take gives the rows in data and returns what is left of it.
func (s *CopySplitter) take(data []byte, last bool, emit func(topology.KeyHash, []byte) error) ([]byte, error) {
	if !s.inRows && len(data) > 0 {
		n, err := s.takeHeader(data, last)
		if n == 0 || err != nil {
			return data, err
		}
		data = data[n:]
	}
	for len(data) > 0 && !s.ended {
		size, send, end, err := s.format.row(data, last)
		if err != nil {
			return nil, err
		}
		if size == 0 {
			return data, nil
		}
		if size > s.RowMax {
			return nil, s.tooLong()
		}
		s.ended = end
		if send > 0 {
			hash, err := s.hash(data[:send])
			if err != nil {
				return nil, err
			}
			if err := emit(hash, data[:send]); err != nil {
				return nil, err
			}
		}
		data = data[size:]
	}
	if b, ok := s.format.(*copyBinary); ok && len(data) > 0 && !b.failed {
		return nil, &Error{Code: "22P04", Message: "received copy data after EOF marker"}
	}
	return nil, nil
}

// takeHeader keeps the header that data begins with, and gives its length, 0 for not yet.
func (s *CopySplitter) takeHeader(data []byte, last bool) (size int, err error) {
	var send int
	if s.stmt.Format == CopyBinary {
		size, err = binaryHeader(data)
		send = size
	} else {
		size, send, s.ended, err = s.format.row(data, last)
	}
	if size > 0 {
		s.header = append([]byte(nil), data[:send]...)
		s.inRows = true
	}
	return size, err
}

// hash is the hash of a row's key.
func (s *CopySplitter) hash(row []byte) (topology.KeyHash, error) {
	value, found := s.format.key(row)
	switch found {
	case keyMissing:
		return 0, nil
	case keyNull:
		if s.null == nullRefused {
			return 0, nullKeyError(s.stmt.Table)
		}
		return 0, nil
	}
	table := s.stmt.Table
	column := &table.Columns[table.Key]
	if s.Foreign && table.KeyType == topology.KeyText && !ascii(value) {
		return 0, foreignKey()
	}
	hash, state := hashParam(table.KeyType, value, s.stmt.Format == CopyBinary, column.Type, column.Length)
	if state == keyUnknown {
		return 0, &Error{
			Code:    codeNotSupported,
			Message: fmt.Sprintf("the shard key %q of a row is in a form that shardproxy cannot read", table.KeyColumn()),
			Hint:    "Write integers in decimal digits, texts without blanks at their end, or INSERT the row.",
		}
	}
	return hash, nil
}

func (s *CopySplitter) tooLong() *Error {
	return &Error{
		Code:    "54000",
		Message: "COPY row is too long",
		Detail:  fmt.Sprintf("The limit is %d bytes.", s.RowMax),
		Hint:    "A quote without its end makes one row of all that follows.",
	}
}

// SafeEncoding says whether text of a client encoding can be split by its bytes: every byte
// below 0x80 is that ASCII character. In SJIS, BIG5, GBK, UHC, JOHAB, GB18030 and SHIFT_JIS_2004
// it may be the second half of another. An unknown name is not safe.
func SafeEncoding(name string) bool {
	var plain strings.Builder // as PostgreSQL's clean_encoding_name: letters and digits, lower case
	for i := range len(name) {
		if c := lower(name[i]); c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
			plain.WriteByte(c)
		}
	}
	switch plain.String() {
	case "utf8", "unicode", "sqlascii", "eucjp", "euccn", "euckr", "euctw", "eucjis2004", "muleinternal", "koi8", "koi8r", "koi8u",
		"latin1", "latin2", "latin3", "latin4", "latin5", "latin6", "latin7", "latin8", "latin9", "latin10",
		"iso88591", "iso88592", "iso88593", "iso88594", "iso88595", "iso88596", "iso88597", "iso88598", "iso88599",
		"iso885910", "iso885913", "iso885914", "iso885915", "iso885916", "abc", "alt", "vscii", "tcvn", "tcvn5712", "win",
		"win1250", "win1251", "win1252", "win1253", "win1254", "win1255", "win1256", "win1257", "win1258", "win866", "win874",
		"windows866", "windows874", "windows1250", "windows1251", "windows1252", "windows1253", "windows1254", "windows1255",
		"windows1256", "windows1257", "windows1258":
		return true
	}
	return false
}
