// Package mover carries the rows of one move of key ranges from a source database to a target database.
//
//	Preflight ─► Prepare ─► Copy ─────────► NewStream().Run ─► CatchUp ─► Verify ─► Cleanup, Drop
//	             slot and   COPY under      pgoutput, applied   up to an
//	             snapshot   the snapshot    exactly once        LSN
//
//	source                                               target
//	slot shardproxy_move_CLUSTER_ID ──► receiver ─► queue ─► applier: rows and shardproxy.progress in one transaction
//
// It knows the rows and nothing else: not the proxies, not who owns the ranges, not the order of a move. A
// coordinator calls it, and may call everything again after a crash at any point: names are derived from the
// move, each step begins by taking away what an earlier attempt left, and the position of the stream is stored
// with the rows. Two coordinators cannot write to one target at once: who comes later ends the sessions of
// the earlier (session.go).
//
// Mover.Reverse is the same with source and target swapped, so that a move can go back without loss. A
// stream leaves out what the mover itself wrote, so both directions may run at the same time.
package mover
