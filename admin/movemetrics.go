package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"shardproxy/rebalance"
)

// AddMoves adds the metrics of the moves that this proxy coordinates; status gives them. All others show none.
func AddMoves(r *prometheus.Registry, status func() []rebalance.Status) {
	r.MustRegister(&moveCollector{
		status: status,
		moves:  prometheus.NewDesc("shardproxy_moves", "Moves of key ranges that this proxy carries out, by state.", []string{"state"}, nil),
		alarm:  prometheus.NewDesc("shardproxy_move_alarm", "Moves that this proxy carries out and that somebody must look at, by the reason.", []string{"reason"}, nil),
	})
}

// moveCollector makes metrics of moves whenever it is asked, and keeps none.
type moveCollector struct {
	status       func() []rebalance.Status
	moves, alarm *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *moveCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.moves
	ch <- c.alarm
}

// Collect implements prometheus.Collector.
func (c *moveCollector) Collect(ch chan<- prometheus.Metric) {
	states, alarms := make(map[string]int), make(map[string]int)
	for _, reason := range rebalance.Alarms() { // 0 is told too: who is alarmed must hear of the end
		alarms[reason] = 0
	}
	for _, st := range c.status() {
		if st.Move.State.Terminal() {
			continue
		}
		states[st.Move.State.String()]++
		if reason := st.Move.Alarm(); reason != "" {
			alarms[reason]++
		}
	}
	for state, n := range states {
		ch <- prometheus.MustNewConstMetric(c.moves, prometheus.GaugeValue, float64(n), state)
	}
	for reason, n := range alarms {
		ch <- prometheus.MustNewConstMetric(c.alarm, prometheus.GaugeValue, float64(n), reason)
	}
}
