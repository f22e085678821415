package proxy

import (
	"slices"
	"time"
)

// driftSchedule says which shard's schema is to be looked at next. It has no clock of its own.
//
//	lap: every shard in turn ──► next lap: a while after this one began, or soon after the schema was changed
//	second looks ──────────────► as soon as they are due, before all others
type driftSchedule struct {
	cursor  int // of the shard to look at next
	left    int // of this lap
	lap     time.Time
	changed time.Time // when the schema was changed since this lap began; zero: it was not
	second  []secondLook
}

// secondLook is at a shard that was not as it should be.
type secondLook struct {
	shard string
	at    time.Time
}

// next gives the number of a shard, or the name of one to look at again, or how long there is nothing to do. newLap says that
// the shard is the first of a lap.
func (d *driftSchedule) next(now time.Time, shards int) (shard int, again string, newLap bool, wait time.Duration) {
	if len(d.second) > 0 && !now.Before(d.second[0].at) {
		again = d.second[0].shard
		d.second = d.second[1:]
		return 0, again, false, 0
	}
	due := d.lap.Add(driftAgain)
	if soon := d.changed.Add(driftSettle); !d.changed.IsZero() && (soon.Before(due) || d.left > 0 || d.lap.IsZero()) {
		due = soon
	}
	if (d.left == 0 || !d.changed.IsZero()) && !now.Before(due) { // also in mid-lap, for what the lap has passed already
		d.left, d.lap, d.changed, newLap = shards, now, time.Time{}, true
	}
	if d.left > 0 {
		d.left--
		shard = d.cursor % shards
		d.cursor = shard + 1
		return shard, "", newLap, 0
	}
	wait = due.Sub(now)
	if len(d.second) > 0 {
		wait = min(wait, d.second[0].at.Sub(now))
	}
	return 0, "", false, wait
}

// change notes that the schema was changed.
func (d *driftSchedule) change(now time.Time) {
	if d.changed.IsZero() {
		d.changed = now
	}
}

// lookAgain asks for a second look at a shard.
func (d *driftSchedule) lookAgain(shard string, now time.Time) {
	d.second = slices.DeleteFunc(d.second, func(s secondLook) bool { return s.shard == shard })
	d.second = append(d.second, secondLook{shard, now.Add(driftConfirm)})
}
