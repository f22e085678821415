package rebalance

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"shardproxy/topology"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "run this seed of the simulation only, and show what happens")
	simRuns  = flag.Int("sim.runs", 3000, "how many seeds of the simulation are run")
	simFirst = flag.Uint64("sim.first", 1, "the first seed of the simulation")
)

// TestSimulation runs moves in a world where everything fails, seed by seed, until nothing fails any more: then every move
// must end, and leave nothing behind. A seed is run again, with its story, by -sim.seed.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		if v := simulate(*simSeed, t.Logf, nil); v != "" {
			t.Errorf("seed %d: %s", *simSeed, v)
		}
		return
	}
	var ends [statesMax]int
	begun := time.Now()
	for seed := *simFirst; seed < *simFirst+uint64(*simRuns); seed++ {
		if v := simulate(seed, func(string, ...any) {}, &ends); v != "" {
			t.Fatalf("seed %d: %s\nrun: go test ./rebalance -run TestSimulation -v -sim.seed %d", seed, v, seed)
		}
	}
	var sum strings.Builder
	for s := range statesMax {
		if s.Terminal() {
			fmt.Fprintf(&sum, " %v %d", s, ends[s])
			if ends[s] == 0 && *simRuns >= 1000 {
				t.Errorf("no move of %d runs was %v", *simRuns, s)
			}
		}
	}
	t.Logf("%.0f runs a second:%s", float64(*simRuns)/time.Since(begun).Seconds(), sum.String())
}

// simulate gives the violation that a run ends with.
func simulate(seed uint64, trace func(string, ...any), ends *[statesMax]int) (found violation) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case violation:
			found = r
		default:
			panic(fmt.Sprintf("seed %d: %v", seed, r))
		}
	}()
	w := newWorld(seed, trace)
	w.addMoves()
	w.lead()
	for range 200 + w.rng.IntN(200*w.calm) {
		w.event()
		w.check()
	}
	w.heal()
	for range 20_000 {
		if w.settled() {
			w.finished()
			if ends != nil {
				for _, id := range w.moves {
					ends[w.catalog.journal[id].State]++
				}
			}
			return ""
		}
		w.event()
		w.check()
	}
	w.finished()
	return "the moves have ended, but their coordinators have not"
}

// addMoves journals one to three moves that concern different keys.
func (w *world) addMoves() {
	taken := keySet(0)
	for id := range 1 + w.rng.IntN(3) {
		k := w.rng.IntN(simKeys)
		source := w.catalog.owner[k]
		target := (source + 1 + w.rng.IntN(simShards-1)) % simShards
		var ranges []Range
		for k := range simKeys {
			if w.catalog.owner[k] == source && !taken.has(k) && w.rng.IntN(3) > 0 {
				taken |= 1 << k
				ranges = append(ranges, Range{topology.KeyHash(k) << 61, topology.KeyHash(k+1) << 61})
			}
		}
		if len(ranges) == 0 {
			continue
		}
		m, err := NewMove(KindMove, fmt.Sprintf("s%d", source), fmt.Sprintf("s%d", target), ranges, "sim")
		if err != nil {
			fail("%v", err)
		}
		m.ID = MoveID(id + 1)
		w.moves = append(w.moves, m.ID)
		w.catalog.journal[m.ID] = m
		if w.rng.IntN(40) == 0 {
			w.doomed = m.ID
		}
	}
}

// event is the next thing that happens.
func (w *world) event() {
	switch n := w.rng.IntN(100); {
	case n < 12:
		w.write()
	case n < 30:
		w.commit()
	case n < 34:
		w.read()
	case n < 42:
		w.scatter()
	case n < 47:
		w.renewLease()
	case n < 74:
		w.deliver()
	case n < 86:
		w.stream()
	case n < 90:
		w.news()
	case n < 97:
		w.tick()
	case n < 98:
		w.look()
	default:
		if !w.quiet && w.rng.IntN(w.calm) == 0 {
			w.fault()
		} else if !w.quiet {
			w.orders()
		} else if w.rng.IntN(4) == 0 {
			w.orders()
		}
	}
}

// tick lets time pass, and timers run out.
func (w *world) tick() {
	passed := time.Duration(w.rng.IntN(40)) * time.Millisecond
	switch w.rng.IntN(12) {
	case 0:
		passed = time.Duration(w.rng.IntN(3000)) * time.Millisecond
	case 1:
		if len(w.pending) < 2 {
			passed = w.untilTimer()
		}
	}
	w.now += passed
	for _, c := range w.coords {
		for i := 0; i < len(c.timers); i++ {
			if t := c.timers[i]; t.at <= w.now {
				c.timers[i] = c.timers[len(c.timers)-1]
				c.timers = c.timers[:len(c.timers)-1]
				i--
				w.tell(c, t.move, t.event)
			}
		}
	}
}

