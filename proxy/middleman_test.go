package proxy

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// middleman passes bytes between the proxy and a shard and can do harm on the way.
type middleman struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	links   map[*link]struct{}
	rules   []*midRule
	refuse  bool
	stalled chan struct{} // not nil: nothing passes until it is closed
	delay   time.Duration // of every chunk from the shard

	asked atomic.Int64 // how often the proxy has written to the shard
}

type link struct{ near, far net.Conn }

func (l *link) cut() {
	_ = l.near.Close()
	_ = l.far.Close()
}

// midRule acts once, on the first bytes to the shard that contain text.
type midRule struct {
	text string
	act  harm
	done chan struct{} // closed when it has acted
}

type harm int

const (
	cutBefore harm = iota // the bytes do not reach the shard
	cutAfter              // they do, its answer does not reach the proxy
)

func newMiddleman(t *testing.T, target string) *middleman {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &middleman{target: target, listener: l, links: make(map[*link]struct{})}
	m.wg.Go(m.serve)
	return m
}

func (m *middleman) port() int { return m.listener.Addr().(*net.TCPAddr).Port }

func (m *middleman) close() {
	_ = m.listener.Close()
	m.resume()
	m.cut()
	m.wg.Wait()
}

func (m *middleman) serve() {
	for {
		near, err := m.listener.Accept()
		if err != nil {
			return
		}
		m.mu.Lock()
		refuse := m.refuse
		m.mu.Unlock()
		far, err := net.Dial("tcp", m.target)
		if err != nil || refuse {
			_ = near.Close()
			if err == nil {
				_ = far.Close()
			}
			continue
		}
		l := &link{near, far}
		m.mu.Lock()
		m.links[l] = struct{}{}
		m.mu.Unlock()
		m.wg.Go(func() { m.up(l) })
		m.wg.Go(func() { m.down(l) })
	}
}

func (m *middleman) gone(l *link) {
	l.cut()
	m.mu.Lock()
	delete(m.links, l)
	m.mu.Unlock()
}

func (m *middleman) pause() time.Duration {
	m.mu.Lock()
	stalled, delay := m.stalled, m.delay
	m.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
	return delay
}

// up carries what the proxy says.
func (m *middleman) up(l *link) {
	defer m.gone(l)
	buf := make([]byte, 256<<10)
	for {
		n, err := l.near.Read(buf)
		if err != nil {
			return
		}
		m.asked.Add(1)
		m.pause()
		r := m.match(buf[:n])
		if r != nil && r.act == cutBefore {
			l.cut()
			close(r.done)
			return
		}
		if r != nil { // its answer must not pass: down sees a closed connection
			_ = l.near.Close()
		}
		if _, err := l.far.Write(buf[:n]); err != nil {
			return
		}
		if r != nil {
			_ = l.far.(*net.TCPConn).CloseWrite() // the shard does what it was told, then sees the end
			_ = l.far.SetReadDeadline(time.Now().Add(patience))
			_, _ = io.Copy(io.Discard, l.far)
			close(r.done)
			return
		}
	}
}

// down carries what the shard says.
func (m *middleman) down(l *link) {
	buf := make([]byte, 64<<10)
	for {
		n, err := l.far.Read(buf)
		if err != nil {
			_ = l.near.Close()
			return
		}
		if d := m.pause(); d > 0 {
			time.Sleep(d)
		}
		if _, err := l.near.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (m *middleman) match(p []byte) *midRule {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, r := range m.rules {
		if bytes.Contains(p, []byte(r.text)) {
			m.rules = append(m.rules[:i:i], m.rules[i+1:]...)
			return r
		}
	}
	return nil
}

// on arms a rule.
func (m *middleman) on(text string, act harm) *midRule {
	r := &midRule{text: text, act: act, done: make(chan struct{})}
	m.mu.Lock()
	m.rules = append(m.rules, r)
	m.mu.Unlock()
	return r
}

// cut ends all connections.
func (m *middleman) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for l := range m.links {
		l.cut()
	}
}

// refuseAll lets no new connection come about.
func (m *middleman) refuseAll(refuse bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refuse = refuse
}

func (m *middleman) stall() {
	m.mu.Lock()
	m.stalled = make(chan struct{})
	m.mu.Unlock()
}

func (m *middleman) resume() {
	m.mu.Lock()
	if m.stalled != nil {
		close(m.stalled)
		m.stalled = nil
	}
	m.mu.Unlock()
}
