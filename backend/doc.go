// Package backend holds the proxy's own connections to PostgreSQL: it dials them, pools them per node,
// user and database under one global budget, and remembers what session state each of them carries.
//
//	session ── Acquire ──► Pool (node × user × database) ──► Conn ──► PostgreSQL
//	                          │ one Budget over all pools
//	                          └ idle conns, newest first; waiters, oldest first
//
// Pools are made on first use. A Conn belongs either to its pool (idle) or to exactly one session.
package backend
