package rebalance

import (
	"fmt"
	"time"

	"shardproxy/topology"
)

func (s *step) take(e Event) {
	switch e := e.(type) {
	case Done:
		if s.answers(e.Seq) {
			s.takeDone(e)
		}
	case Failed:
		if s.answers(e.Seq) {
			s.takeFailed(e)
		}
	case Blocked:
		if s.answers(e.Seq) && s.Task == TaskBlockers {
			s.Blockers = e.Names
			s.wait("the cutover waits for what would block it")
		}
	case Differs:
		if s.answers(e.Seq) && s.Task == TaskVerify {
			s.alarm("the shards differ: " + e.What)
			s.enter(FailedVerification)
		}
	case TimedOut:
		s.timedOut(e)
	case BudgetOver:
		if e.Epoch == s.Epoch && set(Hold, Fenced, Drained, Opened).has(s.State) {
			s.giveBack(ThenAgain, fmt.Sprintf("the cutover took longer than %v", HoldBudget))
		}
	case StreamLost:
		s.streamLost(e)
	case Looked:
		s.looked(e)
	case Progress:
		s.Rows, s.Bytes = e.Rows, e.Bytes
	case Order:
		s.order(e)
	}
}

// answers says that seq is what the move is waiting for.
func (s *step) answers(seq uint64) bool { return seq == s.Seq && !s.Waiting }

func (s *step) takeDone(e Done) {
	switch s.Task {
	case TaskGrant:
		s.granted(e.Epoch)
		return
	case TaskReadLSN:
		s.L = e.LSN
	case TaskWiden:
		if s.Reverse { // one that is taken back goes on from where the first one began
			s.ReopenedAt = e.LSN
		} else {
			s.OpenedAt = e.LSN
		}
	case TaskReassert:
		s.Refence, s.save = [2]bool{}, true
	case TaskBlockers:
		s.Blockers = nil
	case TaskFlip:
		s.Move = s.flipped() // the journal has it
		s.Seq--
		s.ask()
		return
	case TaskRelease:
		s.Pause = e.Pause
		s.PauseAll += e.Pause
	case TaskSettle, TaskSoak, TaskLeases, TaskDecide:
		return // timers and people end them
	}
	s.done()
}

// timedOut ends a wait after a failure, or a task that is a timer.
func (s *step) timedOut(e TimedOut) {
	if e.Seq != s.Seq {
		return
	}
	switch {
	case s.Waiting:
		s.ask()
	case s.Task == TaskSettle:
		s.Announced = true
		s.done()
	case s.Task == TaskLeases, s.Task == TaskSoak:
		s.done()
	}
}

// granted begins a cutover with an epoch of its own.
func (s *step) granted(epoch topology.Epoch) {
	// The catalog refuses a hold for an epoch that was used: this spares clients one that comes to nothing.
	if epoch <= max(s.Epoch, s.Return) {
		s.wait(fmt.Sprintf("epoch %d was used already", epoch))
		return
	}
	s.Epoch, s.Return, s.Fence = epoch, 0, FenceUntouched
	s.Cutovers++
	if s.State == Reversing {
		s.Reverse = !s.Reverse
	}
	s.enter(Hold)
}

// wait asks again for the task after a while.
func (s *step) wait(why string) {
	s.Error = why
	if set(Hold, Fenced, Drained, Opened).has(s.State) { // the budget ends it
		s.sleep(cutoverPause)
		return
	}
	s.Failures++
	pause := backoff(s.Failures)
	if s.State == Returning { // clients wait
		pause = min(pause, returnPause)
	}
	s.sleep(pause)
	if s.Failures >= alarmAfter {
		s.alarm(fmt.Sprintf("%v fails: %s", s.Task, why))
	}
}

// sleep asks for the task when the time is over.
func (s *step) sleep(pause time.Duration) {
	s.Seq++
	s.Waiting = true
	s.emit(Timer{s.Seq, pause})
}

// alarm raises the alarm once.
func (s *step) alarm(text string) {
	s.Error = text
	if !s.Alarmed {
		s.Alarmed = true
		s.emit(Alarm{text})
	}
}

