package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
)

// Sizes of buffers. A stream starts with a small one and takes a large one once a read has filled it.
const (
	smallBuffer = 16 << 10 // twice PostgreSQL's own send buffer
	largeBuffer = 128 << 10
	copyBelow   = 8 << 10 // a Write up to this size is copied to leave with its neighbours
	headSize    = 5       // type byte and length
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// ErrMalformed says that the peer sent bytes that are not a protocol message.
var ErrMalformed = errors.New("malformed message")

// ErrTooLong says that a message is longer than the limit that the caller set.
var ErrTooLong = errors.New("message too long")

// WriteError is a failed write to the stream that Forward wrote to. It tells the two sides apart.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return e.Err.Error() }
func (e *WriteError) Unwrap() error { return e.Err }

// Types is a set of message types.
type Types [256]bool

// TypesOf gives the set of the bytes of s.
func TypesOf(s string) *Types {
	var t Types
	for _, c := range []byte(s) {
		t[c] = true
	}
	return &t
}

// Stream reads and writes the messages of one connection without decoding them.
//
// It holds no buffer while nothing is unread, also while it waits (plain sockets only), so that an
// idle connection is small. Slices that it hands out are valid until the next call that reads.
// One goroutine uses it. Write errors are sticky: see Err.
type Stream struct {
	conn net.Conn
	raw  syscall.RawConn // nil under TLS

	buf   []byte // buf[r:w] is unread; nil while there is nothing
	r, w  int
	rest  int  // bytes of the current message's body that Forward has not passed yet
	large bool // the next buffer is a large one

	out  []byte
	werr error

	readOnce func(fd uintptr) bool // reads for raw; made once, so that waiting does not allocate
	n        int
	rerr     error

	BytesRead, BytesWritten int64
}

// NewStream gives a stream over conn, which it does not own.
func NewStream(conn net.Conn) *Stream {
	s := &Stream{conn: conn}
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
			s.readOnce = s.tryRead
		}
	}
	return s
}

// Conn is the connection below.
func (s *Stream) Conn() net.Conn { return s.conn }

// Partial says that the message that is being passed on has not been passed whole.
func (s *Stream) Partial() bool { return s.rest > 0 }

// Buffered is the number of bytes read from the connection and not yet taken.
func (s *Stream) Buffered() int { return s.w - s.r }

// Err is the first write error, or nil.
func (s *Stream) Err() error { return s.werr }

func (s *Stream) takeBuffer() {
	if s.large {
		s.buf = largeBuffers.Get().(*[largeBuffer]byte)[:]
		return
	}
	s.buf = smallBuffers.Get().(*[smallBuffer]byte)[:]
}

func (s *Stream) dropBuffer() {
	switch len(s.buf) {
	case smallBuffer:
		smallBuffers.Put((*[smallBuffer]byte)(s.buf))
	case largeBuffer:
		largeBuffers.Put((*[largeBuffer]byte)(s.buf))
	}
	s.buf, s.r, s.w = nil, 0, 0
}

// Rest lets go of the buffers, where nothing is unread or unsent: call it before a long idle time.
func (s *Stream) Rest() {
	if s.r == s.w && s.buf != nil {
		s.dropBuffer()
		s.large = false
	}
	if len(s.out) == 0 {
		s.releaseOut()
	}
}

