package rebalance

import (
	"reflect"
	"time"

	"shardproxy/topology"
)

// simCoordinator is one process that holds the lease, or thinks that it does.
type simCoordinator struct {
	no     int
	token  uint64
	known  topology.Epoch // of the last map that it has made, or began with; others may have made later ones
	dead   bool
	moves  map[MoveID]Move
	timers []simTimer
	views  map[MoveID]topology.Epoch // of the cutover whose views it keeps
	copies map[MoveID]*simSnapshot
}

type simTimer struct {
	at    time.Duration
	move  MoveID
	event Event
}

// simSnapshot is what a copy reads.
type simSnapshot struct {
	of   *simShard
	rows [simKeys]row
	lsn  int
	done keySet
}

// pending is an effect on its way to where it acts, or an answer on its way back.
type pending struct {
	by     *simCoordinator
	m      Move // when the effect was asked for
	effect Effect
	event  Event   // of an answer
	sent   bool    // of a hold
	mapped *simMap // by which a fence is brought to what the map says
	age    int
}

type simStream struct {
	by      *simCoordinator
	m       Move
	back    bool
	stopped bool
	slot    *simSlot // that it was begun with
	pr      *progress
	slow    bool
	to      int // what it has received and not applied yet ends there
}

// lead makes a new coordinator, whether the last one still acts or not.
func (w *world) lead() {
	w.catalog.token++
	c := &simCoordinator{
		no: len(w.coords), token: w.catalog.token, known: w.catalog.epoch, moves: map[MoveID]Move{},
		views: map[MoveID]topology.Epoch{}, copies: map[MoveID]*simSnapshot{},
	}
	w.coords = append(w.coords, c)
	w.trace("coordinator %d takes the lease", c.no)
	for _, id := range w.moves {
		w.reload(c, id)
	}
}

func (w *world) current() *simCoordinator { return w.coords[len(w.coords)-1] }

// reload takes a move up from the journal.
func (w *world) reload(c *simCoordinator, id MoveID) {
	if c.dead {
		return
	}
	m, effects := Resume(w.catalog.journal[id], c.token)
	w.act(c, m, effects, "resume")
}

func (w *world) tell(c *simCoordinator, id MoveID, e Event) {
	if m, ok := c.moves[id]; ok && !c.dead {
		next, effects := Step(m, e)
		w.act(c, next, effects, e)
	}
}

// act carries out the effects of one step. Whatever happens in between, the coordinator may be killed there.
func (w *world) act(c *simCoordinator, m Move, effects []Effect, why any) {
	c.moves[m.ID] = m
	w.trace("coordinator %d, move %d: %T%+v -> %v %v %v", c.no, m.ID, why, why, m.State, m.Task, effects)
	for _, e := range effects {
		if !w.quiet && w.rng.IntN(400*w.calm) == 0 {
			w.trace("coordinator %d is killed", c.no)
			c.dead = true
			return
		}
		switch e := e.(type) {
		case Journal:
			if !w.journal(c, m) {
				return
			}
		case Timer:
			c.timers = append(c.timers, simTimer{w.now + e.After, m.ID, TimedOut{e.Seq}})
		case BudgetTimer:
			c.timers = append(c.timers, simTimer{w.now + e.After, m.ID, BudgetOver{e.Epoch}})
		case Alarm, Refuse, Suspend:
		default:
			p := &pending{by: c, m: m, effect: e}
			p.m.Seq = reflect.ValueOf(e).FieldByName("Seq").Uint() // what it is answered by
			w.pending = append(w.pending, p)
		}
	}
}

// journal says whether the coordinator may go on. It is repeated until its outcome is known, so that needs no model.
func (w *world) journal(c *simCoordinator, m Move) bool {
	if c.token != w.catalog.token {
		w.trace("coordinator %d has lost its lease", c.no)
		c.dead = true
		return false
	}
	if old := w.catalog.journal[m.ID]; old.Rev != m.Rev-1 {
		w.trace("coordinator %d: the journal has rev %d of move %d, not %d", c.no, old.Rev, m.ID, m.Rev-1)
		w.reload(c, m.ID)
		return false
	}
	if m.State == Hold {
		for id, o := range w.catalog.journal {
			if id != m.ID && o.State.InCutover() {
				fail("moves %d and %d are cut over at the same time", id, m.ID)
			}
		}
	}
	m.Waiting, m.Failures = false, 0
	w.catalog.journal[m.ID] = m
	return true
}

