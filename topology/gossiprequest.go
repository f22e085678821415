package topology

import (
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
)

// Requests on a sealed stream. Each begins with its kind and the record of who asks.
const (
	requestMap    byte = iota + 1 // for the map that is later than that of the record
	requestHealth                 // the buckets wanted
	requestCancel                 // process id and secret of a client's cancel key
	requestKeys                   // what to do with the ring: see keysOp
	requestTies                   // server processes
)

// Responses start with one of these.
const (
	responseOK      byte = iota + 1
	responseOther        // ask somebody else: names follow
	responseRefused      // the reason follows
)

const (
	streamsMax     = 64       // requests in work, of all kinds
	requestMax     = 16 << 10 // bytes
	smallAnswerMax = 4096
)

// exchange sends a request to a peer and gives its response, which is whole and unchanged, or an error.
func (g *Gossip) exchange(ctx context.Context, peer string, body []byte, most int64) (status byte, data []byte, err error) {
	s, done, err := g.request(ctx, peer, body)
	if err != nil {
		return 0, nil, err
	}
	defer done()
	r := io.LimitReader(flate.NewReader(s), most+2)
	head := make([]byte, 1)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, hungUp(err)
	}
	data, err = io.ReadAll(r)
	switch {
	case err != nil:
		return 0, nil, err
	case int64(len(data)) > most:
		return 0, nil, fmt.Errorf("more than %d bytes", most)
	case !s.ended:
		return 0, nil, io.ErrUnexpectedEOF
	case head[0] == responseRefused:
		return 0, nil, refusedByPeer(data)
	}
	return head[0], data, nil
}

// refusedByPeer is a reason that a peer gave.
type refusedByPeer string

func (e refusedByPeer) Error() string { return string(e) }

func hungUp(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return errors.New("the peer hung up; has it the same cluster name and key?")
	}
	return err
}

// request opens a sealed stream to a peer and sends a request. done must be called at the end.
func (g *Gossip) request(ctx context.Context, peer string, body []byte) (*sealedStream, func(), error) {
	to, ok := g.peers.address(peer)
	if !ok || g.list.Load() == nil {
		return nil, nil, errors.New("not a member")
	}
	dialCtx, cancel := context.WithTimeout(ctx, g.cfg.Timing.Stream)
	defer cancel()
	conn, err := g.transport.dial(dialCtx, to.Addr)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	done := func() {
		stop()
		_ = conn.Close()
	}
	s, err := openSealed(conn, g.cfg.Timing.Stream, g.keys.secrets(), g.cfg.Cluster)
	if err == nil {
		_, _ = s.Write(body) // fits one frame
		err = s.finish()
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return s, done, nil
}

// serveStream answers one request. The transport closes conn.
func (g *Gossip) serveStream(conn net.Conn) {
	if !g.serving.begin(&g.serving.streams, streamsMax) {
		return
	}
	defer g.serving.end(&g.serving.streams)
	if err := g.answerStream(conn); err != nil {
		g.limited.warn("gossip: stream refused or broken", "from", conn.RemoteAddr(), "error", err)
	}
}

func (g *Gossip) answerStream(conn net.Conn) error {
	s, err := acceptSealed(conn, g.cfg.Timing.Stream, g.keys.secrets(), g.cfg.Cluster)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(s, requestMax))
	if err != nil {
		return err
	}
	z, err := flate.NewWriter(s, flate.BestSpeed)
	if err != nil {
		return err
	}
	if err := g.answer(&messageReader{b: body}, z); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return s.finish()
}

func (g *Gossip) answer(r *messageReader, w io.Writer) error {
	kind, rec := r.byte(), r.record()
	if r.bad {
		return errGossipFormat
	}
	switch kind {
	case requestMap:
		return g.serveMap(rec, w)
	case requestHealth:
		return g.serveHealth(r, w)
	case requestCancel:
		return g.serveCancel(rec, r, w)
	case requestKeys:
		return g.serveKeys(rec, r, w)
	case requestTies:
		return g.serveTies(r, w)
	}
	return errGossipFormat
}
