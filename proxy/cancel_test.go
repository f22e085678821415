package proxy

import (
	"context"
	"testing"
	"time"

	"shardproxy/backend"
	"shardproxy/wire"
)

// Numbers of sessions carry the proxy's tag, begin again at 1, and leave out 0 and what is taken.
func TestSessionNumbersCarryTheTag(t *testing.T) {
	const tag = 1023
	s := &Server{cfg: Fixed{Peers: Peers{Tag: tag}}, sessions: map[uint32]*Session{tag<<sessionBits | 1: {}}, lastPID: sessionsMax - 1}
	for _, want := range []uint32{tag<<sessionBits | sessionsMax, tag<<sessionBits | 2, tag<<sessionBits | 3} {
		if got := s.nextPID(); got != want {
			t.Errorf("%#x, want %#x", got, want)
		}
	}
	if tag<<sessionBits|sessionsMax >= 1<<30 {
		t.Error("the numbers of the console begin below")
	}
}

// A CancelRequest is passed on with the tag of its key, where it is not of a session here; and never one that came from a peer.
func TestCancelIsPassedOn(t *testing.T) {
	type forwarded struct {
		tag, pid uint32
		secret   string
	}
	var got []forwarded
	s := &Server{pools: backend.NewPools(nil, backend.Limits{})}
	s.sessions = map[uint32]*Session{7<<sessionBits | 1: {srv: s, key: wire.CancelKey{PID: 7<<sessionBits | 1, Secret: "mine"}}}
	s.cfg.Peers = Peers{Tag: 7, Forward: func(_ context.Context, tag, pid uint32, secret string) {
		got = append(got, forwarded{tag, pid, secret})
	}}
	for _, key := range []wire.CancelKey{
		{PID: 7<<sessionBits | 1, Secret: "mine"},   // here
		{PID: 7<<sessionBits | 1, Secret: "theirs"}, // of a peer with our tag
		{PID: 9<<sessionBits | 4, Secret: "x"},
		{PID: 5, Secret: "x"},         // of a proxy that is alone
		{PID: 1<<30 | 5, Secret: "x"}, // of a console
	} {
		s.cancel(t.Context(), key)
		s.CancelHere(t.Context(), key)
	}
	want := []forwarded{{7, 7<<sessionBits | 1, "theirs"}, {9, 9<<sessionBits | 4, "x"}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("passed on: %v, want %v", got, want)
	}
}

// TestCancelBehindACancel: a session whose cancel waits for another that is on its way can still be looked at.
func TestCancelBehindACancel(t *testing.T) {
	k := newKit(t)
	c := k.connect()
	c.want("BEGIN", "C:BEGIN Z:T")
	c.want("SELECT v FROM t WHERE user_id = "+itoa(k.keyOn(0, 0)), "T C:SELECT 0 Z:T")
	var s *Session
	k.srv.mu.Lock()
	for _, s = range k.srv.sessions {
	}
	k.srv.mu.Unlock()
	wake := s.interruptible()
	be := s.lanes[0].be
	be.LockCancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Cancel(t.Context())
	}()
	select {
	case <-wake:
		if ties := k.srv.Ties(s.tie().Processes); len(ties) != 1 {
			t.Errorf("%v", ties)
		}
	case <-time.After(patience):
		t.Error("the session is locked")
	}
	be.UnlockCancel()
	<-done
	c.want("COMMIT", "C:COMMIT Z:I")
	k.atRest()
}
