package rebalance

import "time"

// stopwatch says what the time of a cutover goes to, for its one line in the log.
type stopwatch struct {
	since time.Time
	parts []any // names of tasks, each with its time
}

// step is told of each step of a move, and says whether a cutover ends with it.
func (w *stopwatch) step(from, to *Move, now time.Time) (ended bool) {
	if from.State == to.State && from.Task == to.Task {
		return false
	}
	during, goesOn := clientsWait(from), clientsWait(to)
	if w.since.IsZero() { // the coordinator before has begun it
		w.since = now
	}
	if during {
		w.parts = append(w.parts, from.Task.String(), now.Sub(w.since).Round(10*time.Microsecond))
	} else {
		w.parts = nil
	}
	w.since = now
	return during && !goesOn
}

// clientsWait says that the ranges of the move are held, or that the end of the hold is not told yet.
func clientsWait(m *Move) bool { return m.State.InCutover() || m.State == Flipped }
