package router

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

// copyTable is t(a text, k bigint, b text) with the key k.
func copyTable(keyType topology.KeyType, oid uint32) *topology.Table {
	return &topology.Table{
		TableName: topology.TableName{Schema: "public", Name: "t"},
		Kind:      topology.Sharded, KeyType: keyType, Key: 1,
		Columns: []topology.Column{{Name: "a", Type: oidText}, {Name: "k", Type: oid}, {Name: "b", Type: oidText}},
	}
}

func textCopy() *CopyStmt {
	return &CopyStmt{Table: copyTable(topology.KeyInt, oidInt8), From: true, Columns: 3, Key: 1, Delimiter: '\t', Null: `\N`}
}

func csvCopy() *CopyStmt {
	return &CopyStmt{Table: copyTable(topology.KeyInt, oidInt8), From: true, Columns: 3, Key: 1, Format: CopyCSV, Delimiter: ',', Quote: '"', Escape: '"'}
}

func binaryCopy() *CopyStmt {
	return &CopyStmt{Table: copyTable(topology.KeyInt, oidInt8), From: true, Columns: 3, Key: 1, Format: CopyBinary}
}

// quoted is text that is printed in quotes.
type quoted string

func (q quoted) String() string { return fmt.Sprintf("%q", string(q)) }

type copiedRow struct {
	hash topology.KeyHash
	row  quoted
}

// splitCopy feeds data in chunks of the given size.
func splitCopy(stmt *CopyStmt, data string, chunk int) (rows []copiedRow, header string, err error) {
	s := NewCopySplitter(stmt)
	emit := func(hash topology.KeyHash, row []byte) error {
		rows = append(rows, copiedRow{hash, quoted(row)})
		return nil
	}
	for len(data) > 0 && err == nil {
		n := min(chunk, len(data))
		err = s.Feed([]byte(data[:n]), emit)
		data = data[n:]
	}
	if err == nil {
		err = s.Finish(emit)
	}
	return rows, string(s.Header()), err
}

func key(v int64) topology.KeyHash { return topology.HashInt(v) }

func withText(stmt *CopyStmt) *CopyStmt {
	stmt.Table = copyTable(topology.KeyText, oidText)
	return stmt
}

func text(s string) topology.KeyHash { return topology.HashText(s) }

