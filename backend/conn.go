package backend

import (
	"cmp"
	"context"
	"encoding/binary"
	"net"
	"sync"
	"syscall"
	"time"

	"shardproxy/topology"
	"shardproxy/wire"
)

// Conn is one connection to PostgreSQL. Its stream is used by the session that acquired it and by nobody else.
type Conn struct {
	*wire.Stream
	Key      wire.CancelKey
	Params   map[string]string // as reported at login
	Status   byte              // of the last ReadyForQuery: I, T, E
	Settings *Settings         // what it carries; nil: unknown, to be reset before the next use
	Epoch    topology.Epoch    // that it is stamped with: of the map by which its session planned, 0 for none
	Broken   bool              // its state is unknown: Release closes it
	Unnamed  uint64            // which Parse made its unnamed statement, 0: none that matters

	pool  *Pool
	gate  *gate // that its user went through
	held  held
	born  time.Time
	since time.Time // idle since

	generation int64 // of the pool, when it was dialled

	cancelMu sync.Mutex // held while a cancel for the current user is on its way
}

// Pool that the connection belongs to.
func (c *Conn) Pool() *Pool { return c.pool }

// Born is when the connection was made.
func (c *Conn) Born() time.Time { return c.born }

// outdated says that the connection is of an earlier generation than its pool.
func (c *Conn) outdated() bool { return c.generation != c.pool.generation.Load() }

// Cancel asks the server to cancel what the connection runs. It returns once the server has taken the request.
func (c *Conn) Cancel(ctx context.Context) error {
	return c.pool.dialer.Cancel(ctx, c.pool.key, c.Key)
}

// LockCancel keeps the connection from being released, and so from being cancelled under another user's statement.
func (c *Conn) LockCancel() { c.cancelMu.Lock() }

// UnlockCancel ends LockCancel.
func (c *Conn) UnlockCancel() { c.cancelMu.Unlock() }

// quiet says whether the server has neither closed the connection nor said anything since it became idle.
func (c *Conn) quiet() bool {
	if c.Buffered() > 0 {
		return false
	}
	conn := c.Stream.Conn()
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = t.NetConn()
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = err == syscall.EAGAIN
	})
	return err == nil && quiet
}

// Rows runs a statement of the proxy's own, with text parameters, and gives its rows in text format. The server's refusal is a *wire.Error;
// after any other error the connection is Broken.
// When ctx ends before the answer has come, the connection is Broken too.
func (c *Conn) Rows(ctx context.Context, sql string, args ...string) (rows [][]string, err error) {
	stop := context.AfterFunc(ctx, func() { _ = c.Conn().SetDeadline(time.Unix(1, 0)) })
	defer func() {
		if !stop() {
			c.Broken = true
			err = cmp.Or(err, ctx.Err())
		}
	}()
	if len(args) == 0 {
		c.SetAppended(wire.AppendQuery(c.Append(), sql))
	} else {
		out := wire.AppendParse(c.Append(), "", sql, nil)
		bind := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(args)))
		for _, a := range args {
			bind = append(binary.BigEndian.AppendUint32(bind, uint32(len(a))), a...)
		}
		out = wire.AppendBind(out, "", "", append(bind, 0, 0))
		c.SetAppended(wire.AppendEmpty(wire.AppendExecute(out, "", 0), 'S'))
	}
	c.Unnamed = 0
	if err := c.Flush(); err != nil {
		return nil, err
	}
	var refused error
	for {
		m, err := c.Next(rowMax)
		if err != nil {
			c.Broken = true
			return nil, err
		}
		switch m[0] {
		case 'D':
			row, err := wire.DataRow(m[5:])
			if err != nil {
				c.Broken = true
				return nil, err
			}
			rows = append(rows, row)
		case 'E':
			e, err := wire.DecodeError(m[5:])
			if err != nil || e.Fatal() {
				c.Broken = true
				return nil, cmp.Or[error](err, e)
			}
			refused = e
		case 'Z':
			c.Status = m[5]
			return rows, refused
		}
	}
}

// rowMax bounds one message of Rows.
const rowMax = 64 << 20

func (c *Conn) close() {
	if !c.Broken && c.Err() == nil {
		c.Write(wire.AppendEmpty(nil, 'X'))
		_ = c.Stream.Conn().SetWriteDeadline(time.Now().Add(time.Second))
		_ = c.Flush()
	}
	_ = c.Stream.Conn().Close()
}
