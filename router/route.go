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
		if dst, err = routeSet(snap, a, t.rows, dst, from, true); err != nil {
			return dst, err
		}
	} else {
		for _, set := range t.keys {
			if dst, err = routeSet(snap, a, set, dst, from, false); err != nil {
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

// routeSet adds the owners of a set's keys to dst[from:], each once.
func routeSet(snap *topology.Snapshot, a *Args, set keySet, dst []topology.ShardID, from int, stored bool) ([]topology.ShardID, *Error) {
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
		switch state {
		case keyOK:
			dst = addShard(dst, from, snap.Owner(hash))
		case keyUnknown:
			return dst, unknownKey()
		case keyIsNull:
			if stored {
				return dst, &Error{Code: codeNotNull, Message: "null value in the shard key", Hint: "Give each row its key."}
			}
		}
	}
	return dst, nil
}

// keyIsNull is the state of a key that is NULL: no row has it.
const keyIsNull = keyBadInput + 1

// hash1 is the hash of a single value.
func (s *keySource) hash1(a *Args) (topology.KeyHash, keyState) {
	switch s.origin {
	case fromHash:
		return s.hash, keyOK
	case fromLiteral:
		return hashLiteral(s.keyType, a.SQL, a.Literals[s.index], s.negative)
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
		return hashParam(s.keyType, value, binary, a.Params.ParamType(int(s.index)))
	}
	return 0, keyIsNull
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

func unknownKey() *Error {
	return &Error{Code: codeNotSupported, Message: "the shard key's value cannot be read",
		Hint: "Give it as a literal or parameter of the key column's own type, or let the server choose the parameter's type."}
}