// deliver takes one thing that is on its way, and lets it arrive: once, sometimes twice, sometimes never.
func (w *world) deliver() {
	if len(w.pending) == 0 {
		return
	}
	i := w.rng.IntN(len(w.pending))
	p := w.pending[i]
	last := len(w.pending) - 1
	w.pending[i] = w.pending[last]
	w.pending = w.pending[:last]
	if p.event != nil {
		w.tell(p.by, p.m.ID, p.event)
		return
	}
	if p.by.dead && w.rng.IntN(4) == 0 {
		return // it had not left yet
	}
	before := w.catalog.epoch
	event := w.seen(p)
	if event == nil {
		event = w.perform(p)
	}
	if w.catalog.epoch > before {
		p.by.known = w.catalog.epoch
	}
	if event == nil {
		if p.age++; p.age < 200 || p.by == w.current() {
			w.pending = append(w.pending, p) // not yet
		}
		return
	}
	if event == silent {
		return
	}
	if !w.quiet {
		switch w.rng.IntN(24 * w.calm) {
		case 0: // the answer is lost, and with it what is known of the outcome
			event = Failed{Seq: p.m.Seq, Err: "connection reset"}
		case 1: // it comes again, later
			if _, exact := p.effect.(Copy); !exact {
				w.pending = append(w.pending, p)
			}
		}
	}
	w.pending = append(w.pending, &pending{by: p.by, m: p.m, event: event})
}

// seen looks at the primaries of the sides that an effect is for, and refuses those that the move does not know.
func (w *world) seen(p *pending) Event {
	var sides []Side
	switch e := p.effect.(type) {
	case Preflight, Prepare, Copy, PrepareReverse, LookForBlockers, Verify:
		sides = []Side{Source, Target}
	case DropSlots:
		sides = []Side{e.Side}
	case DeleteRows:
		sides = []Side{e.Side}
	case Announce:
		sides = []Side{Target}
	case Reassert:
		for at := range Side(2) {
			if p.m.Refence[at] {
				sides = append(sides, at)
			}
		}
	}
	for _, at := range sides {
		s, known := w.side(&p.m, at), p.m.Primaries[at]
		if !s.up {
			return Failed{Seq: p.m.Seq, Err: "connection refused"}
		}
		if s.primary == known {
			continue
		}
		w.tell(p.by, p.m.ID, Looked{at, s.primary})
		if known != (Primary{}) {
			return Failed{Seq: p.m.Seq, Err: "another server"}
		}
	}
	return nil
}

// silent is the answer to what has none.
var silent Event = Progress{-1, -1}

