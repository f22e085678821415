package rebalance

import "fmt"

// Step says what a move becomes by an event, and what must be done next. It is a pure function.
func Step(m Move, e Event) (Move, []Effect) {
	s := step{Move: m}
	if !m.State.Terminal() {
		s.take(e)
	} else if order, ok := e.(Order); ok {
		s.refuse(order, fmt.Sprintf("the move is %v", m.State))
	}
	return s.end()
}

// Resume takes up a move as the journal has it, under a lease with the given token: at the first time, and after the
// coordinator before it has gone, whatever that was about to do.
func Resume(m Move, token uint64) (Move, []Effect) {
	s := step{Move: m}
	if m.State.Terminal() {
		return m, nil
	}
	s.Token, s.Waiting, s.Failures = token, false, 0
	s.ViewsLost = s.ViewsLost || s.Flips > 0
	if s.Alarmed { // the alarm has gone with the one who raised it
		s.emit(Alarm{s.Error})
	}
	switch s.State {
	case Copying: // its snapshot has gone with the coordinator, so the copy would fail, and begin anew by that
		s.restart("the coordinator has changed")
	case Hold, Fenced, Drained, Opened: // the holds run out, and to connect anew takes longer than they last
		s.Fence = FenceOpened // how far it came is not journalled
		s.giveBack(ThenAgain, "the coordinator has changed")
	default:
		s.begin()
	}
	return s.end()
}

// step is a move on its way from one value to the next.
type step struct {
	Move
	save bool
	out  []Effect
}

func (s *step) end() (Move, []Effect) {
	if s.save {
		s.Rev++
		s.out = append([]Effect{Journal{}}, s.out...)
	}
	return s.Move, s.out
}

func (s *step) emit(e ...Effect) { s.out = append(s.out, e...) }

// become is the only place where the state changes.
func (s *step) become(to State) {
	if !allowed[s.State].has(to) {
		panic(fmt.Sprintf("rebalance: %v may not become %v", &s.Move, to))
	}
	s.State = to
}

// enter changes the state and begins its program.
func (s *step) enter(to State) {
	s.become(to)
	s.begin()
}

// begin begins the program of the state.
func (s *step) begin() {
	// A cutover that the journal has at Hold is taken back as from Opened. To write down what is between would cost the waiting clients commits.
	s.save = s.save || !set(Fenced, Drained, Opened).has(s.State)
	s.Failures, s.Waiting = 0, false
	if s.State.Terminal() {
		s.Task = NoTask
		return
	}
	s.run(programs[s.State][0])
}

// run turns to a task and asks for its effect, unless there is nothing to do for it, or it must not begin now.
func (s *step) run(t Task) {
	for s.skips(t) {
		s.Unverified = s.Unverified || t == TaskVerify
		if t = after(s.State, t); t == NoTask {
			s.leave()
			return
		}
	}
	if t != s.Task {
		s.Failures = 0
	}
	s.Task = t
	s.ask()
}

func (s *step) skips(t Task) bool {
	switch t {
	case TaskAnnounce, TaskSettle:
		return s.Announced
	case TaskReassert:
		return s.Refence == [2]bool{}
	case TaskUnwiden:
		return s.Fence < FenceOpened
	case TaskUnnarrow:
		return s.Fence < FenceNarrowed
	case TaskPrepareReverse, TaskStreamBack:
		return s.Reverse || s.ReverseLost
	case TaskVerify:
		// To compare anew, the old owner must be brought to a known point by a stream from the new one.
		return s.ViewsLost && s.ReverseLost
	}
	return false
}

// gated tasks do not begin while the move is paused.
func gated(t Task) bool {
	return t == TaskBlockers || t == TaskGrant || t == TaskLeases
}

func (s *step) ask() {
	s.Seq++
	s.Waiting = false
	if s.Paused && gated(s.Task) {
		return
	}
	s.emit(s.effects()...)
}

