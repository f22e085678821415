package topology

import "math/bits"

// hashSeed is PostgreSQL's HASH_PARTITION_SEED: with it, our ring agrees with the extended hash
// functions as hash partitioning calls them, and a shard can check a row in plain SQL.
const hashSeed uint64 = 8816678312871386365

// HashInt is the key hash of an int2, int4 or int8. Equal numbers hash alike whatever their
// width: hashint8extended(v, 8816678312871386365) on the server.
func HashInt(v int64) KeyHash {
	// The high half is folded so that it cancels where it only repeats the sign.
	low, high := uint32(v), uint32(uint64(v)>>32)
	if v < 0 {
		high = ^high
	}
	s := newHashState(4)
	s.a += low ^ high
	return s.sum()
}

// HashText is the key hash of a text or varchar under a deterministic collation, in the
// server's encoding: hashtextextended(b, 8816678312871386365) on the server.
func HashText[T ~string | ~[]byte](b T) KeyHash { return hashBytes(b) }

// HashUUID is the key hash of a uuid in network order:
// uuid_hash_extended(u, 8816678312871386365) on the server.
func HashUUID(u [16]byte) KeyHash { return hashBytes(u[:]) }

// hashBytes is Bob Jenkins' lookup3 (public domain, 2006) over little-endian words, as PostgreSQL
// varies it: its own start value and seeding, a shorter mix, and both last words as the result.
func hashBytes[T ~string | ~[]byte](b T) KeyHash {
	s := newHashState(uint32(len(b)))
	i := 0
	for ; len(b)-i >= 12; i += 12 {
		s.a += word(b, i)
		s.b += word(b, i+4)
		s.c += word(b, i+8)
		s.mix()
	}
	// The lowest byte of c is left out in the last block: it stands for the length in lookup3.
	switch rest := len(b) - i; {
	case rest >= 8:
		s.a += word(b, i)
		s.b += word(b, i+4)
		s.c += tail(b, i+8) << 8
	case rest >= 4:
		s.a += word(b, i)
		s.b += tail(b, i+4)
	default:
		s.a += tail(b, i)
	}
	return s.sum()
}

// word is the little-endian word at b[i:i+4].
func word[T ~string | ~[]byte](b T, i int) uint32 {
	_ = b[i+3]
	return uint32(b[i]) | uint32(b[i+1])<<8 | uint32(b[i+2])<<16 | uint32(b[i+3])<<24
}

// tail is the little-endian number in b[i:], which has at most three bytes.
func tail[T ~string | ~[]byte](b T, i int) uint32 {
	var w uint32
	for shift := 0; i < len(b); i, shift = i+1, shift+8 {
		w |= uint32(b[i]) << shift
	}
	return w
}

// hashState is the three words that lookup3 stirs.
type hashState struct{ a, b, c uint32 }

// newHashState begins the hash of size bytes.
func newHashState(size uint32) hashState {
	start := 0x9e3779b9 + 3923095 + size
	s := hashState{a: start + uint32(hashSeed>>32), b: start + uint32(hashSeed&0xffffffff), c: start}
	s.mix()
	return s
}

// mix spreads every bit of the state over all of it; it is reversible.
func (s *hashState) mix() {
	a, b, c := s.a, s.b, s.c
	a = (a - c) ^ bits.RotateLeft32(c, 4)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 6)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 8)
	b += a
	a = (a - c) ^ bits.RotateLeft32(c, 16)
	c += b
	b = (b - a) ^ bits.RotateLeft32(a, 19)
	a += c
	c = (c - b) ^ bits.RotateLeft32(b, 4)
	b += a
	s.a, s.b, s.c = a, b, c
}

// sum stirs for the last time. The result is the server's with the sign bit flipped, so that
// unsigned order is the server's signed order.
func (s *hashState) sum() KeyHash {
	a, b, c := s.a, s.b, s.c
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	c = (c ^ b) - bits.RotateLeft32(b, 24)
	return KeyHash(uint64(b)<<32|uint64(c)) ^ 1<<63
}
