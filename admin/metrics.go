package admin

import (
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"shardproxy/topology"
)

// metric is one family of metrics: its name and help, and how its values are read at the time of a scrape.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(p *picture, emit func(value float64, labels ...string))
}

func gauge(name, help string, labels []string, read func(*picture, func(float64, ...string))) metric {
	return metric{prometheus.NewDesc("shardproxy_"+name, help, labels, nil), prometheus.GaugeValue, read}
}

func counter(name, help string, labels []string, read func(*picture, func(float64, ...string))) metric {
	m := gauge(name, help, labels, read)
	m.kind = prometheus.CounterValue
	return m
}

// Collector makes Prometheus metrics of a Source whenever it is asked, and keeps none.
type Collector struct {
	src     Source
	metrics []metric
	rounds  *prometheus.Desc
}

// NewCollector makes a Collector of src.
func NewCollector(src Source) *Collector {
	return &Collector{
		src:     src,
		metrics: slices.Concat(workMetrics(), poolMetrics(), topologyMetrics(), driftMetrics()),
		rounds: prometheus.NewDesc("shardproxy_round_duration_seconds",
			"From a client's message to ReadyForQuery.", nil, nil),
	}
}

// NewRegistry makes a registry with a Collector of src, and with metrics of the process and of Go.
func NewRegistry(src Source) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(NewCollector(src), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		ch <- m.desc
	}
	ch <- c.rounds
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	p := pictureOf(c.src)
	for _, m := range c.metrics {
		m.read(p, func(value float64, labels ...string) {
			for i, l := range labels { // names may come from clients in any encoding
				labels[i] = strings.ToValidUTF8(l, "\uFFFD")
			}
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, value, labels...)
		})
	}
	count, buckets := histogram(p.Latency)
	ch <- prometheus.MustNewConstHistogram(c.rounds, count, p.LatencySum.Seconds(), buckets)
}

// histogram makes cumulative buckets, by upper bound in seconds, of classes that double: class i counts what
// is below 2^i microseconds. The last class has no bound.
func histogram(classes []int64) (count uint64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(classes))
	for i, n := range classes {
		count += uint64(n)
		if i < len(classes)-1 {
			buckets[math.Ldexp(1, i)/1e6] = count
		}
	}
	return count, buckets
}

func workMetrics() []metric {
	return []metric{
		gauge("clients", "Sessions of clients.", nil,
			func(p *picture, emit func(float64, ...string)) { emit(float64(p.clients)) }),
		counter("client_connections_total", "Clients that have logged in.", nil,
			func(p *picture, emit func(float64, ...string)) { emit(float64(p.Clients)) }),
		counter("client_received_bytes_total", "Bytes from clients whose sessions have ended.", nil,
			func(p *picture, emit func(float64, ...string)) { emit(float64(p.Received)) }),
		counter("client_sent_bytes_total", "Bytes to clients whose sessions have ended.", nil,
			func(p *picture, emit func(float64, ...string)) { emit(float64(p.Sent)) }),
		counter("transactions_total", "Rounds that left no transaction open.", nil,
			func(p *picture, emit func(float64, ...string)) { emit(float64(p.Transactions)) }),
		counter("statements_total", "Statements, by the kind of their plan.", []string{"kind"},
			func(p *picture, emit func(float64, ...string)) { each(p.ByKind, emit) }),
		counter("errors_total", "Errors sent to clients.", []string{"sqlstate"},
			func(p *picture, emit func(float64, ...string)) { each(p.Errors, emit) }),
		counter("panics_total", "Sessions that ended by a panic.", nil,
			func(p *picture, emit func(float64, ...string)) { emit(float64(p.Panics)) }),
		counter("plan_cache_hits_total", "Statements whose plan was in the cache.", nil,
			func(p *picture, emit func(float64, ...string)) { emit(float64(p.hits)) }),
		counter("plan_cache_misses_total", "Statements whose plan had to be made.", nil,
			func(p *picture, emit func(float64, ...string)) { emit(float64(p.misses)) }),
	}
}

