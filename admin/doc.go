// Package admin shows what a proxy does: as tables of the virtual database "shardproxy", which any PostgreSQL
// client can read, and over HTTP as metrics and health.
//
//	catalog ◄──── Operator ──┐
//	                         ├─ Console ── SHOW POOLS …       PostgreSQL's protocol, behind the proxy's login
//	proxy.Server ── Source ──┤
//	                         └─ Collector ── HTTP /metrics    Prometheus; beside it /healthz and /readyz
//
// It keeps no books of its own: both sides read the same Source at the moment they are asked.
// The verbs of the console are a table (verbs.go); SHOW HELP prints it. Where PgBouncer 1.18 has a command of
// the same name, the columns are PgBouncer's, in its order, with ours behind them. A column of PgBouncer's for
// which the proxy has no number is NULL. Verbs that change the topology go through the Operator and take effect at once:
// none of them runs in a transaction block.
package admin
