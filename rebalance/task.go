package rebalance

import "fmt"

// Task is the one effect whose answer a move is waiting for.
type Task uint8

const (
	NoTask Task = iota
	TaskPreflight
	TaskDropSource // slots and publications of the move on its source
	TaskDropTarget
	TaskDeleteTarget // rows of the ranges, where the target does not own them
	TaskAnnounce     // the map tells of the move
	TaskSettle       // everybody knows it
	TaskForget
	TaskReassert // fences, after a failover
	TaskPrepare
	TaskCopy
	TaskStream
	TaskPrepareReverse
	TaskBlockers
	TaskGrant
	TaskHold
	TaskNarrow // the owner before
	TaskReadLSN
	TaskApply
	TaskViews
	TaskWiden // the owner after
	TaskFlip
	TaskBurn
	TaskUnwiden
	TaskUnnarrow
	TaskRelease
	TaskDropOld // slots on the owner before, after a flip
	TaskVerify
	TaskStreamBack
	TaskSoak
	TaskLeases
	TaskDeleteOld // rows on the owner before
	TaskDecide    // somebody must
	tasksMax
)

var taskNames = [tasksMax]string{
	"-", "preflight", "drop-source", "drop-target", "delete-target", "announce", "settle", "forget", "reassert", "prepare", "copy", "stream", "prepare-reverse",
	"blockers", "grant", "hold", "narrow", "read-lsn", "apply", "views", "widen", "flip", "burn", "unwiden", "unnarrow", "release",
	"drop-old", "verify", "stream-back", "soak", "leases", "delete-old", "decide",
}

func (t Task) String() string {
	if t < tasksMax {
		return taskNames[t]
	}
	return fmt.Sprintf("Task(%d)", t)
}

// MarshalText writes the name.
func (t Task) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (t *Task) UnmarshalText(text []byte) error {
	for known := range tasksMax {
		if taskNames[known] == string(text) {
			*t = known
			return nil
		}
	}
	return fmt.Errorf("%q is no task of a move", text)
}

// program of a state: its tasks in their order. What comes after the last is for leave to say.
var programs = [statesMax][]Task{
	Planned: {TaskPreflight},
	// An attempt before this one, or another move that was given up, may have left something.
	// No row may be on two shards before all that reads many of them knows which ones count.
	Prepared:  {TaskReassert, TaskDropSource, TaskDropTarget, TaskDeleteTarget, TaskAnnounce, TaskSettle, TaskPrepare},
	Copying:   {TaskCopy},
	Streaming: {TaskStream, TaskPrepareReverse, TaskBlockers, TaskGrant},
	Hold:      {TaskHold},
	// The position is read once nobody can write any more: what is committed later cannot be below it.
	Fenced:  {TaskNarrow, TaskReadLSN, TaskApply},
	Drained: {TaskViews},
	Opened:  {TaskWiden, TaskFlip},
	// The epoch first: then no flip of this cutover can come late. One side is narrowed before the other is widened.
	Returning:          {TaskBurn, TaskUnwiden, TaskUnnarrow, TaskRelease},
	Flipped:            {TaskRelease},
	Released:           {TaskReassert, TaskDropOld, TaskVerify},
	Verified:           {TaskReassert, TaskStreamBack},
	FailedVerification: {TaskReassert, TaskDecide},
	// A way back that came to nothing may have left its slot on the source.
	Soak: {TaskReassert, TaskDropSource, TaskSoak},
	// With a slot on the source the shards can be compared after the flip, even if the coordinator changes in it.
	Reversing: {TaskDropSource, TaskPrepareReverse, TaskStreamBack, TaskBlockers, TaskGrant},
	Cleaning:  {TaskReassert, TaskLeases, TaskDropSource, TaskDropTarget, TaskDeleteOld, TaskForget},
	Aborting:  {TaskReassert, TaskDropSource, TaskDropTarget, TaskDeleteTarget, TaskForget},
}

// after gives the task behind t in the program of a state, NoTask behind the last.
func after(s State, t Task) Task {
	for i, task := range programs[s] {
		if task == t && i+1 < len(programs[s]) {
			return programs[s][i+1]
		}
	}
	return NoTask
}
