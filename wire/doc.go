// Package wire turns bytes into PostgreSQL protocol messages and back: the handshake with
// clients, the handshake with nodes, and raw frames. It knows nothing of shards.
//
//	client                         wire                                 node
//	  │  SSLRequest, StartupMessage  │                                    │
//	  ├─────────────────────────────►│ Accept                             │
//	  │  SCRAM, md5, password, cert  │                                    │
//	  │◄────────────────────────────►│ Authenticator.Authenticate         │
//	  │                              │                            Connect │
//	  │                              │◄──────────────────────────────────►│ TLS, StartupMessage,
//	  │           frames             │               frames               │ SCRAM … ReadyForQuery
//	  │◄────────────────────────────►│◄──────────────────────────────────►│
//
// The handshakes read message by message and never ahead, so whatever the peer sent behind
// them is still in the connection when they return. They leave no deadline set on success,
// and they never close a connection they were handed: the caller does.
//
// Limits: a startup packet has at most 10,000 bytes, a SASL message 1,024, a password 65,535,
// a handshake message of a node 65,536, and each handshake has a deadline.
package wire