func TestCopySplit(t *testing.T) {
	headed, other, escaped := csvCopy(), textCopy(), csvCopy()
	headed.Header = true
	other.Delimiter, other.Null = '|', "null"
	escaped.Escape = '\\'
	headedText := textCopy()
	headedText.Header = true
	for _, c := range []struct {
		name   string
		stmt   *CopyStmt
		data   string
		want   []copiedRow
		header string
	}{
		{"text", textCopy(), "x\t1\ty\nx\t-2\ty\n", []copiedRow{{key(1), "x\t1\ty\n"}, {key(-2), "x\t-2\ty\n"}}, ""},
		{"no last line end", textCopy(), "x\t1\ty\nx\t2\ty", []copiedRow{{key(1), "x\t1\ty\n"}, {key(2), "x\t2\ty"}}, ""},
		{"CRLF", textCopy(), "x\t1\ty\r\nx\t2\ty\r\n", []copiedRow{{key(1), "x\t1\ty\r\n"}, {key(2), "x\t2\ty\r\n"}}, ""},
		{"CR", textCopy(), "x\t1\ty\rx\t2\ty\r", []copiedRow{{key(1), "x\t1\ty\r"}, {key(2), "x\t2\ty\r"}}, ""},
		{"escapes", withText(textCopy()), "a\\\tb\t\\x41\\101\\t\\\\\\q\\N\\\n.\tb\n", []copiedRow{{text("AA\t\\qN\n."), "a\\\tb\t\\x41\\101\\t\\\\\\q\\N\\\n.\tb\n"}}, ""},
		{"escapes of control characters", withText(textCopy()), "a\t\\b\\f\\n\\r\\v\\x\\7\\1011\tb\n", []copiedRow{{text("\b\f\n\r\vx\aA1"), "a\t\\b\\f\\n\\r\\v\\x\\7\\1011\tb\n"}}, ""},
		{"null elsewhere", textCopy(), "\\N\t1\t\\N\n", []copiedRow{{key(1), "\\N\t1\t\\N\n"}}, ""},
		{"end mark", textCopy(), "x\t1\ty\n\\.\nx\t2\ty\n", []copiedRow{{key(1), "x\t1\ty\n"}}, ""},
		{"end mark behind a row", textCopy(), "x\t1\ty\nx\t2\ty\\.\nrest", []copiedRow{{key(1), "x\t1\ty\n"}, {key(2), "x\t2\ty\\.\n"}}, ""},
		{"options", other, "x|1|null\n", []copiedRow{{key(1), "x|1|null\n"}}, ""},
		{"text header", headedText, "a\tk\tb\nx\t1\ty\n", []copiedRow{{key(1), "x\t1\ty\n"}}, "a\tk\tb\n"},
		{"too few columns", textCopy(), "x\ny\t1\tz\n", []copiedRow{{0, "x\n"}, {key(1), "y\t1\tz\n"}}, ""},
		{"key is no number", textCopy(), "x\tone\ty\n", []copiedRow{{0, "x\tone\ty\n"}}, ""},
		{"empty line", textCopy(), "\n", []copiedRow{{0, "\n"}}, ""},
		{"empty", textCopy(), "", nil, ""},
		{"csv", csvCopy(), "x,1,y\nx, 2 ,y\n", []copiedRow{{key(1), "x,1,y\n"}, {key(2), "x, 2 ,y\n"}}, ""},
		{"csv quotes", csvCopy(), "\"a,\"\"\nb\",\"1\",y\n,2,\n", []copiedRow{{key(1), "\"a,\"\"\nb\",\"1\",y\n"}, {key(2), ",2,\n"}}, ""},
		{"csv quotes within", withText(csvCopy()), "a,x\"y,\"\"z\"w,b\n", []copiedRow{{text("xy,\"zw"), "a,x\"y,\"\"z\"w,b\n"}}, ""},
		{"csv empty text", withText(csvCopy()), "a,\"\",b\n", []copiedRow{{text(""), "a,\"\",b\n"}}, ""},
		{"csv escape", escaped, "\"a\\\"\n\\\\\",1,y\nx,2,\"\\z\"\n", []copiedRow{{key(1), "\"a\\\"\n\\\\\",1,y\n"}, {key(2), "x,2,\"\\z\"\n"}}, ""},
		{"csv header", headed, "a,\"k\n\",b\r\nx,1,y\r\n", []copiedRow{{key(1), "x,1,y\r\n"}}, "a,\"k\n\",b\r\n"},
		{"csv end mark", csvCopy(), "x,1,y\n\\.\nx,2,y\n", []copiedRow{{key(1), "x,1,y\n"}}, ""},
		{"csv no end mark", csvCopy(), "\\.,1,y\n\\x,2,y\n", []copiedRow{{key(1), "\\.,1,y\n"}, {key(2), "\\x,2,y\n"}}, ""},
		{"csv quote without end", csvCopy(), "\"x,1,y\n", []copiedRow{{0, "\"x,1,y\n"}}, ""},
		{"binary", binaryCopy(), binaryData("x", int64(1), nil), []copiedRow{{key(1), quoted(binaryRow("x", int64(1), nil))}}, binaryHead},
		{"binary, wrong length", binaryCopy(), binaryData("x", "abc", nil), []copiedRow{{0, quoted(binaryRow("x", "abc", nil)[:14])}}, binaryHead},
		{"binary without trailer", binaryCopy(), binaryHead + binaryRow(nil, int64(-1), "y"), []copiedRow{{key(-1), quoted(binaryRow(nil, int64(-1), "y"))}}, binaryHead},
		{"binary with extension", binaryCopy(), extendedHead + binaryRow("x", int64(1), nil), []copiedRow{{key(1), quoted(binaryRow("x", int64(1), nil))}}, extendedHead},
	} {
		for _, chunk := range []int{1, 2, 3, 7, 1000} {
			rows, header, err := splitCopy(c.stmt, c.data, chunk)
			if err != nil || !slices.Equal(rows, c.want) || header != c.header {
				t.Errorf("%s in chunks of %d:\n got %+v, header %q, %v\nwant %+v, header %q", c.name, chunk, rows, header, err, c.want, c.header)
			}
		}
	}
}

