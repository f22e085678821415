package rebalance

import (
	"time"

	"shardproxy/topology"
)

// Times of a move.
const (
	// HoldBudget is how long the clients of a cutover may wait in the worst case: then everything goes back to the old owner.
	HoldBudget = 2 * time.Second
	// ackWait is how long proxies are waited for, once the map has changed. One that does not answer may be cut off: its writes are refused by the fence.
	ackWait = 500 * time.Millisecond
	// LeaseWait is a second longer than a lease, for what was sent in its last moment: nobody reads the old owner by an older map after that.
	LeaseWait = topology.LeaseTime + time.Second
	// SoakTime is how long the old owner follows the new one, unless `finish` is asked for.
	SoakTime = 10 * time.Minute

	// A fence that did not get its lock is asked for again after this, while clients wait: its lock_timeout is 100 ms.
	cutoverPause = 20 * time.Millisecond
	returnPause  = 500 * time.Millisecond // at most, until the old owner is open again
	retryPause   = 200 * time.Millisecond // doubled up to retryPauseMax
	// retryPauseMax is also how long a cutover is put off at most where something is in its way.
	retryPauseMax = 30 * time.Second
)

const (
	// attemptsMax bounds how often rows are copied in vain.
	attemptsMax = 10
	// alarmAfter is how many failures, of a task or of cutovers one after the other, somebody must look at.
	alarmAfter = 10
)

// backoff after so many failures.
func backoff(failures int) time.Duration {
	pause := retryPause
	for i := 1; i < failures && pause < retryPauseMax; i++ {
		pause *= 2
	}
	return min(pause, retryPauseMax)
}
