package topology

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
)

// Role of a node as configured. (What it really is, is asked of the node.)
type Role uint8

const (
	Primary Role = iota
	Replica
)

func (r Role) String() string {
	if r == Replica {
		return "replica"
	}
	return "primary"
}

// Node is one PostgreSQL server and database.
type Node struct {
	Host     string // name, address, or the folder of a Unix socket
	Port     int
	Database string
	Role     Role
}

// Address of the node in the form host:port, with an IPv6 address in brackets.
func (n Node) Address() string { return net.JoinHostPort(n.Host, strconv.Itoa(n.Port)) }

// Shard is one primary with its replicas.
type Shard struct {
	Name  string
	Nodes []Node // the primary first
}

// Snapshot is the whole topology at one epoch. Immutable: every session plans with the one it loaded.
type Snapshot struct {
	Epoch  Epoch
	Shards []Shard
	Schema *Schema

	ranges []KeyRange
	starts []KeyHash // ranges[i].Start, packed for the search
	owners []ShardID
	radix  []uint32 // the range of each top-bits cell's first hash
	shift  uint
}

// NewSnapshot checks that the ranges are sorted, cover the ring without overlap, and name known shards.
// It keeps copies of both lists.
func NewSnapshot(epoch Epoch, shards []Shard, ranges []KeyRange, schema *Schema) (*Snapshot, error) {
	if len(shards) == 0 || len(ranges) == 0 {
		return nil, errors.New("topology: a snapshot needs at least one shard and one range")
	}
	if schema == nil {
		schema = &Schema{}
	}
	s := &Snapshot{
		Epoch: epoch, Shards: slices.Clone(shards), Schema: schema, ranges: slices.Clone(ranges),
		starts: make([]KeyHash, 0, len(ranges)), owners: make([]ShardID, 0, len(ranges)),
	}
	next := KeyHash(0)
	for i, r := range s.ranges {
		if r.Start != next || (i > 0 && r.Start == 0) {
			return nil, fmt.Errorf("topology: range %d %v does not start at %016x, where the one before it ends", i, r, uint64(next))
		}
		if r.End <= r.Start && (r.End != 0 || i != len(ranges)-1) {
			return nil, fmt.Errorf("topology: range %d %v is empty or ends the ring too early", i, r)
		}
		if r.Shard < 0 || int(r.Shard) >= len(shards) {
			return nil, fmt.Errorf("topology: range %d %v names unknown shard %d", i, r, r.Shard)
		}
		next = r.End
		s.starts = append(s.starts, r.Start)
		s.owners = append(s.owners, r.Shard)
	}
	if next != 0 {
		return nil, fmt.Errorf("topology: the last range ends at %016x, not at the end of the ring", uint64(next))
	}
	s.index()
	return s, nil
}

// index cuts the ring into at least as many cells as there are ranges, so that Owner searches
// only the few ranges that meet in one cell.
func (s *Snapshot) index() {
	bits := uint(1)
	for 1<<bits < len(s.starts) {
		bits++
	}
	s.shift = 64 - bits
	s.radix = make([]uint32, 1<<bits+1)
	i := 0
	for cell := range 1 << bits {
		first := KeyHash(cell) << s.shift
		for i+1 < len(s.starts) && s.starts[i+1] <= first {
			i++
		}
		s.radix[cell] = uint32(i)
	}
	s.radix[1<<bits] = uint32(len(s.starts) - 1)
}

// Owner is the shard that owns h. It neither allocates nor locks.
func (s *Snapshot) Owner(h KeyHash) ShardID {
	cell := uint64(h) >> s.shift
	lo, hi := s.radix[cell], s.radix[cell+1]
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if s.starts[mid] <= h {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return s.owners[lo]
}

// Ranges of the ring in order. The caller must not change them.
func (s *Snapshot) Ranges() []KeyRange { return s.ranges }

// WithSchema is s with another schema.
func (s *Snapshot) WithSchema(schema *Schema) *Snapshot {
	c := *s
	c.Schema = schema
	return &c
}
