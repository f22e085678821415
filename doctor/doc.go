// Package doctor looks at a whole cluster and says what is wrong with it, and what to do.
//
//	Doctor.Examine ─┬─ catalog, peers            what the proxy knows and is told
//	                ├─ each shard, some at a time: one connection, a few SELECTs, a time limit
//	                │     └─ facts ─► what is wrong with one shard, and what is not as on the others
//	                ├─ schemas, fences           see topology.Differences and package fence
//	                └─ deep: rows                counts and sums of whole tables
//
// It changes nothing. What cannot be asked is a finding like any other: one dead shard is one line, not a hang.
package doctor
