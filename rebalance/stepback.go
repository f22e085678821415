package rebalance

// restart begins the copy anew under other names. Nothing that works for the attempt before may go on.
func (s *step) restart(why string) {
	if s.Attempt >= attemptsMax {
		s.abort(why)
		return
	}
	s.Attempt++
	s.Stage++
	s.Rows, s.Bytes = 0, 0
	s.Error = why
	s.enter(Prepared)
}

// abort gives the move up. The ranges are still with the source.
func (s *step) abort(why string) {
	s.Stage++
	s.Error = why
	s.enter(Aborting)
}

// giveBack takes a cutover back. The hold alone has burnt the epoch: a proxy may go on stamping it until its hold ends. Once a fence
// may have been raised to it, that must be raised again, so the epoch after it is needed too.
func (s *step) giveBack(then Then, why string) {
	s.Then, s.Error = then, why
	needed := s.Epoch
	if s.Fence > FenceUntouched {
		needed++
	}
	s.Return = max(s.Return, needed)
	s.enter(Returning)
}

// returned goes on after a cutover that was taken back.
func (s *step) returned() {
	s.Fence = FenceUntouched
	back := s.Reverse
	why := s.Error
	if back {
		s.Reverse = false
	}
	switch {
	case back && (s.Then != ThenAgain || s.ReverseLost):
		s.enter(Soak)
	case s.Then == ThenAbort:
		s.abort(why)
	case s.Then == ThenRestart:
		s.restart(why)
	default:
		s.again(back, why)
	}
}

// again waits before the next cutover, longer each time, so that clients are not kept waiting by one after the other.
func (s *step) again(back bool, why string) {
	if back {
		s.become(Reversing)
	} else {
		s.become(Streaming)
	}
	s.save = true
	s.Task, s.Failures, s.Error = programs[s.State][0], 0, why
	s.sleep(backoff(s.Cutovers))
	if s.Cutovers >= alarmAfter {
		s.alarm("cutovers were taken back again and again: " + why)
	}
}
