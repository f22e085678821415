package admintest

import (
	"context"
	"slices"
	"sync"

	"shardproxy/topology"
)

// ring is the gossip of a proxy p1 and its live peers, which do all that they are told.
type ring struct {
	peers []topology.Peer

	mu   sync.Mutex // guards keys
	keys []topology.KeyFingerprint
}

func newRing(peers []topology.Peer) *ring {
	return &ring{peers: peers, keys: []topology.KeyFingerprint{topology.FingerprintKey([]byte("the first key of the ring, 32 b."))}}
}

func (r *ring) Peers() []topology.Peer { return r.peers }

func (r *ring) Stats() topology.GossipStats { return topology.GossipStats{} }

func (r *ring) RingKeys(context.Context) []topology.PeerKeys {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := []topology.PeerKeys{{Peer: "p1", Keys: slices.Clone(r.keys)}}
	for _, p := range r.peers {
		if p.Status == topology.PeerAlive {
			list = append(list, topology.PeerKeys{Peer: p.Name, Keys: slices.Clone(r.keys)})
		}
	}
	return list
}

func (r *ring) AddKey(ctx context.Context, key []byte) ([]topology.PeerKeys, error) {
	return r.change(ctx, func() error {
		if name := topology.FingerprintKey(key); !slices.Contains(r.keys, name) {
			r.keys = append(r.keys, name)
		}
		return nil
	})
}

func (r *ring) UseKey(ctx context.Context, key topology.KeyFingerprint) ([]topology.PeerKeys, error) {
	return r.change(ctx, func() error {
		i := slices.Index(r.keys, key)
		if i < 0 {
			return topology.ErrUnknownKey
		}
		r.keys = slices.Insert(slices.Delete(r.keys, i, i+1), 0, key)
		return nil
	})
}

func (r *ring) RemoveKey(ctx context.Context, key topology.KeyFingerprint) ([]topology.PeerKeys, error) {
	return r.change(ctx, func() error {
		switch i := slices.Index(r.keys, key); i {
		case -1:
			return topology.ErrUnknownKey
		case 0:
			return topology.ErrKeyRefused{Reasons: []string{"p1 uses the key"}}
		default:
			r.keys = slices.Delete(r.keys, i, i+1)
			return nil
		}
	})
}

func (r *ring) change(ctx context.Context, f func() error) ([]topology.PeerKeys, error) {
	r.mu.Lock()
	err := f()
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return r.RingKeys(ctx), nil
}
