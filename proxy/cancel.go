package proxy

import (
	"context"
	"crypto/subtle"
	"time"

	"shardproxy/backend"
	"shardproxy/topology"
	"shardproxy/wire"
)

// The process id of a cancel key says which proxy gave it out, as a load balancer may bring a CancelRequest to any of them:
//
//	0 | console | 10 bits: the proxy's tag, 0 for one that is alone | 20 bits: the session
const (
	sessionBits = 20
	sessionsMax = 1<<sessionBits - 1
	peerTagMask = 1<<10 - 1
)

// Peers are the proxies that share clients with this one.
type Peers struct {
	Tag     uint32                                                    // this proxy's, from 1 to 1023
	Forward func(ctx context.Context, tag, pid uint32, secret string) // passes a CancelRequest on to those with the tag

	// Ties asks the others for those of their sessions that use some server processes; nil where there are none.
	Ties func(ctx context.Context, of []topology.Process) []topology.Tie
}

// nextPID gives a new session its number. mu is held, and there are fewer than sessionsMax.
func (s *Server) nextPID() uint32 {
	for {
		s.lastPID = (s.lastPID + 1) & sessionsMax
		pid := s.cfg.Peers.Tag<<sessionBits | s.lastPID
		if _, taken := s.sessions[pid]; s.lastPID != 0 && !taken {
			return pid
		}
	}
}

// cancelTime bounds the work for one CancelRequest.
const cancelTime = 10 * time.Second

// cancel passes a CancelRequest on to the shards that work for the session, or to the proxy whose session it is.
func (s *Server) cancel(ctx context.Context, key wire.CancelKey) {
	ctx, stop := context.WithTimeout(ctx, cancelTime)
	defer stop()
	tag := key.PID >> sessionBits
	if s.CancelHere(ctx, key) || tag == 0 || tag > peerTagMask || s.cfg.Peers.Forward == nil {
		return
	}
	s.cfg.Peers.Forward(ctx, tag, key.PID, key.Secret)
}

// CancelHere cancels what a session of this proxy, or of its console, waits for. It says whether there is a session of that
// number; with a wrong secret nothing is done.
func (s *Server) CancelHere(ctx context.Context, key wire.CancelKey) bool {
	s.mu.Lock()
	c, ok := s.sessions[key.PID]
	s.mu.Unlock()
	if !ok && s.Console != nil {
		s.Console.Cancel(key)
	}
	if !ok || subtle.ConstantTimeCompare([]byte(c.key.Secret), []byte(key.Secret)) != 1 {
		return false // two proxies may share a tag
	}
	c.Cancel(ctx)
	return true
}

// cancelAbandoned stops what a client that has gone left running.
func (s *Server) cancelAbandoned(be *backend.Conn) {
	ctx, stop := context.WithTimeout(context.Background(), time.Second)
	defer stop()
	_ = be.Cancel(ctx)
}
