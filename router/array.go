package router

import (
	"encoding/binary"
	"strings"

	"shardproxy/topology"
)

// Type OIDs of arrays of the types that a shard key can be compared with.
var elementOIDs = map[uint32]uint32{1005: oidInt2, 1007: oidInt4, 1016: oidInt8, 1009: oidText, 1015: oidVarchar, 2951: oidUUID}

// routeArray adds the owners of all elements of an array. An array that PostgreSQL would refuse adds none.
func routeArray(snap *topology.Snapshot, a *Args, s *keySource, dst []topology.ShardID, from int) ([]topology.ShardID, *Error) {
	value, isBinary, oid, found := s.array(a)
	switch found {
	case keyIsNull:
		return dst, nil
	case keyOK:
	default:
		return dst, keyError(found)
	}
	worst, held := keyOK, false
	each := func(element []byte, isBinary bool, oid uint32) {
		hash, state := s.hashValue(a, element, isBinary, oid)
		switch state {
		case keyOK:
			held = held || snap.Held(hash)
			dst = addShard(dst, from, snap.Owner(hash))
		case keyUnknown, keyForeign:
			worst = state
		}
	}
	var whole bool
	if isBinary {
		whole = binaryArray(value, func(e []byte, oid uint32) { each(e, true, oid) })
	} else {
		whole = textArray(value, func(e []byte) { each(e, false, oid) })
	}
	if !whole {
		worst = keyUnknown
	}
	if worst != keyOK {
		return dst, keyError(worst)
	}
	if held && !a.Through {
		return dst, Held
	}
	return dst, nil
}

// array is the array that s stands for. oid is the type of its elements, where the client declared one.
func (s *keySource) array(a *Args) (value []byte, isBinary bool, oid uint32, found keyState) {
	if s.origin == fromArrayLiteral {
		l := a.Literals[s.index]
		value, ok := l.text(a.SQL, nil)
		switch {
		case !ok:
			return nil, false, 0, keyUnknown
		case a.Foreign && s.keyType == topology.KeyText && !ascii(a.SQL[l.Start:l.End]):
			return nil, false, 0, keyForeign
		}
		return value, false, 0, keyOK
	}
	if a.Params == nil {
		return nil, false, 0, keyUnknown
	}
	value, isBinary, null, ok := a.Params.Param(int(s.index))
	if null {
		return nil, false, 0, keyIsNull
	}
	if declared := a.Params.ParamType(int(s.index)); ok && declared != 0 && declared != oidUnknown {
		oid, ok = elementOIDs[declared]
	}
	if !ok {
		return nil, false, 0, keyUnknown
	}
	return value, isBinary, oid, keyOK
}

// binaryArray calls each for the elements that are not NULL of an array in the binary format
// (array_recv), of any number of dimensions. It returns false for what is no such array.
func binaryArray(b []byte, each func(element []byte, oid uint32)) bool {
	if len(b) < 12 {
		return false
	}
	dimensions := int(int32(binary.BigEndian.Uint32(b)))
	oid := binary.BigEndian.Uint32(b[8:])
	b = b[12:]
	if dimensions < 0 || dimensions > 6 || len(b) < 8*dimensions {
		return false
	}
	count := 1
	if dimensions == 0 {
		count = 0
	}
	for range dimensions {
		size := int(int32(binary.BigEndian.Uint32(b)))
		if size < 0 || size > 1<<27 || count*size > 1<<27 {
			return false
		}
		count *= size
		b = b[8:]
	}
	for range count {
		if len(b) < 4 {
			return false
		}
		size := int(int32(binary.BigEndian.Uint32(b)))
		b = b[4:]
		if size == -1 {
			continue
		}
		if size < 0 || size > len(b) {
			return false
		}
		each(b[:size], oid)
		b = b[size:]
	}
	return len(b) == 0
}

// textArray calls each for the elements that are not NULL of an array as array_in reads it: one
// dimension in braces. It returns false for all else, also for what PostgreSQL would read in
// another form ([2:3]={…}, nested braces) or refuse.
func textArray(b []byte, each func(element []byte)) bool {
	s := trimBlanks(b)
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' {
		return false
	}
	s = trimBlanks(s[1 : len(s)-1])
	if len(s) == 0 {
		return true
	}
	var buf []byte
	for {
		element, quoted, rest, ok := arrayElement(trimBlanks(s), buf[:0])
		if !ok {
			return false
		}
		if quoted || !strings.EqualFold(string(element), "null") {
			each(element)
		}
		buf = element
		rest = trimBlanks(rest)
		if len(rest) == 0 {
			return true
		}
		if rest[0] != ',' {
			return false
		}
		s = rest[1:]
	}
}

// arrayElement reads one element at the start of s into buf.
func arrayElement(s, buf []byte) (element []byte, quoted bool, rest []byte, ok bool) {
	if len(s) > 0 && s[0] == '"' {
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '"':
				return buf, true, s[i+1:], true
			case '\\':
				if i++; i == len(s) {
					return nil, true, nil, false
				}
			}
			buf = append(buf, s[i])
		}
		return nil, true, nil, false
	}
	i, end := 0, 0 // end: blanks at the end do not count, unless they are escaped
	for ; i < len(s) && s[i] != ','; i++ {
		switch c := s[i]; c {
		case '{', '}', '"':
			return nil, false, nil, false
		case '\\':
			if i++; i == len(s) {
				return nil, false, nil, false
			}
			quoted = true // an escaped null is no NULL
			buf = append(buf, s[i])
			end = len(buf)
		default:
			buf = append(buf, c)
			if class[c] != isBlank {
				end = len(buf)
			}
		}
	}
	return buf[:end], quoted, s[i:], end > 0
}

func trimBlanks(b []byte) []byte {
	for len(b) > 0 && class[b[0]] == isBlank {
		b = b[1:]
	}
	for len(b) > 0 && class[b[len(b)-1]] == isBlank {
		b = b[:len(b)-1]
	}
	return b
}
