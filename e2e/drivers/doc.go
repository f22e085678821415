// Package drivers holds smoke suites of the PostgreSQL drivers that applications use: pgx, lib/pq, psycopg,
// psycopg2, node-postgres and JDBC, each driving the proxy as an application would.
//
//	smoke_test.go ─► environment (venv, node_modules, jar; cached) ─► psycopg/, node/, jdbc/ ─► proxy
//
// A suite is skipped only where its language is not installed.
package drivers
