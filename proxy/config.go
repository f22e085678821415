package proxy

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"shardproxy/backend"
	"shardproxy/router"
	"shardproxy/topology"
	"shardproxy/wire"
)

// PoolMode says when a session gives its backends back.
type PoolMode uint8

const (
	TransactionPooling PoolMode = iota // at the end of each transaction
	SessionPooling                     // at the end of the session
)

func (m PoolMode) String() string {
	if m == SessionPooling {
		return "session"
	}
	return "transaction"
}

// User is one who may come in, and who it is on the shards.
type User struct {
	Name           string
	Secret         wire.Secret
	ServerUser     string // on the shards
	ServerPassword string
	Pooling        PoolMode
	MaxConnections int // 0: no limit of its own

	connections atomic.Int32
}

// Lookup finds a user. false means that there is none of that name.
type Lookup func(ctx context.Context, name string) (*User, bool, error)

// Config of a Server. cmd fills it from the configuration file.
type Config struct {
	Cluster  string // names prepared transactions
	Database string // the one database that clients see

	SchemaChanged func() // is told of changes made here; may be nil

	Topology *topology.Snapshot // to begin with, without a schema: see Server.Publish
	Service  *User              // reads the schema and recovers transactions

	Accept             wire.AcceptConfig
	Auth               wire.AuthConfig
	Access             wire.Rules
	MaxClients         int
	MaxUnauthenticated int
	Users              map[string]*User
	Lookup             Lookup // for users that are not in Users; may be nil

	ServerTLS      *wire.ClientTLS
	ConnectTimeout time.Duration
	Pools          backend.Limits
	Router         router.Config

	MessageBytes       int // longest message of a client
	QueryBytes         int // longest text of a statement
	PreparedStatements int // of one session

	Log *slog.Logger
}
