package router

import "encoding/binary"

// Statements beyond these limits are parsed each time: a cache key and its literals would take
// more memory than a second parse is worth.
const (
	maxKeyBytes    = 16 << 10
	maxKeyLiterals = 1024
)

// What stands in a key beside the statement's own bytes. None of them can come from the text:
// such bytes outside of quotes keep a statement from the cache, quoted text ends at its quote.
const (
	markHint = 0x1f // the hint's text follows, to the end
	markKept = 0x1e // a literal follows as it is written
	// A run of blanks and comments is one ' '. A literal is its LiteralKind, 1 … 9: 9 is a tab,
	// which blanks never leave in a key.
)

// normalise cuts sql into its key, in sc.key, and what differs between statements of one key, in
// sc.Literals and sc.Hint. It is one pass over the text. It reports whether the statement may
// use the plan cache; the literals and the hint are right either way.
//
// Two statements of one key have the same tokens but for the values of literals that are not
// Kept, in the same env and schema. (Comments, blanks, and the case of keywords and unquoted
// ASCII identifiers may differ too.)
func normalise(sc *Scratch, sql string, env *Env, schema uint64) bool {
	if cap(sc.Literals) > 4*maxKeyLiterals {
		sc.Literals = nil // do not keep what one huge INSERT needed
	}
	sc.Literals, sc.Hint, sc.slashed = sc.Literals[:0], Hint{}, false
	n := normaliser{lexer: lexer{sql: sql, std: env.StdStrings}, keptDepth: -1}
	cached := false
	if len(sql) <= maxKeyBytes {
		n.key = sc.room(len(sql))
		binary.LittleEndian.PutUint64(n.key, env.ID)
		binary.LittleEndian.PutUint64(n.key[8:], schema)
		n.size = keyHead
		cached = n.begin(sc) && n.run(sc)
		sc.key = n.key
	}
	if !cached {
		n.collect(sc)
	}
	if n.lexer.hint.End != 0 {
		sc.Hint = n.readHint()
		if cached {
			n.put(markHint)
			n.copy(n.lexer.hint.Start, n.lexer.hint.End)
		}
	}
	sc.key = sc.key[:n.size]
	return cached
}

// keyHead is the length of what stands before the statement in a key: Env.ID and the schema's version.
const keyHead = 16

// room gives a slice that holds the key of any statement of size bytes, with eight bytes to spare.
// A token adds at most one byte, the mark of a kept literal, and the blank before it is one that
// was there; but for the hint, which stands in a comment.
func (sc *Scratch) room(size int) []byte {
	need := keyHead + 2*size + 16
	if cap(sc.key) < need {
		sc.key = make([]byte, need)
	}
	return sc.key[:cap(sc.key)]
}

// plannable says whether a statement is of the kinds that the plan cache holds.
func plannable(sql string, stdStrings bool) bool {
	lx := lexer{sql: sql, std: stdStrings}
	switch lx.next() {
	case tokWord:
		return plannableWord(packed(sql, lx.start, lx.pos), lx.pos-lx.start)
	case tokSelf:
		return sql[lx.start] == '('
	}
	return false
}

// normaliser is the state of one pass.
type normaliser struct {
	lexer
	key       []byte
	size      int  // of the key so far
	depth     int  // of parentheses
	keptDepth int  // literals are kept until the parenthesis around this depth ends; -1: they are not
	untilFrom bool // … or until FROM: what began it was DISTINCT
	keepNext  bool // the next token is kept, if it is a literal: INTERVAL '1 day'
}

// begin reads the first token, and reports whether such statements are cached.
func (n *normaliser) begin(sc *Scratch) bool {
	switch tok := n.next(); {
	case tok == tokWord:
		n.word()
		return plannableWord(packed(n.sql, n.start, n.pos), n.pos-n.start)
	case tok == tokSelf && n.sql[n.start] == '(':
		n.depth = 1
		n.put('(')
		return true
	default:
		n.note(sc, tok)
		return false
	}
}

