// Package proxy runs the sessions of clients: it reads their messages, asks the router where each statement
// belongs, takes backends from the pools, and passes the answers back.
//
//	client ─► Session ─► router.Template ─► Route ─► lane (one backend of one shard) ─► client
//	             │                                     ▲
//	             └ transaction: the lanes that take part, what later ones must be told (log), how it ends
//
// One goroutine owns a session, its lanes and their buffers. ReadyForQuery is always made by the session,
// from the state of its transaction; everything else that a shard answers is passed on as it is.
package proxy