const (
	binaryHead   = binarySignature + "\x00\x00\x00\x00\x00\x00\x00\x00"
	extendedHead = binarySignature + "\x00\x00\x00\x01\x00\x00\x00\x03ext"
)

func binaryRow(fields ...any) string {
	row := fmt.Sprintf("\x00%c", len(fields))
	for _, f := range fields {
		switch f := f.(type) {
		case nil:
			row += "\xff\xff\xff\xff"
		case string:
			row += fmt.Sprintf("\x00\x00\x00%c", len(f)) + f
		case int64:
			row += "\x00\x00\x00\x08"
			for shift := 56; shift >= 0; shift -= 8 {
				row += string([]byte{byte(f >> shift)})
			}
		}
	}
	return row
}

func binaryData(fields ...any) string { return binaryHead + binaryRow(fields...) + "\xff\xff" }

func TestCopySplitErrors(t *testing.T) {
	varchar := textCopy()
	varchar.Table = varcharTable(3)
	for _, c := range []struct {
		name string
		stmt *CopyStmt
		data string
		code string
	}{
		{"null key", textCopy(), "x\t\\N\ty\n", "23502"},
		{"csv null key", csvCopy(), "x,,y\n", "23502"},
		{"binary null key", binaryCopy(), binaryData("x", nil, nil), "23502"},
		{"mixed line ends", textCopy(), "x\t1\ty\nx\t1\ty\r\n", "22P04"},
		{"mixed line ends", textCopy(), "x\t1\ty\r\nx\t1\ty\n", "22P04"},
		{"mixed line ends", textCopy(), "x\t1\ty\rx\t1\ty\n", "22P04"},
		{"mixed line ends", csvCopy(), "x,1,y\r\nx,1,y\rz,1,y\r\n", "22P04"},
		{"end mark of another line end", textCopy(), "x\t1\ty\n\\.\r\n", "22P04"},
		{"broken end mark", textCopy(), "x\t1\ty\n\\.x\n", "22P04"},
		{"hexadecimal key", textCopy(), "x\t0x10\ty\n", "0A000"},
		{"varchar with blanks that may be cut", varchar, "x\taü  \ty\n", "0A000"},
		{"no signature", binaryCopy(), "PGCOPX", "22P04"},
		{"nothing", binaryCopy(), "", "22P04"},
		{"short signature", binaryCopy(), "PGCO", "22P04"},
		{"oids", binaryCopy(), binarySignature + "\x00\x01\x00\x00\x00\x00\x00\x00", "22P04"},
		{"flags", binaryCopy(), binarySignature + "\x00\x02\x00\x00\x00\x00\x00\x00", "22P04"},
		{"extension", binaryCopy(), binarySignature + "\x00\x00\x00\x00\xff\x00\x00\x00", "22P04"},
		{"column count", binaryCopy(), binaryData("x", int64(1)), "22P04"},
		{"field size", binaryCopy(), binaryHead + "\x00\x03\xff\xff\xff\xfe", "22P04"},
		{"cut off", binaryCopy(), binaryHead + binaryRow("x", int64(1), "y")[:20], "22P04"},
		{"more behind the trailer", binaryCopy(), binaryData("x", int64(1), "y") + "z", "22P04"},
	} {
		for _, chunk := range []int{1, 1000} {
			_, _, err := splitCopy(c.stmt, c.data, chunk)
			var e *Error
			if !errors.As(err, &e) || e.Code != c.code {
				t.Errorf("%s in chunks of %d: %v, want %s", c.name, chunk, err, c.code)
			}
		}
	}
}

func varcharTable(length int) *topology.Table {
	table := copyTable(topology.KeyText, oidVarchar)
	table.Columns[1].Length = length
	return table
}

