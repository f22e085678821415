// Package postgres runs PostgreSQL servers on this machine: it finds the binaries, makes data folders,
// starts, stops and kills servers, and clones replicas.
//
//	Find → Binaries ─┐
//	Config (folder, port, settings) → New → Server ── Init | Clone ──► Start ⇄ Stop / Kill
//
// It serves the dev cluster and the tests; production shards are not run by it. It needs Linux: what
// belongs to a data folder is read from /proc. Started by root, the servers run as an ordinary user,
// because PostgreSQL refuses to run as root.
package postgres
