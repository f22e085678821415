package topology

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"
)

// GossipKeys is the ring of AES keys of this proxy. A rotation without a break goes through all proxies three times: Install
// the new key on each, then Use it on each, then Remove the old one from each. Gossip's AddKey, UseKey and RemoveKey do so.
type GossipKeys struct {
	mu   sync.Mutex // one change at a time
	ring *memberlist.Keyring
}

// KeyFingerprint names a key without telling it: the first half of a hash, 16 hexadecimal digits.
type KeyFingerprint string

// FingerprintKey gives the fingerprint of a key.
func FingerprintKey(key []byte) KeyFingerprint {
	sum := sha256.Sum256(append([]byte("shardproxy gossip key "), key...))
	return KeyFingerprint(hex.EncodeToString(sum[:8]))
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

// Why the ring was not changed.
var (
	ErrPlainGossip = errors.New("gossip: this proxy was started without a key, so it has no ring to change")
	ErrUnknownKey  = errors.New("gossip: the key is not in the ring; add it first")
	ErrKeyInUse    = errors.New("gossip: the key is in use; use another one first")
	ErrManyKeys    = errors.New("gossip: the ring is full; remove a key first")
)

// change runs f, which may change the ring, alone.
func (k *GossipKeys) change(f func() error) error {
	if k.ring == nil {
		return ErrPlainGossip
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return f()
}

// Install lets the proxy read what is encrypted with key.
func (k *GossipKeys) Install(key []byte) error {
	return k.change(func() error {
		switch ring := k.ring.GetKeys(); {
		case k.find(FingerprintKey(key)) != nil:
			return nil
		case len(ring) >= gossipKeysMax:
			return ErrManyKeys
		}
		return k.ring.AddKey(bytes.Clone(key))
	})
}

// Use encrypts with a key of the ring from now on.
func (k *GossipKeys) Use(name KeyFingerprint) error {
	return k.change(func() error {
		key := k.find(name)
		if key == nil {
			return ErrUnknownKey
		}
		return k.ring.UseKey(key)
	})
}

// Remove refuses what is encrypted with a key of the ring from now on.
func (k *GossipKeys) Remove(name KeyFingerprint) error {
	return k.change(func() error {
		key := k.find(name)
		switch {
		case key == nil:
			return ErrUnknownKey
		case bytes.Equal(k.ring.GetPrimaryKey(), key):
			return ErrKeyInUse
		}
		// memberlist's RemoveKey shifts the keys after this one in the very array that packets being decrypted are
		// looking at. So the key is brought to the end first: UseKey puts a key in front and leaves the order of the rest.
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
	})
}

// List names the keys, the one in use first; none for plain text.
func (k *GossipKeys) List() []KeyFingerprint {
	var list []KeyFingerprint
	for _, key := range k.secrets() {
		list = append(list, FingerprintKey(key))
	}
	return list
}

// find gives a key of the ring, nil for none.
func (k *GossipKeys) find(name KeyFingerprint) []byte {
	for _, key := range k.ring.GetKeys() {
		if FingerprintKey(key) == name {
			return key
		}
	}
	return nil
}

// secrets is the keys, the one in use first; none without a ring.
func (k *GossipKeys) secrets() [][]byte {
	if k.ring == nil {
		return nil
	}
	return k.ring.GetKeys()
}