// TestCopyKeys is about what becomes of single keys: the hash of one that is stored, or the code of a refusal.
func TestCopyKeys(t *testing.T) {
	strict, watched := copyTable(topology.KeyInt, oidInt8), copyTable(topology.KeyInt, oidInt8)
	strict.Columns[1].NotNull, watched.Columns[1].NotNull, watched.Triggers = true, true, true
	texts := copyTable(topology.KeyText, oidText)
	for _, c := range []struct {
		name    string
		table   *topology.Table
		stmt    CopyStmt
		foreign bool
		row     string
		hash    topology.KeyHash
		code    string
	}{
		{name: "NULL where the column takes none", table: strict, row: "a,,b\n"},
		{name: "NULL that a trigger may change", table: watched, row: "a,,b\n", code: "0A000"},
		{name: "NULL", table: copyTable(topology.KeyInt, oidInt8), row: "a,,b\n", code: "23502"},
		{name: "quoted", table: texts, row: "a,\"\",b\n", hash: text("")},
		{name: "FORCE_NULL", table: texts, stmt: CopyStmt{ForceNull: true}, row: "a,\"\",b\n", code: "23502"},
		{name: "FORCE_NULL of a value", table: texts, stmt: CopyStmt{ForceNull: true}, row: "a,\"x\",b\n", hash: text("x")},
		{name: "FORCE_NULL, not quoted", table: texts, stmt: CopyStmt{ForceNull: true}, row: "a,,b\n", code: "23502"},
		{name: "FORCE_NOT_NULL", table: texts, stmt: CopyStmt{ForceNotNull: true, Null: "nil"}, row: "a,nil,b\n", hash: text("nil")},
		{name: "both, not quoted", table: texts, stmt: CopyStmt{ForceNull: true, ForceNotNull: true, Null: "nil"}, row: "a,nil,b\n", hash: text("nil")},
		{name: "both, quoted", table: texts, stmt: CopyStmt{ForceNull: true, ForceNotNull: true, Null: "nil"}, row: "a,\"nil\",b\n", code: "23502"},
		{name: "other encoding, ASCII", table: texts, foreign: true, row: "a,x,b\n", hash: text("x")},
		{name: "other encoding", table: texts, foreign: true, row: "a,\xfc,b\n", code: "0A000"},
		{name: "blanks within the length", table: varcharTable(3), row: "a,x  ,b\n", hash: text("x  ")},
		{name: "blanks beyond the length", table: varcharTable(3), row: "a,x    ,b\n", hash: text("x  ")},
		{name: "no length", table: varcharTable(0), row: "a,x    ,b\n", hash: text("x    ")},
	} {
		stmt := c.stmt
		stmt.Table, stmt.From, stmt.Columns, stmt.Key = c.table, true, 3, 1
		stmt.Format, stmt.Delimiter, stmt.Quote, stmt.Escape = CopyCSV, ',', '"', '"'
		s := NewCopySplitter(&stmt)
		s.Foreign = c.foreign
		var got []topology.KeyHash
		err := s.Feed([]byte(c.row), func(hash topology.KeyHash, _ []byte) error {
			got = append(got, hash)
			return nil
		})
		var e *Error
		switch errors.As(err, &e); {
		case c.code != "" && (e == nil || e.Code != c.code):
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		case c.code == "" && (err != nil || len(got) != 1 || got[0] != c.hash):
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.hash)
		}
	}
}

