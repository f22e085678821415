package main

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// span is a time in which something was done.
type span struct{ from, to time.Time }

// latency of writes, in milliseconds.
type latency struct {
	Writes int     `json:"writes"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
	Most   float64 `json:"most_ms"`
}

// during is the latency of what was written in a span. Nobody writes to the large range.
func during(all []write, s span) latency {
	var took []float64
	for _, wr := range all {
		if !wr.began.Before(s.from) && wr.began.Before(s.to) {
			took = append(took, milliseconds(wr.took))
		}
	}
	return latency{len(took), quantile(took, .5), quantile(took, .99), quantile(took, 1)}
}

// moveLarge moves the large range, and says when its rows were copied, and when those of the old owner were deleted.
func moveLarge(ctx context.Context, c *cluster) (copying, cleaning span, err error) {
	id, err := c.begin(ctx, large.leave())
	if err != nil {
		return copying, cleaning, err
	}
	note := func(s *span) {
		if s.to = time.Now(); s.from.IsZero() {
			s.from = s.to
		}
	}
	see := func(phase string) {
		switch phase {
		case "copying":
			note(&copying)
		case "cleaning":
			note(&cleaning)
		}
	}
	if err := c.await(ctx, id, "soak", see); err != nil {
		return copying, cleaning, err
	}
	if _, err := c.console(ctx, "MOVE FINISH "+id); err != nil {
		return copying, cleaning, err
	}
	return copying, cleaning, c.await(ctx, id, "cleaned", see)
}

// toAndFro moves the ranges of both lanes until there were so many cutovers.
func toAndFro(ctx context.Context, c *cluster, w *writers, cutovers int) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range lanes {
		g.Go(func() error {
			t := traveller{c: c, w: w, lane: i, left: (cutovers + len(lanes) - 1 - i) / len(lanes)}
			return t.travel(ctx)
		})
	}
	return g.Wait()
}

// traveller moves the range of one lane.
type traveller struct {
	c    *cluster
	w    *writers
	lane int
	left int // cutovers
}

// travel goes there, back, back to there by `reverse`, and back again, until there is nothing left.
func (t *traveller) travel(ctx context.Context) error {
	l := lanes[t.lane]
	for {
		for _, leg := range []struct {
			order   string
			reverse bool
		}{{l.leave(), false}, {l.moveTo(l.from), true}, {l.moveTo(l.from), false}} {
			if t.left <= 0 {
				return nil
			}
			if err := t.move(ctx, leg.order, leg.reverse); err != nil {
				return err
			}
		}
	}
}

// move carries one move out to its end.
func (t *traveller) move(ctx context.Context, order string, reverse bool) error {
	id, err := t.c.begin(ctx, order)
	if err != nil {
		return err
	}
	t.c.note(id, t.lane)
	if err := t.c.await(ctx, id, "soak", nil); err != nil {
		return err
	}
	t.left--
	end, ends := "MOVE FINISH "+id, "cleaned"
	if reverse {
		t.left--
		end, ends = "MOVE REVERSE "+id, "reversed"
	}
	if _, err := t.c.console(ctx, end); err != nil {
		return err
	}
	progress("lane %d: move %s, %d cutovers to go", t.lane, id, max(t.left, 0))
	if err := t.c.await(ctx, id, ends, nil); err != nil {
		return err
	}
	return t.w.failed()
}

// cutover as the coordinator and as the writers felt it, in milliseconds.
type cutover struct {
	Move   string             `json:"move"`
	Pause  float64            `json:"pause_ms"`  // as SHOW MOVES has it
	Moving float64            `json:"moving_ms"` // the longest write of the range that moves
	Others float64            `json:"others_ms"` // the longest write of all others
	Parts  map[string]float64 `json:"parts_ms"`  // of the pause, by task
	Back   bool               `json:"taken_back,omitempty"`
}

// cutovers reads those of the lanes from the log of the coordinator, and finds what was written meanwhile, as all has it in its order.
func (c *cluster) cutovers(all []write) (list []cutover, err error) {
	f, err := os.Open(c.LogFile())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), " msg=cutover ") {
			continue
		}
		one, at, err := parseCutover(lines.Text())
		if err != nil {
			return nil, err
		}
		lane, ok := c.lanes[one.Move]
		if !ok {
			continue
		}
		one.feel(all, lane, at)
		list = append(list, one)
	}
	return list, lines.Err()
}

// feel finds the longest writes of about the time of a cutover that ended at a time.
func (one *cutover) feel(all []write, lane int, ended time.Time) {
	from := ended.Add(-time.Duration(one.Pause*1e6) - around)
	for _, wr := range all {
		if wr.began.After(ended.Add(around)) {
			break
		}
		if wr.began.Add(wr.took).Before(from) {
			continue
		}
		took := milliseconds(wr.took)
		if wr.kind == lane {
			one.Moving = max(one.Moving, took)
		} else {
			one.Others = max(one.Others, took)
		}
	}
}

// around a cutover, what is written may still feel it.
const around = 20 * time.Millisecond

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// parseCutover reads a line of the log.
func parseCutover(line string) (one cutover, at time.Time, err error) {
	one.Parts = map[string]float64{}
	_, rest, ok := strings.Cut(line, " reason=")
	head, tail, found := strings.Cut(rest, " pause=")
	if !ok || !found {
		return one, at, fmt.Errorf("not a cutover: %s", line)
	}
	one.Back = head != `""`
	for i, field := range strings.Fields("pause=" + tail) {
		name, value, _ := strings.Cut(field, "=")
		d, err := time.ParseDuration(value)
		if err != nil {
			return one, at, fmt.Errorf("%w in: %s", err, line)
		}
		if i == 0 {
			one.Pause = milliseconds(d)
			continue
		}
		one.Parts[name] += milliseconds(d)
	}
	for _, field := range strings.Fields(line) {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "move":
			one.Move = value
		case "time":
			if at, err = time.Parse(time.RFC3339Nano, value); err != nil {
				return one, at, err
			}
		}
	}
	return one, at, nil
}

// parts names the tasks of all cutovers.
func parts(list []cutover) []string {
	names := map[string]bool{}
	for _, one := range list {
		for name := range one.Parts {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
