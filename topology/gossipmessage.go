package topology

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// Messages of ours in UDP. Each starts with its type and the tag of the cluster.
const (
	gossipNews   byte = iota + 1 // record of the origin, kind, payload; passed on as it is
	gossipAsk                    // record, nonce, wanted epoch, the last stamp heard of the peer asked
	gossipAnswer                 // record, nonce (0: the wanted epoch was reached)
	gossipItem                   // health items up to the end
)

// newsSchema is the kind of news that tell of a change of tables. All kinds of a handler are below 128.
const newsSchema = 128

// gossipVersion is part of the metadata of each peer; one with another version is refused.
const gossipVersion = 2

var errGossipFormat = errors.New("gossip: malformed message")

// gossipRecord is what a peer says of itself. Of two records of one peer, that with the higher stamp holds.
type gossipRecord struct {
	name    string
	stamp   uint64 // microseconds since 1970, or one more than the last where the clock gives no more
	state   MapState
	schema  uint64 // stamp of the latest change of tables that it has heard of, 0 for none since it started
	leaving bool
}

// clusterTag keeps packets of another cluster apart that uses an address which once was ours.
func clusterTag(cluster string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(cluster))
	return h.Sum32()
}

// nextStamp is the time, or last+1 where the clock stands still or was set back.
func nextStamp(last uint64) uint64 { return max(uint64(time.Now().UnixMicro()), last+1) }

// randomUpTo is a duration from [0, d), 0 for d 0.
func randomUpTo(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

func appendText(dst []byte, s string) []byte { return append(append(dst, byte(len(s))), s...) }

func (r *gossipRecord) append(dst []byte) []byte {
	dst = appendText(dst, r.name)
	dst = binary.BigEndian.AppendUint64(dst, r.stamp)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.state.Epoch))
	dst = binary.BigEndian.AppendUint64(dst, r.state.Checksum)
	dst = binary.BigEndian.AppendUint64(dst, r.schema)
	flags := byte(0)
	if r.leaving {
		flags = 1
	}
	return append(dst, flags)
}

func messageHead(kind byte, tag uint32, rec *gossipRecord) []byte {
	dst := make([]byte, 0, 128)
	dst = binary.BigEndian.AppendUint32(append(dst, kind), tag)
	return rec.append(dst)
}

func newsMessage(tag uint32, rec gossipRecord, kind byte, payload []byte) []byte {
	return append(append(messageHead(gossipNews, tag, &rec), kind), payload...)
}

func askMessage(tag uint32, rec gossipRecord, q question) []byte {
	dst := messageHead(gossipAsk, tag, &rec)
	dst = binary.BigEndian.AppendUint64(dst, q.nonce)
	dst = binary.BigEndian.AppendUint64(dst, uint64(q.wanted))
	return binary.BigEndian.AppendUint64(dst, q.heard)
}

func answerMessage(tag uint32, rec gossipRecord, nonce uint64) []byte {
	return binary.BigEndian.AppendUint64(messageHead(gossipAnswer, tag, &rec), nonce)
}

// messageReader takes a message apart. After the first field that is not there, all are zero and bad is set.
type messageReader struct {
	b   []byte
	bad bool
}

func (r *messageReader) take(n int) []byte {
	if r.bad || len(r.b) < n {
		r.b, r.bad = nil, true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *messageReader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *messageReader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *messageReader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *messageReader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (r *messageReader) text() string { return string(r.take(int(r.byte()))) }

func (r *messageReader) record() gossipRecord {
	rec := gossipRecord{name: r.text(), stamp: r.uint64()}
	rec.state = MapState{Epoch: Epoch(r.uint64()), Checksum: r.uint64()}
	rec.schema = r.uint64()
	rec.leaving = r.byte()&1 != 0
	if rec.name == "" || len(rec.name) > gossipNameMax {
		r.bad = true
	}
	return rec
}
