// Package router says where a statement runs: which shards can give exactly the answer that one PostgreSQL
// with all rows would give, or why none can. It is pure: no I/O, no clock, no goroutine.
//
//	text ──normalise──► key ──► plan cache ──hit──► Template ──Route(literals, parameters)──► shards
//	                              │ miss                ▲         └Split──► a part of INSERT for each
//	                            guard ──► grammar ──► analyse
//	                                                    │ facts: which keys each table's rows are limited to
//	                                                    └─place: the tables proven to be on one shard, or on each
//
// A Template is what is known of a statement before its literals and parameters are; the plan cache keeps it
// for all sessions. The rule is "exact or refused": what cannot be proven is Kind Reject with a reason.
//
// A SELECT that needs the rows of several shards together has a Finish: a text by which each shard gives rows, and one
// by which one of them does the last step over all.
//
// COPY … FROM STDIN has a CopySplitter, which cuts its data into rows with the hash of their keys.
package router
