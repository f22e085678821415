// Package devcluster runs a cluster of real PostgreSQL servers on this machine, for `shardproxy dev` and for tests.
//
//	DIR/lock             held while a cluster runs in DIR
//	DIR/cluster.json     its shape and ports, found again by the next start
//	DIR/server1/primary  data folder; …/replica1, …/replica2
//	DIR/server2/…        server i holds a run of consecutive shards, one database each
//	DIR/catalog          a small server of its own
//	DIR/log/…            what the servers print
//	DIR/shardproxy.toml  configuration of the proxy (WriteConfig)
//	DIR/dev.json         every DSN and process, for scripts (WriteDevJSON); there only while the cluster runs
//
// It knows nothing of the proxy itself: the caller starts that on the configuration.
package devcluster
