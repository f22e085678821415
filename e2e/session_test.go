package e2e

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// answerPatience is how long any one answer may take before the test gives up on the server.
const answerPatience = 60 * time.Second

// session is one connection that is driven message by message, so that nothing between the test and the
// server prepares, caches or reorders anything.
type session struct {
	conn  net.Conn
	front *pgproto3.Frontend
	tx    byte // transaction status of the last ReadyForQuery; 0 once the connection is closed
}

// connect logs in to dsn; the session ends with the test.
func connect(t testing.TB, dsn string) *session {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), answerPatience)
	defer cancel()
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	pg, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	h, err := pg.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Conn.Close() })
	return &session{conn: h.Conn, front: h.Frontend, tx: h.TxStatus}
}

// send queues messages; flush writes them.
func (s *session) send(msgs ...pgproto3.FrontendMessage) {
	for _, m := range msgs {
		s.front.Send(m)
	}
}

// flush writes what is queued. A connection that the server has closed is noticed when reading.
func (s *session) flush() {
	_ = s.conn.SetDeadline(time.Now().Add(answerPatience))
	_ = s.front.Flush()
}

// next reads one message into tr; false when there will be none.
func (s *session) next(tr *transcript) (pgproto3.BackendMessage, bool) {
	msg, err := s.front.Receive()
	if err != nil {
		s.tx = 0
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			tr.line("closed: no answer within %v", answerPatience)
		} else {
			tr.line("closed")
		}
		return nil, false
	}
	tr.add(msg)
	if ready, ok := msg.(*pgproto3.ReadyForQuery); ok {
		s.tx = ready.TxStatus
	}
	return msg, true
}

// untilReady reads to ReadyForQuery. feed answers CopyInResponse.
func (s *session) untilReady(tr *transcript, feed func()) {
	for {
		msg, ok := s.next(tr)
		if !ok {
			return
		}
		switch msg.(type) {
		case *pgproto3.ReadyForQuery:
			return
		case *pgproto3.CopyInResponse:
			feed()
			s.flush()
		}
	}
}

// simple runs the text of e by the simple protocol.
func (s *session) simple(e *entry) *transcript {
	tr := e.transcript()
	s.send(&pgproto3.Query{String: e.inline()})
	s.flush()
	s.untilReady(tr, func() { s.feed(e) })
	return tr
}

// feed sends the entry's COPY data, and its end.
func (s *session) feed(e *entry) {
	for chunk := e.data; len(chunk) > 0; { // in pieces that do not end where rows end
		n := min(len(chunk), 7+len(chunk)/3)
		s.send(&pgproto3.CopyData{Data: chunk[:n]})
		chunk = chunk[n:]
	}
	if e.fail != "" {
		s.send(&pgproto3.CopyFail{Message: e.fail})
	} else {
		s.send(&pgproto3.CopyDone{})
	}
}

// extended runs e by the extended protocol as one pipeline over the unnamed statement, all in text format.
func (s *session) extended(e *entry) *transcript {
	tr := e.transcript()
	params := make([][]byte, len(e.params))
	for i, p := range e.params {
		if p != nil {
			params[i] = []byte(*p)
		}
	}
	s.send(
		&pgproto3.Parse{Query: e.sql},
		&pgproto3.Bind{Parameters: params},
		&pgproto3.Describe{ObjectType: 'P'},
		&pgproto3.Execute{},
	)
	s.execute(tr, e)
	return tr
}

// execute ends a pipeline that runs e, and reads the answers. Where e has COPY data the server must be
// heard first: during COPY it takes no Sync.
func (s *session) execute(tr *transcript, e *entry) {
	if !e.copyIn() {
		s.send(&pgproto3.Sync{})
		s.flush()
		s.untilReady(tr, func() {})
		return
	}
	s.send(&pgproto3.Flush{})
	s.flush()
	for {
		msg, ok := s.next(tr)
		if !ok {
			return
		}
		switch msg.(type) {
		case *pgproto3.CopyInResponse:
			s.feed(e)
		case *pgproto3.ErrorResponse:
		default:
			continue
		}
		break
	}
	s.send(&pgproto3.Sync{})
	s.flush()
	s.untilReady(tr, func() {})
}

// prepared runs e by a named statement that is described first, with parameters and results in binary format.
func (s *session) prepared(e *entry) *transcript {
	const name = "e2e"
	tr := e.transcript()
	s.send(&pgproto3.Parse{Name: name, Query: e.sql}, &pgproto3.Describe{ObjectType: 'S', Name: name}, &pgproto3.Sync{})
	s.flush()
	var types []uint32
	for {
		msg, ok := s.next(tr)
		if !ok {
			return tr
		}
		if d, ok := msg.(*pgproto3.ParameterDescription); ok {
			types = append(types, d.ParameterOIDs...)
		}
		if _, ok := msg.(*pgproto3.ReadyForQuery); ok {
			break
		}
	}
	if _, failed := tr.failed(); failed { // a statement that was parsed but not described may be there
		s.closeStatement(name, &transcript{})
		return tr
	}
	params, formats, err := e.binaryParams(types)
	if err != nil {
		tr.line("cannot encode: %v", err)
		return tr
	}
	s.send(
		&pgproto3.Bind{PreparedStatement: name, Parameters: params, ParameterFormatCodes: formats, ResultFormatCodes: []int16{1}},
		&pgproto3.Describe{ObjectType: 'P'},
		&pgproto3.Execute{},
	)
	s.execute(tr, e)
	if s.tx != 0 {
		s.closeStatement(name, tr)
	}
	return tr
}

func (s *session) closeStatement(name string, tr *transcript) {
	s.send(&pgproto3.Close{ObjectType: 'S', Name: name}, &pgproto3.Sync{})
	s.flush()
	s.untilReady(tr, func() {})
}

// must runs SQL by the simple protocol and fails the test on an error.
func (s *session) must(t testing.TB, sql string) *transcript {
	t.Helper()
	tr := s.simple(&entry{sql: sql})
	if line, failed := tr.failed(); failed {
		t.Fatalf("%s\n%s", sql, line)
	}
	return tr
}

// mustf is must with fmt.Sprintf.
func (s *session) mustf(t testing.TB, format string, args ...any) *transcript {
	t.Helper()
	return s.must(t, fmt.Sprintf(format, args...))
}
