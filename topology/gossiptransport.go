package topology

import (
	"context"
	"errors"
	"log"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// gossipNetwork carries packets and streams: UDP and TCP, or a simulated net.
type gossipNetwork interface {
	memberlist.NodeAwareTransport
	DialContext(ctx context.Context, addr string) (net.Conn, error)
	GetAutoBindPort() int // the one that is bound
}

// socketNetwork is memberlist's own transport.
type socketNetwork struct{ *memberlist.NetTransport }

func (socketNetwork) DialContext(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

func listenGossip(cfg *GossipConfig, logger *log.Logger) (gossipNetwork, error) {
	tries := 1
	if cfg.BindPort == 0 {
		tries = 10 // the port that is free for TCP may be taken for UDP
	}
	for {
		t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{cfg.BindAddr}, BindPort: cfg.BindPort, Logger: logger,
		})
		if tries--; err == nil || tries == 0 || !strings.Contains(err.Error(), "in use") {
			if err != nil {
				return nil, err
			}
			return socketNetwork{t}, nil
		}
	}
}

// gossipTransport stands between memberlist and the network, so that one port serves both: a stream that starts with
// streamMagic is ours, all others are memberlist's. It also sees to it that no connection outlives it.
type gossipTransport struct {
	gossipNetwork
	idle    time.Duration
	counts  *gossipCounts
	serve   func(net.Conn)
	packets chan *memberlist.Packet // for memberlist
	streams chan net.Conn           // for memberlist
	pending chan struct{}           // incoming streams that have not yet shown whose they are
	done    chan struct{}
	wg      sync.WaitGroup

	dials    context.Context // of outgoing streams
	stopDial context.CancelFunc

	mu     sync.Mutex
	closed bool
	conns  map[*gossipConn]struct{}
}

const (
	streamMagic = 0xD5 // none of memberlist's message types

	// pendingMax bounds connections that have said nothing yet: each holds a goroutine for a few seconds.
	pendingMax = 128
)

// gossipConn is a connection that its transport can close.
type gossipConn struct {
	net.Conn
	t     *gossipTransport
	out   bool
	first []byte // read ahead
}

func (c *gossipConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	n, err := c.Conn.Read(b)
	c.t.counts.streamBytesReceived.Add(int64(n))
	return n, err
}

func (c *gossipConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.t.counts.streamBytesSent.Add(int64(n))
	return n, err
}

func (c *gossipConn) Close() error {
	c.t.mu.Lock()
	delete(c.t.conns, c)
	c.t.mu.Unlock()
	return c.Conn.Close()
}

func newGossipTransport(n gossipNetwork, idle time.Duration, counts *gossipCounts, serve func(net.Conn)) *gossipTransport {
	t := &gossipTransport{
		gossipNetwork: n, idle: idle, counts: counts, serve: serve,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), pending: make(chan struct{}, pendingMax),
		done: make(chan struct{}), conns: map[*gossipConn]struct{}{},
	}
	t.dials, t.stopDial = context.WithCancel(context.Background())
	t.wg.Go(t.accept)
	return t
}

var errGossipClosed = errors.New("gossip: closed")

// track makes c one of the connections that end with t.
func (t *gossipTransport) track(c net.Conn, out bool) (*gossipConn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || out && t.dials.Err() != nil {
		_ = c.Close()
		return nil, errGossipClosed
	}
	gc := &gossipConn{Conn: c, t: t, out: out}
	t.conns[gc] = struct{}{}
	if out {
		t.counts.streamsOpened.Add(1)
	}
	return gc, nil
}

func (t *gossipTransport) accept() {
	for {
		select {
		case p := <-t.gossipNetwork.PacketCh():
			t.counts.packetsReceived.Add(1)
			t.counts.packetBytesReceived.Add(int64(len(p.Buf)))
			select {
			case t.packets <- p:
			case <-t.done:
				return
			}
		case c := <-t.gossipNetwork.StreamCh():
			t.counts.streamsAccepted.Add(1)
			select {
			case t.pending <- struct{}{}:
				t.wg.Go(func() { t.sort(c) })
			default:
				_ = c.Close()
			}
		case <-t.done:
			return
		}
	}
}

// sort looks at the first byte of an incoming stream and hands it on.
func (t *gossipTransport) sort(raw net.Conn) {
	c, err := t.track(raw, false)
	if err != nil {
		<-t.pending
		return
	}
	first := make([]byte, 1)
	_ = c.SetDeadline(time.Now().Add(t.idle))
	n, _ := c.Read(first)
	<-t.pending
	switch {
	case n == 0:
		_ = c.Close()
	case first[0] == streamMagic:
		t.serve(c)
		_ = c.Close()
	default:
		c.first = first
		select {
		case t.streams <- c:
		case <-t.done:
			_ = c.Close()
		}
	}
}

// PacketCh is the incoming packets.
func (t *gossipTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// WriteTo is WriteToAddress for an address without a name.
func (t *gossipTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet.
func (t *gossipTransport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	t.counts.packetsSent.Add(1)
	t.counts.packetBytesSent.Add(int64(len(b)))
	return t.gossipNetwork.WriteToAddress(b, to)
}

// StreamCh is memberlist's share of the incoming streams.
func (t *gossipTransport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout is DialAddressTimeout for an address without a name.
func (t *gossipTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout connects to a peer.
func (t *gossipTransport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.dials, timeout)
	defer cancel()
	return t.dial(ctx, to.Addr)
}

func (t *gossipTransport) dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := t.gossipNetwork.DialContext(ctx, addr)
	if err != nil {
		return nil, err
	}
	gc, err := t.track(c, true)
	if err != nil {
		return nil, err // not gc, a nil pointer that is not a nil net.Conn
	}
	return gc, nil
}

// hangUp ends all outgoing streams, and lets no new ones begin.
func (t *gossipTransport) hangUp() {
	t.stopDial()
	t.closeConns(func(c *gossipConn) bool { return c.out })
}

func (t *gossipTransport) closeConns(which func(*gossipConn) bool) {
	t.mu.Lock()
	var list []*gossipConn
	for c := range t.conns {
		if which(c) {
			list = append(list, c)
		}
	}
	t.mu.Unlock()
	for _, c := range list {
		_ = c.Close()
	}
}

// Shutdown closes the network and all connections, and waits for those who serve them. Memberlist calls it.
func (t *gossipTransport) Shutdown() error {
	err := t.gossipNetwork.Shutdown() // while accept still takes what it has
	t.mu.Lock()
	again := t.closed
	t.closed = true
	t.mu.Unlock()
	if again {
		return err
	}
	t.stopDial()
	close(t.done)
	t.closeConns(func(*gossipConn) bool { return true })
	t.wg.Wait()
	return err
}