// perform lets an effect act; nil: it must be looked at again.
func (w *world) perform(p *pending) Event {
	m, seq := &p.m, p.m.Seq
	done, down, stale := Done{Seq: seq}, Failed{Seq: seq, Err: "connection refused"}, Failed{Seq: seq, Err: "another coordinator has gone on", Final: true}
	from, to := w.side(m, m.From()), w.side(m, m.To())
	switch e := p.effect.(type) {
	case Preflight:
		return w.mend(p, [2]bool{true, true}, false)
	case Reassert:
		return w.mend(p, m.Refence, true)
	case LookForBlockers:
		if !from.up || !to.up {
			return down
		}
		if !w.quiet && w.rng.IntN(30*w.calm) == 0 { // the stream does not know of it
			w.cause[m.ID] = true
			w.tell(p.by, m.ID, StreamLost{m.Guard(0), "a table is new", true})
			return Failed{Seq: seq, Err: "a table is new"}
		}
		if !w.quiet && w.rng.IntN(6) == 0 {
			return Blocked{seq, []string{"a long transaction"}}
		}
		return done
	case Grant:
		return w.grant(p)
	case AskHold:
		return w.askHold(p, e)
	case ReleaseHold:
		return w.release(p)
	case Flip:
		return w.flip(p, e)
	case Burn:
		if !w.mayChange(p) {
			return overtaken(seq)
		}
		for w.catalog.epoch < e.Epoch { // the hold goes on, until the release
			w.catalog.raise(func(*simMap) {})
		}
		done.Epoch = w.catalog.epoch
		return done
	case Announce:
		return w.announce(p)
	case Forget:
		if !w.mayChange(p) {
			return overtaken(seq)
		}
		if w.busy(p.by, m.ID) {
			return nil
		}
		w.catalog.raise(func(c *simMap) { c.moving &^= keysOf(m) })
		return done
	case Narrow:
		return w.fence(p, e.Side, e.Epoch, false)
	case Widen:
		return w.fence(p, e.Side, e.Epoch, true)
	case Stream:
		event := w.startStream(p, e.Back)
		if seq > 0 || event == nil {
			return event
		}
		if f, failed := event.(Failed); failed && !f.Final {
			return nil
		} else if failed {
			w.tell(p.by, m.ID, StreamLost{m.Guard(0), f.Err, true})
		}
		return silent
	case WaitApplied:
		switch pr := to.progress[m.ID]; {
		case !to.up:
			return down
		case pr != nil && pr.lsn >= int(e.LSN):
			return done
		}
		if p.age > 50 {
			return down
		}
		return nil
	case ReadLSN:
		if !from.up {
			return down
		}
		done.LSN = LSN(len(from.log))
		return done
	case TakeViews:
		return w.takeViews(p, from, to)
	case Verify:
		return w.verify(p, e, from, to)
	}
	return w.performRows(p, done, down, stale)
}

// performRows is for what carries a guard.
func (w *world) performRows(p *pending, done Done, down, stale Failed) Event {
	m := &p.m
	source, target := w.side(m, Source), w.side(m, Target)
	on := func(s Side) *simShard { return w.side(m, s) }
	switch e := p.effect.(type) {
	case DropSlots:
		s := on(e.Side)
		if !s.up {
			return down
		}
		if !s.pass(m, m.Seq) {
			return stale
		}
		delete(s.slots, m.ID) // who streams from it gets nothing more, but may have something left to apply
	case DeleteRows:
		if !on(e.Side).up {
			return down
		}
		if !on(e.Side).pass(m, m.Seq) {
			return stale
		}
		w.deleteRows(m, shardNo(m.Shard(e.Side)))
	case Prepare:
		if !source.up || !target.up {
			return down
		}
		if !source.pass(m, m.Seq) || !target.pass(m, m.Seq) {
			return stale
		}
		source.slots[m.ID] = &simSlot{pos: len(source.log)}
		target.progress[m.ID] = &progress{}
		delete(source.progress, m.ID)
		p.by.copies[m.ID] = &simSnapshot{of: source, rows: source.rows, lsn: len(source.log)}
	case PrepareReverse:
		s, other := on(e.Side), on(e.Side.other())
		if !s.up || !other.up {
			return down
		}
		if !s.pass(m, m.Seq) || !other.pass(m, m.Seq) {
			return stale
		}
		s.slots[m.ID] = &simSlot{pos: len(s.log)}
		other.progress[m.ID] = &progress{len(s.log), true}
	case Copy:
		return w.copyRow(p, source, target, done, down, stale)
	default:
		fail("nobody knows the effect %v", p.effect)
	}
	return done
}

