package topology

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A snapshot or delta in bytes is
//
//	'S' or 'D' | version | body | CRC-32C of all before it, little endian
//
// Numbers are varints. In a snapshot a name is written as how much of its beginning it shares with the one before
// and the rest, and a range as its length, since it starts where the last one ended. 100,000 shards with 300,000 nodes
// take a few MB.
const (
	snapshotMark  = 'S'
	deltaMark     = 'D'
	encodeVersion = 2 // 1 knew of no moves
	crcSize       = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged is what bytes are that do not hold what their checksum promises.
var ErrDamaged = errors.New("the data is damaged")

// Encode gives s without its schema, for DecodeSnapshot.
func (s *Snapshot) Encode() []byte {
	dst := make([]byte, 0, 64+len(s.Shards)*64+len(s.ranges)*9)
	dst = append(dst, snapshotMark, encodeVersion)
	dst = appendString(dst, s.Cluster)
	dst = binary.AppendUvarint(dst, uint64(s.Epoch))
	dst = binary.LittleEndian.AppendUint64(dst, s.sum)
	dst = appendRules(dst, &s.Rules)
	dst = s.appendShards(dst)
	dst = s.appendRanges(dst)
	dst = binary.AppendUvarint(dst, uint64(len(s.moving)))
	for i := range s.moving {
		dst = s.moving[i].append(dst)
	}
	return appendCRC(dst)
}

func (s *Snapshot) appendShards(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s.Shards)))
	name, last := "", Node{}
	for i := range s.Shards {
		shard := &s.Shards[i]
		dst = appendShared(dst, name, shard.Name)
		name = shard.Name
		dst = append(dst, byte(shard.State))
		dst = binary.AppendUvarint(dst, uint64(len(shard.Nodes)))
		for j := range shard.Nodes {
			dst = appendNodeAfter(dst, &last, &shard.Nodes[j])
			last = shard.Nodes[j]
		}
	}
	return dst
}

// Flags of a node in a snapshot.
const (
	nodeReplica byte = 1 << iota
	nodeSamePort
	nodeSameDatabase
	nodeFlags = nodeReplica | nodeSamePort | nodeSameDatabase
)

// appendNodeAfter writes how n differs from the node before it.
func appendNodeAfter(dst []byte, last, n *Node) []byte {
	flags := byte(n.Role) & nodeReplica
	if n.Port == last.Port {
		flags |= nodeSamePort
	}
	if n.Database == last.Database {
		flags |= nodeSameDatabase
	}
	dst = append(dst, flags)
	dst = appendShared(dst, last.Host, n.Host)
	if flags&nodeSamePort == 0 {
		dst = binary.AppendUvarint(dst, uint64(n.Port))
	}
	if flags&nodeSameDatabase == 0 {
		dst = appendShared(dst, last.Database, n.Database)
	}
	return dst
}

// appendShared writes s as the length of the beginning it shares with last, and the rest.
func appendShared(dst []byte, last, s string) []byte {
	n := 0
	for n < len(last) && n < len(s) && last[n] == s[n] {
		n++
	}
	dst = binary.AppendUvarint(dst, uint64(n))
	return appendString(dst, s[n:])
}

func (s *Snapshot) appendRanges(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s.ranges)))
	last := ShardID(0)
	for _, r := range s.ranges {
		dst = binary.AppendUvarint(dst, uint64(r.End-r.Start)) // of the only range that is the whole ring: 0
		dst = binary.AppendVarint(dst, int64(r.Shard-last))
		last = r.Shard
	}
	return dst
}

// DecodeSnapshot reads what Encode wrote and checks it as New does. It keeps nothing of data.
func DecodeSnapshot(data []byte) (*Snapshot, error) {
	s, err := decodeSnapshot(data)
	if err != nil {
		return nil, fmt.Errorf("topology: decoding a snapshot: %w", err)
	}
	return s, nil
}

