package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
)

// entry is one paragraph of a corpus file: a statement (or several, for one simple Query) with what is
// to be done with it. Entries are parted by empty lines. Lines before the statement may say:
//
//	-- expect: equal | refused | either     refused: by the proxy, with 0A000 and a hint; either: a read that may be refused
//	-- params: 1 | abc | \N                 values of $1, $2, …
//	-- compare: shape                       neither rows nor their number
//	-- rows: ordered                        though there is no ORDER BY
//	-- fail: message                        answer COPY FROM with CopyFail
//	-- protocol: simple                     leave the extended protocol out
//
// A line "-- data:" ends the statement; what follows is sent as the data of COPY FROM STDIN.
type entry struct {
	file    string
	line    int
	sql     string
	expect  string // equal, refused, either
	params  []*string
	shape   bool
	ordered bool
	fail    string
	data    []byte
	hasData bool
	simple  bool // not fit for the extended protocol
}

func (e *entry) String() string { return fmt.Sprintf("%s:%d", e.file, e.line) }

func (e *entry) transcript() *transcript { return &transcript{ordered: e.ordered, shape: e.shape} }

// copyIn says whether the server will ask for data.
func (e *entry) copyIn() bool { return e.hasData || e.fail != "" }

var directive = regexp.MustCompile(`^-- (expect|params|compare|rows|fail|protocol): (.*)$`)

// readCorpus reads one corpus file.
func readCorpus(t *testing.T, path string) []*entry {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var entries []*entry
	line := 1
	for paragraph := range bytes.SplitSeq(text, []byte("\n\n")) {
		e, err := parseEntry(string(paragraph))
		if err != nil {
			t.Fatalf("%s:%d: %v", path, line, err)
		}
		if e != nil {
			e.file, e.line = filepath.Base(path), line
			entries = append(entries, e)
		}
		line += bytes.Count(paragraph, []byte("\n")) + 2
	}
	return entries
}

// parseEntry gives nil for a paragraph that is a comment of the file ("--- …" in every line).
func parseEntry(paragraph string) (*entry, error) {
	e := &entry{expect: "equal"}
	var sql []string
	lines := strings.Split(strings.Trim(paragraph, "\n"), "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "--- ") || line == "---" {
			continue
		}
		if line == "-- data:" {
			e.hasData = true
			e.data = []byte(strings.Join(lines[i+1:], "\n"))
			if len(e.data) > 0 {
				e.data = append(e.data, '\n')
			}
			break
		}
		if m := directive.FindStringSubmatch(line); m != nil && len(sql) == 0 {
			if err := e.direct(m[1], m[2]); err != nil {
				return nil, err
			}
			continue
		}
		sql = append(sql, line)
	}
	e.sql = strings.Join(sql, "\n")
	if len(sql) == 0 || (e.sql == "" && len(lines) == 1) {
		return nil, nil
	}
	top := topLevel(e.sql)
	e.ordered = e.ordered || strings.Contains(top, "order by")
	e.simple = e.simple || strings.Contains(strings.TrimRight(top, "; \n"), ";")
	return e, nil
}

func (e *entry) direct(key, value string) error {
	switch {
	case key == "expect" && (value == "equal" || value == "refused" || value == "either"):
		e.expect = value
	case key == "params":
		for v := range strings.SplitSeq(value, "|") {
			v = strings.TrimSpace(v)
			if v == `\N` {
				e.params = append(e.params, nil)
			} else {
				e.params = append(e.params, &v)
			}
		}
	case key == "compare" && value == "shape":
		e.shape = true
	case key == "rows" && value == "ordered":
		e.ordered = true
	case key == "protocol" && value == "simple":
		e.simple = true
	case key == "fail":
		e.fail = value
	default:
		return fmt.Errorf("directive %s: %s is not known", key, value)
	}
	return nil
}

// topLevel is sql in lower case without comments and without what stands in quotes or parentheses.
// It knows what the corpus uses, not all of PostgreSQL's lexer.
func topLevel(sql string) string {
	var out strings.Builder
	depth := 0
	for i := 0; i < len(sql); {
		rest := sql[i:]
		switch {
		case strings.HasPrefix(rest, "--"):
			i += until(rest, "\n", 2)
		case strings.HasPrefix(rest, "/*"):
			i += until(rest, "*/", 2)
		case rest[0] == '\'' || rest[0] == '"':
			i += until(rest, rest[:1], 1)
		case rest[0] == '$' && dollarQuote.MatchString(rest):
			quote := dollarQuote.FindString(rest)
			i += until(rest, quote, len(quote))
		case rest[0] == '(':
			depth++
			i++
		case rest[0] == ')':
			depth--
			i++
		default:
			if depth == 0 {
				out.WriteByte(rest[0])
			}
			i++
		}
	}
	return strings.ToLower(out.String())
}

var dollarQuote = regexp.MustCompile(`^\$[A-Za-z_]*\$`)

// until gives how far it is to behind the next end, or to the end of s.
func until(s, end string, from int) int {
	if n := strings.Index(s[from:], end); n >= 0 {
		return from + n + len(end)
	}
	return len(s)
}

var (
	placeholder = regexp.MustCompile(`\$(\d+)`)
	digits      = regexp.MustCompile(`^\d+$`)
)

// inline is the text for the simple protocol: parameters as literals.
func (e *entry) inline() string {
	if len(e.params) == 0 {
		return e.sql
	}
	return placeholder.ReplaceAllStringFunc(e.sql, func(p string) string {
		var n int
		fmt.Sscanf(p, "$%d", &n)
		switch v := e.params[n-1]; {
		case v == nil:
			return "NULL"
		case digits.MatchString(*v):
			return *v
		default:
			return "'" + strings.ReplaceAll(*v, "'", "''") + "'"
		}
	})
}

var types = pgtype.NewMap()

// binaryParams encodes the parameters as the types that the server named; types of the user stay text.
func (e *entry) binaryParams(oids []uint32) (values [][]byte, formats []int16, err error) {
	for i, p := range e.params {
		if i >= len(oids) {
			break
		}
		var value []byte
		format := int16(pgtype.TextFormatCode)
		if p != nil {
			value = []byte(*p)
			if typ, ok := types.TypeForOID(oids[i]); ok {
				v, err := typ.Codec.DecodeValue(types, oids[i], pgtype.TextFormatCode, value)
				if err != nil {
					return nil, nil, fmt.Errorf("$%d: %w", i+1, err)
				}
				if value, err = types.Encode(oids[i], pgtype.BinaryFormatCode, v, []byte{}); err != nil {
					return nil, nil, fmt.Errorf("$%d: %w", i+1, err)
				}
				format = pgtype.BinaryFormatCode
			}
		}
		values, formats = append(values, value), append(formats, format)
	}
	return values, formats, nil
}
