package topology

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// A sealed stream carries one request and one response between two peers:
//
//	client ─► streamMagic, version, 16 random bytes
//	server ─► 16 random bytes
//	client ─► frames of the request, the last one marked
//	server ─► frames of the response, the last one marked
//
// A frame is its length in four bytes, whose top bit marks the last one, and AES-256-GCM of up to 64 KB with the length
// as additional data and its number as the nonce. Each direction has a key of its own, derived (HKDF-SHA256) from a key of
// the ring, both random strings and the cluster name. So no frame can be forged, replayed, reordered or left out, and the
// tags are the checksum. Without a ring the secret is empty: then it is no protection, but still a checksum, and peers
// of another cluster or with a key do not understand each other.
type sealedStream struct {
	conn    net.Conn
	idle    time.Duration
	in, out sealedHalf
	buf     []byte // plain bytes read and not yet taken
	frame   []byte
	ended   bool // the last frame was read
	pending []byte
}

type sealedHalf struct {
	aead  cipher.AEAD
	count uint64
}

const (
	streamVersion = 1
	streamRandom  = 16
	frameMax      = 64 << 10
	frameLast     = 1 << 31
	frameTag      = 16
)

var errSealed = errors.New("gossip: stream is not sealed with a key of this cluster")

func newSealedStream(conn net.Conn, idle time.Duration) *sealedStream {
	return &sealedStream{conn: conn, idle: idle, pending: make([]byte, 0, frameMax)}
}

// sealedKeys derives the keys of both directions.
func sealedKeys(secret []byte, cluster string, clientRandom, serverRandom []byte) (toServer, toClient cipher.AEAD, err error) {
	salt := append(append([]byte(nil), clientRandom...), serverRandom...)
	key, err := hkdf.Key(sha256.New, secret, salt, "shardproxy gossip stream 1 "+cluster, 64)
	if err != nil {
		return nil, nil, err
	}
	if toServer, err = newGCM(key[:32]); err != nil {
		return nil, nil, err
	}
	toClient, err = newGCM(key[32:])
	return toServer, toClient, err
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// openSealed is the client's side of the start.
func openSealed(conn net.Conn, idle time.Duration, secrets [][]byte, cluster string) (*sealedStream, error) {
	hello := make([]byte, 2+streamRandom)
	hello[0], hello[1] = streamMagic, streamVersion
	_, _ = rand.Read(hello[2:]) // never fails
	s := newSealedStream(conn, idle)
	s.extend()
	if _, err := conn.Write(hello); err != nil {
		return nil, err
	}
	theirs := make([]byte, streamRandom)
	if _, err := io.ReadFull(conn, theirs); err != nil {
		return nil, fmt.Errorf("%w: the peer hung up; is it a shardproxy of this version?", err)
	}
	var secret []byte
	if len(secrets) > 0 {
		secret = secrets[0]
	}
	var err error
	s.out.aead, s.in.aead, err = sealedKeys(secret, cluster, hello[2:], theirs)
	return s, err
}

// acceptSealed is the server's side, after the magic byte was read. It tells by the first frame under which key the
// client speaks, and leaves that frame to be read.
func acceptSealed(conn net.Conn, idle time.Duration, secrets [][]byte, cluster string) (*sealedStream, error) {
	s := newSealedStream(conn, idle)
	s.extend()
	hello := make([]byte, 1+streamRandom)
	if _, err := io.ReadFull(conn, hello); err != nil {
		return nil, err
	}
	if hello[0] != streamVersion {
		return nil, fmt.Errorf("gossip: stream version %d, this peer speaks %d", hello[0], streamVersion)
	}
	ours := make([]byte, streamRandom)
	_, _ = rand.Read(ours) // never fails
	if _, err := conn.Write(ours); err != nil {
		return nil, err
	}
	head, sealed, err := s.readFrame()
	if err != nil {
		return nil, err
	}
	if len(secrets) == 0 {
		secrets = [][]byte{nil}
	}
	for _, secret := range secrets {
		s.in.aead, s.out.aead, err = sealedKeys(secret, cluster, hello[1:], ours)
		if err != nil {
			return nil, err
		}
		if plain, err := s.in.open(head, sealed, nil); err == nil {
			s.take(head, plain)
			return s, nil
		}
	}
	return nil, errSealed
}

// extend gives the peer another while: progress keeps a stream alive, however long it takes as a whole.
func (s *sealedStream) extend() { _ = s.conn.SetDeadline(time.Now().Add(s.idle)) }

func (h *sealedHalf) nonce() []byte {
	var n [12]byte
	binary.BigEndian.PutUint64(n[4:], h.count)
	return n[:]
}

func (h *sealedHalf) open(head [4]byte, sealed, dst []byte) ([]byte, error) {
	plain, err := h.aead.Open(dst, h.nonce(), sealed, head[:])
	if err != nil {
		return nil, errSealed
	}
	h.count++
	return plain, nil
}

// readFrame gives the next frame as it came. The result is valid until the next call.
func (s *sealedStream) readFrame() (head [4]byte, sealed []byte, err error) {
	s.extend()
	if _, err := io.ReadFull(s.conn, head[:]); err != nil {
		return head, nil, err
	}
	n := binary.BigEndian.Uint32(head[:]) &^ frameLast
	if n < frameTag || n > frameMax+frameTag {
		return head, nil, errSealed
	}
	if cap(s.frame) < int(n) {
		s.frame = make([]byte, n, max(int(n), 4096))
	}
	sealed = s.frame[:n]
	_, err = io.ReadFull(s.conn, sealed)
	return head, sealed, err
}

func (s *sealedStream) take(head [4]byte, plain []byte) {
	s.buf = plain
	s.ended = binary.BigEndian.Uint32(head[:])&frameLast != 0
}

// Read gives the message of the other side; io.EOF comes only after its last frame.
func (s *sealedStream) Read(b []byte) (int, error) {
	for len(s.buf) == 0 {
		if s.ended {
			return 0, io.EOF
		}
		head, sealed, err := s.readFrame()
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		plain, err := s.in.open(head, sealed, sealed[:0])
		if err != nil {
			return 0, err
		}
		s.take(head, plain)
	}
	n := copy(b, s.buf)
	s.buf = s.buf[n:]
	return n, nil
}

// Write collects frames of 64 KB and sends them.
func (s *sealedStream) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		if len(s.pending) == frameMax {
			if err := s.flush(false); err != nil {
				return written, err
			}
		}
		n := min(len(b), frameMax-len(s.pending))
		s.pending = append(s.pending, b[:n]...)
		b, written = b[n:], written+n
	}
	return written, nil
}

// finish sends what is left as the last frame.
func (s *sealedStream) finish() error { return s.flush(true) }

func (s *sealedStream) flush(last bool) error {
	length := uint32(len(s.pending) + frameTag)
	if last {
		length |= frameLast
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(s.pending)+frameTag), length)
	frame = s.out.aead.Seal(frame, s.out.nonce(), s.pending, frame)
	s.out.count++
	s.pending = s.pending[:0]
	s.extend()
	_, err := s.conn.Write(frame)
	return err
}
