package admin

import (
	"context"
	"crypto/subtle"
	"errors"
	"time"

	"shardproxy/wire"
)

var (
	errCanceled   = errors.New("canceling statement due to user request")
	errClientGone = errors.New("the client has gone")
)

// patiently runs f, which may take long. Its context ends when the client cancels or leaves, or when the console closes.
func (s *session) patiently(ctx context.Context, f func(ctx context.Context) error) error {
	within, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.mayCancel(cancel)
	defer s.mayCancel(nil)

	left := make(chan struct{})
	go func() { // what the client sends meanwhile stays in the stream's buffer for the session
		defer close(left)
		for s.client.Buffered() < messageMax {
			if err := s.client.More(); err != nil {
				cancel(errClientGone) // or it was woken, and f has ended
				return
			}
		}
	}()
	err := f(within)
	if cause := context.Cause(within); cause != nil && err != nil {
		err = cause
	}
	_ = s.client.Conn().SetReadDeadline(time.Unix(1, 0))
	<-left
	_ = s.client.Conn().SetReadDeadline(time.Time{})
	if ctx.Err() != nil || s.killed.Load() {
		_ = s.client.Conn().SetReadDeadline(time.Unix(1, 0)) // it was set to end the session
	}
	return err
}

func (s *session) mayCancel(cancel context.CancelCauseFunc) {
	s.console.mu.Lock()
	defer s.console.mu.Unlock()
	s.cancel = cancel
}

// Cancel stops what the session of key waits for.
func (c *Console) Cancel(key wire.CancelKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[key.PID]
	if s != nil && s.cancel != nil && subtle.ConstantTimeCompare([]byte(s.secret), []byte(key.Secret)) == 1 {
		s.cancel(errCanceled)
	}
}

// kill ends a session of the console; false, if there is none of that number.
func (c *Console) kill(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	if s == nil {
		return false
	}
	s.killed.Store(true)
	if s.cancel != nil {
		s.cancel(errCanceled)
	}
	_ = s.client.Conn().SetReadDeadline(time.Unix(1, 0))
	_ = s.client.Conn().SetWriteDeadline(time.Now().Add(farewellTime))
	return true
}