// run reads all further tokens into the key. It stops early, at a token that it has taken care
// of, where the statement turns out not to be cached.
func (n *normaliser) run(sc *Scratch) bool {
	for {
		tok := n.next()
		if n.blank && tok != tokEnd {
			n.put(' ')
		}
		switch tok {
		case tokEnd:
			return true
		case tokWord:
			n.word()
			continue // its keepNext is for the next token
		case tokSelf:
			if n.sql[n.start] == ';' {
				return n.last(sc)
			}
			n.bracket()
			n.copy(n.start, n.pos)
		case tokOperator, tokPoint, tokCast, tokParam, tokQuoted:
			n.copy(n.start, n.pos)
		case tokInteger, tokDecimal, tokString, tokEscape, tokDollar, tokBit, tokHex, tokNational:
			n.literal(sc, tok)
			if len(sc.Literals) > maxKeyLiterals {
				return false
			}
		default: // the parser's to judge
			n.note(sc, tok)
			return false
		}
		n.keepNext = false
	}
}

// last reports whether the semicolon at hand ends the text, and takes it and the blank before it
// from the key.
func (n *normaliser) last(sc *Scratch) bool {
	if n.blank {
		n.size--
	}
	tok := n.next()
	n.note(sc, tok)
	return tok == tokEnd
}

// collect notes the literals of what is left of the text.
func (n *normaliser) collect(sc *Scratch) {
	for tok := n.next(); tok != tokEnd; tok = n.next() {
		n.note(sc, tok)
	}
}

// note notes a token that is a literal.
func (n *normaliser) note(sc *Scratch, tok token) {
	if tok.literal() {
		sc.Literals = append(sc.Literals, Literal{Start: n.start, End: n.pos, Kind: LiteralKind(tok)})
		sc.slashed = sc.slashed || n.slashed
	}
}

func (n *normaliser) literal(sc *Scratch, tok token) {
	n.note(sc, tok)
	if n.keptDepth < 0 && !n.keepNext {
		n.put(byte(tok))
		return
	}
	sc.Literals[len(sc.Literals)-1].Kept = true
	n.put(markKept)
	n.copy(n.start, n.pos)
}

func (n *normaliser) bracket() {
	switch n.sql[n.start] {
	case '(':
		n.depth++
	case ')':
		n.depth--
		if n.depth < n.keptDepth {
			n.keptDepth = -1
		}
	}
}

func (n *normaliser) put(c byte) {
	n.key[n.size] = c
	n.size++
}

func (n *normaliser) copy(start, end int) {
	if end == start+1 { // most operators are
		n.put(n.sql[start])
		return
	}
	n.size += copy(n.key[n.size:], n.sql[start:end])
}

// word writes an unquoted word in lower case, and looks out for those behind which literals
// change the plan.
func (n *normaliser) word() {
	w, size := packed(n.sql, n.start, n.pos), n.pos-n.start
	binary.LittleEndian.PutUint64(n.key[n.size:], w)
	for i := n.start + 8; i < n.pos; i += 8 {
		binary.LittleEndian.PutUint64(n.key[n.size+i-n.start:], packed(n.sql, i, n.pos))
	}
	n.size += size
	n.keepNext = false
	if size > 8 || size < 4 {
		return
	}
	switch w {
	case wordOrder, wordGroup, wordLimit, wordOffset, wordFetch:
		if n.keptDepth < 0 || n.keptDepth == n.depth {
			n.keptDepth, n.untilFrom = n.depth, false
		}
	case wordDistinct: // DISTINCT ON (1)
		if n.keptDepth < 0 {
			n.keptDepth, n.untilFrom = n.depth, true
		}
	case wordFrom:
		if n.untilFrom && n.keptDepth == n.depth {
			n.keptDepth = -1
		}
	case wordSelect, wordHaving:
		if n.keptDepth == n.depth {
			n.keptDepth = -1
		}
	case wordInterval:
		n.keepNext = true
	}
}

