package router

import (
	"strings"

	"shardproxy/topology"
)

// Hint is a comment that says where a statement runs:
//
//	/* shardproxy: key=42 */    the shard of this key: an integer, a uuid, or else text
//	/* shardproxy: key='42' */  the shard of this text, '' standing for one quote
//	/* shardproxy: shard=s1 */  this shard
//
// The first such comment of a statement counts, wherever it stands.
type Hint struct {
	Present bool
	Key     string // without its quotes
	Quoted  bool   // the key stood in quotes: it is text
	Shard   string // Present with neither a Shard nor a Key: the hint could not be read
}

const hintMark = "shardproxy:"

// noteHint remembers where the first hint comment is: sql[start:end] is the inside of a comment.
func (lx *lexer) noteHint(start, end int) {
	inside := lx.sql[start:end]
	trimmed := strings.TrimLeft(inside, " \t\r\n")
	if lx.hint.End == 0 && strings.HasPrefix(trimmed, hintMark) {
		lx.hint = Span{Start: end - len(trimmed) + len(hintMark), End: end}
	}
}

// findHint is the hint of a statement that is not normalised.
func findHint(sql string, stdStrings bool) Hint {
	if !strings.Contains(sql, hintMark) {
		return Hint{}
	}
	lx := lexer{sql: sql, std: stdStrings}
	for lx.next() != tokEnd {
	}
	return lx.readHint()
}

// readHint reads the hint that was noted.
func (lx *lexer) readHint() Hint {
	if lx.hint.End == 0 {
		return Hint{}
	}
	h := Hint{Present: true}
	name, value, _ := strings.Cut(lx.sql[lx.hint.Start:lx.hint.End], "=")
	value = strings.Trim(value, " \t\r\n")
	switch strings.Trim(name, " \t\r\n") {
	case "key":
		h.Key, h.Quoted = value, false
		if len(value) >= 2 && value[0] == '\'' && value[len(value)-1] == '\'' {
			h.Quoted = true
			h.Key = value[1 : len(value)-1]
			if strings.IndexByte(h.Key, '\'') >= 0 {
				h.Key = strings.ReplaceAll(h.Key, "''", "'")
			}
		}
	case "shard":
		h.Shard = value
	}
	return h
}

// Readable says that the hint names a key or a shard. The empty text is no key.
func (h Hint) Readable() bool { return h.Key != "" || h.Shard != "" }

// Portable says that the key hashes alike in every client encoding.
func (h Hint) Portable() bool { return ascii(stringBytes(h.Key)) }

// Hash is the hash of the hint's key.
func (h Hint) Hash() topology.KeyHash {
	key := stringBytes(h.Key)
	if !h.Quoted {
		if v, state := parseInt(key); state == keyOK {
			return topology.HashInt(v)
		}
		if v, ok := parseUUID(key); ok {
			return topology.HashUUID(v)
		}
	}
	return topology.HashText(key)
}
