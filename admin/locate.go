package admin

import (
	"cmp"
	"context"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"shardproxy/topology"
	"shardproxy/wire"
)

// readLocate is LOCATE: the key is hashed as the table's shard key is.
func readLocate(a *arguments) (reply, *wire.Error) {
	name, key := a.table(), a.text("the key")
	if err := a.done(); err != nil {
		return nil, err
	}
	return func(_ context.Context, s *session) ([][]any, *wire.Error) {
		return locate(s.console.src.Snapshot(), name, key)
	}, nil
}

// placed is where a key is.
type placed struct {
	table *topology.Table
	hash  topology.KeyHash
	in    topology.KeyRange
}

// placeKey finds the range of a key.
func placeKey(snap *topology.Snapshot, name topology.TableName, key string) (p placed, refused *wire.Error) {
	t := snap.Schema.Tables[name]
	switch {
	case t == nil:
		return p, wire.Errorf(wire.CodeUndefinedTable, "there is no table %v", name).WithHint("SHOW TABLES lists them.")
	case t.KeyType == topology.KeyNone && t.Kind == topology.Reference:
		return p, wire.Errorf(wire.CodeInvalidParameterValue, "%v is a reference table: every shard has all of its rows", name)
	case t.KeyType == topology.KeyNone:
		return p, wire.Errorf(wire.CodeInvalidParameterValue, "%v has no shard key", name).WithHint("SHOW TABLES tells why.")
	}
	h, ok := hashKey(t.KeyType, key)
	if !ok {
		return p, wire.Errorf(wire.CodeInvalidTextRepresentation, "%q is not a key of type %v, as %v.%s is", key, t.KeyType, name, t.KeyColumn())
	}
	ranges := snap.Ranges()
	at, found := slices.BinarySearchFunc(ranges, h, func(r topology.KeyRange, h topology.KeyHash) int {
		return cmp.Compare(r.Start, h)
	})
	if !found {
		at--
	}
	return placed{t, h, ranges[at]}, nil
}

func locate(snap *topology.Snapshot, name topology.TableName, key string) ([][]any, *wire.Error) {
	p, refused := placeKey(snap, name, key)
	if refused != nil {
		return nil, refused
	}
	t, h, r := p.table, p.hash, p.in
	var end any
	if r.End != 0 {
		end = hashText(r.End)
	}
	shard := snap.Shards[r.Shard]
	var node any
	if len(shard.Nodes) > 0 {
		node = shard.Nodes[0].String()
	}
	return [][]any{{name.String(), t.KeyColumn(), t.KeyType.String(), h.Signed(), hashText(h), hashText(r.Start), end, shard.Name, node}}, nil
}

// hashKey hashes a key that was typed; false if it is not of this type.
func hashKey(t topology.KeyType, key string) (topology.KeyHash, bool) {
	switch t {
	case topology.KeyInt:
		n, err := strconv.ParseInt(strings.TrimSpace(key), 10, 64)
		return topology.HashInt(n), err == nil
	case topology.KeyUUID:
		if inner, ok := strings.CutPrefix(key, "{"); ok && strings.HasSuffix(inner, "}") {
			key = inner[:len(inner)-1]
		}
		id, err := hex.DecodeString(strings.ReplaceAll(key, "-", ""))
		if err != nil || len(id) != 16 {
			return 0, false
		}
		return topology.HashUUID([16]byte(id)), true
	case topology.KeyText:
		return topology.HashText(key), true
	}
	return 0, false
}
