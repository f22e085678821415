package router

import (
	"slices"

	"shardproxy/topology"
)

// ParamSource is the parameters of one execution.
type ParamSource interface {
	// Param gives parameter i (0-based). ok is false where there is none.
	Param(i int) (value []byte, binary, null, ok bool)
	// ParamType is the OID of the type that the client declared for it, 0 where it declared none.
	ParamType(i int) uint32
}

// Args is what differs between two executions of one Template.
type Args struct {
	SQL      string
	Literals []Literal   // of SQL, as Scratch has them
	Params   ParamSource // nil in the simple protocol
	Through  bool        // keys that are held are routed to their owner all the same
	Foreign  bool        // the client's encoding is not the server's: a text key beyond ASCII is refused
}

// Route gives the shards that a Keyed or Insert statement runs on, in ascending order, appended to
// dst: at least one. The statement is refused where they are several and !Combine, so nothing more
// is to be checked. For one literal or parameter nothing is allocated.
func (t *Template) Route(snap *topology.Snapshot, a *Args, dst []topology.ShardID) ([]topology.ShardID, *Error) {
	from := len(dst)
	if t.shard != "" {
		for i := range snap.Shards {
			if snap.Shards[i].Name == t.shard {
				return append(dst, topology.ShardID(i)), nil
			}
		}
		return dst, &Error{Code: codeUndefined, Message: "shard " + quoteName(t.shard) + " does not exist", Hint: "SHOW SHARDS in the admin console lists them."}
	}
	var err *Error
	if t.Kind == Insert {
		if dst, err = t.routeSet(snap, a, t.rows, dst, from); err != nil {
			return dst, err
		}
		if len(dst)-from > 1 && t.fails(a) {
			dst = dst[:from+1]
		}
	} else {
		for _, set := range t.keys {
			if dst, err = t.routeSet(snap, a, set, dst, from); err != nil {
				return dst, err
			}
		}
	}
	switch n := len(dst) - from; {
	case n == 0: // no key, or none that the server would take: any shard knows the answer
		dst = append(dst, 0)
	case n == 1:
	case !t.Combine:
		return dst[:from], t.Reason
	default:
		slices.Sort(dst[from:])
	}
	return dst, nil
}

// fails says that one of the rows of an Insert is certain to be refused, and all others with it: then
// one shard may run the whole statement.
func (t *Template) fails(a *Args) bool {
	for i := range t.rows {
		if s := &t.rows[i]; s.null == nullFails && (s.origin == fromNull || s.origin == fromParam) {
			if _, state := s.hash1(a); state == keyIsNull {
				return true
			}
		}
	}
	return false
}

// routeSet adds the owners of a set's keys to dst[from:], each once.
func (t *Template) routeSet(snap *topology.Snapshot, a *Args, set keySet, dst []topology.ShardID, from int) ([]topology.ShardID, *Error) {
	for i := range set {
		s := &set[i]
		if s.origin == fromArrayLiteral || s.origin == fromArrayParam {
			var err *Error
			if dst, err = routeArray(snap, a, s, dst, from); err != nil {
				return dst, err
			}
			continue
		}
		hash, state := s.hash1(a)
		switch {
		case state == keyOK && snap.Held(hash) && !a.Through:
			return dst, Held
		case state == keyOK:
			dst = addShard(dst, from, snap.Owner(hash))
		case state == keyUnknown, state == keyForeign:
			return dst, keyError(state)
		case state == keyIsNull && s.null == nullRefused:
			return dst, t.nullKey
		}
	}
	return dst, nil
}

// hash1 is the hash of a single value.
func (s *keySource) hash1(a *Args) (topology.KeyHash, keyState) {
	switch s.origin {
	case fromHash:
		if a.Foreign && s.wide {
			return 0, keyForeign
		}
		return s.hash, keyOK
	case fromLiteral:
		l := a.Literals[s.index]
		if a.Foreign && s.keyType == topology.KeyText && !ascii(a.SQL[l.Start:l.End]) {
			return 0, keyForeign
		}
		return hashLiteral(s.keyType, a.SQL, l, s.negative, s.length)
	case fromParam:
		if a.Params == nil {
			return 0, keyUnknown
		}
		value, binary, null, ok := a.Params.Param(int(s.index))
		switch {
		case !ok:
			return 0, keyUnknown
		case null:
			return 0, keyIsNull
		}
		return s.hashValue(a, value, binary, a.Params.ParamType(int(s.index)))
	}
	return 0, keyIsNull
}

// hashValue is the hash of a parameter, or of an element of an array.
func (s *keySource) hashValue(a *Args, value []byte, binary bool, oid uint32) (topology.KeyHash, keyState) {
	if a.Foreign && s.keyType == topology.KeyText && !ascii(value) {
		return 0, keyForeign
	}
	hash, state := hashParam(s.keyType, value, binary, oid, s.length)
	if s.mixed && (oid == 0 || oid == oidUnknown) && !plain(s.keyType, value, binary) {
		return 0, keyUnknown
	}
	return hash, state
}

// plain says that a parameter is equal to the same key of type kt whatever type the server chose for it,
// if it is equal to any: a number that float4 holds, a uuid, a text that no type changes.
func plain(kt topology.KeyType, value []byte, binary bool) bool {
	switch {
	case binary:
		return false
	case kt == topology.KeyInt:
		v, state := parseInt(value)
		return state == keyOK && v > -1<<24 && v < 1<<24
	case kt == topology.KeyUUID:
		_, ok := parseUUID(value)
		return ok
	}
	const nameMax = 63 // bytes, of the type name
	return len(value) <= nameMax && (len(value) == 0 || value[len(value)-1] != ' ')
}

// addShard adds a shard to dst[from:] unless it is there.
func addShard(dst []topology.ShardID, from int, shard topology.ShardID) []topology.ShardID {
	for _, have := range dst[from:] {
		if have == shard {
			return dst
		}
	}
	return append(dst, shard)
}

// Held is the error of a statement one of whose keys is held: it is to be planned again with the map that follows.
var Held = &Error{
	Code: codeSerialize, Message: "rows of this statement are about to move to another shard",
	Hint: "Run the transaction again.",
}

// keyError is the refusal of a key that is keyUnknown or keyForeign.
func keyError(state keyState) *Error {
	if state == keyForeign {
		return foreignKey()
	}
	return &Error{
		Code: codeNotSupported, Message: "the shard key's value cannot be read",
		Hint: "Give it as a literal or parameter of the key column's own type, and use the parameter for nothing else or declare its type.",
	}
}

func foreignKey() *Error {
	return &Error{
		Code: codeNotSupported, Message: "a shard key beyond ASCII cannot be read in this client encoding",
		Hint: "SET client_encoding to the encoding of the database.",
	}
}
