package proxy

import (
	"log/slog"
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
}

// Config of a Server. cmd fills it from the configuration file.
type Config struct {
	Fixed
	Live
}

// Fixed is what cannot be changed while the server runs.
type Fixed struct {
	Cluster  string // names prepared transactions
	Database string // the one database that clients see

	SchemaChanged func() // is told of changes made here; may be nil

	Peers Peers // the zero value: there are none

	Checks func(shard string) bool // says whether this proxy is to watch the schema of a shard, and not a peer; nil: all

	Behind func(topology.Epoch) // is told that a shard is fenced for a later epoch than ours; must be quick; may be nil

	Topology *topology.Snapshot // to begin with, without a schema: see Server.Publish
	Router   router.Config

	Log *slog.Logger
}

// Live is what Server.Reload replaces while the server runs. Nothing of it is changed once it has been given.
type Live struct {
	Service *User // reads the schema and recovers transactions

	Accept             wire.AcceptConfig // its Timeout holds once more for what comes behind the startup packet
	Access             wire.Rules
	MaxClients         int
	MaxUnauthenticated int
	Users              map[string]*User
	Pooling            PoolMode // of users that name none
	UserQuery          string   // finds users that are not in Users, "" for none: see userQuery
	UserQueryAs        *User    // who runs it

	ServerTLS      *wire.ClientTLS
	ConnectTimeout time.Duration
	Pools          backend.Limits

	MessageBytes       int // longest message of a client
	QueryBytes         int // longest text of a statement
	PreparedStatements int // of one session
	FinishBytes        int // rows of several shards that one statement collects, in bytes
	FinishRows         int // the same, their number
}
