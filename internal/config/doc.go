// Package config reads the configuration file of `shardproxy serve`: TOML text → Config, with
// defaults filled in and problems reported by line.
//
//	FILE ── Load ──> Config ── Check ──> problems (file:line: key: message)
//	 user_file ┘        ├── Topology ──> shards, ranges
//	                    └── KeyRules ──> which column is the shard key
//
// It is the only importer of go-toml. It starts nothing and opens no connection.
package config
