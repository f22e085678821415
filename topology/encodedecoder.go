package topology

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// decoder reads a body field by field. After a fault every field is zero and err says what it was.
type decoder struct {
	rest  []byte
	err   error
	arena strings.Builder
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
	}
	d.rest = nil
}

// end is the first fault, if there was one; there must be nothing left.
func (d *decoder) end() error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail("%d bytes are left over", len(d.rest))
	}
	return d.err
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail("a number is cut off or too long")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail("a number is cut off or too long")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// uint is a number up to most.
func (d *decoder) uint(most uint64) uint64 {
	v := d.uvarint()
	if v > most {
		d.fail("%d is more than %d", v, most)
		return 0
	}
	return v
}

// count is the length of a list whose elements take at least size bytes, so that no more is
// allocated than was sent.
func (d *decoder) count(most, size int) int {
	n := int(d.uint(uint64(most)))
	if n > len(d.rest)/size {
		d.fail("a list of %d is cut off", n)
		return 0
	}
	return n
}

func (d *decoder) uint64() uint64 {
	b := d.bytes(8)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

func (d *decoder) byte() byte {
	b := d.bytes(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (d *decoder) bool() bool {
	b := d.byte()
	if b > 1 {
		d.fail("%d is no truth value", b)
	}
	return b == 1
}

// bytes gives the next n bytes, nil if there are fewer.
func (d *decoder) bytes(n int) []byte {
	if n > len(d.rest) {
		d.fail("it is cut off")
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

// text is a string of its own.
func (d *decoder) text() string { return string(d.bytes(int(d.uint(hostMax)))) }

// arenaSize is how much one piece of memory for names holds. They are one allocation, not 400,000.
const arenaSize = 64 << 10

// shared is a string that begins as last does. Equal strings are one.
func (d *decoder) shared(last string) string {
	n := int(d.uint(uint64(len(last))))
	rest := d.bytes(int(d.uint(hostMax)))
	if len(rest) == 0 && n == len(last) {
		return last
	}
	if n+len(rest) > hostMax {
		d.fail("a name is longer than %d bytes", hostMax)
		return ""
	}
	// A Builder that has room neither moves nor changes what it gave.
	if d.arena.Cap()-d.arena.Len() < n+len(rest) {
		d.arena = strings.Builder{}
		d.arena.Grow(arenaSize)
	}
	from := d.arena.Len()
	d.arena.WriteString(last[:n])
	d.arena.Write(rest)
	return d.arena.String()[from:]
}

func (d *decoder) shards() []Shard {
	shards := make([]Shard, d.count(ShardsMax, 4))
	name, last := "", Node{}
	for i := range shards {
		name = d.shared(name)
		s := Shard{Name: name, State: ShardState(d.byte())}
		if n := d.count(NodesMax, 3); n > 0 {
			s.Nodes = make([]Node, n)
		}
		for j := range s.Nodes {
			s.Nodes[j] = d.nodeAfter(&last)
			last = s.Nodes[j]
		}
		if d.err != nil {
			return nil
		}
		shards[i] = s
	}
	return shards
}

func (d *decoder) nodeAfter(last *Node) Node {
	flags := d.byte()
	if flags&^nodeFlags != 0 {
		d.fail("a node has the unknown flags %x", flags)
	}
	n := Node{Host: d.shared(last.Host), Port: last.Port, Database: last.Database, Role: Role(flags & nodeReplica)}
	if flags&nodeSamePort == 0 {
		n.Port = int(d.uint(65535))
	}
	if flags&nodeSameDatabase == 0 {
		n.Database = d.shared(last.Database)
	}
	return n
}

func (d *decoder) ranges() []KeyRange {
	ranges := make([]KeyRange, d.count(RangesMax, 2))
	start, last := KeyHash(0), int64(0)
	for i := range ranges {
		end := start + KeyHash(d.uvarint())
		last += d.varint()
		if last < 0 || last >= ShardsMax {
			d.fail("a range names the shard %d", last)
			return nil
		}
		ranges[i] = KeyRange{Start: start, End: end, Shard: ShardID(last)}
		start = end
	}
	return ranges
}

// rules gives empty lists and maps as they are made by hand: not nil.
func (d *decoder) rules() KeyRules {
	r := KeyRules{Explicit: d.columns(), Reference: map[TableName]bool{}}
	for range d.count(RulesMax, 2) {
		r.Reference[d.table()] = true
	}
	for range d.count(RulesMax, 1) {
		r.Columns = append(r.Columns, d.text())
	}
	r.Named = d.columns()
	r.RefuseUnlisted = d.bool()
	return r
}

func (d *decoder) columns() map[TableName]string {
	n := d.count(RulesMax, 3)
	columns := make(map[TableName]string, n)
	for range n {
		table := d.table()
		columns[table] = d.text()
	}
	return columns
}

func (d *decoder) table() TableName { return TableName{Schema: d.text(), Name: d.text()} }
