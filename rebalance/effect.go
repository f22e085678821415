package rebalance

import (
	"fmt"
	"time"

	"shardproxy/topology"
)

// Effect is what the coordinator must do next. It carries out the effects of one Step in their order: Journal at once, and what
// follows only once that is durable; the others are begun, and answered by events. All may be repeated, come late, or come
// from a coordinator that has lost its lease:
//
//   - Grant, Announce and Forget wait until no other move is InCutover: the epochs of a cutover are its own.
//   - Whatever changes the catalog is refused, in the transaction that does it, where the lease has another token or the journalled row
//     another Rev than the move had when the effect came out; Journal and Flip, which write it, where it is not the one before.
//   - Narrow and Widen are refused where the fence of the shard has a higher epoch. At the same one they set what it owns.
//   - All other effects that change a shard are refused where it has seen a higher Guard of the move. They check and raise it in
//     the transaction that does the work. A replication slot knows no transaction: it is made and dropped under an advisory
//     lock of the move. Prepare raises both sides before it does anything.
//
// A new effect takes the place of one of the same move that still runs, but for Stream, which goes on until another stage.
type Effect interface {
	fmt.Stringer
	effect()
}

// Journal stores the move as Step returned it.
type Journal struct{}

// Preflight looks whether the move can work: primary keys, equal columns, wal_level, free slots, disk, fences. Final: it cannot.
type Preflight struct{ Seq uint64 }

// DropSlots drops all replication slots and publications of the move on a side, by their prefix, and ends who uses them.
type DropSlots struct {
	Seq  uint64
	Side Side
}

// DeleteRows deletes the rows of the ranges from a side, in batches. Each deletes only what the shard does not own, which it asks
// shardproxy.owns in the same statement.
type DeleteRows struct {
	Seq  uint64
	Side Side
}

// Announce lets the map tell of the move (topology.SetMoving), so that no statement for all keys sees a row twice, and raises the fence
// of the target to the epoch of that map.
type Announce struct{ Seq uint64 }

// Forget lets the map tell of the move no longer.
type Forget struct{ Seq uint64 }

// Prepare makes publication and slot on the source and the progress row on the target, and keeps the slot's snapshot.
type Prepare struct{ Seq uint64 }

// Copy copies the rows under that snapshot.
type Copy struct{ Seq uint64 }

// Stream makes the To side follow the From side, or with Back the other way round. Done: it has nearly caught up. If the
// stream runs already it is only asked that. With Seq 0 nothing waits for it: it is tried until it runs, or ends as StreamLost.
type Stream struct {
	Seq  uint64
	Back bool
}

// PrepareReverse makes publication and slot on the side that the ranges go to, so that nothing of what it will be told is lost for the
// way back, and for Verify. (A slot waits for every running transaction; it must not do that while clients wait.)
type PrepareReverse struct {
	Seq  uint64
	Side Side
}

// LookForBlockers looks for what would keep the fence waiting: long or prepared transactions, VACUUM, autovacuum. On both sides.
type LookForBlockers struct{ Seq uint64 }

// Grant asks for the epoch of a flip: the catalog's plus two, as the map with the hold comes before. Final: the From side does not own the ranges.
type Grant struct{ Seq uint64 }

// AskHold lets the map of the epoch before Epoch tell of the hold: a proxy that plans with it keeps new work of the ranges waiting,
// lets what runs end, and stamps Epoch on all other work. Done: all that are known did, or were waited for long enough. Final: the catalog was not at the epoch before
// that. A proxy ends a hold by itself after Budget, and stamps its map's own epoch from then on.
type AskHold struct {
	Seq    uint64
	Epoch  topology.Epoch
	Budget time.Duration
}

// Narrow takes the ranges out of what the shard of a side owns, and raises its fence to Epoch.
type Narrow struct {
	Seq   uint64
	Side  Side
	Epoch topology.Epoch
}

// Widen adds the ranges to what the shard of a side owns, and raises its fence to Epoch.
type Widen struct {
	Seq   uint64
	Side  Side
	Epoch topology.Epoch
}

// ReadLSN reads the position of the From side's log.
type ReadLSN struct{ Seq uint64 }

// WaitApplied waits until the To side has applied all up to LSN.
type WaitApplied struct {
	Seq uint64
	LSN LSN
}

// TakeViews takes a snapshot of both sides, for Verify.
type TakeViews struct{ Seq uint64 }

// Flip stores owner and epoch in the catalog, and Then in the journal, in one transaction. Final: the catalog is not at the epoch before.
type Flip struct {
	Seq   uint64
	Epoch topology.Epoch
	Then  Move
}

