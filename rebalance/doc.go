// Package rebalance says how key ranges go from one shard to another: which ones (the schedule), and in which steps (the
// state machine of a move). It is pure control: no connection, no clock, no goroutine. Time and answers come in as
// events, and what must be done goes out as effects.
//
//	            ┌──────────────────────┐ effects  ┌─────────────┐   mover (rows), fences, holds,
//	journal ───►│ Step(move, event)    │─────────►│ coordinator │──►catalog, timers
//	  ▲         │   → move', effects   │◄─────────│             │◄──
//	  │         └──────────────────────┘  events  └─────────────┘
//	  └──── the move, before each effect that must not be forgotten
//
// The central type is Move: the value that is journalled. Whoever holds the coordinator's lease goes on from it by
// Resume, whatever happened to the one before. docs/moves.md tells the protocol, what it guarantees, and what it asks of the effects.
package rebalance
