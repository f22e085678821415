package topology

import (
	"fmt"
	"strconv"
	"strings"
)

// fields reads the values of one row in text format, from left to right. The first fault stays in err,
// and what is read after it has no meaning.
type fields struct {
	row []string
	err error
}

// newFields checks that row has n values, so that the methods need not.
func newFields(row []string, n int) (fields, error) {
	if len(row) != n {
		return fields{}, fmt.Errorf("a row has %d values instead of %d", len(row), n)
	}
	return fields{row: row}, nil
}

func (f *fields) text() string {
	value := f.row[0]
	f.row = f.row[1:]
	return value
}

func (f *fields) bool() bool {
	value := f.text()
	if value != "t" && value != "f" {
		f.fail("a bool", value)
	}
	return value == "t"
}

// number reads an integer that is not negative; "" is -1.
func (f *fields) number() int {
	value := f.text()
	if value == "" {
		return -1
	}
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		f.fail("a number", value)
	}
	return int(n)
}

func (f *fields) oid() uint32 { return f.parseOID(f.text()) }

// oids reads OIDs separated by commas; "" is none.
func (f *fields) oids() (oids []uint32) {
	value := f.text()
	if value == "" {
		return nil
	}
	for text := range strings.SplitSeq(value, ",") {
		oids = append(oids, f.parseOID(text))
	}
	return oids
}

func (f *fields) parseOID(text string) uint32 {
	oid, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		f.fail("an OID", text)
	}
	return uint32(oid)
}

// volatility reads a provolatile.
func (f *fields) volatility() Volatility {
	value := f.text()
	if value != "i" && value != "s" && value != "v" {
		f.fail("a volatility", value)
		return Volatile
	}
	return Volatility(value[0])
}

// defaultVolatility reads the volatility of a default, where "" says that there is none and "z", as the
// worst, that a sequence is drawn from.
func (f *fields) defaultVolatility() (v Volatility, sequence bool) {
	switch f.row[0] {
	case "":
		f.text()
		return 0, false
	case "z":
		f.text()
		return Volatile, true
	}
	return f.volatility(), false
}

func (f *fields) fail(want, value string) {
	if f.err == nil {
		f.err = fmt.Errorf("%q is not %s", value, want)
	}
}