// Burn raises the catalog's epoch to at least Epoch, by changes that change nothing else: the hold goes on until ReleaseHold, as neither side
// may be open. Done says where it is.
type Burn struct {
	Seq   uint64
	Epoch topology.Epoch
}

// ReleaseHold ends the hold of the move, if a flip has not, and waits a little for those who know of it. It need not reach everyone.
type ReleaseHold struct {
	Seq   uint64
	Epoch topology.Epoch
}

// Verify compares both sides. Again: the snapshots are lost; it must take others, and let the stream back come to that point.
type Verify struct {
	Seq   uint64
	Again bool
}

// Suspend stops a copy in its place, or lets it go on.
type Suspend struct{ On bool }

// Reassert brings the fences of the sides in Refence to what the catalog says: another server became the primary, which may not
// have seen what the one before was told.
type Reassert struct{ Seq uint64 }

// Timer answers with TimedOut after a time.
type Timer struct {
	Seq   uint64
	After time.Duration
}

// BudgetTimer answers with BudgetOver after a time.
type BudgetTimer struct {
	Epoch topology.Epoch
	After time.Duration
}

// Alarm logs that somebody must look at the move. Move.Alarm says so until the move goes on, and with it SHOW MOVES and the metric.
type Alarm struct{ Text string }

// Refuse tells the operator why an order is not followed.
type Refuse struct {
	Order Order
	Why   string
}

func (Journal) String() string   { return "journal" }
func (Preflight) String() string { return "preflight" }
func (Reassert) String() string  { return "reassert" }
func (e PrepareReverse) String() string {
	return fmt.Sprintf("prepare-reverse %v", e.Side)
}
func (e DropSlots) String() string     { return fmt.Sprintf("drop-slots %v", e.Side) }
func (e DeleteRows) String() string    { return fmt.Sprintf("delete-rows %v", e.Side) }
func (Announce) String() string        { return "announce" }
func (Forget) String() string          { return "forget" }
func (Prepare) String() string         { return "prepare" }
func (Copy) String() string            { return "copy" }
func (LookForBlockers) String() string { return "look-for-blockers" }
func (Grant) String() string           { return "grant" }
func (e AskHold) String() string {
	return fmt.Sprintf("ask-hold epoch=%d budget=%v", e.Epoch, e.Budget)
}
func (e Narrow) String() string      { return fmt.Sprintf("narrow %v epoch=%d", e.Side, e.Epoch) }
func (e Widen) String() string       { return fmt.Sprintf("widen %v epoch=%d", e.Side, e.Epoch) }
func (ReadLSN) String() string       { return "read-lsn" }
func (e WaitApplied) String() string { return fmt.Sprintf("wait-applied %v", e.LSN) }
func (TakeViews) String() string     { return "take-views" }
func (e Flip) String() string        { return fmt.Sprintf("flip epoch=%d", e.Epoch) }
func (e Burn) String() string        { return fmt.Sprintf("burn epoch=%d", e.Epoch) }
func (e ReleaseHold) String() string { return fmt.Sprintf("release epoch=%d", e.Epoch) }
func (e Suspend) String() string     { return fmt.Sprintf("suspend %v", e.On) }
func (e Timer) String() string       { return fmt.Sprintf("timer %v", e.After) }
func (e BudgetTimer) String() string { return fmt.Sprintf("budget %v", e.After) }
func (e Alarm) String() string       { return fmt.Sprintf("alarm %q", e.Text) }
func (e Refuse) String() string      { return fmt.Sprintf("refuse %v: %s", e.Order, e.Why) }

func (e Stream) String() string {
	if e.Back {
		return "stream back"
	}
	return "stream"
}

func (e Verify) String() string {
	if e.Again {
		return "verify again"
	}
	return "verify"
}

func (Journal) effect()         {}
func (Preflight) effect()       {}
func (DropSlots) effect()       {}
func (DeleteRows) effect()      {}
func (Announce) effect()        {}
func (Forget) effect()          {}
func (Prepare) effect()         {}
func (Copy) effect()            {}
func (Stream) effect()          {}
func (PrepareReverse) effect()  {}
func (LookForBlockers) effect() {}
func (Grant) effect()           {}
func (AskHold) effect()         {}
func (Narrow) effect()          {}
func (Widen) effect()           {}
func (ReadLSN) effect()         {}
func (WaitApplied) effect()     {}
func (TakeViews) effect()       {}
func (Flip) effect()            {}
func (Burn) effect()            {}
func (ReleaseHold) effect()     {}
func (Verify) effect()          {}
func (Suspend) effect()         {}
func (Reassert) effect()        {}
func (Timer) effect()           {}
func (BudgetTimer) effect()     {}
func (Alarm) effect()           {}
func (Refuse) effect()          {}
