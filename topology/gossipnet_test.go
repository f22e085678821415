package topology

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// simNet is a network in memory, for synctest: packets are late and lost, streams are late and as slow as the line of
// the sender, and all bytes are counted, headers included.
type simNet struct {
	latency time.Duration
	rate    float64 // bytes a second that a peer can send, 0 for no limit

	mu    sync.Mutex
	loss  float64
	ports map[string]*simPort
	apart func(a, b string) bool // of two addresses: no packet gets from one to the other; nil: all do
	next  int
}

const (
	headersUDP = 28 // IP and UDP
	headersTCP = 52 // IP and TCP with timestamps, each 1,448 bytes
	segmentTCP = 1448
)

// newSimNet must be called before the peers are made: its cleanup, which runs after theirs, lets the probes and timers
// of memberlist run out that its Shutdown does not wait for.
func newSimNet(t testing.TB) *simNet {
	t.Cleanup(func() { time.Sleep(time.Minute) })
	return &simNet{latency: 500 * time.Microsecond, rate: 125e6, ports: map[string]*simPort{}}
}

// simPort is the end of the network at one peer.
type simPort struct {
	net     *simNet
	addr    string
	port    int
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{}
	once    sync.Once

	udp, tcp atomic.Int64 // bytes sent
	packetsN atomic.Int64 // packets sent
	full     atomic.Int64 // packets dropped by a receiver that was too slow

	mu   sync.Mutex
	busy time.Time // until then the line sends what was written before
}

type simAddr string

func (simAddr) Network() string  { return "sim" }
func (a simAddr) String() string { return string(a) }

// open gives a new peer its end.
func (n *simNet) open() (gossipNetwork, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.next++
	p := &simPort{
		net: n, addr: fmt.Sprintf("10.0.%d.%d:%d", n.next/200, n.next%200+1, GossipPort), port: GossipPort,
		packets: make(chan *memberlist.Packet, 4096), streams: make(chan net.Conn), done: make(chan struct{}),
	}
	n.ports[p.addr] = p
	return p, nil
}

func (n *simNet) cut(apart func(a, b string) bool) {
	n.mu.Lock()
	n.apart = apart
	n.mu.Unlock()
}

func (n *simNet) lose(share float64) {
	n.mu.Lock()
	n.loss = share
	n.mu.Unlock()
}

// reach is the other end, nil if it is not there or cut off; lost says that this packet does not arrive.
func (n *simNet) reach(from, to string) (p *simPort, lost bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.apart != nil && n.apart(from, to) {
		return nil, true
	}
	return n.ports[to], rand.Float64() < n.loss
}

func (p *simPort) GetAutoBindPort() int { return p.port }

func (p *simPort) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	host, _, err := net.SplitHostPort(p.addr)
	return net.ParseIP(host).To4(), p.port, err
}

func (p *simPort) WriteTo(b []byte, addr string) (time.Time, error) {
	return p.WriteToAddress(b, memberlist.Address{Addr: addr})
}

func (p *simPort) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	now := time.Now()
	p.udp.Add(int64(len(b) + headersUDP))
	p.packetsN.Add(1)
	other, lost := p.net.reach(p.addr, to.Addr)
	if other == nil || lost {
		return now, nil
	}
	packet := &memberlist.Packet{Buf: append([]byte(nil), b...), From: simAddr(p.addr)}
	time.AfterFunc(p.net.latency, func() {
		packet.Timestamp = time.Now()
		select {
		case other.packets <- packet:
		default:
			other.full.Add(1)
		}
	})
	return now, nil
}

func (p *simPort) PacketCh() <-chan *memberlist.Packet { return p.packets }
func (p *simPort) StreamCh() <-chan net.Conn           { return p.streams }

func (p *simPort) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return p.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

func (p *simPort) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return p.DialContext(ctx, to.Addr)
}

func (p *simPort) DialContext(ctx context.Context, addr string) (net.Conn, error) {
	if !sleep(ctx, 2*p.net.latency) {
		return nil, ctx.Err()
	}
	other, _ := p.net.reach(p.addr, addr)
	if other == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	a, b := net.Pipe()
	ours, theirs := &simConn{Conn: a, from: p, to: other}, &simConn{Conn: b, from: other, to: p}
	select {
	case other.streams <- theirs:
		return ours, nil
	case <-other.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *simPort) Shutdown() error {
	p.once.Do(func() {
		close(p.done)
		p.net.mu.Lock()
		delete(p.net.ports, p.addr)
		p.net.mu.Unlock()
	})
	return nil
}

// simConn paces what from writes.
type simConn struct {
	net.Conn
	from, to *simPort
}

func (c *simConn) RemoteAddr() net.Addr { return simAddr(c.to.addr) }
func (c *simConn) LocalAddr() net.Addr  { return simAddr(c.from.addr) }

func (c *simConn) Write(b []byte) (int, error) {
	size := int64(len(b) + (len(b)/segmentTCP+1)*headersTCP)
	c.from.tcp.Add(size)
	if other, _ := c.from.net.reach(c.from.addr, c.to.addr); other == nil {
		_ = c.Close()
		return 0, io.ErrClosedPipe
	}
	time.Sleep(c.from.net.latency + c.from.queue(size))
	return c.Conn.Write(b)
}

// queue is how long the line needs until size more bytes are out.
func (p *simPort) queue(size int64) time.Duration {
	if p.net.rate == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.busy.Before(now) {
		p.busy = now
	}
	p.busy = p.busy.Add(time.Duration(float64(size) / p.net.rate * float64(time.Second)))
	return p.busy.Sub(now)
}