func TestCopyRowLimit(t *testing.T) {
	for name, data := range map[string][2]string{
		"whole":      {strings.Repeat("x", 200) + "\t1\ty\n", ""},
		"in pieces":  {strings.Repeat("x", 90), strings.Repeat("x", 90)},
		"just below": {strings.Repeat("x", 95) + "\t1\ty\n", "z\t1\ty\n"},
	} {
		s := NewCopySplitter(textCopy())
		s.RowMax = 100
		emit := func(topology.KeyHash, []byte) error { return nil }
		err := s.Feed([]byte(data[0]), emit)
		if err == nil {
			err = s.Feed([]byte(data[1]), emit)
		}
		var e *Error
		if refused := errors.As(err, &e) && e.Code == "54000"; refused != (name != "just below") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCopyEmitErrorEndsFeed(t *testing.T) {
	stop, calls := errors.New("stop"), 0
	err := NewCopySplitter(textCopy()).Feed([]byte("x\t1\ty\nx\t2\ty\n"), func(topology.KeyHash, []byte) error {
		calls++
		return stop
	})
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestCopyTrailer(t *testing.T) {
	if got := NewCopySplitter(binaryCopy()).Trailer(); string(got) != "\xff\xff" {
		t.Errorf("binary: %x", got)
	}
	if got := NewCopySplitter(textCopy()).Trailer(); got != nil {
		t.Errorf("text: %x", got)
	}
}

func TestSafeEncoding(t *testing.T) {
	for name, want := range map[string]bool{
		"UTF8": true, "utf-8": true, "UNICODE": true, "SQL_ASCII": true, "LATIN1": true, "iso_8859_15": false, "ISO-8859-15": true, "WIN1252": true, "EUC_JP": true, "KOI8R": true,
		"SJIS": false, "BIG5": false, "GBK": false, "UHC": false, "JOHAB": false, "GB18030": false, "SHIFT_JIS_2004": false, "": false, "nonsense": false,
	} {
		if name == "iso_8859_15" {
			want = true // PostgreSQL does not look at what is no letter or digit
		}
		if got := SafeEncoding(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestCopySplitAgreesWithServer copies the same data into a real server whole, and split into
// two streams of rows: both must store the same rows or be refused.
func TestCopySplitAgreesWithServer(t *testing.T) {
	s := pgtest.Shared(t)
	conn := s.Connect(t, s.CreateDatabase(t))
	if _, err := conn.Exec(t.Context(), "CREATE TABLE t (a text, k text NOT NULL, b text)"); err != nil {
		t.Fatal(err)
	}
	escaped := withText(csvCopy())
	escaped.Escape = '\\'
	headed := withText(csvCopy())
	headed.Header = true
	forced := withText(csvCopy())
	forced.ForceNull, forced.ForceNotNull, forced.Table.Columns[1].NotNull = true, true, true
	formats := []struct {
		sql    string
		stmt   *CopyStmt
		pieces []string
	}{
		{"COPY t FROM STDIN", withText(textCopy()), []string{"a", "\t", "\t", "\t", "\n", "\n", "\\", "\\N", "\\x41", "\\101", "\\n", "\\.", "x\ty\tz\n", "x\ty\tz\n", "x\tw\tz\n", "é", "\\\n"}},
		{"COPY t FROM STDIN", withText(textCopy()), []string{"x\ty\tz\r\n", "x\tw\tz\r\n", "\r", "\n", "\\\r", "\\.", "a\tb"}},
		{"COPY t FROM STDIN (FORMAT csv)", withText(csvCopy()), []string{"a", ",", ",", ",", "\n", "\"", "\"", "\"\"", "\\", "\\.", "x,y,z\n", "x,w,z\n", "x,\"\",z\n", "\"a\nb\",c,d\n", "\r"}},
		{"COPY t FROM STDIN (FORMAT csv, ESCAPE '\\')", escaped, []string{"a", ",", ",", "\n", "\"", "\"", "\\\"", "\\\\", "\\", "x,y,z\n", "x,\"w\\\"\",z\n", "\\.\n"}},
		{"COPY t FROM STDIN (FORMAT csv, FORCE_NULL (k), FORCE_NOT_NULL (k))", forced, []string{"a,,b\n", "a,\"\",b\n", "a,\"x\",b\n", "a,x,b\n"}},
		{"COPY t FROM STDIN (FORMAT csv, HEADER)", headed, []string{"a,k,b\n", "x,y,z\n", "\"k\n\"", ",", "\n", "\"", "x,w,z\n"}},
	}
	load := func(t *rapid.T, sql, data string) (string, error) {
		t.Helper()
		if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader(data), sql); err != nil {
			return "", err
		}
		var rows string
		err := conn.QueryRow(t.Context(), "SELECT coalesce(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\"), '') FROM t").Scan(&rows)
		return rows, err
	}
	for _, f := range formats {
		rapid.Check(t, func(t *rapid.T) {
			data := strings.Join(rapid.SliceOfN(rapid.SampledFrom(f.pieces), 0, 14).Draw(t, "data"), "")
			chunk := rapid.IntRange(1, 20).Draw(t, "chunk")
			empty := func() {
				if _, err := conn.Exec(t.Context(), "TRUNCATE t"); err != nil {
					t.Fatal(err)
				}
			}
			empty()
			want, wantErr := load(t, f.sql, data)
			empty()
			rows, header, err := splitCopy(f.stmt, data, chunk)
			var streams [2]strings.Builder
			for _, r := range rows {
				b := &streams[r.hash&1]
				if b.Len() == 0 {
					b.WriteString(header)
				}
				b.WriteString(string(r.row))
			}
			var got string
			for i := range streams {
				if err == nil && streams[i].Len() > 0 {
					got, err = load(t, f.sql, streams[i].String())
				}
			}
			if (err == nil) != (wantErr == nil) || err == nil && got != want {
				t.Fatalf("%s of %q in chunks of %d\nsplit: %q, %v\nwhole: %q, %v\nrows: %+v", f.sql, data, chunk, got, err, want, wantErr, rows)
			}
		})
	}
}

// FuzzCopy looks whether the rows depend on where the chunks are cut, and hold all of the data.
func FuzzCopy(f *testing.F) {
	for _, name := range []string{"text.copy", "csv.copy", "binary.copy"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint8(3))
	}
	f.Add([]byte("x\t1\ty\r\nx\\.\r\n"), uint8(1))
	f.Add([]byte("\"x\"\"\n\",\"2\",\\.\r\n\\.\r\n"), uint8(2))
	f.Add([]byte(binaryData("x", int64(1), nil)), uint8(5))
	f.Fuzz(func(t *testing.T, data []byte, chunk uint8) {
		escaped := csvCopy()
		escaped.Escape, escaped.Header = '\\', true
		for _, stmt := range []*CopyStmt{textCopy(), csvCopy(), escaped, binaryCopy()} {
			rows, header, err := splitCopy(stmt, string(data), int(chunk)+1)
			again, header2, err2 := splitCopy(stmt, string(data), len(data)+1)
			if (err == nil) != (err2 == nil) || header != header2 {
				t.Fatalf("%q: chunks of %d give header %q, %v; whole %q, %v", data, chunk, header, err, header2, err2)
			}
			if !slices.Equal(rows, again) {
				t.Fatalf("%q: chunks of %d give %+v; whole %+v", data, chunk, rows, again)
			}
			all := header
			for _, r := range rows {
				all += string(r.row)
			}
			if !bytes.HasPrefix(data, []byte(all)) {
				t.Fatalf("%q is not the start of %q", all, data)
			}
			if rest := data[len(all):]; err == nil && len(rest) > 0 && !bytes.Contains(data, []byte(`\.`)) && !bytes.HasPrefix(rest, []byte{0xff, 0xff}) {
				t.Fatalf("%q is left out of %q", rest, data)
			}
		}
	})
}

func benchmarkCopy(b *testing.B, stmt *CopyStmt, head, row string) {
	data := []byte(strings.Repeat(row, 8<<10/len(row)))
	s := NewCopySplitter(stmt)
	emit := func(topology.KeyHash, []byte) error { return nil }
	if err := s.Feed([]byte(head), emit); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Feed(data, emit); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCopyText(b *testing.B) {
	benchmarkCopy(b, textCopy(), "", "a value of some length\t1234567\tanother value that is longer than the first one\n")
}

func BenchmarkCopyCSV(b *testing.B) {
	benchmarkCopy(b, csvCopy(), "", "a value of some length,1234567,\"another value that is longer than the first one\"\n")
}

func BenchmarkCopyBinary(b *testing.B) {
	benchmarkCopy(b, binaryCopy(), binaryHead, binaryRow("a value of some length", int64(1234567), "another value that is longer than the first one"))
}