func (w *world) untilTimer() time.Duration {
	first := time.Hour
	for _, c := range w.coords {
		if c.dead {
			continue
		}
		for _, t := range c.timers {
			first = min(first, max(0, t.at-w.now))
		}
	}
	if first == time.Hour {
		return 0
	}
	return first
}

// fault is what goes wrong, or what somebody orders.
func (w *world) fault() {
	s := w.shards[w.rng.IntN(simShards)]
	switch w.rng.IntN(10) {
	case 0:
		w.trace("the coordinator is killed")
		w.current().dead = true
		w.lead()
	case 1: // its lease ran out, but it does not know
		w.lead()
	case 2, 3:
		w.crash(s)
	case 4:
		s.up = true
	case 5:
		w.failover(w.rng.IntN(simShards))
	case 6:
		p := w.proxies[w.rng.IntN(simProxies)]
		p.cut = !p.cut
	case 7: // somebody else changes the topology
		w.catalog.epoch++
	default:
		w.orders()
	}
	if w.current().dead {
		w.lead()
	}
}

func (w *world) crash(s *simShard) {
	s.up, s.open = false, nil
	for _, c := range w.coords {
		clear(c.views)
		maps.DeleteFunc(c.copies, func(_ MoveID, snapshot *simSnapshot) bool { return snapshot.of == s })
	}
	for _, x := range w.streams {
		if from, to := x.ends(w); from == s || to == s { // it hears of that when it goes on
			x.to = 0
		}
	}
	w.trace("a shard crashes")
}

// failover: another server takes over, without slots. It may not have heard of the last widening, if the catalog has; whoever moves
// something there finds that out. (What was narrowed must not be lost: docs/moves.md, not guaranteed.)
func (w *world) failover(n int) {
	s := w.shards[n]
	w.crash(s)
	s.up = true
	clear(s.slots)
	s.primary.Timeline++
	for _, id := range w.moves {
		if m := w.catalog.journal[id]; shardNo(m.Source) == n || shardNo(m.Target) == n {
			w.cause[id] = true
		}
	}
	w.trace("shard %d fails over", n)
	moving := slices.ContainsFunc(w.moves, func(id MoveID) bool {
		m := w.catalog.journal[id]
		return !m.State.Terminal() && !set(Cleaning, Aborting).has(m.State) && (shardNo(m.Source) == n || shardNo(m.Target) == n)
	})
	if old := s.unopened; old != nil && moving && w.rng.IntN(2) == 0 {
		for k := range simKeys {
			if s.owned.has(k) && !old.owned.has(k) && w.catalog.owner[k] != n {
				return
			}
		}
		w.trace("and its fence falls back to epoch %d, owns %08b", old.epoch, old.owned)
		s.fence, s.owned, s.unopened = old.epoch, old.owned, nil
	}
}

// look lets a coordinator see who is the primary of a side; what it has seen may come late.
func (w *world) look() {
	c := w.coords[w.rng.IntN(len(w.coords))]
	if w.quiet {
		c = w.current()
	}
	if len(w.moves) == 0 {
		return
	}
	id, side := w.moves[w.rng.IntN(len(w.moves))], Side(w.rng.IntN(2))
	m := c.moves[id]
	if c.dead || m.State.Terminal() || m.Primaries[side] == (Primary{}) {
		return
	}
	if s := w.side(&m, side); s.up {
		w.pending = append(w.pending, &pending{by: c, m: Move{ID: id}, event: Looked{side, s.primary}})
	}
}

func (w *world) orders() {
	if len(w.moves) == 0 {
		return
	}
	id := w.moves[w.rng.IntN(len(w.moves))]
	o := Order(w.rng.IntN(len(orderNames)))
	if !w.quiet && w.catalog.journal[id].State != Released && w.rng.IntN(4) > 0 {
		return
	}
	switch {
	case w.quiet:
		o = []Order{OrderFinish, OrderResume}[w.rng.IntN(2)]
	case w.catalog.journal[id].State == Released || o == OrderAbort && w.rng.IntN(8) > 0:
		o = OrderReverse
	case o == OrderFinish && w.rng.IntN(3) > 0:
		return
	}
	w.tell(w.current(), id, o)
}

// heal ends all faults.
func (w *world) heal() {
	w.trace("nothing fails any more")
	w.quiet = true
	for _, s := range w.shards {
		s.up = true
	}
	for _, p := range w.proxies {
		p.cut = false
	}
	if w.current().dead {
		w.lead()
	}
}

// settled says that nothing more will happen.
func (w *world) settled() bool {
	for _, id := range w.moves {
		if !w.catalog.journal[id].State.Terminal() {
			return false
		}
	}
	return len(w.pending) == 0 && w.streamsOver()
}

// streamsOver says that the streams left have no slot any more.
func (w *world) streamsOver() bool {
	for _, s := range w.streams {
		from, _ := s.ends(w)
		if !s.stopped && from.slots[s.m.ID] != nil {
			return false
		}
	}
	return true
}
