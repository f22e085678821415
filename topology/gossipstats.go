package topology

import "sync/atomic"

// gossipCounts count what a Gossip has done. They only grow.
type gossipCounts struct {
	packetsSent, packetsReceived         atomic.Int64
	packetBytesSent, packetBytesReceived atomic.Int64 // without the headers of UDP
	streamsOpened, streamsAccepted       atomic.Int64
	streamBytesSent, streamBytesReceived atomic.Int64 // without the headers of TCP
	fetches, fetchesFailed, served       atomic.Int64 // maps
	cancelsSent, cancelsReceived         atomic.Int64
	cancelsDropped                       atomic.Int64
}

// GossipStats is what a Gossip has done since its start, and what waits to be done.
type GossipStats struct {
	PacketsSent, PacketsReceived         int64
	PacketBytesSent, PacketBytesReceived int64
	StreamsOpened, StreamsAccepted       int64
	StreamBytesSent, StreamBytesReceived int64

	Fetches, FetchesFailed, Served               int64 // whole maps: got, not got, given to a peer
	CancelsSent, CancelsReceived, CancelsDropped int64 // forwarded to peers, by peers, and not for being too many

	QueuedNews, QueuedItems int // broadcasts that wait to be sent
	HealthItems             int
	Keys                    []KeyFingerprint // the one in use first
}

// Stats counts.
func (g *Gossip) Stats() GossipStats {
	c := &g.counts
	return GossipStats{
		PacketsSent: c.packetsSent.Load(), PacketsReceived: c.packetsReceived.Load(),
		PacketBytesSent: c.packetBytesSent.Load(), PacketBytesReceived: c.packetBytesReceived.Load(),
		StreamsOpened: c.streamsOpened.Load(), StreamsAccepted: c.streamsAccepted.Load(),
		StreamBytesSent: c.streamBytesSent.Load(), StreamBytesReceived: c.streamBytesReceived.Load(),
		Fetches: c.fetches.Load(), FetchesFailed: c.fetchesFailed.Load(), Served: c.served.Load(),
		CancelsSent: c.cancelsSent.Load(), CancelsReceived: c.cancelsReceived.Load(), CancelsDropped: c.cancelsDropped.Load(),
		QueuedNews: g.news.NumQueued(), QueuedItems: g.items.NumQueued(), HealthItems: g.health.len(), Keys: g.keys.List(),
	}
}

func (h *HealthMap) len() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.items)
}
