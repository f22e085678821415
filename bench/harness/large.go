package main

import (
	"context"
	"fmt"
	"time"
)

// largeResult is what one result of hundreds of megabytes costs.
type largeResult struct {
	Target    string  `json:"target"`
	MBps      float64 `json:"mb_per_second"`
	CPU       float64 `json:"cpu_us_per_mb"` // of the proxy process
	RSSBefore int64   `json:"rss_before"`    // after one small query
	RSSPeak   int64   `json:"rss_peak"`
	Noisy     bool    `json:"-"` // as in sample
}

const megabyte = 1_000_000

// measureLarge reads a result of about the given size and throws it away.
func measureLarge(ctx context.Context, t *target, megabytes int) (largeResult, error) {
	result := largeResult{Target: t.name}
	c, err := t.at.connect(ctx, nil, 256<<10)
	if err != nil {
		return result, err
	}
	defer c.Close()
	if _, err := c.query(ctx, "SELECT 1"); err != nil {
		return result, err
	}
	if t.proxy != nil {
		m, err := t.proxy.memory()
		if err != nil {
			return result, err
		}
		result.RSSBefore = m.RSS
	}
	cpu, err := t.cpu()
	if err != nil {
		return result, err
	}
	start := time.Now()
	size, err := c.query(ctx, fmt.Sprintf("SELECT repeat('x', 1000) FROM generate_series(1, %d)", megabytes*megabyte/1000))
	if err != nil {
		return result, fmt.Errorf("%s: %w", t.name, err)
	}
	took := time.Since(start)
	after, err := t.cpu()
	if err != nil {
		return result, err
	}
	read := float64(size) / megabyte
	result.MBps = read / took.Seconds()
	result.CPU = float64((after - cpu).Microseconds()) / read
	if t.proxy != nil {
		m, err := t.proxy.memory()
		if err != nil {
			return result, err
		}
		result.RSSPeak = m.Peak
	}
	return result, nil
}
