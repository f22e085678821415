package rebalance

import (
	"cmp"
	"slices"
)

// Limits of what is carried out at the same time.
type Limits struct {
	PerShard   int // moves that read from or write to one shard
	PerCluster int
}

// LimitsDefault leaves most of a shard to its clients.
var LimitsDefault = Limits{PerShard: 2, PerCluster: 8}

// Works says that the move costs its shards something: rows are copied, followed, compared or deleted. One that soaks does not count,
// nor one that waits for somebody.
func (s State) Works() bool {
	return !s.Terminal() && s != Soak && s != FailedVerification
}

// Begun says that a coordinator has taken the move up.
func (m *Move) Begun() bool { return m.Token != 0 }

// Startable says which moves that have not begun may begin now, given all that have not ended: a hot key first, then in the
// order in which they were asked for. (Their cutovers come one by one anyway: see Grant.)
func Startable(moves []Move, l Limits) (ids []MoveID) {
	busy := map[string]int{}
	count := 0
	take := func(m *Move) {
		busy[m.Source]++
		busy[m.Target]++
		count++
	}
	var waiting []*Move
	for i := range moves {
		m := &moves[i]
		switch {
		case !m.Begun() && m.State == Planned:
			if !m.Paused {
				waiting = append(waiting, m)
			}
		case m.State.Works():
			take(m)
		}
	}
	slices.SortStableFunc(waiting, func(a, b *Move) int { return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.ID, b.ID)) })
	for _, m := range waiting {
		if count >= l.PerCluster || busy[m.Source] >= l.PerShard || busy[m.Target] >= l.PerShard {
			continue
		}
		take(m)
		ids = append(ids, m.ID)
	}
	return ids
}

func rank(m *Move) int {
	if m.Kind == KindIsolate {
		return 0
	}
	return 1
}
