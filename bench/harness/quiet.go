package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	quietLook  = 200 * time.Millisecond // /proc/stat ticks every 10 ms
	noisyShare = 0.15                   // of the machine in use while the harness itself does nothing
)

// quietly runs measure once the machine is quiet or patience has run out, and tells whether it was
// quiet before and after: what other processes did meanwhile can only be guessed from that.
func quietly(ctx context.Context, patience time.Duration, measure func() error) (quiet bool, err error) {
	deadline := time.Now().Add(patience)
	before, err := busyShare(ctx)
	for err == nil && before > noisyShare && time.Now().Before(deadline) {
		before, err = busyShare(ctx)
	}
	if err != nil {
		return false, err
	}
	if err := measure(); err != nil {
		return false, err
	}
	after, err := busyShare(ctx)
	return before <= noisyShare && after <= noisyShare, err
}

// preferQuiet leaves out the noisy samples, unless there are no others.
func preferQuiet[S any](samples []S, noisy func(S) bool) []S {
	var quiet []S
	for _, s := range samples {
		if !noisy(s) {
			quiet = append(quiet, s)
		}
	}
	if len(quiet) == 0 {
		return samples
	}
	return quiet
}

// busyShare looks for a moment at how much of the machine's processor time is used, 0 to 1.
func busyShare(ctx context.Context) (float64, error) {
	idle1, all1, err1 := cpuTicks()
	select {
	case <-time.After(quietLook):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	idle2, all2, err2 := cpuTicks()
	if err := errors.Join(err1, err2); err != nil {
		return 0, err
	}
	return 1 - float64(idle2-idle1)/float64(max(all2-all1, 1)), nil
}

// cpuTicks reads the machine's times since boot from /proc/stat.
func cpuTicks() (idle, all int64, err error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	return parseCPUTicks(string(stat))
}

// parseCPUTicks adds up the first line, "cpu  user nice system idle iowait irq softirq steal …";
// the guests' times after these are counted in user's already.
func parseCPUTicks(stat string) (idle, all int64, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	for i, field := range fields[1:9] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		all += ticks
		if i == 3 || i == 4 { // idle, iowait
			idle += ticks
		}
	}
	return idle, all, nil
}
