package topology

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"
)

// The checksum is the sum, modulo 2^64, of one hash for each shard, each range, each move, the rules and the cluster's
// name. So a change adjusts it by what it touched, and it does not depend on order. A range counts with the name of its
// shard, not the number.

// wholeSum computes the checksum from nothing.
func (s *Snapshot) wholeSum() uint64 {
	sum := s.clusterSum() + rulesSum(&s.Rules)
	names := make([]uint64, len(s.Shards))
	var buf []byte
	for i := range s.Shards {
		var shard uint64
		shard, buf = shardSum(&s.Shards[i], buf)
		sum += shard
		names[i] = uint64(HashText(s.Shards[i].Name))
	}
	for _, r := range s.ranges {
		sum += rangeSum(r, names[r.Shard])
	}
	for i := range s.moving {
		sum += s.moving[i].sum()
	}
	return sum
}

func (s *Snapshot) clusterSum() uint64 { return spread(uint64(HashText(s.Cluster)) + 1) }

// shardSum hashes a shard with its nodes; buf is scratch.
func shardSum(s *Shard, buf []byte) (uint64, []byte) {
	buf = append(buf[:0], 's', byte(s.State))
	buf = appendString(buf, s.Name)
	for i := range s.Nodes {
		n := &s.Nodes[i]
		buf = appendString(buf, n.Host)
		buf = binary.AppendUvarint(buf, uint64(n.Port))
		buf = appendString(buf, n.Database)
		buf = append(buf, byte(n.Role))
	}
	return spread(uint64(HashText(buf))), buf
}

// rangeSum hashes a range; name is the hash of its shard's name.
func rangeSum(r KeyRange, name uint64) uint64 {
	return spread(uint64(r.Start) ^ spread(uint64(r.End)^spread(name)))
}

func rulesSum(r *KeyRules) uint64 { return spread(uint64(HashText(appendRules([]byte{'r'}, r)))) }

// spread lets every bit of x change half of the bits of the result, so that sums of results do not cancel
// (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
func spread(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// appendString writes a string with its length before it.
func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// appendRules writes the rules; equal rules give equal bytes.
func appendRules(dst []byte, r *KeyRules) []byte {
	dst = appendColumns(dst, r.Explicit)
	dst = binary.AppendUvarint(dst, uint64(len(r.Reference)))
	for _, t := range slices.SortedFunc(maps.Keys(r.Reference), compareTables) {
		dst = appendTable(dst, t)
	}
	dst = binary.AppendUvarint(dst, uint64(len(r.Columns)))
	for _, c := range r.Columns {
		dst = appendString(dst, c)
	}
	dst = appendColumns(dst, r.Named)
	return appendBool(dst, r.RefuseUnlisted)
}

func appendColumns(dst []byte, columns map[TableName]string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(columns)))
	for _, t := range slices.SortedFunc(maps.Keys(columns), compareTables) {
		dst = appendString(appendTable(dst, t), columns[t])
	}
	return dst
}

func appendTable(dst []byte, t TableName) []byte {
	return appendString(appendString(dst, t.Schema), t.Name)
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func compareTables(a, b TableName) int {
	return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
}