func (s *step) takeFailed(e Failed) {
	switch {
	case s.State == Returning && e.Fence >= s.Return && e.Fence > 0:
		s.Return = e.Fence + 1
		s.Error = e.Err
		s.begin()
	case set(Hold, Fenced, Drained, Opened).has(s.State):
		if !e.Final && e.Fence == 0 {
			s.wait(e.Err)
			return
		}
		s.Return = e.Fence + 1
		s.giveBack(ThenAgain, e.Err)
	case s.Task == TaskCopy, s.Task == TaskStream && s.State == Streaming && e.Final:
		s.restart(e.Err)
	case e.Final && set(Planned, Prepared, Streaming).has(s.State):
		s.abort(e.Err)
	case e.Final && s.Task == TaskVerify && !s.ViewsLost: // a server was restarted
		s.ViewsLost = true
		s.run(TaskVerify)
	case e.Final && (s.Task == TaskStreamBack || s.Task == TaskVerify):
		s.loseReverse(e.Err)
	default:
		s.wait(e.Err)
	}
}

// streamLost: while it is awaited anyway, the failure of the task is what counts.
func (s *step) streamLost(e StreamLost) {
	if e.Guard != s.Guard(0) || s.ReverseLost {
		return
	}
	switch s.State {
	case Streaming:
		if e.Final {
			s.restart(e.Err)
			return
		}
		if s.Task != TaskStream { // before the cutover it must run
			s.Error = e.Err
			s.run(TaskStream)
		}
	case Hold, Fenced:
		then := ThenAgain
		if e.Final && !s.Reverse {
			then = ThenRestart
		}
		s.ReverseLost = s.ReverseLost || e.Final && s.Reverse
		s.giveBack(then, e.Err)
	case Verified, Soak, Reversing:
		if e.Final {
			s.loseReverse(e.Err)
			return
		}
		s.Error = e.Err
		switch {
		case s.State == Soak:
			s.emit(Stream{0, true}) // nothing waits for it
		case s.Task != TaskDropSource:
			s.run(TaskStreamBack)
		}
	}
}

// looked compares a primary with the one that the move knows. One of an earlier timeline is an old primary that nobody has stopped.
func (s *step) looked(e Looked) {
	before := s.Primaries[e.Side]
	if e.Primary == before || e.Primary.System == before.System && e.Primary.Timeline < before.Timeline {
		return
	}
	s.Primaries[e.Side], s.save = e.Primary, true
	if before != (Primary{}) {
		s.failover(e.Side)
	}
}

// failover: before the flip the copy begins anew, after it the ranges stay where they are. The new primary may not have heard of the last
// fences: that is seen to first, but for a cutover, which sets them all when it is taken back.
func (s *step) failover(side Side) {
	if s.State == Planned {
		return
	}
	why := fmt.Sprintf("another server has become the primary of shard %s", s.Shard(side))
	s.Refence[side] = true
	s.Announced = s.Announced && (side != Target || s.Flips > 0)
	switch {
	case set(Prepared, Copying, Streaming).has(s.State):
		s.restart(why)
	case set(Hold, Fenced, Drained, Opened).has(s.State):
		s.giveBack(s.afterFailover(), why)
	case s.State == Returning:
		if s.Then == ThenAgain {
			s.Then = s.afterFailover()
		}
	case s.State == Reversing:
		s.loseReverse(why)
	default:
		if !s.Reverse && s.State.afterFlip() && s.State != Cleaning {
			s.noWayBack(why)
		}
		if s.State != Flipped { // which has no fence to see to before its end
			s.begin()
		}
	}
}

// afterFailover says what a cutover that is taken back leads to.
func (s *step) afterFailover() Then {
	if s.Flips > 0 {
		s.noWayBack("another server has become the primary of a shard")
		return ThenSoak
	}
	return ThenRestart
}

// noWayBack gives the stream back up.
func (s *step) noWayBack(why string) {
	s.ReverseLost, s.save = true, true
	s.Stage++
	if s.Reverse && s.State.afterFlip() {
		s.alarm("the shards cannot be compared any more: " + why)
		return
	}
	s.alarm("the ranges cannot be given back without loss: " + why)
}

// loseReverse goes on without the way back.
func (s *step) loseReverse(why string) {
	s.noWayBack(why)
	switch {
	case s.State == Reversing:
		s.enter(Soak)
	case s.State == Verified:
		s.done()
	case s.Task == TaskVerify && s.ViewsLost:
		s.run(TaskVerify) // there is no way to do it any more
	}
}