func each(counts map[string]int64, emit func(float64, ...string)) {
	for _, label := range slices.Sorted(maps.Keys(counts)) {
		emit(float64(counts[label]), label)
	}
}

func poolMetrics() []metric {
	labels := []string{"node", "database", "user"}
	return []metric{
		gauge("pool_backends", "Connections to nodes.", append(slices.Clone(labels), "state"),
			func(p *picture, emit func(float64, ...string)) {
				for _, l := range p.pools {
					emit(float64(l.active), l.Key.Address, l.Key.Database, l.Key.User, "active")
					emit(float64(l.Idle), l.Key.Address, l.Key.Database, l.Key.User, "idle")
					emit(float64(l.connecting), l.Key.Address, l.Key.Database, l.Key.User, "connecting")
				}
			}),
		gauge("pool_waiting", "Sessions that wait for a connection.", labels,
			func(p *picture, emit func(float64, ...string)) {
				for _, l := range p.pools {
					emit(float64(l.Waiting), l.Key.Address, l.Key.Database, l.Key.User)
				}
			}),
		gauge("pool_longest_wait_seconds", "Wait so far of the session that waits longest for a connection.", labels,
			func(p *picture, emit func(float64, ...string)) {
				for _, l := range p.pools {
					emit(l.LongestWait.Seconds(), l.Key.Address, l.Key.Database, l.Key.User)
				}
			}),
		counter("pool_wait_seconds_total", "Time that sessions have waited for connections.", labels,
			func(p *picture, emit func(float64, ...string)) {
				for _, l := range p.pools {
					emit(l.Waited.Seconds(), l.Key.Address, l.Key.Database, l.Key.User)
				}
			}),
	}
}

func topologyMetrics() []metric {
	return []metric{
		gauge("epoch", "Number of the topology that new statements are planned with.", nil,
			func(p *picture, emit func(float64, ...string)) { emit(float64(p.snapshot.Epoch)) }),
		gauge("paused_shards", "Shards for which an operator holds back new work.", nil,
			func(p *picture, emit func(float64, ...string)) { emit(float64(p.paused)) }),
		gauge("shards", "Shards.", nil,
			func(p *picture, emit func(float64, ...string)) { emit(float64(len(p.snapshot.Shards))) }),
		gauge("ranges", "Key ranges, by the shard that owns them.", []string{"shard"},
			func(p *picture, emit func(float64, ...string)) {
				owned := make(map[topology.ShardID]int)
				for _, r := range p.snapshot.Ranges() {
					owned[r.Shard]++
				}
				for i, s := range p.snapshot.Shards {
					emit(float64(owned[topology.ShardID(i)]), s.Name)
				}
			}),
		gauge("tables", "Tables and views.", []string{"kind"},
			func(p *picture, emit func(float64, ...string)) {
				kinds := make(map[topology.TableKind]int)
				for _, t := range p.snapshot.Schema.Tables {
					kinds[t.Kind]++
				}
				for _, k := range []topology.TableKind{topology.Sharded, topology.Reference, topology.View} {
					emit(float64(kinds[k]), k.String())
				}
			}),
		gauge("unplaced_tables", "Tables whose rows cannot be placed: see SHOW TABLES.", nil,
			func(p *picture, emit func(float64, ...string)) {
				n := 0
				for _, t := range p.snapshot.Schema.Tables {
					if t.Problem != "" {
						n++
					}
				}
				emit(float64(n))
			}),
		gauge("node_info", "1 for every node of the topology.", []string{"shard", "node", "database", "role"},
			func(p *picture, emit func(float64, ...string)) {
				for _, s := range p.snapshot.Shards {
					for _, n := range s.Nodes {
						emit(1, s.Name, n.Address(), n.Database, n.Role.String())
					}
				}
			}),
	}
}