// effects of the task.
func (s *step) effects() []Effect {
	one := func(e Effect) []Effect { return []Effect{e} }
	switch seq := s.Seq; s.Task {
	case TaskPreflight:
		return one(Preflight{seq})
	case TaskDropSource:
		return one(DropSlots{seq, Source})
	case TaskDropTarget:
		return one(DropSlots{seq, Target})
	case TaskDeleteTarget:
		return one(DeleteRows{seq, Target})
	case TaskAnnounce:
		return one(Announce{seq})
	case TaskForget:
		return one(Forget{seq})
	case TaskReassert:
		return one(Reassert{seq})
	case TaskPrepare:
		return one(Prepare{seq})
	case TaskCopy:
		if s.Paused {
			return []Effect{Copy{seq}, Suspend{true}}
		}
		return one(Copy{seq})
	case TaskStream:
		return one(Stream{Seq: seq})
	case TaskPrepareReverse:
		if s.State == Reversing {
			return one(PrepareReverse{seq, s.From()})
		}
		return one(PrepareReverse{seq, s.To()})
	case TaskBlockers:
		return one(LookForBlockers{seq})
	case TaskGrant:
		return one(Grant{seq})
	case TaskSoak:
		if s.ReverseLost {
			return one(Timer{seq, SoakTime})
		}
		return []Effect{Timer{seq, SoakTime}, Stream{0, true}} // nothing waits for the stream
	case TaskSettle, TaskLeases:
		return one(Timer{seq, LeaseWait})
	case TaskStreamBack:
		return one(Stream{seq, true})
	case TaskVerify:
		return one(Verify{seq, s.ViewsLost})
	case TaskDropOld:
		return one(DropSlots{seq, s.From()})
	case TaskDeleteOld:
		return one(DeleteRows{seq, s.From()})
	}
	return s.cutoverEffects()
}

func (s *step) cutoverEffects() []Effect {
	one := func(e Effect) []Effect { return []Effect{e} }
	switch seq := s.Seq; s.Task {
	case TaskHold:
		return []Effect{BudgetTimer{s.Epoch, HoldBudget}, AskHold{seq, s.Epoch, HoldBudget}}
	case TaskNarrow:
		return one(Narrow{seq, s.From(), s.Epoch})
	case TaskReadLSN:
		return one(ReadLSN{seq})
	case TaskApply:
		return one(WaitApplied{seq, s.L})
	case TaskViews:
		return one(TakeViews{seq})
	case TaskWiden:
		return one(Widen{seq, s.To(), s.Epoch})
	case TaskFlip:
		return one(Flip{seq, s.Epoch, s.flipped()})
	case TaskBurn:
		return one(Burn{seq, s.Return})
	case TaskUnwiden:
		return one(Narrow{seq, s.To(), s.Return})
	case TaskUnnarrow:
		return one(Widen{seq, s.From(), s.Return})
	case TaskRelease:
		return one(ReleaseHold{seq, s.Epoch})
	}
	return nil // TaskDecide
}

// done turns to what follows the task.
func (s *step) done() {
	if !set(Returning, Aborting, FailedVerification).has(s.State) && !s.ReverseLost { // else it says why
		s.Error, s.Alarmed = "", false
	}
	s.Failures = 0
	if next := after(s.State, s.Task); next != NoTask {
		s.run(next)
		return
	}
	s.leave()
}

// leave ends the program of the state.
func (s *step) leave() {
	switch s.State {
	case Planned:
		s.enter(Prepared)
	case Prepared:
		s.enter(Copying)
	case Copying:
		s.enter(Streaming)
	case Hold:
		s.Fence = FenceNarrowed
		s.enter(Fenced)
	case Fenced:
		s.enter(Drained)
	case Drained:
		s.Fence = FenceOpened
		s.enter(Opened)
	case Returning:
		s.returned()
	case Flipped:
		s.enter(Released)
	case Released:
		s.enter(Verified)
	case Verified:
		if s.Reverse {
			s.enter(Cleaning)
			return
		}
		s.enter(Soak)
	case Soak:
		s.Stage++ // the stream back must bring no row to where they are deleted
		s.enter(Cleaning)
	case Cleaning:
		if s.Reverse {
			s.enter(Reversed)
			return
		}
		s.enter(Cleaned)
	case Aborting:
		s.enter(Aborted)
	}
}

// flipped is the move as the flip journals it.
func (s *step) flipped() Move {
	next := step{Move: s.Move}
	next.Flips++
	next.Stage++ // what streamed so far has nothing more to bring
	next.Fence, next.Cutovers = FenceUntouched, 0
	next.ViewsLost, next.Error, next.Blockers, next.Alarmed = false, "", nil, false
	next.enter(Flipped)
	next.Rev++
	return next.Move
}
