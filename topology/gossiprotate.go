package topology

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// keysOp is what a peer is to do with its ring.
type keysOp byte

const (
	keysTell keysOp = iota + 1 // nothing: the answer lists the keys
	keysAdd                    // the key follows; for the others, its fingerprint
	keysUse
	keysRemove
)

const (
	keysAtOnce = 16               // peers that are asked at a time
	keysTime   = 10 * time.Second // for one of them
)

// PeerKeys is the ring of one proxy.
type PeerKeys struct {
	Peer string
	Keys []KeyFingerprint // the one in use first
	Err  error            // why they are not known, or were not changed
}

func (p *PeerKeys) has(key KeyFingerprint) bool  { return slices.Contains(p.Keys, key) }
func (p *PeerKeys) uses(key KeyFingerprint) bool { return len(p.Keys) > 0 && p.Keys[0] == key }

// RingKeys asks all members for their rings. This proxy comes first.
func (g *Gossip) RingKeys(ctx context.Context) []PeerKeys { return g.ringAll(ctx, keysTell, "") }

// AddKey lets this proxy and all members read what is encrypted with key, and gives their rings. It does no harm where the
// key is there already, so it can be repeated until no Err is left.
func (g *Gossip) AddKey(ctx context.Context, key []byte) ([]PeerKeys, error) {
	if err := g.keys.Install(key); err != nil {
		return nil, err
	}
	return g.ringAll(ctx, keysAdd, string(key)), nil
}

// UseKey lets this proxy and all members encrypt with a key. Nothing is done unless all of them have it.
func (g *Gossip) UseKey(ctx context.Context, key KeyFingerprint) ([]PeerKeys, error) {
	err := g.agreed(ctx, key, "does not have the key", func(p *PeerKeys) bool { return p.has(key) })
	if err != nil {
		return nil, err
	}
	return g.ringAll(ctx, keysUse, string(key)), nil
}

// RemoveKey lets this proxy and all members refuse what is encrypted with a key. Nothing is done while any of them uses it.
func (g *Gossip) RemoveKey(ctx context.Context, key KeyFingerprint) ([]PeerKeys, error) {
	err := g.agreed(ctx, key, "uses the key", func(p *PeerKeys) bool { return !p.uses(key) })
	if err != nil {
		return nil, err
	}
	return g.ringAll(ctx, keysRemove, string(key)), nil
}

// ErrKeyRefused says why a step of a rotation was not begun: some proxy would have been cut off by it.
type ErrKeyRefused struct{ Reasons []string }

func (e ErrKeyRefused) Error() string {
	return "gossip: nothing was done: " + strings.Join(e.Reasons, ", ")
}

// agreed checks that a condition holds of the rings of all members.
func (g *Gossip) agreed(ctx context.Context, key KeyFingerprint, otherwise string, holds func(*PeerKeys) bool) error {
	if g.keys.ring == nil {
		return ErrPlainGossip
	}
	if !slices.Contains(g.keys.List(), key) {
		return ErrUnknownKey
	}
	var refused ErrKeyRefused
	for _, p := range g.RingKeys(ctx) {
		switch {
		case p.Err != nil:
			refused.Reasons = append(refused.Reasons, fmt.Sprintf("%s cannot be asked (%v)", p.Peer, p.Err))
		case !holds(&p):
			refused.Reasons = append(refused.Reasons, p.Peer+" "+otherwise)
		}
	}
	if refused.Reasons != nil {
		return refused
	}
	return nil
}

// ringAll does something to the rings of all members at the same time, and then to our own: until then, our requests are
// sealed with a key that all have.
func (g *Gossip) ringAll(ctx context.Context, op keysOp, arg string) []PeerKeys {
	names := g.peers.memberNames()
	list := make([]PeerKeys, len(names)+1)
	var wg sync.WaitGroup
	turns := make(chan struct{}, keysAtOnce)
	for i, name := range names {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			list[i+1] = g.ringOf(ctx, name, op, arg)
		})
	}
	wg.Wait()
	list[0] = PeerKeys{Peer: g.cfg.Node, Err: g.keys.do(op, arg)}
	list[0].Keys = g.keys.List()
	return list
}

// ringOf asks one peer.
func (g *Gossip) ringOf(ctx context.Context, peer string, op keysOp, arg string) PeerKeys {
	ctx, cancel := context.WithTimeout(ctx, keysTime)
	defer cancel()
	rec := g.peers.record()
	p := PeerKeys{Peer: peer}
	_, data, err := g.exchange(ctx, peer, appendText(append(rec.append([]byte{requestKeys}), byte(op)), arg), smallAnswerMax)
	if err != nil {
		p.Err = err
		return p
	}
	for r := (messageReader{b: data}); len(r.b) > 0; {
		p.Keys = append(p.Keys, KeyFingerprint(r.text()))
		if r.bad {
			p.Err = errGossipFormat
		}
	}
	return p
}

// serveKeys does what a peer asks for. Only one that has a key of the ring can ask: it could read all that is sent, and
// take part, in any case.
func (g *Gossip) serveKeys(rec gossipRecord, r *messageReader, w io.Writer) error {
	op, arg := keysOp(r.byte()), r.text()
	if r.bad {
		return errGossipFormat
	}
	if err := g.keys.do(op, arg); err != nil {
		_, err = w.Write(append([]byte{responseRefused}, err.Error()...))
		return err
	}
	if op != keysTell {
		name := KeyFingerprint(arg)
		if op == keysAdd {
			name = FingerprintKey([]byte(arg))
		}
		g.log.Info("gossip: the key ring has changed", "by", rec.name, "key", name, "ring", g.keys.List())
	}
	answer := []byte{responseOK}
	for _, key := range g.keys.List() {
		answer = appendText(answer, string(key))
	}
	_, err := w.Write(answer)
	return err
}

var errKeysOp = errors.New("gossip: this proxy does not know what it is to do with its keys")

func (k *GossipKeys) do(op keysOp, arg string) error {
	switch op {
	case keysTell:
		return nil
	case keysAdd:
		return k.Install([]byte(arg))
	case keysUse:
		return k.Use(KeyFingerprint(arg))
	case keysRemove:
		return k.Remove(KeyFingerprint(arg))
	}
	return errKeysOp
}

// memberNames lists the members, without this proxy.
func (t *peerTable) memberNames() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := make([]string, 0, t.members)
	for name, e := range t.peers {
		if e.member && !e.rec.leaving {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