// Words of up to eight letters as packed gives them, the first letter lowest.
const (
	wordWith     = 'w' | 'i'<<8 | 't'<<16 | 'h'<<24
	wordFrom     = 'f' | 'r'<<8 | 'o'<<16 | 'm'<<24
	wordAbort    = 'a' | 'b'<<8 | 'o'<<16 | 'r'<<24 | 't'<<32
	wordBegin    = 'b' | 'e'<<8 | 'g'<<16 | 'i'<<24 | 'n'<<32
	wordEnd      = 'e' | 'n'<<8 | 'd'<<16
	wordFetch    = 'f' | 'e'<<8 | 't'<<16 | 'c'<<24 | 'h'<<32
	wordGroup    = 'g' | 'r'<<8 | 'o'<<16 | 'u'<<24 | 'p'<<32
	wordLimit    = 'l' | 'i'<<8 | 'm'<<16 | 'i'<<24 | 't'<<32
	wordMerge    = 'm' | 'e'<<8 | 'r'<<16 | 'g'<<24 | 'e'<<32
	wordOrder    = 'o' | 'r'<<8 | 'd'<<16 | 'e'<<24 | 'r'<<32
	wordStart    = 's' | 't'<<8 | 'a'<<16 | 'r'<<24 | 't'<<32
	wordCommit   = 'c' | 'o'<<8 | 'm'<<16 | 'm'<<24 | 'i'<<32 | 't'<<40
	wordDelete   = 'd' | 'e'<<8 | 'l'<<16 | 'e'<<24 | 't'<<32 | 'e'<<40
	wordHaving   = 'h' | 'a'<<8 | 'v'<<16 | 'i'<<24 | 'n'<<32 | 'g'<<40
	wordInsert   = 'i' | 'n'<<8 | 's'<<16 | 'e'<<24 | 'r'<<32 | 't'<<40
	wordOffset   = 'o' | 'f'<<8 | 'f'<<16 | 's'<<24 | 'e'<<32 | 't'<<40
	wordSelect   = 's' | 'e'<<8 | 'l'<<16 | 'e'<<24 | 'c'<<32 | 't'<<40
	wordUpdate   = 'u' | 'p'<<8 | 'd'<<16 | 'a'<<24 | 't'<<32 | 'e'<<40
	wordValues   = 'v' | 'a'<<8 | 'l'<<16 | 'u'<<24 | 'e'<<32 | 's'<<40
	wordRelease  = 'r' | 'e'<<8 | 'l'<<16 | 'e'<<24 | 'a'<<32 | 's'<<40 | 'e'<<48
	wordDistinct = 'd' | 'i'<<8 | 's'<<16 | 't'<<24 | 'i'<<32 | 'n'<<40 | 'c'<<48 | 't'<<56
	wordInterval = 'i' | 'n'<<8 | 't'<<16 | 'e'<<24 | 'r'<<32 | 'v'<<40 | 'a'<<48 | 'l'<<56
	wordRollback = 'r' | 'o'<<8 | 'l'<<16 | 'l'<<24 | 'b'<<32 | 'a'<<40 | 'c'<<48 | 'k'<<56
	wordSavepoin = 's' | 'a'<<8 | 'v'<<16 | 'e'<<24 | 'p'<<32 | 'o'<<40 | 'i'<<48 | 'n'<<56
)

// plannableWord says whether statements that begin with this word are held by the plan cache:
// in all others literals are part of the plan.
func plannableWord(w uint64, size int) bool {
	switch w {
	case wordSelect, wordInsert, wordUpdate, wordDelete, wordMerge, wordWith, wordValues,
		wordBegin, wordStart, wordCommit, wordEnd, wordRollback, wordAbort, wordRelease:
		return size <= 8
	case wordSavepoin:
		return size == 9
	}
	return false
}

// packed is the first eight bytes of sql[start:end] in lower case, the first one lowest; the
// bytes that a shorter word lacks are 0.
func packed(sql string, start, end int) uint64 {
	size := uint(end - start)
	if start+8 > len(sql) {
		var w uint64
		for i := end - 1; i >= start; i-- {
			w = w<<8 | uint64(sql[i])
		}
		return lower8(w)
	}
	s := sql[start : start+8]
	w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	if size < 8 {
		w &= 1<<(8*size) - 1
	}
	return lower8(w)
}

// lower8 puts the ASCII capitals among eight bytes in lower case. A byte's high bit tells:
// adding 0x3f carries into it from 'A' on, adding 0x25 from 'Z'+1 on.
func lower8(w uint64) uint64 {
	const each = 0x0101010101010101
	low := w &^ (0x80 * each)
	capital := (low + 0x3f*each) &^ (low + 0x25*each) &^ w & (0x80 * each)
	return w | capital>>2
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}
