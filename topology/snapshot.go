package topology

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sort"
	"strconv"
	"strings"
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

// ShardState says whether a shard is to be given key ranges.
type ShardState uint8

const (
	ShardActive   ShardState = iota
	ShardDraining            // keeps what it owns until that is moved away, and is given nothing more
	// ShardJoining is being made like the others. It owns nothing and is asked nothing. What every shard must do, such as writes of
	// reference tables, waits until it is active, and then goes there too.
	ShardJoining
)

var shardStates = [...]string{ShardActive: "active", ShardDraining: "draining", ShardJoining: "joining"}

func (s ShardState) String() string {
	if int(s) < len(shardStates) {
		return shardStates[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// parseShardState reads what String gives.
func parseShardState(text string) (ShardState, bool) {
	i := slices.Index(shardStates[:], text)
	return ShardState(max(i, 0)), i >= 0
}

// Shard is one primary with its replicas. Its name is its identity; a ShardID is its place in one snapshot.
type Shard struct {
	Name  string
	Nodes []Node // the primary first
	State ShardState
}

// Limits of a snapshot. They bound what a peer, a file or the catalog can make us hold: some 300 MB at most.
const (
	ShardsMax = 1 << 18
	NodesMax  = 16 // of one shard
	RangesMax = 1 << 20
	RulesMax  = 1 << 16 // tables named by the rules
)

// Snapshot is the whole topology at one epoch. Immutable: every session plans with the one it loaded.
// Whatever holds a ShardID belongs to one snapshot: the next may give the same number to another shard.
type Snapshot struct {
	Cluster string // the cluster's name; "" where there is only a configuration file
	Epoch   Epoch
	Shards  []Shard
	Rules   KeyRules // what the tables are to be placed by; see SchemaFits
	Schema  *Schema

	moving  []Moving // by ID
	movings *movingIndex

	ranges []KeyRange
	starts []KeyHash // ranges[i].Start, packed for the search
	owners []ShardID
	radix  []uint32 // the range of each top-bits cell's first hash
	shift  uint
	names  []ShardID // the shards in the order of their names
	sum    uint64    // see Checksum
}

// NewSnapshot checks that the ranges are sorted, cover the ring without overlap, and name known shards.
// It keeps copies of both lists. Names and nodes are not looked at: New does.
func NewSnapshot(epoch Epoch, shards []Shard, ranges []KeyRange, schema *Schema) (*Snapshot, error) {
	if len(shards) == 0 || len(ranges) == 0 {
		return nil, errors.New("topology: a snapshot needs at least one shard and one range")
	}
	if schema == nil {
		schema = &Schema{}
	}
	s := &Snapshot{Epoch: epoch, Shards: slices.Clone(shards), Rules: schema.Rules, Schema: schema, ranges: slices.Clone(ranges)}
	if err := s.index(); err != nil {
		return nil, fmt.Errorf("topology: %w", err)
	}
	s.names = sortedNames(s.Shards)
	s.sum = s.wholeSum()
	return s, nil
}

// sortedNames gives the shards in the order of their names.
func sortedNames(shards []Shard) []ShardID {
	names := make([]ShardID, len(shards))
	for i := range names {
		names[i] = ShardID(i)
	}
	slices.SortFunc(names, func(a, b ShardID) int { return strings.Compare(shards[a].Name, shards[b].Name) })
	return names
}

// index checks the ranges and makes all that Owner needs from them.
func (s *Snapshot) index() error {
	s.starts, s.owners = make([]KeyHash, len(s.ranges)), make([]ShardID, len(s.ranges))
	next := KeyHash(0)
	for i, r := range s.ranges {
		if r.Start != next || (i > 0 && r.Start == 0) {
			return fmt.Errorf("range %d %v does not start at %016x, where the one before it ends", i, r, uint64(next))
		}
		if r.End <= r.Start && (r.End != 0 || i != len(s.ranges)-1) {
			return fmt.Errorf("range %d %v is empty or ends the ring too early", i, r)
		}
		if r.Shard < 0 || int(r.Shard) >= len(s.Shards) {
			return fmt.Errorf("range %d %v names unknown shard %d", i, r, r.Shard)
		}
		next = r.End
		s.starts[i], s.owners[i] = r.Start, r.Shard
	}
	if next != 0 {
		return fmt.Errorf("the last range ends at %016x, not at the end of the ring", uint64(next))
	}
	s.cells()
	return s.indexMoving()
}

// cells cuts the ring into at least as many cells as there are ranges, so that Owner searches
// only the few ranges that meet in one cell.
func (s *Snapshot) cells() {
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

// Keeps says whether a shard still owns in next all that it owns in s. The shard's name finds it there.
func (s *Snapshot) Keeps(id ShardID, next *Snapshot) bool {
	there, ok := next.ShardByName(s.Shards[id].Name)
	at := 0
	for _, r := range s.ranges {
		if r.Shard != id {
			continue
		}
		for last := r.End - 1; ok; at++ {
			for next.ranges[at].End-1 < r.Start {
				at++
			}
			if ok = next.ranges[at].Shard == there; next.ranges[at].End-1 >= last {
				break
			}
		}
	}
	return ok
}

// SameOwners says whether each key has the same owner, by its name, in both maps. Where ranges were cut or joined it says no.
func (s *Snapshot) SameOwners(other *Snapshot) bool {
	return slices.EqualFunc(s.ranges, other.ranges, func(a, b KeyRange) bool {
		return a.Start == b.Start && s.Shards[a.Shard].Name == other.Shards[b.Shard].Name
	})
}

// WithSchema is s with another schema.
func (s *Snapshot) WithSchema(schema *Schema) *Snapshot {
	c := *s
	c.Schema = schema
	return &c
}

// ShardByName finds a shard in log(n) steps.
func (s *Snapshot) ShardByName(name string) (ShardID, bool) {
	i, found := s.findName(name)
	if !found {
		return -1, false
	}
	return s.names[i], true
}

// findName gives the place in names where name is, or would be.
func (s *Snapshot) findName(name string) (int, bool) {
	return sort.Find(len(s.names), func(i int) int { return strings.Compare(name, s.Shards[s.names[i]].Name) })
}

// Checksum stands for the whole content but the epoch and the schema: cluster, shards, nodes, ranges, moves and rules. Two
// proxies with the same epoch and checksum route alike. It does not depend on the numbers of the shards.
func (s *Snapshot) Checksum() uint64 { return s.sum }

// SchemaFits says that the tables of the schema were placed by the rules of the snapshot. Where it is
// false, because a change set other rules, the schema must be loaded again.
func (s *Snapshot) SchemaFits() bool { return sameRules(&s.Rules, &s.Schema.Rules) }
