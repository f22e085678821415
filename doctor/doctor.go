package doctor

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"shardproxy/topology"
)

// How much is asked at a time, and how long an answer is waited for.
const (
	parallel    = 16               // shards: enough for 100,000 in some minutes, and too few to disturb
	shardTime   = 10 * time.Second // default of Config.ShardTime
	catalogTime = 10 * time.Second
	examineTime = 15 * time.Minute // for all of it: 100,000 shards of which many are dead
	deepTime    = 6 * time.Hour    // for all of it, where whole tables are read
)

// ErrBusy says that an examination is under way already.
var ErrBusy = errors.New("the doctor is at work already")

// Config says how a Doctor asks. Its functions may be called from several goroutines.
type Config struct {
	Cluster string
	// Snapshot is the map that the proxy goes by, with the schema.
	Snapshot func() *topology.Snapshot
	// OnNode runs f with a connection to a node; a statement must end when its context does.
	OnNode func(ctx context.Context, node topology.Node, f func(query topology.Query) error) error
	// Peers are the other proxies; nil: there is no gossip.
	Peers func() []topology.Peer
	// Connections is how many one proxy may open to a server that holds so many of the shards; nil: unknown.
	Connections func(shards int) int
	Catalog     *Catalog      // nil: the map is in the configuration file
	ShardTime   time.Duration // that one shard is given; 0: 10 s
	SecondLook  time.Duration // after which a difference of schemas must still be there; 0: 2 s
}

// Catalog is the source of the map.
type Catalog struct {
	Load    func(ctx context.Context) (*topology.Snapshot, error)
	Trouble func() string // why the map may be out of date, "" where nothing is known to be wrong
	// Moves are those under way.
	Moves func(ctx context.Context) ([]topology.MoveRecord, error)
}

// Doctor examines a cluster.
type Doctor struct {
	cfg  Config
	busy atomic.Bool
}

// New makes a Doctor.
func New(cfg Config) *Doctor {
	cfg.ShardTime, cfg.SecondLook = cmp.Or(cfg.ShardTime, shardTime), cmp.Or(cfg.SecondLook, secondLook)
	return &Doctor{cfg: cfg}
}

// examination is one of them.
type examination struct {
	*Config
	snap  *topology.Snapshot
	moves moves
	notes notes
}

// Examine looks at everything once. deep also reads all rows of all tables on all shards. ErrBusy: somebody else has asked and
// has not been answered yet.
func (d *Doctor) Examine(ctx context.Context, deep bool) ([]Finding, error) {
	if d.busy.Swap(true) {
		return nil, ErrBusy
	}
	defer d.busy.Store(false)
	limit := examineTime
	if deep {
		limit = deepTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	x := &examination{Config: &d.cfg, snap: d.cfg.Snapshot()}
	x.lookAtCatalog(ctx)
	x.lookAtPeers()
	shards := x.visitAll(ctx)
	x.judgePrimaries(shards)
	x.judgeReplicas(shards)
	x.judgeSettings(shards)
	x.judgeSchemas(ctx, shards)
	x.lookAtFences(ctx, shards)
	x.judgeTables(ctx, shards)
	x.judgeCommits(shards)
	x.judgeMoves(shards)
	if deep {
		x.lookAtRows(ctx, shards)
	}
	return x.notes.told(), ctx.Err()
}
