package rebalance

import (
	"time"

	"shardproxy/topology"
)

// Event is what happened. Events that answer an effect carry its Seq; an answer to an older effect is ignored.
type Event interface{ event() }

// Done answers an effect that was carried out. For Stream it says that the target has nearly caught up; the stream goes on.
type Done struct {
	Seq   uint64
	LSN   LSN            // of ReadLSN: the position; of Widen: the position before which nothing of the stream back counts
	Epoch topology.Epoch // of Grant: of the flip; of Burn: the catalog's epoch
	Pause time.Duration  // of Release: how long clients waited
}

// Failed answers an effect that was not carried out, or of which that is not known: it is asked for again, or what it may
// have done is taken back.
type Failed struct {
	Seq   uint64
	Err   string
	Final bool           // asking again is of no use: the same answer will come
	Fence topology.Epoch // of Narrow and Widen: the shard's fence, where it is above the epoch of the effect
}

// Blocked answers LookForBlockers: these would keep the fence waiting.
type Blocked struct {
	Seq   uint64
	Names []string
}

// Differs answers Verify: the shards do not hold the same rows.
type Differs struct {
	Seq  uint64
	What string // tables and keys, for people
}

// TimedOut says that a timer of this Seq has run out.
type TimedOut struct{ Seq uint64 }

// BudgetOver says that the budget of the cutover with this epoch has run out.
type BudgetOver struct{ Epoch topology.Epoch }

// StreamLost says that a stream has ended by itself. Final: it cannot go on from where it was, because the replication slot is
// gone or ahead of the target, or the schema was changed in the stream (TRUNCATE, DDL).
type StreamLost struct {
	Guard Guard // of the stream
	Err   string
	Final bool
}

// Looked says which server was found as the primary of a side. Where it is another than before, replication slots are gone.
type Looked struct {
	Side    Side
	Primary Primary
}

// Progress of a copy.
type Progress struct{ Rows, Bytes int64 }

// Order is an operator's wish.
type Order uint8

const (
	OrderAbort   Order = iota // give up; only before the flip
	OrderPause                // begin nothing new: no copy, no cutover, no cleaning
	OrderResume               // take that back
	OrderReverse              // give the ranges back to the source; only after the flip
	OrderFinish               // do not soak any longer; accept what differs
)

var orderNames = [...]string{"abort", "pause", "resume", "reverse", "finish"}

func (o Order) String() string { return orderNames[o] }

func (Done) event()       {}
func (Failed) event()     {}
func (Blocked) event()    {}
func (Differs) event()    {}
func (TimedOut) event()   {}
func (BudgetOver) event() {}
func (StreamLost) event() {}
func (Looked) event()     {}
func (Progress) event()   {}
func (Order) event()      {}
