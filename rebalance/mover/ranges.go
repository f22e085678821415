package mover

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"shardproxy/topology"
)

// ranges are sorted, do not touch and do not overlap.
type ranges []topology.KeyRange

func newRanges(list []topology.KeyRange) (ranges, error) {
	if len(list) == 0 {
		return nil, errors.New("a move needs key ranges")
	}
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b topology.KeyRange) int { return cmp.Compare(a.Start, b.Start) })
	var r ranges
	for _, next := range sorted {
		if last := next.End - 1; last < next.Start {
			return nil, fmt.Errorf("key range %v is empty", next)
		}
		if n := len(r); n > 0 {
			switch end := r[n-1].End; {
			case end == 0 || next.Start < end:
				return nil, fmt.Errorf("key ranges %v and %v overlap", r[n-1], next)
			case next.Start == end:
				r[n-1].End = next.End
				continue
			}
		}
		r = append(r, next)
	}
	return r, nil
}

func (r ranges) contain(h topology.KeyHash) bool {
	i, found := slices.BinarySearchFunc(r, h, func(a topology.KeyRange, h topology.KeyHash) int { return cmp.Compare(a.Start, h) })
	if found {
		return true
	}
	return i > 0 && h <= r[i-1].End-1
}

// all says whether the ranges are the whole ring.
func (r ranges) all() bool { return len(r) == 1 && r[0].Start == 0 && r[0].End == 0 }

// predicate is SQL that is true for the rows whose key hashes into the ranges. Several ranges are found by
// bisection, so that the hash is computed once a row: a hash is inside if an odd number of borders is at or below it.
func (r ranges) predicate(hash string) string {
	if len(r) == 1 {
		return fmt.Sprintf("(%s BETWEEN %s AND %s)", hash, signed(r[0].Start), signed(r[0].End-1))
	}
	var borders []string
	for _, one := range r {
		borders = append(borders, strconv.FormatInt(one.Start.Signed(), 10))
		if one.End != 0 {
			borders = append(borders, strconv.FormatInt(one.End.Signed(), 10))
		}
	}
	return fmt.Sprintf("(width_bucket(%s, '{%s}'::int8[]) %% 2 = 1)", hash, strings.Join(borders, ","))
}

func signed(h topology.KeyHash) string { return "'" + strconv.FormatInt(h.Signed(), 10) + "'::int8" }

// hashSQL is the key hash of a table's row; alias may be "".
func (t Table) hashSQL(alias string) string {
	column := quote(t.Key)
	if alias != "" {
		column = alias + "." + column
	}
	return t.KeyType.HashSQL(column)
}

// hash of a key as pgoutput gives it, in PostgreSQL's text form.
func (t Table) hash(key []byte) (topology.KeyHash, error) {
	switch t.KeyType {
	case topology.KeyText:
		return topology.HashText(key), nil
	case topology.KeyUUID:
		u, err := parseUUID(key)
		return topology.HashUUID(u), err
	}
	v, err := strconv.ParseInt(string(key), 10, 64)
	return topology.HashInt(v), err
}

// parseUUID reads the form that PostgreSQL writes, 8-4-4-4-12.
func parseUUID(text []byte) (u [16]byte, err error) {
	n := 0
	for i := 0; i+1 < len(text); {
		if text[i] == '-' {
			i++
			continue
		}
		high, low := hexDigit(text[i]), hexDigit(text[i+1])
		if high > 15 || low > 15 || n == len(u) {
			return u, fmt.Errorf("%q is not a uuid", text)
		}
		u[n] = high<<4 | low
		n++
		i += 2
	}
	if n != len(u) {
		return u, fmt.Errorf("%q is not a uuid", text)
	}
	return u, nil
}

// hexDigit is 255 for what is none.
func hexDigit(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}
