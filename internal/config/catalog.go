package config

import (
	"encoding/base64"
	"fmt"
)

// catalog checks a file whose map is in the catalog.
func (k *checker) catalog(c *Config) {
	if len(c.Shards) > 0 {
		k.addf("shards", "are in the catalog where catalog.dsn is set; shardctl changes them there")
	}
	if len(c.Ranges) > 0 {
		k.addf("ranges", "are in the catalog where catalog.dsn is set; shardctl changes them there")
	}
	if len(c.Tables.Explicit) > 0 || len(c.Tables.Reference) > 0 {
		k.addf("tables", "are in the catalog where catalog.dsn is set; shardctl changes them there")
	}
}

func (k *checker) gossip(c *Config) {
	g := &c.Gossip
	if g.Listen == "" {
		if len(g.Seeds) > 0 {
			k.addf("gossip.listen", "is needed where there are gossip.seeds")
		}
		return
	}
	k.address("gossip.listen", g.Listen)
	if c.Catalog.DSN == "" {
		k.addf("gossip.listen", "needs a catalog: the map of a file is not shared")
	}
	for i, key := range g.Keys {
		if _, err := key.gossipKey(); err != nil {
			k.addf(fmt.Sprintf("gossip.keys[%d]", i), "%v", err)
		}
	}
}

// gossipKey is an AES key in base64.
func (s Secret) gossipKey() ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(string(s))
	if n := len(key); err != nil || n != 16 && n != 24 && n != 32 {
		return nil, fmt.Errorf("is not the base64 of 16, 24 or 32 bytes: openssl rand -base64 32 makes one")
	}
	return key, nil
}

// AESKeys is the key ring of gossip, the first key encrypts. It is for a Config that passes Check.
func (g *Gossip) AESKeys() (keys [][]byte, err error) {
	for _, s := range g.Keys {
		key, err := s.gossipKey()
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}
