package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shardproxy/internal/postgres"
)

// relay stands before a port of the loopback, passes on what comes by TCP and UDP, and can be told to lose it, or to be slow:
//
//	peer ──► relay (the address that is advertised) ──► proxy
//
// Packets go one way. Proxies answer to advertised addresses, where the relay of the other side stands.
type relay struct {
	address string
	back    string
	drop    func(from netip.AddrPort, stream bool) bool // called for each packet and each new stream

	tcp  net.Listener
	udp  *net.UDPConn // nil for TCP alone
	lost atomic.Int64 // packets and streams
	slow atomic.Int64 // nanoseconds that each piece of a stream waits

	wg    sync.WaitGroup
	mu    sync.Mutex // guards conns
	conns map[net.Conn]bool
}

// newRelay makes a relay that ends with the test.
func newRelay(t *testing.T, back string, packets bool, drop func(from netip.AddrPort, stream bool) bool) *relay {
	t.Helper()
	r := &relay{back: back, drop: drop, conns: make(map[net.Conn]bool)}
	var err error
	for range 20 { // a port that is free for TCP may be taken for UDP
		if r.tcp, err = postgres.ListenQuiet("127.0.0.1"); err != nil {
			t.Fatal(err)
		}
		r.address = r.tcp.Addr().String()
		if !packets {
			break
		}
		if r.udp, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(r.address))); err == nil {
			break
		}
		_ = r.tcp.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	r.wg.Go(r.accept)
	if packets {
		r.wg.Go(r.forward)
	}
	t.Cleanup(func() {
		_ = r.tcp.Close()
		if r.udp != nil {
			_ = r.udp.Close()
		}
		r.hangUp()
		r.wg.Wait()
	})
	return r
}

func (r *relay) accept() {
	for {
		c, err := r.tcp.Accept()
		if err != nil {
			return
		}
		from, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if err != nil || r.drop(from, true) {
			r.lost.Add(1)
			_ = c.Close()
			continue
		}
		r.wg.Go(func() { r.join(c) })
	}
}

// join copies both ways until either side has ended.
func (r *relay) join(c net.Conn) {
	defer c.Close()
	b, err := net.Dial("tcp", r.back)
	if err != nil {
		return
	}
	defer b.Close()
	r.mu.Lock()
	r.conns[c] = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.conns, c)
		r.mu.Unlock()
	}()
	r.wg.Go(func() {
		r.pass(b, c)
		_ = b.(*net.TCPConn).CloseWrite()
	})
	r.pass(c, b)
}

// pass copies one way until that side has ended.
func (r *relay) pass(to, from net.Conn) {
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		if n > 0 {
			time.Sleep(time.Duration(r.slow.Load()))
			if _, err := to.Write(piece[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// hangUp ends all streams.
func (r *relay) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.Close()
	}
}

func (r *relay) forward() {
	to, err := net.ResolveUDPAddr("udp4", r.back)
	if err != nil {
		return
	}
	packet := make([]byte, 64<<10)
	for {
		n, from, err := r.udp.ReadFromUDPAddrPort(packet)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // the answer to a packet for a proxy that is down
		case r.drop(from, false):
			r.lost.Add(1)
		default:
			_, _ = r.udp.WriteToUDP(packet[:n], to)
		}
	}
}

// ownsStream says whether a process has the TCP port of the loopback as the near end of a stream.
func ownsStream(pid int, port uint16) bool {
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return false
	}
	want := fmt.Sprintf("0100007F:%04X", port) // 127.0.0.1 as Linux writes it on this kind of processor
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > 9 && fields[1] == want && hasSocket(pid, fields[9]) {
			return true
		}
	}
	return false
}

func hasSocket(pid int, inode string) bool {
	descriptors, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // none for a process that has ended
	for _, d := range descriptors {
		if target, err := os.Readlink(d); err == nil && target == "socket:["+inode+"]" {
			return true
		}
	}
	return false
}
