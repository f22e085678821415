package mover

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	// walSenderTimeout is how long the source waits for a sign of life. It is asked for by ourselves, so that a server
	// with a short one does not cut a mover off that waits for its target.
	walSenderTimeout = 60 * time.Second
	// statusEvery is how often the source hears from us if nothing else makes us speak.
	statusEvery = 5 * time.Second
)

// replication is one connection in streaming replication. One goroutine reads, another writes.
type replication struct {
	conn *pgconn.PgConn
	wake chan struct{} // has an element when the source shall hear of the position

	received atomic.Uint64 // up to where the source has sent
	applied  *atomic.Uint64
	durable  *atomic.Uint64
}

// startReplication begins the stream of the move's slot at lsn.
func (m *Mover) startReplication(ctx context.Context, lsn LSN) (*replication, error) {
	conn, err := m.replicate(ctx)
	if err != nil {
		return nil, err
	}
	start := fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL %s (proto_version '1', publication_names '%s', messages 'true')", m.name, lsn, m.name)
	conn.Frontend().SendQuery(&pgproto3.Query{String: start})
	err = conn.Frontend().Flush()
	for err == nil {
		var msg pgproto3.BackendMessage
		if msg, err = conn.ReceiveMessage(ctx); err != nil {
			break
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyBothResponse:
			return &replication{conn: conn, wake: make(chan struct{}, 1)}, nil
		case *pgproto3.ErrorResponse:
			err = pgconn.ErrorResponseToPgError(msg)
		}
	}
	closeReplication(conn)
	return nil, fmt.Errorf("starting the stream of %s: %w", m.name, ended(ctx, err))
}

// receive hands every message of the output plugin to row, and the position of every keepalive to idle, until one of
// them fails, the source ends the stream, or ctx does.
func (r *replication) receive(ctx context.Context, row func([]byte) error, idle func(LSN) error) error {
	stop := context.AfterFunc(ctx, func() { _ = r.conn.Conn().SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		msg, err := r.conn.Frontend().Receive()
		if err != nil {
			return ended(ctx, fmt.Errorf("receiving from the source: %w", err))
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyData:
			err = r.data(msg.Data, row, idle)
		case *pgproto3.ErrorResponse:
			err = fmt.Errorf("the source ends the stream: %w", pgconn.ErrorResponseToPgError(msg))
		case *pgproto3.CopyDone:
			err = errors.New("the source ends the stream: it shuts down")
		}
		if err != nil {
			return err
		}
	}
}

func (r *replication) data(data []byte, row func([]byte) error, idle func(LSN) error) error {
	const rowHeader, keepaliveSize = 1 + 8 + 8 + 8, 1 + 8 + 8 + 1
	switch {
	case len(data) > rowHeader && data[0] == 'w':
		r.reach(binary.BigEndian.Uint64(data[9:]))
		return row(data[rowHeader:])
	case len(data) >= keepaliveSize && data[0] == 'k':
		end := binary.BigEndian.Uint64(data[1:])
		r.reach(end)
		if data[17] == 1 {
			signal(r.wake)
		}
		return idle(LSN(end))
	}
	return errors.New("the source sends what is not part of the replication protocol")
}

func (r *replication) reach(lsn uint64) {
	if lsn > r.received.Load() {
		r.received.Store(lsn)
	}
}

// report tells the source how far we are, regularly and when woken, so that it neither loses patience nor keeps its log.
// Only what is durable on the target is reported as flushed: the source forgets that.
func (r *replication) report(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = r.conn.Conn().SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	var buffer []byte
	for {
		durable := r.durable.Load()
		msg := pgproto3.CopyData{Data: make([]byte, 0, 34)}
		msg.Data = append(msg.Data, 'r')
		msg.Data = binary.BigEndian.AppendUint64(msg.Data, max(r.received.Load(), durable))
		msg.Data = binary.BigEndian.AppendUint64(msg.Data, durable)
		msg.Data = binary.BigEndian.AppendUint64(msg.Data, max(r.applied.Load(), durable))
		msg.Data = binary.BigEndian.AppendUint64(msg.Data, uint64(time.Since(postgresEpoch).Microseconds()))
		msg.Data = append(msg.Data, 0)
		buffer, err := msg.Encode(buffer[:0])
		if err == nil {
			// Past the frontend, whose reading half the other goroutine uses.
			_, err = r.conn.Conn().Write(buffer)
		}
		if err != nil {
			return ended(ctx, fmt.Errorf("reporting to the source: %w", err))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		case <-r.wake:
		}
	}
}

// postgresEpoch is where PostgreSQL's time begins.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