func (s *Stream) tryRead(fd uintptr) bool {
	if s.buf == nil {
		s.takeBuffer()
	}
	for {
		n, err := syscall.Read(int(fd), s.buf[s.w:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if s.r == s.w {
				s.dropBuffer()
			}
			return false
		case err != nil:
			s.n, s.rerr = 0, err
		case n <= 0:
			s.n, s.rerr = 0, io.EOF
		default:
			s.n, s.rerr = n, nil
		}
		return true
	}
}

// fill reads at least once, growing the buffer where it is full.
func (s *Stream) fill() error {
	switch {
	case s.r == s.w:
		if s.buf != nil && (len(s.buf) > largeBuffer || (s.large && len(s.buf) < largeBuffer)) {
			s.dropBuffer()
		}
		s.r, s.w = 0, 0
	case s.w == len(s.buf):
		s.room(len(s.buf) / 2)
	}
	if s.raw != nil {
		if err := s.raw.Read(s.readOnce); err != nil {
			return err
		}
		if s.rerr != nil {
			return s.rerr
		}
	} else {
		if s.buf == nil {
			s.takeBuffer()
		}
		n, err := s.conn.Read(s.buf[s.w:])
		if n == 0 && err != nil {
			return err
		}
		s.n = n
	}
	s.w += s.n
	s.BytesRead += int64(s.n)
	if s.w == len(s.buf) {
		s.large = true
	}
	return nil
}

// More waits for bytes and reads them behind those that are unread: how one who does not want the next message yet learns
// that the peer has gone.
func (s *Stream) More() error { return s.fill() }

// room makes space for n bytes in all from the first unread byte on.
func (s *Stream) room(n int) {
	if n <= len(s.buf)-s.r {
		return
	}
	if s.r > 0 && n <= len(s.buf) {
		copy(s.buf, s.buf[s.r:s.w])
		s.r, s.w = 0, s.w-s.r
		return
	}
	old, from, to := s.buf, s.r, s.w
	grown := make([]byte, max(n, 2*len(old)))
	s.w = copy(grown, old[from:to])
	s.buf, s.r = old, 0
	s.buf = grown
	switch len(old) {
	case smallBuffer:
		smallBuffers.Put((*[smallBuffer]byte)(old))
	case largeBuffer:
		largeBuffers.Put((*[largeBuffer]byte)(old))
	}
}

// need reads until n bytes are unread.
func (s *Stream) need(n int) error {
	for s.w-s.r < n {
		if s.buf != nil && s.r+n > len(s.buf) {
			s.room(n)
		}
		if err := s.fill(); err != nil {
			if err == io.EOF && s.w > s.r {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// Head gives the type of the next message and the length of its body, without taking it.
// io.EOF means that the peer closed between two messages.
func (s *Stream) Head() (typ byte, body int, err error) {
	if err := s.need(headSize); err != nil {
		return 0, 0, err
	}
	n := int(int32(binary.BigEndian.Uint32(s.buf[s.r+1:])))
	if n < 4 {
		return 0, 0, fmt.Errorf("%w: type %q, length %d", ErrMalformed, s.buf[s.r], n)
	}
	return s.buf[s.r], n - 4, nil
}

// Next takes the next message whole, head included, if its body is not above limit bytes.
func (s *Stream) Next(limit int) ([]byte, error) {
	_, body, err := s.Head()
	if err != nil {
		return nil, err
	}
	if body > limit {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLong, body, limit)
	}
	if err := s.need(headSize + body); err != nil {
		return nil, err
	}
	m := s.buf[s.r : s.r+headSize+body]
	s.r += headSize + body
	return m, nil
}

// Whole says whether the next message is in the buffer to its end.
func (s *Stream) Whole() bool {
	return s.w-s.r >= headSize && s.w-s.r >= 1+int(binary.BigEndian.Uint32(s.buf[s.r+1:]))
}

// Peek gives up to n bytes of the next message, head included, without taking them:
// fewer where the message is shorter.
func (s *Stream) Peek(n int) ([]byte, error) {
	_, body, err := s.Head()
	if err != nil {
		return nil, err
	}
	n = min(n, headSize+body)
	if err := s.need(n); err != nil {
		return nil, err
	}
	return s.buf[s.r : s.r+n], nil
}

// Skip takes n bytes that Peek has shown. The rest of their message is then read by Chunk or Forward.
func (s *Stream) Skip(n int) {
	if s.rest == 0 {
		s.rest = 1 + int(binary.BigEndian.Uint32(s.buf[s.r+1:]))
	}
	s.r += n
	s.rest -= n
}

// Chunk takes some more bytes of the body that Skip has begun, nil at its end.
func (s *Stream) Chunk() ([]byte, error) {
	if s.rest == 0 {
		return nil, nil
	}
	if s.r == s.w {
		if err := s.fill(); err != nil {
			return nil, unexpected(err)
		}
	}
	n := min(s.rest, s.w-s.r)
	p := s.buf[s.r : s.r+n]
	s.r += n
	s.rest -= n
	return p, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Forward passes messages on to dst, or drops them where dst is nil, until the next one's type is in stop;
// that one is left to the caller. Whole buffers are passed, and dst is flushed before it waits.
// A failed write is a *WriteError; the message at which it failed may be half read.
func (s *Stream) Forward(dst *Stream, stop *Types) (byte, error) {
	for {
		start := s.r
		for {
			if s.rest > 0 {
				n := min(s.rest, s.w-s.r)
				s.r += n
				s.rest -= n
				if s.rest > 0 {
					break
				}
			}
			if s.w-s.r < headSize {
				break
			}
			typ := s.buf[s.r]
			if stop[typ] {
				if dst != nil && s.r > start {
					dst.Write(s.buf[start:s.r])
				}
				return typ, nil
			}
			n := int(int32(binary.BigEndian.Uint32(s.buf[s.r+1:])))
			if n < 4 {
				return 0, fmt.Errorf("%w: type %q, length %d", ErrMalformed, typ, n)
			}
			s.rest = n + 1
		}
		if dst != nil {
			if s.r > start {
				dst.Write(s.buf[start:s.r])
			}
			if err := dst.Flush(); err != nil {
				return 0, &WriteError{err}
			}
		}
		if err := s.fill(); err != nil {
			return 0, unexpected(err)
		}
	}
}

// ForwardBody passes the rest of a message that Skip has begun on to dst.
func (s *Stream) ForwardBody(dst *Stream) error {
	for s.rest > 0 {
		p, err := s.Chunk()
		if err != nil {
			return err
		}
		dst.Write(p)
		if dst.werr != nil {
			return &WriteError{dst.werr}
		}
	}
	return nil
}

// Write puts p behind what is to be sent. Small pieces leave together at the next Flush.
func (s *Stream) Write(p []byte) {
	if len(s.out)+len(p) <= copyBelow {
		s.out = append(s.takeOut(), p...)
		return
	}
	if s.Flush() == nil {
		s.send(p)
	}
}

// Append gives the bytes to be sent for the caller to append to, and SetAppended takes them back.
func (s *Stream) Append() []byte { return s.takeOut() }

// SetAppended takes back what Append gave.
func (s *Stream) SetAppended(b []byte) { s.out = b }

// Unsent is the number of bytes that wait for Flush.
func (s *Stream) Unsent() int { return len(s.out) }

func (s *Stream) takeOut() []byte {
	if s.out == nil {
		s.out = smallBuffers.Get().(*[smallBuffer]byte)[:0]
	}
	return s.out
}

func (s *Stream) releaseOut() {
	if cap(s.out) == smallBuffer {
		smallBuffers.Put((*[smallBuffer]byte)(s.out[:smallBuffer]))
	}
	s.out = nil
}

// Flush sends what Write and Append have gathered.
func (s *Stream) Flush() error {
	if len(s.out) == 0 {
		return s.werr
	}
	if s.werr == nil {
		s.send(s.out)
	}
	if cap(s.out) > smallBuffer {
		s.out = nil
	} else {
		s.out = s.out[:0]
	}
	return s.werr
}

func (s *Stream) send(p []byte) {
	n, err := s.conn.Write(p)
	s.BytesWritten += int64(n)
	if err != nil && s.werr == nil {
		s.werr = err
	}
}
