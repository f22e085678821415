package main

import (
	"cmp"
	"encoding/json"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report collects what was measured. Its JSON is the file of results.
type report struct {
	When    time.Time     `json:"when"`
	Machine machine       `json:"machine"`
	Window  float64       `json:"seconds"`
	Rounds  int           `json:"rounds"`
	Scale   int           `json:"scale"`
	Pool    int           `json:"pool"`
	Reads   []*cell       `json:"point_reads"`
	Idle    []idleResult  `json:"idle_clients"`
	Large   []largeResult `json:"large_result"` // medians

	Reach []goal `json:"reach"`

	largeSamples map[string][]largeResult
	targets      []string // in the order of the report
}

// machine is what absolute figures depend on.
type machine struct {
	CPUs   int    `json:"cpus"`
	Model  string `json:"model"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// cell is one target under one load: the medians of its samples.
type cell struct {
	Target      string  `json:"target"`
	Mode        string  `json:"mode"`
	Clients     int     `json:"clients"`
	TPS         float64 `json:"tps"`
	P50         float64 `json:"p50_ms"`
	P99         float64 `json:"p99_ms"`
	CPU         float64 `json:"cpu_us_per_transaction"` // of the proxy process
	VsPgBouncer float64 `json:"cpu_vs_pgbouncer,omitempty"`
	VsRelay     float64 `json:"cpu_vs_relay,omitempty"`
	RSS         int64   `json:"rss"`
	Failed      int     `json:"failed"` // in all rounds

	Noisy int `json:"noisy"` // samples that count only if all are noisy

	Samples []sample `json:"samples"`
}

func newReport(opts *options) *report {
	r := &report{
		When: time.Now().UTC(), Machine: thisMachine(), Window: opts.window.Seconds(),
		Rounds: opts.rounds, Scale: opts.scale, Pool: opts.pool, largeSamples: map[string][]largeResult{},
	}
	for _, k := range opts.targets {
		r.targets = append(r.targets, k.name)
	}
	return r
}

func thisMachine() machine {
	m := machine{CPUs: runtime.NumCPU(), Go: runtime.Version()}
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(release))
	cpus, _ := os.ReadFile("/proc/cpuinfo")
	if _, after, ok := strings.Cut(string(cpus), "model name"); ok {
		line, _, _ := strings.Cut(after, "\n")
		m.Model = strings.Trim(line, " \t:")
	}
	return m
}

func (r *report) addSample(target string, l load, s sample) {
	c := r.cell(target, l.Mode, l.Clients)
	if c == nil {
		c = &cell{Target: target, Mode: l.Mode, Clients: l.Clients}
		r.Reads = append(r.Reads, c)
	}
	c.Samples = append(c.Samples, s)
}

// hasResults tells whether anything was measured at all: an early failure leaves nothing to print.
func (r *report) hasResults() bool { return len(r.Reads)+len(r.Idle)+len(r.largeSamples) > 0 }

func (r *report) addLarge(l largeResult) {
	r.largeSamples[l.Target] = append(r.largeSamples[l.Target], l)
}

func (r *report) cell(target, mode string, clients int) *cell {
	for _, c := range r.Reads {
		if c.Target == target && c.Mode == mode && c.Clients == clients {
			return c
		}
	}
	return nil
}

// finish turns samples into medians and ratios, once all are there.
func (r *report) finish() {
	for _, c := range r.Reads {
		for _, s := range c.Samples {
			c.Failed += s.Failed
			if s.Noisy {
				c.Noisy++
			}
		}
		samples := preferQuiet(c.Samples, func(s sample) bool { return s.Noisy })
		c.TPS = median(samples, func(s sample) float64 { return s.TPS })
		c.P50 = median(samples, func(s sample) float64 { return s.P50 })
		c.P99 = median(samples, func(s sample) float64 { return s.P99 })
		c.CPU = median(samples, func(s sample) float64 { return s.CPU })
		c.RSS = median(samples, func(s sample) int64 { return s.RSS })
	}
	for _, c := range r.Reads {
		c.VsPgBouncer = r.ratio(c, "pgbouncer")
		c.VsRelay = r.ratio(c, "relay")
	}
	slices.SortStableFunc(r.Reads, func(a, b *cell) int {
		return cmp.Or(
			cmp.Compare(slices.Index(allModes, a.Mode), slices.Index(allModes, b.Mode)),
			cmp.Compare(a.Clients, b.Clients),
			cmp.Compare(slices.Index(r.targets, a.Target), slices.Index(r.targets, b.Target)),
		)
	})
	for _, target := range r.targets {
		samples := preferQuiet(r.largeSamples[target], func(l largeResult) bool { return l.Noisy })
		if len(samples) > 0 {
			r.Large = append(r.Large, largeResult{
				Target:    target,
				MBps:      median(samples, func(l largeResult) float64 { return l.MBps }),
				CPU:       median(samples, func(l largeResult) float64 { return l.CPU }),
				RSSBefore: median(samples, func(l largeResult) int64 { return l.RSSBefore }),
				RSSPeak:   median(samples, func(l largeResult) int64 { return l.RSSPeak }),
			})
		}
	}
	r.Reach = r.reach()
}

// ratio is c's CPU by that of another target under the same load; 0 where there is none.
func (r *report) ratio(c *cell, other string) float64 {
	o := r.cell(other, c.Mode, c.Clients)
	if o == nil || o == c || o.CPU == 0 || c.CPU == 0 {
		return 0
	}
	return c.CPU / o.CPU
}

// median of one figure of the samples: the middle one, or halfway between the two middle ones.
func median[S any, T int64 | float64](samples []S, figure func(S) T) T {
	values := make([]T, len(samples))
	for i, s := range samples {
		values[i] = figure(s)
	}
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// write keeps the results for other programs.
func (r *report) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
