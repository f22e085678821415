// Package join makes an empty database a shard of a live cluster: by itself, and while clients write to the reference tables.
//
//	look ──► fence, schema (pg_dump) ──► rows of reference tables, again and again ──► joining ──► last rows, proof ──► active
//	         \______________ nobody is kept waiting ______________/                    \___ all-shard writes wait ___/
//
// From the map in which the shard is joining (topology.ShardJoining) on, the proxies keep all that every shard must do waiting. The
// first shard is then fenced for that map, so nobody with an older one can write to a reference table either: such a write
// needs all shards. Now the first shard's reference tables stand still. The new shard is brought to the same rows, both are
// compared, schema and all, and the shard becomes active. A shard that stays joining, as its joiner was killed, is taken out
// of the map by any proxy.
//
// An addition that fails leaves the cluster as it was, and in the new database the fence of the shard, its schema or none of it, and
// some rows. The next one goes on from there.
package join
