package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// endpoint is where a target takes clients. Every target authenticates by trust.
type endpoint struct {
	Host     string
	Port     int
	User     string
	Database string
}

func (e endpoint) address() string { return fmt.Sprintf("%s:%d", e.Host, e.Port) }

// client is a raw PostgreSQL connection that throws answers away, so that its own cost stays out
// of the way of what is measured.
type client struct {
	net.Conn
	r *bufio.Reader
}

// connect opens a session. source is the local address, nil for the kernel's choice; bufferBytes
// the size of its reads.
func (e endpoint) connect(ctx context.Context, source net.Addr, bufferBytes int) (*client, error) {
	conn, err := (&net.Dialer{LocalAddr: source}).DialContext(ctx, "tcp", e.address())
	if err != nil {
		return nil, err
	}
	c := &client{Conn: conn, r: bufio.NewReaderSize(conn, bufferBytes)}
	startup := binary.BigEndian.AppendUint32(make([]byte, 4), 196608)
	startup = fmt.Appendf(startup, "user\x00%s\x00database\x00%s\x00\x00", e.User, e.Database)
	binary.BigEndian.PutUint32(startup, uint32(len(startup)))
	if _, err := c.roundTrip(ctx, startup); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// query runs one simple query and returns the bytes of its answer.
func (c *client) query(ctx context.Context, sql string) (int64, error) {
	message := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(sql)+1))
	return c.roundTrip(ctx, append(append(message, sql...), 0))
}

// roundTrip sends one message and reads until ReadyForQuery. It returns the bytes read.
func (c *client) roundTrip(ctx context.Context, message []byte) (total int64, failed error) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) }) // fails only once closed
	defer stop()
	if _, err := c.Write(message); err != nil {
		return 0, err
	}
	for {
		header, err := c.r.Peek(5)
		if err != nil {
			return total, errors.Join(failed, ctx.Err(), err)
		}
		kind, size := header[0], int(binary.BigEndian.Uint32(header[1:]))
		total += int64(1 + size)
		if kind == 'E' || kind == 'R' {
			body := make([]byte, 1+size)
			if _, err := io.ReadFull(c.r, body); err != nil {
				return total, err
			}
			if kind == 'E' {
				failed = fmt.Errorf("server: %q", body[5:])
			} else if method := binary.BigEndian.Uint32(body[5:]); method != 0 {
				return total, fmt.Errorf("server asks for authentication %d: the bench runs on trust", method)
			}
			continue
		}
		if _, err := c.r.Discard(1 + size); err != nil {
			return total, errors.Join(ctx.Err(), err)
		}
		if kind == 'Z' {
			return total, failed
		}
	}
}

// try connects and runs one query.
func (e endpoint) try(ctx context.Context) error {
	c, err := e.connect(ctx, nil, 4096)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.query(ctx, "SELECT 1")
	return err
}
