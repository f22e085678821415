package topology

import (
	"fmt"
	"strings"
)

// Change is one edit of the topology. It names shards, nodes and borders, never a ShardID, so that it can be
// kept, sent, and applied by everyone to the snapshot of the epoch before. Its String is for people to read.
type Change interface {
	fmt.Stringer
	apply(d *draft) error
	encode(dst []byte) []byte // the kind and the fields
}

// AddShard adds a shard that owns nothing yet.
type AddShard struct{ Shard Shard }

// RemoveShard removes a shard that owns nothing any more.
type RemoveShard struct{ Name string }

// SetShardState drains a shard, or takes that back.
type SetShardState struct {
	Name  string
	State ShardState
}

// AddNode adds a replica to a shard.
type AddNode struct {
	Shard string
	Node  Node
}

// RemoveNode removes a replica from a shard; the role of Node does not matter.
type RemoveNode struct {
	Shard string
	Node  Node
}

// SetPrimary makes a node of a shard its primary, and the primary a replica; the role of Node does not matter.
type SetPrimary struct {
	Shard string
	Node  Node
}

// SetTable sets the rule of one table: it is sharded by Column, or a Reference table, or with neither it is no longer
// listed, so that the rules for columns and unlisted tables decide.
type SetTable struct {
	Table     TableName
	Column    string
	Reference bool
}

// SetRules replaces all rules.
type SetRules struct{ Rules KeyRules }

// MoveRange gives [Start, End) to a shard; End == 0 is the end of the ring. Ranges are cut at its borders, and neighbours that
// then have the same owner become one with it.
type MoveRange struct {
	Start, End KeyHash
	Shard      string
}

// SplitRange cuts the range that At lies in, so that its parts can be moved, watched and counted by themselves.
type SplitRange struct{ At KeyHash }

// MergeRange joins the two ranges that meet at At. They must have the same owner.
type MergeRange struct{ At KeyHash }

// Batch is several changes, at most BatchMax, that make one epoch: all or none.
type Batch []Change

// BatchMax bounds the time that a batch can take everyone: some seconds where there are 100,000 shards.
const BatchMax = 10_000

func (c AddShard) String() string {
	nodes := make([]string, len(c.Shard.Nodes))
	for i, n := range c.Shard.Nodes {
		nodes[i] = fmt.Sprintf("%v %v", n.Role, n)
	}
	verb := "add"
	if c.Shard.State == ShardJoining {
		verb = "begin to add"
	}
	return fmt.Sprintf("%s shard %s (%s)", verb, c.Shard.Name, strings.Join(nodes, ", "))
}

func (c RemoveShard) String() string { return "remove shard " + c.Name }

func (c SetShardState) String() string {
	switch c.State {
	case ShardActive:
		return "activate shard " + c.Name
	case ShardDraining:
		return "drain shard " + c.Name
	}
	return fmt.Sprintf("set shard %s to state %v", c.Name, c.State)
}

func (c AddNode) String() string {
	return fmt.Sprintf("add %v %v to shard %s", c.Node.Role, c.Node, c.Shard)
}

func (c RemoveNode) String() string {
	return fmt.Sprintf("remove node %v from shard %s", c.Node, c.Shard)
}

func (c SetPrimary) String() string {
	return fmt.Sprintf("make %v the primary of shard %s", c.Node, c.Shard)
}

func (c SetTable) String() string {
	switch {
	case c.Column != "":
		return fmt.Sprintf("shard table %v by %s", c.Table, c.Column)
	case c.Reference:
		return fmt.Sprintf("make %v a reference table", c.Table)
	}
	return fmt.Sprintf("remove the rule of table %v", c.Table)
}

func (c SetRules) String() string {
	return fmt.Sprintf("set the rules of all tables: %d sharded, %d reference, %d columns",
		len(c.Rules.Explicit), len(c.Rules.Reference), len(c.Rules.Columns))
}

func (c MoveRange) String() string {
	end := "end of the ring"
	if c.End != 0 {
		end = hexHash(c.End)
	}
	return fmt.Sprintf("move [%016x, %s) to shard %s", uint64(c.Start), end, c.Shard)
}

func (c SplitRange) String() string { return fmt.Sprintf("split at %016x", uint64(c.At)) }
func (c MergeRange) String() string { return fmt.Sprintf("merge at %016x", uint64(c.At)) }

// textMax is how many changes of a batch its String lists.
const textMax = 10

func (c Batch) String() string {
	var b strings.Builder
	for i, change := range c {
		if i == textMax {
			fmt.Fprintf(&b, "; and %d more", len(c)-i)
			break
		}
		if i > 0 {
			b.WriteString("; ")
		}
		fmt.Fprint(&b, change)
	}
	return b.String()
}
