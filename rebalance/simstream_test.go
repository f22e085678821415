package rebalance

import (
	"fmt"
	"slices"
	"time"
)

// ends gives from where to where a stream goes.
func (s *simStream) ends(w *world) (from, to *simShard) {
	if s.back {
		return w.side(&s.m, Target), w.side(&s.m, Source)
	}
	return w.side(&s.m, Source), w.side(&s.m, Target)
}

func (w *world) startStream(p *pending, back bool) Event {
	m := &p.m
	s := &simStream{by: p.by, m: *m, back: back, slow: w.rng.IntN(3) == 0}
	from, to := s.ends(w)
	if !from.up || !to.up {
		return Failed{Seq: m.Seq, Err: "connection refused"}
	}
	slot := from.slots[m.ID]
	switch {
	case slot == nil:
		return Failed{Seq: m.Seq, Err: "the slot is gone", Final: true}
	case !to.pass(m, 0):
		return Failed{Seq: m.Seq, Err: "another coordinator has gone on", Final: true}
	case slot.user == nil || slot.user.stopped || slot.user.m.Guard(0) != m.Guard(0):
		if slot.user != nil {
			slot.user.stopped = true
		}
		if !w.prepareStream(s) {
			return Failed{Seq: m.Seq, Err: "the slot is ahead of the progress", Final: true}
		}
		slot.user = s
		w.streams = append(w.streams, s)
	}
	if len(from.log)-to.progress[m.ID].lsn > 1 {
		return nil
	}
	return Done{Seq: m.Seq}
}

// prepareStream sees to the progress row, and takes the slot. What counts begins where the shard was opened that it comes from.
func (w *world) prepareStream(s *simStream) bool {
	from, to := s.ends(w)
	pr := to.progress[s.m.ID]
	if pr == nil || !pr.ready {
		return false
	}
	if opened := int(s.m.OpenedAt); s.back {
		pr.lsn = max(pr.lsn, opened)
	} else if s.m.Reverse {
		pr.lsn = max(pr.lsn, int(s.m.ReopenedAt))
	}
	s.slot, s.pr, s.to = from.slots[s.m.ID], pr, pr.lsn
	return s.slot.pos <= pr.lsn
}

// apply applies one entry of the log, and says whether there was one. What was received before the slot was dropped may still be applied: only
// the guard, and the progress row, tell a stream that it has ended.
func (w *world) apply(s *simStream) bool {
	from, to := s.ends(w)
	if !from.up || !to.up {
		return false
	}
	if from.slots[s.m.ID] == s.slot { // it goes on receiving, faster than it applies
		s.to = min(len(from.log), max(s.to, s.pr.lsn+4))
	}
	if s.pr.lsn >= s.to {
		return false
	}
	if !to.pass(&s.m, 0) {
		s.stopped = true
		return false
	}
	o := from.log[s.pr.lsn]
	s.pr.lsn++
	if keysOf(&s.m).has(o.key) && o.mover != s.m.ID {
		if to.rows[o.key].there != (o.kind != opInsert) {
			fail("move %d: LSN %d does not fit the row of key %d on %s", s.m.ID, s.pr.lsn, o.key, s.m.Target)
		}
		o.mover = s.m.ID
		to.write(o)
	}
	if w.rng.IntN(2) == 0 {
		s.slot.pos = s.pr.lsn // durable on the other side
	}
	return true
}

// stream lets one of the streams go on, or break.
func (w *world) stream() {
	w.streams = slices.DeleteFunc(w.streams, func(s *simStream) bool { return s.stopped })
	if len(w.streams) == 0 {
		return
	}
	s := w.streams[w.rng.IntN(len(w.streams))]
	if s.slow && !w.quiet && w.rng.IntN(8) > 0 {
		return
	}
	from, to := s.ends(w)
	switch {
	case !from.up || !to.up || !w.quiet && w.rng.IntN(60*w.calm) == 0:
		w.lost(s, "connection reset", false)
	case from.slots[s.m.ID] != s.slot && s.pr.lsn >= s.to:
		w.lost(s, "the slot is gone", true)
	case !w.quiet && w.rng.IntN(300*w.calm) == 0:
		w.lost(s, "TRUNCATE", true)
	default: // a stream is faster than the writers
		for range 1 + w.rng.IntN(6) {
			w.apply(s)
		}
	}
}

func (w *world) lost(s *simStream, why string, final bool) {
	s.stopped = true
	if final && s.back {
		w.cause[s.m.ID] = true
	}
	w.tell(s.by, s.m.ID, StreamLost{s.m.Guard(0), why, final})
}

// askHold puts the hold in the map, and answers when all proxies plan with it and have let end what ran before.
func (w *world) askHold(p *pending, e AskHold) Event {
	m := &p.m
	refused := Failed{Seq: m.Seq, Err: "the catalog is at another epoch", Final: true}
	if !p.sent {
		if !w.mayChange(p) {
			return overtaken(m.Seq)
		}
		p.sent = true
		who := fmt.Sprint(m.ID, m.Cutovers, m.Flips)
		switch before, used := w.used[e.Epoch]; {
		case w.catalog.hold == e.Epoch && before == who:
		case w.catalog.epoch != e.Epoch-2:
			return refused
		case used && before != who:
			fail("epoch %d is used by two cutovers", e.Epoch)
		default:
			w.used[e.Epoch] = who
			w.catalog.raise(func(c *simMap) { c.hold, c.held = e.Epoch, keysOf(m) })
		}
	}
	for i, x := range w.proxies {
		switch {
		case x.cut || p.age > 30: // it is not waited for any longer
		case x.know.epoch < e.Epoch-1:
			return nil
		case slices.ContainsFunc(w.shards[:], func(s *simShard) bool { return s.drains(i, keysOf(m)) }):
			return nil
		}
	}
	return Done{Seq: m.Seq}
}

// drains says that something of a proxy still runs on keys.
func (s *simShard) drains(proxy int, keys keySet) bool {
	return slices.ContainsFunc(s.open, func(tx *simTx) bool { return tx.proxy == proxy && keys.has(tx.op.key) })
}

// release ends the hold of a cutover that is taken back, and reaches some proxies.
func (w *world) release(p *pending) Event {
	if p.m.State == Returning && w.catalog.hold != 0 {
		if !w.mayChange(p) {
			return overtaken(p.m.Seq)
		}
		w.catalog.raise(func(c *simMap) { c.hold, c.held = 0, 0 })
	}
	for _, x := range w.proxies {
		if !x.cut && (w.quiet || w.rng.IntN(4) > 0) {
			x.learn(w.catalog.simMap, w.now)
		}
	}
	return Done{Seq: p.m.Seq, Pause: time.Millisecond}
}
