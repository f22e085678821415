package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// longAgo is a deadline that wakes every blocked read and write.
var longAgo = time.Unix(1, 0)

// guard bounds one handshake on a connection by a time and by a context.
type guard struct {
	ctx  context.Context
	conn net.Conn
	stop func() bool
}

// guardConn sets conn's deadline to the earlier of timeout (0: none) and that of ctx, and wakes
// blocked reads and writes when ctx ends. release must be called.
func guardConn(ctx context.Context, conn net.Conn, timeout time.Duration) (*guard, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	deadline, _ := ctx.Deadline()
	if timeout > 0 {
		if t := time.Now().Add(timeout); deadline.IsZero() || t.Before(deadline) {
			deadline = t
		}
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	return &guard{ctx, conn, context.AfterFunc(ctx, func() { _ = conn.SetDeadline(longAgo) })}, nil
}

// release ends the guard and clears the deadline. err is the handshake's own error; where the
// context had ended, that is the reason given.
func (g *guard) release(err error) error {
	if !g.stop() {
		// The deadline may be set at any moment from now on: the connection is of no use.
		if err == nil {
			return context.Cause(g.ctx)
		}
		return fmt.Errorf("%w: %w", context.Cause(g.ctx), err)
	}
	if err != nil {
		if d, ok := g.ctx.Deadline(); ok && errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(d) {
			return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
		}
		return err
	}
	return g.conn.SetDeadline(time.Time{})
}

// readHandshakeMessage reads exactly one message with a body of at most bodyMax bytes.
// io.EOF means that the peer closed the connection between two messages.
func readHandshakeMessage(r io.Reader, bodyMax int) (messageType byte, body []byte, err error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(header[1:])
	if size < 4 || size-4 > uint32(bodyMax) {
		return 0, nil, Fatalf(CodeProtocolViolation, "invalid message length %d in message %q", size, header[0])
	}
	body = make([]byte, size-4)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, noEOF(err)
	}
	return header[0], body, nil
}

// noEOF makes an end inside a message what it is.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// message is what pgproto3's messages have in common.
type message interface {
	Encode(dst []byte) ([]byte, error)
}

// writeHandshake sends the messages in one write.
func writeHandshake(w io.Writer, messages ...message) error {
	var buf []byte
	var err error
	for _, m := range messages {
		if buf, err = m.Encode(buf); err != nil {
			return err
		}
	}
	_, err = w.Write(buf)
	return err
}
