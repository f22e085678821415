// Package serve tests the binary as it is operated: `shardproxy serve --config FILE` with every key of the
// configuration, before one real PostgreSQL server whose databases s1 and s2 are the shards.
package serve
