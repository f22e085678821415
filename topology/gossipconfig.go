package topology

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// GossipPort is taken where a seed names none.
	GossipPort = 7946

	// gossipNameMax bounds cluster and node names: the metadata of a node, which holds both, may take 512 bytes.
	gossipNameMax = 64

	// gossipPacketMax is what fits one Ethernet frame with room for the headers of a tunnel.
	gossipPacketMax = 1400

	// GossipPayloadMax bounds what Broadcast sends itself; with the header it still fits one packet.
	GossipPayloadMax = 1024

	// gossipFanout is how many peers get a message at once, as soon as it is heard. With 4, all but e⁻⁴ = 2 % are
	// reached without waiting for a tick; the ticks reach the rest.
	gossipFanout = 4

	gossipKeysMax = 8 // a rotation needs two; each packet under a wrong key is tried with all of them
)

// GossipTiming says how often peers talk. The zero value stands for GossipLAN.
type GossipTiming struct {
	Gossip       time.Duration // between two packets of pending news to random peers
	Probe        time.Duration // between two failure probes, and between two rounds of questions
	ProbeTimeout time.Duration // a probe unanswered for so long is tried through others
	PushPull     time.Duration // between two full exchanges with a random peer
	Rejoin       time.Duration // between two tries of seeds and lost peers that are not here
	Stream       time.Duration // no byte for so long ends a TCP stream
	Suspicion    int           // probes that a suspect is given, times log10 of the peers, before it is dead
}

// GossipLAN suits proxies in one region.
var GossipLAN = GossipTiming{
	Gossip: 100 * time.Millisecond, Probe: time.Second, ProbeTimeout: 500 * time.Millisecond,
	PushPull: 30 * time.Second, Rejoin: 15 * time.Second, Stream: 10 * time.Second, Suspicion: 4,
}

// GossipLoopback suits proxies on one machine.
var GossipLoopback = GossipTiming{
	Gossip: 20 * time.Millisecond, Probe: 300 * time.Millisecond, ProbeTimeout: 200 * time.Millisecond,
	PushPull: 3 * time.Second, Rejoin: time.Second, Stream: 5 * time.Second, Suspicion: 3,
}

// GossipConfig is what NewGossip needs.
type GossipConfig struct {
	Cluster   string   // peers of another cluster are refused
	Node      string   // the name of this proxy, unique in the cluster
	BindAddr  string   // an IP address
	BindPort  int      // UDP and TCP; 0 takes a free one
	Advertise string   // host or host:port that peers shall dial; "" for the bound one
	Seeds     []string // host or host:port, looked up again on each try; may name this proxy as well
	Keys      [][]byte // AES keys of 16, 24 or 32 bytes, the first one encrypts; none: plain text, open to all
	Timing    GossipTiming
	Log       *slog.Logger
	OnHealth  func(HealthItem)                                     // of each item that came from a peer; must be quick and not call Gossip; may be nil
	OnTies    func(asked []Process) []Tie                          // our sessions that use some of these: see Ties; may be nil
	OnCancel  func(ctx context.Context, pid uint32, secret string) // cancels what a client of ours waits for: see ForwardCancel; may be nil

	network func() (gossipNetwork, error) // in place of UDP and TCP
}

// Validate names the first field that cannot be used.
func (c *GossipConfig) Validate() error {
	for _, f := range []struct{ field, name string }{{"cluster", c.Cluster}, {"node", c.Node}} {
		if f.name == "" || len(f.name) > gossipNameMax {
			return fmt.Errorf("gossip: %s: %q must have 1 to %d bytes", f.field, f.name, gossipNameMax)
		}
	}
	ip := net.ParseIP(c.BindAddr)
	if ip == nil {
		return fmt.Errorf("gossip: bind address %q is not an IP address", c.BindAddr)
	}
	if ip.IsUnspecified() && ip.To4() == nil && c.Advertise == "" {
		return errors.New("gossip: bound to all IPv6 addresses, it must be told which one to advertise")
	}
	if c.BindPort < 0 || c.BindPort > 65535 {
		return fmt.Errorf("gossip: bind port %d is not a port", c.BindPort)
	}
	for _, seed := range c.Seeds {
		if _, _, err := splitGossipAddress(seed, GossipPort); err != nil {
			return fmt.Errorf("gossip: seed: %w", err)
		}
	}
	if len(c.Keys) > gossipKeysMax {
		return fmt.Errorf("gossip: %d keys, more than %d", len(c.Keys), gossipKeysMax)
	}
	for i, key := range c.Keys {
		if err := memberlist.ValidateKey(key); err != nil {
			return fmt.Errorf("gossip: key %d: %w", i+1, err)
		}
	}
	if c.Timing != (GossipTiming{}) {
		for _, d := range []time.Duration{c.Timing.Gossip, c.Timing.Probe, c.Timing.ProbeTimeout, c.Timing.PushPull, c.Timing.Rejoin, c.Timing.Stream} {
			if d <= 0 {
				return errors.New("gossip: every interval must be above zero")
			}
		}
		if c.Timing.Suspicion < 1 {
			return errors.New("gossip: suspicion must be at least 1")
		}
	}
	return nil
}

// splitGossipAddress cuts host, host:port, an IPv6 address or [IPv6]:port.
func splitGossipAddress(s string, port int) (string, int, error) {
	host := strings.Trim(s, "[]")
	if net.ParseIP(host) == nil && strings.Contains(s, ":") {
		h, p, err := net.SplitHostPort(s)
		if err != nil {
			return "", 0, err
		}
		if port, err = strconv.Atoi(p); err != nil {
			return "", 0, fmt.Errorf("%q has no port number", s)
		}
		host = h
	}
	if host == "" || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("%q is not host or host:port", s)
	}
	return host, port, nil
}

// memberlistConfig is c as memberlist wants it. The delegates and the transport are the caller's.
func (c *GossipConfig) memberlistConfig(ring *memberlist.Keyring) *memberlist.Config {
	m := memberlist.DefaultLANConfig()
	m.Name = c.Node
	m.BindAddr, m.BindPort = c.BindAddr, c.BindPort
	m.TCPTimeout = c.Timing.Stream
	m.SuspicionMult = c.Timing.Suspicion
	m.PushPullInterval = c.Timing.PushPull
	m.ProbeInterval, m.ProbeTimeout = c.Timing.Probe, c.Timing.ProbeTimeout
	m.GossipInterval, m.GossipNodes = c.Timing.Gossip, gossipFanout
	m.GossipToTheDeadTime = max(c.Timing.PushPull, 10*c.Timing.Probe)
	m.UDPBufferSize = gossipPacketMax
	m.HandoffQueueDepth = 4096 // when hundreds of peers come at once, each is told of by all the others
	m.Keyring = ring
	m.EnableCompression = false // LZW, per packet: 80 KB of tables for 100 bytes that hardly shrink
	// A proxy that died may come back under its name with another address as soon as it is known to be dead.
	m.DeadNodeReclaimTime = time.Millisecond
	return m
}