// copyRow copies one row of the snapshot, which has gone with its coordinator.
func (w *world) copyRow(p *pending, source, target *simShard, done Done, down, stale Failed) Event {
	m := &p.m
	snapshot := p.by.copies[m.ID]
	if w.doomed == m.ID {
		return down
	}
	if !source.up || !target.up || snapshot == nil {
		return down
	}
	if !target.pass(m, m.Seq) {
		return stale
	}
	for k := range simKeys {
		if keysOf(m).has(k) && !snapshot.done.has(k) {
			snapshot.done |= 1 << k
			if snapshot.rows[k].there {
				if target.rows[k].there {
					fail("the copy of move %d finds the row of key %d on its target", m.ID, k)
				}
				target.rows[k] = snapshot.rows[k]
				target.log = append(target.log, op{kind: opInsert, key: k, id: snapshot.rows[k].value, mover: m.ID})
			}
			return nil
		}
	}
	*target.progress[m.ID] = progress{snapshot.lsn, true}
	return done
}

// busy says that another move of the coordinator is in its cutover.
func (w *world) busy(c *simCoordinator, id MoveID) bool {
	for other, o := range c.moves {
		if other != id && o.State.InCutover() {
			return true
		}
	}
	return false
}

// grant goes by the map that the coordinator knows, which may be an older one; the catalog refuses what comes of that.
func (w *world) grant(p *pending) Event {
	m := p.by.moves[p.m.ID]
	if p.by.dead || m.Seq != p.m.Seq {
		return silent
	}
	if w.busy(p.by, m.ID) {
		return nil
	}
	for k := range simKeys {
		if keysOf(&m).has(k) && w.catalog.owner[k] != shardNo(m.Shard(m.From())) != (m.State == Reversing) {
			return Failed{Seq: m.Seq, Err: "another shard owns the ranges", Final: true}
		}
	}
	known := w.catalog.epoch
	if !w.quiet && w.rng.IntN(4) == 0 {
		known = p.by.known
	}
	w.tell(p.by, m.ID, Done{Seq: m.Seq, Epoch: known + 2})
	return silent
}

// mayChange says that the catalog takes a change for a move: the lease and the journalled revision are those of the effect.
func (w *world) mayChange(p *pending) bool {
	return p.by.token == w.catalog.token && w.catalog.journal[p.m.ID].Rev == p.m.Rev
}

func overtaken(seq uint64) Event { return Failed{Seq: seq, Err: "the journal has gone on"} }

// announce changes the map, and raises the fence of the target to it.
func (w *world) announce(p *pending) Event {
	m := &p.m
	if p.mapped == nil {
		if !w.mayChange(p) {
			return overtaken(m.Seq)
		}
		if w.busy(p.by, m.ID) {
			return nil
		}
		if keys := keysOf(m); w.catalog.moving&keys != keys {
			w.catalog.raise(func(c *simMap) { c.moving |= keys })
		}
	}
	return w.mend(p, [2]bool{Target: true}, true)
}

// mend brings fences to what the map says, as it was when no move was cut over, and with raise to its epoch in any case.
func (w *world) mend(p *pending, sides [2]bool, raise bool) Event {
	m := &p.m
	if p.mapped == nil {
		if w.busy(p.by, m.ID) {
			return nil
		}
		if p.by.token != w.catalog.token {
			return Failed{Seq: m.Seq, Err: "the lease is lost"}
		}
		mapped := w.catalog.simMap
		p.mapped, p.by.known = &mapped, mapped.epoch
	}
	for at := range Side(2) {
		n := shardNo(m.Shard(at))
		s := w.shards[n]
		var owned keySet
		for k := range simKeys {
			if p.mapped.owner[k] == n {
				owned |= 1 << k
			}
		}
		switch {
		case !sides[at]:
			continue
		case !s.up:
			return Failed{Seq: m.Seq, Err: "connection refused"}
		case s.fence > p.mapped.epoch, s.owned == owned && (!raise || s.fence == p.mapped.epoch):
			continue
		case len(s.open) > 0 && p.age < 20:
			s.locked = w.now + 100*time.Millisecond
			return nil
		case len(s.open) > 0:
			return Failed{Seq: m.Seq, Err: "lock timeout"}
		}
		s.fence, s.owned, s.unopened = p.mapped.epoch, owned, nil
		w.trace("shard %d: fence as by the map of epoch %d, owns %08b", n, s.fence, s.owned)
	}
	return Done{Seq: m.Seq}
}

