package mover

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in the write-ahead log of one server. Those of two servers cannot be compared.
type LSN uint64

func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads PostgreSQL's pg_lsn.
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	h, err := strconv.ParseUint(high, 16, 32)
	if !ok || err != nil {
		return 0, fmt.Errorf("%q is not an LSN", s)
	}
	l, err := strconv.ParseUint(low, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not an LSN", s)
	}
	return LSN(h<<32 | l), nil
}
