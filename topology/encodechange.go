package topology

import "encoding/binary"

// The kinds of changes in bytes. They are kept in logs and sent between versions: numbers are never used again.
const (
	kindAddShard      = 1
	kindRemoveShard   = 2
	kindSetShardState = 3
	kindAddNode       = 4
	kindRemoveNode    = 5
	kindSetPrimary    = 6
	kindSetTable      = 7
	kindSetRules      = 8
	kindMoveRange     = 9
	kindSplitRange    = 10
	kindMergeRange    = 11
	kindBatch         = 12
	kindBurnEpoch     = 13
	kindSetMoving     = 14
	kindEndMoving     = 15
)

func (c AddShard) encode(dst []byte) []byte {
	dst = appendString(append(dst, kindAddShard), c.Shard.Name)
	dst = append(dst, byte(c.Shard.State))
	dst = binary.AppendUvarint(dst, uint64(len(c.Shard.Nodes)))
	for _, n := range c.Shard.Nodes {
		dst = appendNode(dst, n)
	}
	return dst
}

func (c RemoveShard) encode(dst []byte) []byte {
	return appendString(append(dst, kindRemoveShard), c.Name)
}

func (c SetShardState) encode(dst []byte) []byte {
	return append(appendString(append(dst, kindSetShardState), c.Name), byte(c.State))
}

func (c AddNode) encode(dst []byte) []byte {
	return appendNode(appendString(append(dst, kindAddNode), c.Shard), c.Node)
}

func (c RemoveNode) encode(dst []byte) []byte {
	return appendNode(appendString(append(dst, kindRemoveNode), c.Shard), c.Node)
}

func (c SetPrimary) encode(dst []byte) []byte {
	return appendNode(appendString(append(dst, kindSetPrimary), c.Shard), c.Node)
}

func (c SetTable) encode(dst []byte) []byte {
	dst = appendString(appendTable(append(dst, kindSetTable), c.Table), c.Column)
	return appendBool(dst, c.Reference)
}

func (c SetRules) encode(dst []byte) []byte { return appendRules(append(dst, kindSetRules), &c.Rules) }

func (c MoveRange) encode(dst []byte) []byte {
	return appendString(appendHash(appendHash(append(dst, kindMoveRange), c.Start), c.End), c.Shard)
}

func (c SplitRange) encode(dst []byte) []byte { return appendHash(append(dst, kindSplitRange), c.At) }

func (c MergeRange) encode(dst []byte) []byte { return appendHash(append(dst, kindMergeRange), c.At) }

func (c Batch) encode(dst []byte) []byte {
	dst = binary.AppendUvarint(append(dst, kindBatch), uint64(len(c)))
	for _, change := range c {
		dst = change.encode(dst)
	}
	return dst
}

func (c SetMoving) encode(dst []byte) []byte { return c.Moving.append(append(dst, kindSetMoving)) }

func (c EndMoving) encode(dst []byte) []byte {
	return binary.AppendUvarint(append(dst, kindEndMoving), uint64(c.ID))
}

func appendNode(dst []byte, n Node) []byte {
	dst = appendString(dst, n.Host)
	dst = binary.AppendUvarint(dst, uint64(n.Port))
	return append(appendString(dst, n.Database), byte(n.Role))
}

func appendHash(dst []byte, h KeyHash) []byte {
	return binary.LittleEndian.AppendUint64(dst, uint64(h))
}

// change reads one change.
func (d *decoder) change() Change {
	if kind := d.byte(); kind != kindBatch {
		return d.single(kind)
	}
	batch := make(Batch, 0, d.count(BatchMax, 2))
	for range cap(batch) {
		kind := d.byte()
		if kind == kindBatch {
			d.fail("a batch holds a batch")
		}
		if d.err != nil {
			return nil
		}
		batch = append(batch, d.single(kind))
	}
	return batch
}

// single reads a change that is no batch. Fields of a literal are read in the order they are written in.
func (d *decoder) single(kind byte) Change {
	switch kind {
	case kindAddShard:
		c := AddShard{Shard{Name: d.text(), State: ShardState(d.byte())}}
		if n := d.count(NodesMax, 4); n > 0 {
			c.Shard.Nodes = make([]Node, n)
		}
		for i := range c.Shard.Nodes {
			c.Shard.Nodes[i] = d.node()
		}
		return c
	case kindRemoveShard:
		return RemoveShard{d.text()}
	case kindSetShardState:
		return SetShardState{d.text(), ShardState(d.byte())}
	case kindAddNode:
		return AddNode{d.text(), d.node()}
	case kindRemoveNode:
		return RemoveNode{d.text(), d.node()}
	case kindSetPrimary:
		return SetPrimary{d.text(), d.node()}
	case kindSetTable:
		return SetTable{d.table(), d.text(), d.bool()}
	case kindSetRules:
		return SetRules{d.rules()}
	case kindMoveRange:
		return MoveRange{KeyHash(d.uint64()), KeyHash(d.uint64()), d.text()}
	case kindSplitRange:
		return SplitRange{KeyHash(d.uint64())}
	case kindMergeRange:
		return MergeRange{KeyHash(d.uint64())}
	case kindBurnEpoch:
		return BurnEpoch{}
	case kindSetMoving:
		return SetMoving{d.moving()}
	case kindEndMoving:
		return EndMoving{int64(d.uvarint())}
	}
	d.fail("its change is of the unknown kind %d", kind)
	return nil
}

func (d *decoder) node() Node {
	return Node{Host: d.text(), Port: int(d.uint(65535)), Database: d.text(), Role: Role(d.byte())}
}
