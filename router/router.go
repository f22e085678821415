package router

import (
	"fmt"
	"strings"

	"shardproxy/topology"
)

// Config of a Router. All limits are in force for every statement, cached or not.
type Config struct {
	// CacheEntries bounds the plan cache. A statement counts one for each 512 bytes of its
	// normal form, so that the bound is one of memory as well: about 1 KB each.
	CacheEntries int
	// MaxTokens bounds how deep a tree a statement's operators, casts, subscripts, joins and
	// brackets can build (see guard). The C parser recurses over that tree; PostgreSQL
	// itself gives 54001 at about 5,000.
	MaxTokens int
	// MaxBytes bounds a statement's text: of a long literal the parser makes some six copies.
	MaxBytes int
}

// DefaultConfig has the limits that DESIGN.md section 10 gives reasons for.
func DefaultConfig() Config {
	return Config{CacheEntries: 20_000, MaxTokens: 2_000, MaxBytes: 64 << 20}
}

// Validate reports the first limit that is out of bounds.
func (c Config) Validate() error {
	switch {
	case c.CacheEntries < 1:
		return fmt.Errorf("router: CacheEntries is %d, must be at least 1", c.CacheEntries)
	case c.MaxTokens < 1 || c.MaxTokens > maxTokensCeiling:
		return fmt.Errorf("router: MaxTokens is %d, must be 1 … %d, what the parser's C stack was measured to hold", c.MaxTokens, maxTokensCeiling)
	case c.MaxBytes < 1 || c.MaxBytes > maxBytesCeiling:
		return fmt.Errorf("router: MaxBytes is %d, must be 1 … %d", c.MaxBytes, maxBytesCeiling)
	}
	return nil
}

const (
	maxTokensCeiling = 2_500   // 10,000 is protobuf's own limit of nesting; a token takes up to four
	maxBytesCeiling  = 1 << 30 // PostgreSQL's own limit of a message
)

// Env is what a session's settings mean for the reading of a statement.
//
// ID stands for the content in the plan cache: two Envs of one ID must be equal, also between
// sessions.
type Env struct {
	ID         uint64
	SearchPath []string // schemas in order, without quotes, "$user" resolved
	StdStrings bool     // standard_conforming_strings
	Bound      bool     // the session is bound to one shard (SET shardproxy.key, shardproxy.shard)
}

// Scratch is the memory that one session lends to Template for each statement. After a call it
// holds what differs between statements of one Template; it is valid until the next call, and
// aliases the statement's text.
type Scratch struct {
	Literals []Literal // all literals of the statement, in order
	Hint     Hint

	key     []byte
	slashed bool // a '…' literal has a backslash escape (StdStrings is off)
}

// Router gives statements their Templates. It is safe for concurrent use.
//
//	text ──normalise──► key ──► plan cache ──hit──► Template
//	                              │ miss                ▲
//	                            guard ──► analyse ──────┘
type Router struct {
	config  Config
	cache   *planCache
	analyse func(*topology.Snapshot, *Env, string, []Literal) (*Template, bool, error)
}

// New makes a Router with an empty plan cache.
func New(config Config) (*Router, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	cache, err := newPlanCache(config.CacheEntries)
	if err != nil {
		return nil, err
	}
	return &Router{config: config, cache: cache, analyse: analyse}, nil
}

// Template is what is known of one statement before its literals and parameters are looked at.
// sql may end in a semicolon, and may alias a buffer that is reused afterwards. sc receives the
// literals and the hint. A hit of the plan cache neither parses nor allocates.
//
// The error is an *Error where the statement breaks a limit (54001, 54000), or else an internal
// fault; what cannot be routed is a Template of kind Reject.
func (r *Router) Template(snap *topology.Snapshot, env *Env, sql string, sc *Scratch) (*Template, error) {
	if len(sql) > r.config.MaxBytes {
		return nil, &Error{
			Code:    "54000",
			Message: "statement is too long",
			Detail:  fmt.Sprintf("It has %d bytes, the limit is %d.", len(sql), r.config.MaxBytes),
			Hint:    "Use COPY, several statements, or raise router.max_bytes.",
		}
	}
	cacheable := normalise(sc, sql, env, schemaVersion(snap))
	if cacheable {
		if t, ok := r.cache.get(sc.key); ok {
			return t, nil
		}
	}
	if err := guard(sql, env.StdStrings, r.config.MaxTokens); err != nil {
		return nil, err
	}
	text, literals := strings.Clone(sql), sc.Literals
	if sc.slashed {
		var refused *Template
		if text, literals, refused = standardStrings(text, literals); refused != nil {
			return refused, nil
		}
	}
	t, keep, err := r.analyse(snap, env, text, literals)
	if err != nil {
		return nil, err
	}
	if cacheable && keep {
		r.cache.put(sc.key, t)
	}
	return t, nil
}

func schemaVersion(snap *topology.Snapshot) uint64 {
	if snap == nil || snap.Schema == nil {
		return 0
	}
	return snap.Schema.Version
}

// standardStrings rewrites a statement of a session with standard_conforming_strings off for
// the grammar, which only reads the standard: each '…' with a backslash becomes E'…'. Positions
// move by that, which no Template of a plannable statement depends on; others are refused.
func standardStrings(sql string, literals []Literal) (string, []Literal, *Template) {
	moved := make([]Literal, 0, len(literals))
	refused := !plannable(sql, false)
	var text []byte
	from := 0
	lx := lexer{sql: sql}
	for tok := lx.next(); tok != tokEnd; tok = lx.next() {
		if !tok.literal() {
			continue
		}
		l := literals[len(moved)]
		if lx.slashed {
			refused = refused || tok == tokNational
			text = append(append(text, sql[from:lx.start]...), 'E')
			from = lx.start
			l.Start--
		}
		shift := len(text) - from
		l.Start, l.End = l.Start+shift, l.End+shift
		moved = append(moved, l)
	}
	if refused {
		return "", nil, &Template{Kind: Reject, Reason: &Error{
			Code:    "0A000",
			Message: "backslash escapes in '…' are not supported in this statement",
			Hint:    "Write E'…', or SET standard_conforming_strings = on.",
		}}
	}
	return string(append(text, sql[from:]...)), moved, nil
}
