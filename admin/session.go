package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"shardproxy/proxy"
	"shardproxy/wire"
)

const (
	messageMax  = 64 << 10 // longest message of a client, in bytes: a command is a line
	preparedMax = 100      // prepared statements, and also portals, of one session
	flushAbove  = 8 << 10  // bytes of an answer that are sent at a time
)

// session is the life of one client of the console. Its fields belong to the goroutine that runs it, but for
// those that info reads: they are set before it starts, or atomic.
type session struct {
	console *Console
	client  *wire.Stream
	startup *wire.Startup
	user    string
	id      uint32
	secret  string // of its cancel key
	started time.Time
	active  atomic.Bool
	killed  atomic.Bool // an administrator ends it

	cancel context.CancelCauseFunc // stops what it waits for, nil where it does not; guarded by console.mu

	status   byte // of the transaction: I, T or E
	skip     bool // after an error in the extended protocol: pass over all up to Sync
	prepared map[string]*statement
	portals  map[string]*portal
}

func newSession(c *Console, client *wire.Stream, startup *wire.Startup, id uint32) *session {
	return &session{
		console: c, client: client, startup: startup, user: startup.User(), id: id, secret: cancelSecret(), started: time.Now(),
		status: 'I', prepared: make(map[string]*statement), portals: make(map[string]*portal),
	}
}

func (s *session) info() proxy.ClientInfo {
	state := "idle"
	if s.active.Load() {
		state = "active"
	}
	return proxy.ClientInfo{
		ID: s.id, User: s.user, Database: database, Application: s.startup.Params["application_name"], State: state,
		Address: s.client.Conn().RemoteAddr().String(), Connected: s.started, TLS: s.startup.TLS,
	}
}

// run greets the client and answers its messages until it leaves or ctx ends.
func (s *session) run(ctx context.Context) error {
	if err := s.greet(); err != nil {
		return err
	}
	for {
		if s.client.Buffered() == 0 {
			s.client.Rest()
			s.active.Store(false)
		}
		message, err := s.client.Next(messageMax)
		switch {
		case ctx.Err() != nil, s.killed.Load():
			return tell(s.client, wire.Fatalf(wire.CodeAdminShutdown, "terminating connection due to administrator command"))
		case errors.Is(err, wire.ErrTooLong), errors.Is(err, wire.ErrMalformed):
			return s.violation(err)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		s.active.Store(true)
		if message[0] == 'X' {
			return nil
		}
		if err := s.handle(ctx, message[0], message[5:]); err != nil {
			return s.violation(err)
		}
		if err := s.client.Err(); err != nil {
			return err
		}
	}
}

func (s *session) violation(err error) error {
	return tell(s.client, wire.Fatalf(wire.CodeProtocolViolation, "%v", err))
}

func (s *session) greet() error {
	out := s.client.Append()
	for _, p := range s.console.parameters() {
		if p.reported {
			out = wire.AppendParameterStatus(out, p.name, p.value)
		}
	}
	out = append(out, 'K', 0, 0, 0, 12, byte(s.id>>24), byte(s.id>>16), byte(s.id>>8), byte(s.id))
	s.client.SetAppended(append(out, s.secret...))
	return s.ready()
}

// ready ends an answer.
func (s *session) ready() error {
	s.client.SetAppended(wire.AppendReadyForQuery(s.client.Append(), s.status))
	return s.client.Flush()
}

// handle answers one message. An error means that the client broke the protocol.
func (s *session) handle(ctx context.Context, typ byte, body []byte) error {
	switch typ {
	case 'Q':
		text, err := wire.QueryText(body)
		if err != nil {
			return err
		}
		s.skip = false
		s.query(ctx, strings.Clone(text)) // a change keeps names out of it
		return s.ready()
	case 'P', 'B', 'D', 'E', 'C', 'H', 'S':
		return s.extended(ctx, typ, body)
	case 'F':
		s.fail(wire.Errorf(wire.CodeFeatureNotSupported, "the console has no functions"))
		return s.ready()
	case 'd', 'c', 'f': // of a COPY that failed, as PostgreSQL does
		return nil
	}
	return fmt.Errorf("invalid frontend message type %d", typ)
}

// query runs the commands of a simple query up to the first that fails.
func (s *session) query(ctx context.Context, text string) {
	delete(s.prepared, "")
	delete(s.portals, "")
	commands, err := parse(text)
	if err != nil {
		s.fail(err)
		return
	}
	if len(commands) == 0 {
		s.write(wire.AppendEmpty(nil, 'I'))
		return
	}
	for _, c := range commands {
		st, err := s.understand(c)
		if err == nil && st.fields != nil {
			s.write(wire.AppendRowDescription(nil, st.fields))
		}
		if err == nil {
			err = s.execute(ctx, &portal{statement: st}, 0)
		}
		if err != nil {
			s.fail(err)
			return
		}
	}
}

// understand resolves a command that may run now.
func (s *session) understand(c command) (*statement, *wire.Error) {
	st, err := s.resolve(c)
	if err == nil {
		err = s.mayRun(st)
	}
	return st, err
}

// mayRun refuses all but the end of a failed transaction, in any transaction what cannot be rolled back, and what the user
// may not use.
func (s *session) mayRun(st *statement) *wire.Error {
	if st.verb != nil {
		if err := s.mayUse(st.verb); err != nil {
			return err
		}
	}
	if s.status == 'E' && !st.exits {
		return wire.Errorf(wire.CodeFailedTransaction, "current transaction is aborted, commands ignored until end of transaction block")
	}
	if s.status == 'T' && st.alone {
		return wire.Errorf(wire.CodeActiveTransaction, "%s cannot run inside a transaction block", st.tag).
			WithHint("It takes effect at once and ROLLBACK would not undo it. Let your driver commit by itself (autocommit).")
	}
	return nil
}

// fail tells the client of an error, which ends its transaction's good state.
func (s *session) fail(e *wire.Error) {
	s.write(e.Append(nil))
	if s.status == 'T' {
		s.status = 'E'
	}
}

// write queues a message, and sends what has gathered once that is much. Errors are kept by the stream.
func (s *session) write(message []byte) {
	s.client.Write(message)
	if s.client.Unsent() > flushAbove {
		_ = s.client.Flush()
	}
}
