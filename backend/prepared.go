package backend

import (
	"container/list"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/maypok86/otter/v2"
)

// StatementPrefix begins the names that prepared statements have on backends.
const StatementPrefix = "shardproxy_"

// Statement is a prepared statement as backends know it: one name for one text, over all clients.
type Statement struct {
	Name  string
	SQL   string
	Types []byte // declared parameter types, 4 bytes each
}

// Statements interns prepared statements, so that clients that prepare the same text share it on the backends.
// It is bounded; a statement that was dropped from it stays valid for those who hold it.
type Statements struct {
	cache *otter.Cache[string, *Statement]
	last  atomic.Uint64
}

// NewStatements holds at most size statements.
func NewStatements(size int) *Statements {
	return &Statements{cache: otter.Must(&otter.Options[string, *Statement]{MaximumSize: size})}
}

// Len is about the number of statements held.
func (t *Statements) Len() int { return t.cache.EstimatedSize() }

// Intern gives the statement of this text and these parameter types. generation tells apart what must not be
// shared although the text is the same: before and after a change of the schema. context tells apart sessions whose
// settings make PostgreSQL read the literals of the text in another way.
func (t *Statements) Intern(sql string, types []byte, generation uint64, context string) *Statement {
	var key strings.Builder
	key.Grow(len(sql) + len(types) + len(context) + 20)
	key.WriteString(sql)
	key.WriteByte(0)
	key.Write(types)
	key.WriteString(strconv.FormatUint(generation, 36))
	key.WriteByte(0)
	key.WriteString(context)
	if s, ok := t.cache.GetIfPresent(key.String()); ok {
		return s
	}
	s := &Statement{
		Name:  StatementPrefix + strconv.FormatUint(t.last.Add(1), 36),
		SQL:   strings.Clone(sql),
		Types: append([]byte(nil), types...),
	}
	if other, stored := t.cache.SetIfAbsent(key.String(), s); !stored {
		return other
	}
	return s
}

// held is the set of statements that a backend has, least recently used first to go.
type held struct {
	order list.List // of *Statement, newest in front
	of    map[*Statement]*list.Element
}

// Has says whether the backend holds s, and marks s as used.
func (c *Conn) Has(s *Statement) bool {
	e, ok := c.held.of[s]
	if ok {
		c.held.order.MoveToFront(e)
	}
	return ok
}

// Hold notes that the backend is being sent s. It returns the statement that must be closed to make room, or nil.
func (c *Conn) Hold(s *Statement) (evicted *Statement) {
	if c.held.of == nil {
		c.held.of = make(map[*Statement]*list.Element)
	}
	if c.held.order.Len() >= c.pool.limits.Load().Statements && c.held.order.Len() > 0 {
		last := c.held.order.Back()
		evicted = last.Value.(*Statement)
		c.held.order.Remove(last)
		delete(c.held.of, evicted)
	}
	c.held.of[s] = c.held.order.PushFront(s)
	return evicted
}

// Forget notes that the backend does not hold s: its Parse failed.
func (c *Conn) Forget(s *Statement) {
	if e, ok := c.held.of[s]; ok {
		c.held.order.Remove(e)
		delete(c.held.of, s)
	}
}

// Restore notes that the backend still holds s: it was to be closed, but the Close was passed over.
func (c *Conn) Restore(s *Statement) {
	if _, ok := c.held.of[s]; !ok {
		c.held.of[s] = c.held.order.PushBack(s)
	}
}

// ForgetAll notes that the backend holds no statement: DISCARD ALL, DEALLOCATE ALL.
func (c *Conn) ForgetAll() {
	c.held.order.Init()
	clear(c.held.of)
}
