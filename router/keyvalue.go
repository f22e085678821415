package router

import (
	"bytes"
	"encoding/binary"
	"math"

	"shardproxy/topology"
)

// keyState says what is known of a shard key's value.
type keyState uint8

const (
	keyUnknown  keyState = iota // cannot be proven
	keyOK                       // the hash is right
	keyBadInput                 // the server is certain to refuse the value: any shard may say so
	keyIsNull                   // it is equal to no key
	keyForeign                  // it is a text in an encoding that is not the server's
)

// Type OIDs of values that the proxy can read.
const (
	oidInt8    = 20
	oidInt2    = 21
	oidInt4    = 23
	oidText    = 25
	oidUnknown = 705
	oidVarchar = 1043
	oidUUID    = 2950
)

// hashLiteral is the hash of a literal as the value of a key: compared with it by =, or assigned
// to it. negative says that a minus stands before it. length is n where it is assigned to a
// varchar(n), else 0. The value's text is taken to be in the server's encoding.
func hashLiteral(kt topology.KeyType, sql string, l Literal, negative bool, length int) (topology.KeyHash, keyState) {
	switch l.Kind {
	case Integer:
		return hashInteger(kt, sql[l.Start:l.End], negative)
	case String, Escape, Dollar:
		// Their type is the key's.
	default:
		return 0, keyUnknown
	}
	if negative {
		return 0, keyUnknown
	}
	var room [64]byte
	value, ok := l.text(sql, room[:0])
	if !ok {
		return 0, keyUnknown
	}
	return hashInput(kt, value, length)
}

// hashInteger is the hash of an integer literal. One that does not fit an int8 is numeric.
func hashInteger(kt topology.KeyType, digits string, negative bool) (topology.KeyHash, keyState) {
	if kt != topology.KeyInt {
		return 0, keyUnknown // text = 42 is an error, but 42 can be assigned to text
	}
	v, ok := parseDigits(stringBytes(digits), negative)
	if !ok {
		return 0, keyUnknown
	}
	return topology.HashInt(v), keyOK
}

// hashInput is the hash of what the input function of the key's type makes of value.
func hashInput(kt topology.KeyType, value []byte, length int) (topology.KeyHash, keyState) {
	switch kt {
	case topology.KeyInt:
		v, state := parseInt(value)
		if state != keyOK {
			return 0, state
		}
		return topology.HashInt(v), keyOK
	case topology.KeyUUID:
		v, ok := parseUUID(value)
		if !ok {
			return 0, keyBadInput
		}
		return topology.HashUUID(v), keyOK
	case topology.KeyText:
		if bytes.IndexByte(value, 0) >= 0 {
			return 0, keyBadInput
		}
		value, ok := cutBlanks(value, length)
		if !ok {
			return 0, keyUnknown
		}
		return topology.HashText(value), keyOK
	}
	return 0, keyUnknown
}

// cutBlanks is value as a varchar(length) holds it: blanks beyond the length are cut. What else is too
// long the server refuses, so that it does not matter. It returns false where it takes the server's
// encoding to count the characters.
func cutBlanks(value []byte, length int) ([]byte, bool) {
	if length == 0 || len(value) <= length || value[len(value)-1] != ' ' {
		return value, true
	}
	if !ascii(value) {
		return nil, false
	}
	if rest := value[length:]; len(bytes.TrimRight(rest, " ")) == 0 {
		value = value[:length]
	}
	return value, true
}

// ascii says that value is the same text in every encoding of clients and servers.
func ascii[T ~string | ~[]byte](value T) bool {
	for i := range len(value) {
		if value[i] >= 0x80 {
			return false
		}
	}
	return true
}

