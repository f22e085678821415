package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/topology"
)

// AddGossip adds the metrics of the way to the other proxies. src is the proxy itself.
func AddGossip(r *prometheus.Registry, g Gossip, src Source) {
	r.MustRegister(&gossipCollector{gossip: g, src: src, metrics: gossipMetrics()})
}

// gossipCollector makes metrics of a Gossip whenever it is asked, and keeps none.
type gossipCollector struct {
	gossip  Gossip
	src     Source
	metrics []gossipMetric
}

// gossipPicture is a Gossip at one moment.
type gossipPicture struct {
	topology.GossipStats
	peers []topology.Peer
	epoch topology.Epoch // of this proxy
}

type gossipMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(p *gossipPicture, emit func(value float64, labels ...string))
}

// Describe implements prometheus.Collector.
func (c *gossipCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *gossipCollector) Collect(ch chan<- prometheus.Metric) {
	p := &gossipPicture{GossipStats: c.gossip.Stats(), peers: c.gossip.Peers(), epoch: c.src.Snapshot().Epoch}
	for _, m := range c.metrics {
		m.read(p, func(value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
		})
	}
}

func gossipMetrics() []gossipMetric {
	return append(gossipStateMetrics(), gossipWorkMetrics()...)
}

func gossipMetricOf(kind prometheus.ValueType, name, help string, labels []string, read func(*gossipPicture, func(float64, ...string))) gossipMetric {
	return gossipMetric{prometheus.NewDesc("shardproxy_gossip_"+name, help, labels, nil), kind, read}
}

func gossipStateMetrics() []gossipMetric {
	state := func(name, help string, labels []string, read func(*gossipPicture, func(float64, ...string))) gossipMetric {
		return gossipMetricOf(prometheus.GaugeValue, name, help, labels, read)
	}
	return []gossipMetric{
		state("peers", "The other proxies, by what this one thinks of them.", []string{"status"},
			func(p *gossipPicture, emit func(float64, ...string)) {
				counts := make(map[topology.PeerStatus]int)
				for _, peer := range p.peers {
					counts[peer.Status]++
				}
				for _, s := range []topology.PeerStatus{topology.PeerAlive, topology.PeerSuspect, topology.PeerDead, topology.PeerLeft} {
					emit(float64(counts[s]), s.String())
				}
			}),
		state("peer_epoch_lag", "How many epochs a live peer, as it last said, is behind this proxy; below 0 where it is ahead.", []string{"peer"},
			func(p *gossipPicture, emit func(float64, ...string)) {
				for _, peer := range p.peers {
					if peer.Status == topology.PeerAlive || peer.Status == topology.PeerSuspect {
						emit(float64(int64(p.epoch)-int64(peer.Map.Epoch)), peer.Name)
					}
				}
			}),
		state("queued", "Broadcasts that wait to be sent.", []string{"kind"},
			func(p *gossipPicture, emit func(float64, ...string)) {
				emit(float64(p.QueuedNews), "news")
				emit(float64(p.QueuedItems), "health")
			}),
		state("health_items", "Health items of nodes that are known.", nil,
			func(p *gossipPicture, emit func(float64, ...string)) { emit(float64(p.HealthItems)) }),
		state("keys", "Keys of the ring; 0 means that gossip is not encrypted.", nil,
			func(p *gossipPicture, emit func(float64, ...string)) { emit(float64(len(p.Keys))) }),
		state("key_info", "1 for the key that encrypts, 0 for one that is only accepted.", []string{"fingerprint"},
			func(p *gossipPicture, emit func(float64, ...string)) {
				for i, key := range p.Keys {
					used := 0.0
					if i == 0 {
						used = 1
					}
					emit(used, string(key))
				}
			}),
	}
}

func gossipWorkMetrics() []gossipMetric {
	count := func(name, help, label string, read func(*gossipPicture, func(float64, ...string))) gossipMetric {
		var labels []string
		if label != "" {
			labels = []string{label}
		}
		return gossipMetricOf(prometheus.CounterValue, name+"_total", help, labels, read)
	}
	return []gossipMetric{
		count("sent_bytes", "Bytes sent to peers, without the headers of UDP and TCP.", "by",
			func(p *gossipPicture, emit func(float64, ...string)) {
				emit(float64(p.PacketBytesSent), "packet")
				emit(float64(p.StreamBytesSent), "stream")
			}),
		count("received_bytes", "Bytes received from peers, without the headers of UDP and TCP.", "by",
			func(p *gossipPicture, emit func(float64, ...string)) {
				emit(float64(p.PacketBytesReceived), "packet")
				emit(float64(p.StreamBytesReceived), "stream")
			}),
		count("sent_messages", "Packets sent to peers, and streams opened to them.", "by",
			func(p *gossipPicture, emit func(float64, ...string)) {
				emit(float64(p.PacketsSent), "packet")
				emit(float64(p.StreamsOpened), "stream")
			}),
		count("received_messages", "Packets received from peers, and streams opened by them.", "by",
			func(p *gossipPicture, emit func(float64, ...string)) {
				emit(float64(p.PacketsReceived), "packet")
				emit(float64(p.StreamsAccepted), "stream")
			}),
		count("fetches", "Whole maps asked of peers.", "result",
			func(p *gossipPicture, emit func(float64, ...string)) {
				emit(float64(p.Fetches), "ok")
				emit(float64(p.FetchesFailed), "failed")
			}),
		count("served_maps", "Whole maps given to peers.", "",
			func(p *gossipPicture, emit func(float64, ...string)) { emit(float64(p.Served)) }),
		count("cancels", "Cancel requests of clients that came to another proxy than theirs.", "way",
			func(p *gossipPicture, emit func(float64, ...string)) {
				emit(float64(p.CancelsSent), "sent")
				emit(float64(p.CancelsReceived), "received")
				emit(float64(p.CancelsDropped), "dropped")
			}),
	}
}
