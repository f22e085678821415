package proxy

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"shardproxy/wire"
)

// listen runs LISTEN and UNLISTEN. All listening and notifying is on the first shard, so that they meet.
func (s *Session) listen(ctx context.Context, sql string) error {
	if err := s.one(ctx, 0, sql, true); err != nil {
		return err
	}
	for _, l := range s.lanes {
		if l.shard == 0 && !strings.HasPrefix(strings.ToUpper(strings.TrimSpace(sql)), "UNLISTEN") {
			l.pinned, l.listen = true, true
		}
	}
	return nil
}

// watch passes notifications on while the session waits for its client. It returns when the client has
// something to say, or has gone.
func (s *Session) watch() error {
	for _, l := range s.lanes {
		if l.listen {
			return s.watchLane(l)
		}
	}
	return nil
}

// watchLane reads from both sides at once: the client in this goroutine, the shard in another, which is woken by a
// read deadline when the client has spoken.
func (s *Session) watchLane(l *lane) error {
	type news struct{ err error }
	arrived := make(chan news, 1)
	for {
		if s.client.Buffered() > 0 {
			return nil
		}
		go func() {
			_, err := l.be.Peek(5)
			if !errors.Is(err, os.ErrDeadlineExceeded) { // wake the reader of the client
				_ = s.client.Conn().SetReadDeadline(time.Unix(1, 0))
			}
			arrived <- news{err}
		}()
		_, _, err := s.client.Head()
		_ = l.be.Conn().SetReadDeadline(time.Unix(1, 0))
		got := <-arrived
		_ = l.be.Conn().SetReadDeadline(time.Time{})
		_ = s.client.Conn().SetReadDeadline(time.Time{})
		ending := s.srv.draining.Load() || s.killed.Load() != nil
		if ending {
			_ = s.client.Conn().SetReadDeadline(time.Unix(1, 0)) // run sees it again
		}
		switch {
		case got.err == nil:
			if e := s.passNews(l); e != nil {
				return e
			}
		case !errors.Is(got.err, os.ErrDeadlineExceeded):
			return s.passFatal(s.lost(l, got.err))
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || ending {
			return nil // run sees it again
		}
	}
}

// passNews passes on what the shard has said by itself.
func (s *Session) passNews(l *lane) error {
	for l.be.Buffered() > 0 {
		m, err := l.be.Next(errorMax)
		if err != nil {
			return s.passFatal(s.lost(l, err))
		}
		switch m[0] {
		case 'A', 'N', 'S':
			s.client.Write(m)
		case 'E':
			e, err := wire.DecodeError(m[5:])
			if err != nil {
				return s.passFatal(s.lost(l, err))
			}
			return s.passFatal(s.lost(l, e))
		}
	}
	if err := s.client.Flush(); err != nil {
		return &clientError{err}
	}
	return nil
}

// passFatal ends a session that has lost the backend that it LISTENs on: it must know, and listen again.
func (s *Session) passFatal(err error) error {
	return wire.Fatalf(wire.CodeAdminShutdown, "%v", err).WithHint("The session was listening on it: connect again.")
}
