// Package e2e proves shardproxy with real servers and real processes: the same SQL on one plain PostgreSQL
// and on four shards behind the proxy must give the same answer, or be refused.
//
//	corpus/*.sql ─┐              ┌─► plain PostgreSQL ─► transcript ─┐
//	wire/*.txt  ──┴─► session ───┤                                   ├─► equal, or refused with 0A000 and a hint
//	                             └─► proxy ─► shards ─► transcript ──┘
//
// The folder drivers holds smoke suites of the drivers that applications use.
package e2e