func (w *world) fence(p *pending, side Side, epoch topology.Epoch, widen bool) Event {
	m := &p.m
	s := w.side(m, side)
	owned := s.owned &^ keysOf(m)
	if widen {
		owned |= keysOf(m)
	}
	switch {
	case !s.up:
		return Failed{Seq: m.Seq, Err: "connection refused"}
	case s.fence > epoch:
		return Failed{Seq: m.Seq, Err: "the fence is above", Fence: s.fence}
	case s.fence == epoch && s.owned == owned:
	case len(s.open) > 0 && p.age < 20:
		s.locked = w.now + 100*time.Millisecond
		return nil
	case len(s.open) > 0:
		return Failed{Seq: m.Seq, Err: "lock timeout"}
	default:
		s.unopened = nil
		if widen {
			s.unopened = &simFence{s.fence, s.owned}
		}
		s.fence, s.owned = epoch, owned
		w.trace("shard %s: fence at epoch %d, owns %08b", m.Shard(side), epoch, s.owned)
	}
	return Done{Seq: m.Seq, LSN: LSN(len(s.log))}
}

func (w *world) flip(p *pending, e Flip) Event {
	m := &p.m
	refused := Failed{Seq: m.Seq, Err: "conflict", Final: true}
	old := w.catalog.journal[m.ID]
	switch {
	case p.by.token != w.catalog.token:
		return refused
	case old.Rev == e.Then.Rev && old.Flips == e.Then.Flips && old.Epoch == e.Epoch:
		return Done{Seq: m.Seq}
	case old.Rev != e.Then.Rev-1 || w.catalog.epoch != e.Epoch-1:
		return refused
	}
	from, to := w.side(m, m.From()), w.side(m, m.To())
	for k := range simKeys {
		if !keysOf(m).has(k) {
			continue
		}
		if from.owned.has(k) || from.fence != e.Epoch || !to.owned.has(k) || to.rows[k] != w.truth[k] {
			fail("key %d is flipped: narrowed %t at epoch %d of %d, widened %t, rows %v, truth %v", k, !from.owned.has(k), from.fence, e.Epoch, to.owned.has(k), to.rows[k], w.truth[k])
		}
		w.catalog.owner[k] = shardNo(m.Shard(m.To()))
		w.flipped[k] = w.now
	}
	w.catalog.raise(func(c *simMap) { c.hold, c.held = 0, 0 })
	then := e.Then
	then.Waiting, then.Failures = false, 0
	w.catalog.journal[m.ID] = then
	w.trace("move %d is flipped at epoch %d", m.ID, e.Epoch)
	return Done{Seq: m.Seq}
}

func (w *world) takeViews(p *pending, from, to *simShard) Event {
	m := &p.m
	if !from.up || !to.up {
		return Failed{Seq: m.Seq, Err: "connection refused"}
	}
	p.by.views[m.ID] = m.Epoch
	return Done{Seq: m.Seq}
}

// verify compares with the views, which go when a server crashes, or brings the old owner to where the new one is.
func (w *world) verify(p *pending, e Verify, from, to *simShard) Event {
	m := &p.m
	if !from.up || !to.up {
		return Failed{Seq: m.Seq, Err: "connection refused"}
	}
	if p.by.token != w.catalog.token || w.catalog.journal[m.ID].State != Released {
		return silent
	}
	if !e.Again {
		if p.by.views[m.ID] != m.Epoch {
			return Failed{Seq: m.Seq, Err: "the snapshots are gone", Final: true}
		}
		return Done{Seq: m.Seq}
	}
	s := &simStream{by: p.by, m: *m, back: !m.Reverse}
	if slot := to.slots[m.ID]; slot == nil || !w.prepareStream(s) {
		return Failed{Seq: m.Seq, Err: "the slot is gone", Final: true}
	}
	for w.apply(s) {
	}
	for k := range simKeys {
		if keysOf(m).has(k) && from.rows[k] != to.rows[k] && from.pass(m, 0) {
			return Differs{m.Seq, "a row"}
		}
	}
	return Done{Seq: m.Seq}
}