// hashParam is the hash of a parameter as the value of a key. oid is the type that the client
// declared, 0 where it left the choice to the server, which then takes the key's type. (So it
// must have met the key by =, IN or assignment, without a cast.)
func hashParam(kt topology.KeyType, value []byte, isBinary bool, oid uint32, length int) (topology.KeyHash, keyState) {
	if !sameEquality(kt, oid) {
		return 0, keyUnknown
	}
	if !isBinary || kt == topology.KeyText {
		return hashInput(kt, value, length)
	}
	switch kt {
	case topology.KeyInt:
		v, ok := binaryInt(value, oid)
		if !ok {
			return 0, keyBadInput
		}
		return topology.HashInt(v), keyOK
	case topology.KeyUUID:
		if len(value) != 16 {
			return 0, keyBadInput
		}
		return topology.HashUUID([16]byte(value)), keyOK
	}
	return 0, keyUnknown
}

// sameEquality says whether values of type oid are equal to keys of type kt just as two such
// keys are. (numeric 42.0 and float8 42 equal an int 42, but are not read as one.)
func sameEquality(kt topology.KeyType, oid uint32) bool {
	switch oid {
	case 0, oidUnknown:
		return true
	case oidInt2, oidInt4, oidInt8:
		return kt == topology.KeyInt
	case oidText, oidVarchar:
		return kt == topology.KeyText
	case oidUUID:
		return kt == topology.KeyUUID
	}
	return false
}

// binaryInt reads an integer in the binary format of its type, or of the length it has where the
// type is the server's choice: a wrong length is then refused by the server.
func binaryInt(value []byte, oid uint32) (int64, bool) {
	if oid == oidUnknown {
		oid = 0
	}
	switch {
	case len(value) == 2 && (oid == 0 || oid == oidInt2):
		return int64(int16(binary.BigEndian.Uint16(value))), true
	case len(value) == 4 && (oid == 0 || oid == oidInt4):
		return int64(int32(binary.BigEndian.Uint32(value))), true
	case len(value) == 8 && (oid == 0 || oid == oidInt8):
		return int64(binary.BigEndian.Uint64(value)), true
	}
	return 0, false
}

// parseInt reads value as int8in does: blanks around, a sign, decimal digits. What only
// PostgreSQL 16 and newer read (0x2A, 1_000) is keyUnknown. A value beyond an int8 is refused by
// the input functions of all integer types, one beyond the column's narrower type hashes like no
// row that is there.
func parseInt(value []byte) (int64, keyState) {
	s := bytes.Trim(value, " \t\n\v\f\r")
	negative := false
	if len(s) > 0 && (s[0] == '-' || s[0] == '+') {
		negative = s[0] == '-'
		s = s[1:]
	}
	if v, ok := parseDigits(s, negative); ok {
		return v, keyOK
	}
	if len(s) > 1 && s[0] >= '0' && s[0] <= '9' {
		for _, c := range s[1:] {
			if startsIdentifier(c) {
				return 0, keyUnknown
			}
		}
	}
	return 0, keyBadInput
}

// parseDigits reads decimal digits and nothing else, and false where they do not fit an int64.
func parseDigits(s []byte, negative bool) (int64, bool) {
	limit := uint64(math.MaxInt64)
	if negative {
		limit++
	}
	var v uint64
	for _, c := range s {
		d := uint64(c - '0')
		if d > 9 || v > (limit-d)/10 {
			return 0, false
		}
		v = v*10 + d
	}
	if negative {
		v = -v
	}
	return int64(v), len(s) > 0
}

// parseUUID reads value as uuid_in does: 32 hexadecimal digits in either case, a hyphen allowed
// behind each group of four, all of it in braces or not.
func parseUUID(s []byte) (id [16]byte, ok bool) {
	if len(s) > 0 && s[0] == '{' {
		if s[len(s)-1] != '}' || len(s) < 2 {
			return id, false
		}
		s = s[1 : len(s)-1]
	}
	for i := range id {
		if len(s) < 2 {
			return id, false
		}
		high, low := hexDigit(s[0]), hexDigit(s[1])
		if high > 15 || low > 15 {
			return id, false
		}
		id[i] = byte(high<<4 | low)
		s = s[2:]
		if i%2 == 1 && i < len(id)-1 && len(s) > 0 && s[0] == '-' {
			s = s[1:]
		}
	}
	return id, len(s) == 0
}
