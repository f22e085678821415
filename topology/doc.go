// Package topology says who owns which keys: the hash of a shard key, the key ranges of the ring, the shards with
// their nodes, and the tables with the columns that place their rows.
//
//	shard key ──Hash…──► KeyHash ──Snapshot.Owner──► ShardID ──► Shard ──► Node
//
// A Snapshot is all of it at one epoch. It never changes: a new one takes its place.
package topology
