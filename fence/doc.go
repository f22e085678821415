// Package fence makes a shard refuse writes that were planned with an outdated map, and rows that it does not own, by
// plain SQL in its database.
//
//	write ──► table ── shardproxy_epoch, BEFORE … FOR EACH STATEMENT ──► refuse_stale()    40001 below epoch N
//	                └─ shardproxy_owner_…, AFTER … FOR EACH ROW ───────► owns(key hash)?
//	                                                                        └─ no ► refuse_foreign()  23514
//	proxy ──► shardproxy.fence: N, read again and again for the sake of what is read (the read lease)
//
// N is the least epoch whose map says rightly what the shard owns. N and the owned key hashes are constants in the bodies
// of the functions, which [Set] replaces in a transaction that holds a lock on every fenced table. So it waits for the writers that
// still run by the old body, and those that come later find the new one, whatever snapshot they read by. Statement
// triggers alone would let rows of another shard in; row triggers alone would not see an UPDATE that matches nothing.
//
// The package knows SQL and nothing of connections: all runs through a [topology.Query]. It does not decide who owns what.
package fence