func decodeSnapshot(data []byte) (*Snapshot, error) {
	d, err := openFrame(data, snapshotMark)
	if err != nil {
		return nil, err
	}
	c := Content{Cluster: d.text(), Epoch: Epoch(d.uvarint())}
	sum := d.uint64()
	c.Rules = d.rules()
	c.Shards = d.shards()
	c.Ranges = d.ranges()
	if data[1] > 1 {
		c.Moving = make([]Moving, d.count(MovingMax, 20))
		for i := range c.Moving {
			c.Moving[i] = d.moving()
		}
	}
	if err := d.end(); err != nil {
		return nil, err
	}
	s, err := newSnapshot(c)
	if err != nil {
		return nil, err
	}
	if s.sum != sum {
		return nil, fmt.Errorf("%w: its content has the checksum %016x, not %016x", ErrDamaged, s.sum, sum)
	}
	return s, nil
}

// Delta is the way from one epoch to the next.
type Delta struct {
	Epoch    Epoch  // after the change
	Checksum uint64 // of the snapshot after the change
	Change   Change
}

// Delta gives the delta by which c made s.
func (s *Snapshot) Delta(c Change) Delta { return Delta{Epoch: s.Epoch, Checksum: s.sum, Change: c} }

// ErrOutOfStep is a delta that does not lead on from the snapshot at hand: the whole map must be fetched.
var ErrOutOfStep = errors.New("the delta does not fit the snapshot")

// Follow applies a delta. Where it is not the next one, or leads to other content than it did for its maker, the
// error is ErrOutOfStep.
func (s *Snapshot) Follow(d Delta) (*Snapshot, error) {
	if d.Epoch != s.Epoch+1 {
		return nil, fmt.Errorf("%w: it leads to epoch %d, the snapshot is of epoch %d", ErrOutOfStep, d.Epoch, s.Epoch)
	}
	next, err := s.Apply(d.Change)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOutOfStep, err)
	}
	if next.sum != d.Checksum {
		return nil, fmt.Errorf("%w: at epoch %d its checksum is %016x, ours is %016x", ErrOutOfStep, d.Epoch, d.Checksum, next.sum)
	}
	return next, nil
}

// Encode gives the delta for DecodeDelta: some 40 bytes for a range.
func (d Delta) Encode() []byte {
	dst := binary.AppendUvarint([]byte{deltaMark, encodeVersion}, uint64(d.Epoch))
	dst = binary.LittleEndian.AppendUint64(dst, d.Checksum)
	return appendCRC(d.Change.encode(dst))
}

// DecodeDelta reads what Encode wrote. Whether its change makes sense is for Apply to say.
func DecodeDelta(data []byte) (Delta, error) {
	r, err := openFrame(data, deltaMark)
	if err == nil {
		d := Delta{Epoch: Epoch(r.uvarint()), Checksum: r.uint64(), Change: r.change()}
		if err = r.end(); err == nil {
			return d, nil
		}
	}
	return Delta{}, fmt.Errorf("topology: decoding a delta: %w", err)
}

func appendCRC(dst []byte) []byte {
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst, castagnoli))
}

// openFrame checks the frame around a body.
func openFrame(data []byte, mark byte) (*decoder, error) {
	if len(data) < 2+crcSize || data[0] != mark {
		return nil, fmt.Errorf("%w: it is too short or something else", ErrDamaged)
	}
	body, crc := data[:len(data)-crcSize], binary.LittleEndian.Uint32(data[len(data)-crcSize:])
	if crc32.Checksum(body, castagnoli) != crc {
		return nil, fmt.Errorf("%w: the CRC is wrong", ErrDamaged)
	}
	if data[1] == 0 || data[1] > encodeVersion {
		return nil, fmt.Errorf("its format is version %d, and versions up to %d are known: another shardproxy is older or newer than this one", data[1], encodeVersion)
	}
	return &decoder{rest: body[2:]}, nil
}
