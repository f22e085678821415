package topology

import (
	"bytes"
	"errors"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// GossipKeys is the ring of AES keys. A rotation without a break goes through all proxies three times: Install the
// new key on each, then Use it on each, then Remove the old one from each.
type GossipKeys struct {
	mu   sync.Mutex // one change at a time
	ring *memberlist.Keyring
}

func newGossipKeys(keys [][]byte) (*GossipKeys, error) {
	if len(keys) == 0 {
		return &GossipKeys{}, nil
	}
	for i, key := range keys {
		if slices.ContainsFunc(keys[:i], func(k []byte) bool { return bytes.Equal(k, key) }) {
			return nil, errors.New("gossip: a key is listed twice")
		}
	}
	ring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, err
	}
	return &GossipKeys{ring: ring}, nil
}

var (
	errPlainGossip = errors.New("gossip: this proxy was started without a key, so it has no ring to change")
	errUnknownKey  = errors.New("gossip: the key is not in the ring; install it first")
	errPrimaryKey  = errors.New("gossip: the key is in use; use another one first")
	errManyKeys    = errors.New("gossip: the ring is full; remove a key first")
)

// Install lets the proxy read what is encrypted with key.
func (k *GossipKeys) Install(key []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.ring == nil:
		return errPlainGossip
	case k.has(key):
		return nil
	case len(k.ring.GetKeys()) >= gossipKeysMax:
		return errManyKeys
	}
	return k.ring.AddKey(bytes.Clone(key))
}

// Use encrypts with key from now on.
func (k *GossipKeys) Use(key []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.ring == nil:
		return errPlainGossip
	case !k.has(key):
		return errUnknownKey
	}
	return k.ring.UseKey(key)
}

// Remove refuses what is encrypted with key from now on.
func (k *GossipKeys) Remove(key []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.ring == nil:
		return errPlainGossip
	case !k.has(key):
		return errUnknownKey
	case bytes.Equal(k.ring.GetPrimaryKey(), key):
		return errPrimaryKey
	}
	// memberlist's RemoveKey shifts the keys after this one in the very array that packets being decrypted are
	// looking at. So the key is brought to the end first: Use puts a key in front and leaves the order of the rest.
	// A packet sent within these microseconds may come under a key that a peer lacks, and is lost.
	list := slices.Clone(k.ring.GetKeys())
	for _, other := range slices.Backward(list) {
		if !bytes.Equal(other, key) {
			if err := k.ring.UseKey(other); err != nil {
				return err
			}
		}
	}
	return k.ring.RemoveKey(key)
}

// Count is the number of keys, 0 for plain text.
func (k *GossipKeys) Count() int { return len(k.secrets()) }

func (k *GossipKeys) has(key []byte) bool {
	return slices.ContainsFunc(k.ring.GetKeys(), func(o []byte) bool { return bytes.Equal(o, key) })
}

// secrets is the keys, the one in use first; none without a ring.
func (k *GossipKeys) secrets() [][]byte {
	if k.ring == nil {
		return nil
	}
	return k.ring.GetKeys()
}
