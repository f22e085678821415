package rebalance

import "fmt"

func (s *step) refuse(o Order, why string) { s.emit(Refuse{o, why}) }

func (s *step) order(o Order) {
	switch o {
	case OrderAbort:
		s.orderAbort()
	case OrderPause:
		s.orderPause()
	case OrderResume:
		s.orderResume()
	case OrderReverse:
		s.orderReverse()
	case OrderFinish:
		s.orderFinish()
	}
}

func (s *step) orderAbort() {
	const why = "an operator has aborted the move"
	switch s.State {
	case Planned, Prepared, Copying, Streaming:
		s.abort(why)
	case Hold, Fenced, Drained, Opened:
		s.giveBack(s.afterAbort(), why)
	case Returning:
		s.Then, s.Error, s.save = s.afterAbort(), why, true
	case Reversing: // the way back is what is aborted
		s.enter(Soak)
	case Aborting:
		s.refuse(OrderAbort, "it is aborted already")
	default:
		s.refuse(OrderAbort, fmt.Sprintf("shard %s owns the ranges already; `reverse` gives them back", s.Shard(s.To())))
	}
}

// afterAbort says what a cutover that an operator stops leads to.
func (s *step) afterAbort() Then {
	if s.Flips > 0 {
		return ThenSoak
	}
	return ThenAbort
}

func (s *step) orderPause() {
	if s.Paused {
		s.refuse(OrderPause, "it is paused already")
		return
	}
	s.Paused, s.save = true, true
	switch {
	case s.Task == TaskCopy:
		s.emit(Suspend{true})
	case gated(s.Task): // what was asked for is asked for again
		s.Seq++
		s.Waiting = false
	}
}

func (s *step) orderResume() {
	if !s.Paused {
		s.refuse(OrderResume, "it is not paused")
		return
	}
	s.Paused, s.save = false, true
	switch {
	case s.Task == TaskCopy && !s.Waiting:
		s.emit(Suspend{false})
	case gated(s.Task):
		s.ask()
	}
}

func (s *step) orderReverse() {
	switch {
	case !set(Released, Verified, FailedVerification, Soak).has(s.State):
		why := fmt.Sprintf("it is %v", s.State)
		if !s.State.afterFlip() {
			why += "; `abort` ends it"
		}
		s.refuse(OrderReverse, why)
	case s.Reverse:
		s.refuse(OrderReverse, "the ranges are back on shard "+s.Source+" already")
	case s.ReverseLost:
		s.refuse(OrderReverse, "the stream back to shard "+s.Source+" is broken; a new move can bring the ranges there")
	default:
		s.Alarmed = false
		s.enter(Reversing)
	}
}

func (s *step) orderFinish() {
	switch s.State {
	case Soak:
		s.Task = TaskSoak // whatever comes before it comes again in the cleaning
		s.done()
	case FailedVerification: // somebody has looked, and takes the new owner's rows
		s.Alarmed = false
		s.enter(Verified)
	default:
		s.refuse(OrderFinish, fmt.Sprintf("it is %v, and goes on by itself", s.State))
	}
}
