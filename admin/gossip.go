package admin

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"shardproxy/topology"
	"shardproxy/wire"
)

// Gossip is the way to the other proxies, as the console shows and changes it: a *topology.Gossip.
type Gossip interface {
	Peers() []topology.Peer
	Stats() topology.GossipStats
	RingKeys(ctx context.Context) []topology.PeerKeys
	AddKey(ctx context.Context, key []byte) ([]topology.PeerKeys, error)
	UseKey(ctx context.Context, key topology.KeyFingerprint) ([]topology.PeerKeys, error)
	RemoveKey(ctx context.Context, key topology.KeyFingerprint) ([]topology.PeerKeys, error)
}

// gossipTime bounds a command that asks all peers.
const gossipTime = 30 * time.Second

const ringColumns = "peer fingerprint in_use error"

// gossipVerbs are about the keys by which the proxies know each other. A key is only ever read, never shown.
func gossipVerbs() []verb {
	return []verb{
		{
			name: "SHOW GOSSIP KEYS", help: "the keys of each proxy, by fingerprint; in_use is the one that encrypts",
			role: RoleStats, fields: fields(ringColumns),
			read: func(a *arguments) (reply, *wire.Error) {
				return ringReply(a, func(ctx context.Context, g Gossip) ([]topology.PeerKeys, error) { return g.RingKeys(ctx), nil })
			},
		},
		ringVerb("GOSSIP KEY ADD", "'key'", "let all live proxies read what is encrypted with a key, in base64", func(a *arguments) ringStep {
			at := a.end
			if len(a.list) > 0 {
				at = a.list[0][0].at
			}
			key, err := base64.StdEncoding.DecodeString(a.text("the key"))
			if n := len(key); err != nil || n != 16 && n != 24 && n != 32 {
				a.fail(at, "the key is not the base64 of 16, 24 or 32 bytes")
			}
			return func(ctx context.Context, g Gossip) ([]topology.PeerKeys, error) { return g.AddKey(ctx, key) }
		}),
		ringVerb("GOSSIP KEY USE", "fingerprint", "let all live proxies encrypt with a key that each of them has", func(a *arguments) ringStep {
			key := a.fingerprint()
			return func(ctx context.Context, g Gossip) ([]topology.PeerKeys, error) { return g.UseKey(ctx, key) }
		}),
		ringVerb("GOSSIP KEY REMOVE", "fingerprint", "let all live proxies refuse a key that none of them uses", func(a *arguments) ringStep {
			key := a.fingerprint()
			return func(ctx context.Context, g Gossip) ([]topology.PeerKeys, error) { return g.RemoveKey(ctx, key) }
		}),
	}
}

// ringStep does something to the rings of all proxies.
type ringStep func(ctx context.Context, g Gossip) ([]topology.PeerKeys, error)

func (a *arguments) fingerprint() topology.KeyFingerprint {
	return topology.KeyFingerprint(strings.ToLower(a.text("the fingerprint of the key")))
}

// ringVerb is a step of a rotation.
func ringVerb(name, args, help string, read func(a *arguments) ringStep) verb {
	return verb{
		name: name, args: args, help: help, role: RoleAdmin, fields: fields(ringColumns), alone: true,
		read: func(a *arguments) (reply, *wire.Error) {
			step := read(a)
			return ringReply(a, func(ctx context.Context, g Gossip) ([]topology.PeerKeys, error) { return step(ctx, g) })
		},
	}
}

// ringReply answers with the rings of all proxies after a step.
func ringReply(a *arguments, step ringStep) (reply, *wire.Error) {
	if err := a.done(); err != nil {
		return nil, err
	}
	name, changes := a.verb.name, a.verb.role == RoleAdmin
	return func(ctx context.Context, s *session) ([][]any, *wire.Error) {
		g := s.console.cfg.Gossip
		if g == nil {
			return nil, wire.Errorf(wire.CodeFeatureNotSupported, "this proxy runs without gossip").
				WithHint("[gossip] in its configuration names an address and the keys.")
		}
		ctx, cancel := context.WithTimeout(ctx, gossipTime)
		defer cancel()
		rings, err := step(ctx, g)
		if err != nil {
			return nil, ringError(err)
		}
		if changes {
			s.console.cfg.Log.Info("gossip keys changed", "user", s.user, "from", s.client.Conn().RemoteAddr().String(), "command", name)
			s.warnOfDead(g)
		}
		return ringRows(rings), nil
	}, nil
}

// warnOfDead names those who cannot be told: if they only are cut off, they will not find the others again.
func (s *session) warnOfDead(g Gossip) {
	for _, p := range g.Peers() {
		if p.Status == topology.PeerDead {
			s.write(warning(codeWarning, "peer "+p.Name+" is dead for this proxy and was not told").
				WithHint("If it only is cut off, restart it with the same gossip.keys as the others.").AppendNotice(nil))
		}
	}
}

func ringRows(rings []topology.PeerKeys) (rows [][]any) {
	for _, p := range rings {
		var why any
		if p.Err != nil {
			why = p.Err.Error()
		}
		if len(p.Keys) == 0 {
			rows = append(rows, []any{p.Peer, nil, nil, why})
		}
		for i, key := range p.Keys {
			rows = append(rows, []any{p.Peer, string(key), yesNo(i == 0), why})
		}
	}
	return rows
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func ringError(err error) *wire.Error {
	e := wire.Errorf(wire.CodeObjectNotInPrerequisite, "%v", err)
	var refused topology.ErrKeyRefused
	switch {
	case errors.As(err, &refused):
		return e.WithHint("First GOSSIP KEY ADD, then GOSSIP KEY USE, then GOSSIP KEY REMOVE of the old key, each until SHOW GOSSIP KEYS has no errors.")
	case errors.Is(err, topology.ErrUnknownKey):
		return e.WithHint("SHOW GOSSIP KEYS lists the fingerprints.")
	case errors.Is(err, topology.ErrPlainGossip):
		return e.WithHint("Put gossip.keys into the configuration of all proxies and restart them.")
	}
	return e
}
