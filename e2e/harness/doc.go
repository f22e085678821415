// Package harness runs what the end-to-end tests need: the built shardproxy with a dev cluster of its
// own, and a plain PostgreSQL to compare it with.
//
//	Build ─► binary ─► StartCluster ─► Cluster (DSN, every shard's DSN and pid) ─► Stop
//	                   StartPlain   ─► Plain   (DSN)                            ─► Stop
//
// SHARDPROXY_E2E_DSN replaces the cluster by any server with a fresh database, so that the tests
// themselves can be proven against PostgreSQL. SHARDPROXY_E2E_BIN names a binary that is built already.
package harness
