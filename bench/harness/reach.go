package main

import (
	"fmt"
	"slices"
)

// goal is one limit that shardproxy is held to, and what was seen.
type goal struct {
	What    string  `json:"what"`
	Seen    float64 `json:"seen"`
	Sense   string  `json:"sense"` // "≤" or "≥"
	Limit   float64 `json:"limit"`
	Reached bool    `json:"reached"`
}

// The limits. Ratios hold on any machine; a load of one client is not among them, because then
// the time goes into sleeping and waking.
const (
	cpuVsPgBouncerMax  = 1.5  // one shard, simple mode
	cpuVsRelayMax      = 1.3  // one shard, simple and prepared mode
	cpuFourVsOneMax    = 1.15 // four shards, each mode
	idleBytesMax       = 10_000
	idleClientsCounted = 10_000
	largeVsPlainMin    = 0.7
	largeGrowthMax     = 16 // MB of RSS: "flat" for a result thirty times as large
)

// reach compares what was measured of shardproxy with the limits; what was not measured is left out.
func (r *report) reach() []goal {
	var goals []goal
	atMost := func(seen, limit float64, what string, args ...any) {
		goals = append(goals, goal{fmt.Sprintf(what, args...), seen, "≤", limit, seen <= limit})
	}
	for _, c := range r.Reads {
		if c.Clients < 8 {
			continue
		}
		switch c.Target {
		case "shardproxy1":
			if c.VsPgBouncer > 0 && c.Mode == "simple" {
				atMost(c.VsPgBouncer, cpuVsPgBouncerMax, "CPU, one shard ÷ PgBouncer, %s, %d clients", c.Mode, c.Clients)
			}
			if c.VsRelay > 0 && c.Mode != "extended" {
				atMost(c.VsRelay, cpuVsRelayMax, "CPU, one shard ÷ relay, %s, %d clients", c.Mode, c.Clients)
			}
		case "shardproxy4":
			if ratio := r.ratio(c, "shardproxy1"); ratio > 0 {
				atMost(ratio, cpuFourVsOneMax, "CPU, four shards ÷ one, %s, %d clients", c.Mode, c.Clients)
			}
		}
	}
	for _, i := range r.Idle {
		if isShardproxy(i.Target) && i.Clients == idleClientsCounted {
			atMost(float64(i.BytesPerClient), idleBytesMax, "bytes an idle client of %d, %s", i.Clients, i.Target)
		}
	}
	plain := slices.IndexFunc(r.Large, func(l largeResult) bool { return l.Target == "plain" })
	for _, l := range r.Large {
		if !isShardproxy(l.Target) {
			continue
		}
		if plain >= 0 {
			ratio := l.MBps / r.Large[plain].MBps
			goals = append(goals, goal{"MB/s, large result ÷ plain, " + l.Target, ratio, "≥", largeVsPlainMin, ratio >= largeVsPlainMin})
		}
		atMost(mega(l.RSSPeak-l.RSSBefore), largeGrowthMax, "MB of RSS a large result adds, %s", l.Target)
	}
	for _, c := range r.Reads {
		if isShardproxy(c.Target) && c.Failed > 0 {
			atMost(float64(c.Failed), 0, "failed transactions, %s, %s, %d clients", c.Target, c.Mode, c.Clients)
		}
	}
	return goals
}

func isShardproxy(target string) bool { return target == "shardproxy1" || target == "shardproxy4" }
