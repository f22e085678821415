package topology

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// keeperDelta is the kind of the gossip messages of a Keeper: an encoded Delta.
const keeperDelta = 1

// keeperCatalogTime bounds how long a proxy that starts waits for the catalog before it takes its state file.
const keeperCatalogTime = 5 * time.Second

// KeeperConfig says where a proxy has its map from.
type KeeperConfig struct {
	Catalog   *Catalog
	Cluster   string // that the map must be of
	StateFile string // "" for none: without the catalog the proxy cannot start then
	OnSchema  func() // a peer has changed tables; must be quick; may be nil
	Log       *slog.Logger
}

// Keeper keeps a proxy's map: it reads the catalog, listens for news from there and from peers, and keeps the last map
// in a file, by which the proxy starts when the catalog is away. It implements GossipHandler.
//
//	catalog ──Watch──┐                      ┌──► publish: the proxy's sessions
//	peers ──Deliver──┼──► take (newer only) ┼──► peers: Broadcast
//	DBA ──Apply──────┘                      └──► state file, by Run: nobody waits for the disk
//
// A map is only taken where its epoch is higher than ours: the catalog decides, whoever brings the news.
type Keeper struct {
	cfg     KeeperConfig
	id      string // of this proxy's life, among those who watch the catalog
	publish func(*Snapshot)
	current atomic.Pointer[Snapshot]
	inForce atomic.Pointer[Snapshot] // current, once publish has returned from it
	since   atomic.Int64             // when current was taken, in nanoseconds since 1970
	trouble atomic.Pointer[string]
	gossip  atomic.Pointer[Gossip]
	asking  atomic.Bool   // the catalog is being asked for what Behind told of
	unkept  chan struct{} // has an element while there may be a map that the state file has not

	mu sync.Mutex // held while a map is taken, so that they come in order
}

// NewKeeper makes a Keeper that gives each map it takes to publish, one at a time. It starts nothing.
func NewKeeper(cfg KeeperConfig, publish func(*Snapshot)) *Keeper {
	return &Keeper{cfg: cfg, publish: publish, id: rand.Text(), unkept: make(chan struct{}, 1)}
}

// Start takes the first map: of the catalog, or of the state file where the catalog does not answer.
func (k *Keeper) Start(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, keeperCatalogTime)
	defer cancel()
	s, err := k.cfg.Catalog.Load(limited)
	if err == nil && s.Cluster != k.cfg.Cluster {
		return fmt.Errorf("the catalog holds the cluster %q, the configuration names %q", s.Cluster, k.cfg.Cluster)
	}
	if err != nil {
		if k.cfg.StateFile == "" || errors.Is(err, ErrNoCatalog) {
			return err
		}
		from, e := ReadStateFile(k.cfg.StateFile, k.cfg.Cluster)
		if e != nil {
			return errors.Join(err, e)
		}
		k.failed(fmt.Sprintf("the catalog does not answer; serving epoch %d from the state file", from.Epoch), err)
		s = from
	}
	k.take(s)
	return nil
}

// Run follows the catalog, and keeps the state file up to date, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if k.cfg.StateFile != "" {
		wg.Go(func() { k.keep(ctx) })
	}
	return k.cfg.Catalog.Watch(ctx, func(epoch Epoch, err error) {
		if err == nil {
			err = k.follow(ctx, epoch)
		}
		switch {
		case err == nil:
			if k.trouble.Swap(nil) != nil {
				k.cfg.Log.Info("the catalog is back", "epoch", epoch)
			}
		case ctx.Err() == nil:
			k.failed("the catalog does not answer", err)
		}
	}, func(from string) {
		if from != k.id {
			k.SchemaNews()
		}
	})
}

// Behind tells that there is a map of this epoch, or a later one, somewhere: a shard has been fenced for it. The catalog is
// asked for it at once; the call does not wait for the answer.
func (k *Keeper) Behind(epoch Epoch) {
	if have := k.current.Load(); have == nil || have.Epoch >= epoch || k.asking.Swap(true) {
		return
	}
	go func() {
		defer k.asking.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), keeperCatalogTime)
		defer cancel()
		if err := k.follow(ctx, epoch); err != nil {
			k.cfg.Log.Debug("the catalog does not give the map that a shard is fenced for", "epoch", epoch, "error", err)
		}
	}()
}

// Trouble says why the map may be out of date, "" where nothing is known to be wrong.
func (k *Keeper) Trouble() string {
	if t := k.trouble.Load(); t != nil {
		return *t
	}
	return ""
}

// failed notes a trouble, unless there is one already: that the map is of the state file matters for as long as the catalog
// is away.
func (k *Keeper) failed(what string, err error) {
	if k.trouble.CompareAndSwap(nil, &what) {
		k.cfg.Log.Warn(what, "error", err)
	}
}

// follow brings us to the catalog's epoch, by the changes since ours where they are known.
func (k *Keeper) follow(ctx context.Context, epoch Epoch) error {
	have := k.current.Load()
	if have != nil && have.Epoch >= epoch {
		return nil
	}
	if have != nil {
		deltas, err := k.cfg.Catalog.ChangesSince(ctx, have.Epoch)
		if err == nil && k.takeDeltas(deltas) {
			return nil
		}
	}
	s, err := k.cfg.Catalog.Load(ctx)
	if err != nil {
		return err
	}
	k.take(s)
	return nil
}

// takeDeltas applies changes one after the other. It says whether they led beyond what we had.
func (k *Keeper) takeDeltas(deltas []Delta) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.current.Load()
	before := s
	for _, d := range deltas {
		if d.Epoch <= s.Epoch {
			continue
		}
		next, err := s.Follow(d)
		if err != nil {
			return false
		}
		s = next
	}
	if s == before {
		return false
	}
	k.takeLocked(s)
	return true
}

// take makes s the map if it is newer.
func (k *Keeper) take(s *Snapshot) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.takeLocked(s)
}

func (k *Keeper) takeLocked(s *Snapshot) {
	if have := k.current.Load(); have != nil && have.Epoch >= s.Epoch {
		return
	}
	k.current.Store(s)
	k.since.Store(time.Now().UnixNano())
	k.publish(s)
	k.inForce.Store(s)
	k.cfg.Log.Info("topology", "epoch", s.Epoch, "shards", len(s.Shards), "ranges", len(s.Ranges()))
	if g := k.gossip.Load(); g != nil {
		g.Announce()
	}
	select {
	case k.unkept <- struct{}{}:
	default:
	}
}

// keep writes each map that is taken to the state file, the last one before it returns.
func (k *Keeper) keep(ctx context.Context) {
	for ended := false; !ended; {
		select {
		case <-k.unkept:
		case <-ctx.Done():
			ended = true
			select {
			case <-k.unkept:
			default:
				return
			}
		}
		k.mu.Lock()
		s := k.current.Load()
		k.mu.Unlock()
		if err := WriteStateFile(k.cfg.StateFile, s); err != nil {
			k.cfg.Log.Error("the topology cannot be kept in the state file", "error", err)
		}
	}
}

// Apply changes the topology in the catalog and goes by it at once. ErrConflict: somebody else was first.
func (k *Keeper) Apply(ctx context.Context, c Change, who Actor) (*Snapshot, error) {
	return k.commit(ctx, c, func(base *Snapshot) (*Snapshot, error) { return k.cfg.Catalog.Commit(ctx, base, c, who) })
}

// ApplyForMove is Apply for a change that a move needs: see Catalog.CommitForMove.
func (k *Keeper) ApplyForMove(ctx context.Context, c Change, l Lease, move, rev int64, who Actor) (*Snapshot, error) {
	return k.commit(ctx, c, func(base *Snapshot) (*Snapshot, error) {
		return k.cfg.Catalog.CommitForMove(ctx, base, c, l, move, rev, who)
	})
}

func (k *Keeper) commit(ctx context.Context, c Change, commit func(base *Snapshot) (*Snapshot, error)) (*Snapshot, error) {
	next, err := commit(k.current.Load())
	if err != nil {
		var conflict ErrConflict
		if errors.As(err, &conflict) { // we are behind
			_ = k.follow(ctx, conflict.Have)
		}
		return nil, err
	}
	k.spread(next, c)
	return next, nil
}

// FlipMove is Catalog.FlipMove, and goes by the result at once.
func (k *Keeper) FlipMove(ctx context.Context, base *Snapshot, c Change, l Lease, r MoveRecord, who Actor) (*Snapshot, error) {
	next, err := k.cfg.Catalog.FlipMove(ctx, base, c, l, r, who)
	if err != nil {
		return nil, err
	}
	k.spread(next, c)
	return next, nil
}

// spread tells the peers of a map that c has made in the catalog, and goes by it, which may take its time here and there. A change
// that is too big for a message is fetched from who goes by it.
func (k *Keeper) spread(next *Snapshot, c Change) {
	g := k.gossip.Load()
	told := g == nil || g.Broadcast(keeperDelta, next.Delta(c).Encode())
	k.take(next)
	if !told {
		g.Broadcast(0, nil)
	}
}

// Catalog that the maps come from.
func (k *Keeper) Catalog() *Catalog { return k.cfg.Catalog }

// Confirmed waits until all live peers go by a map of this epoch or a later one, as far as ctx lets it.
func (k *Keeper) Confirmed(ctx context.Context, epoch Epoch) error {
	if g := k.gossip.Load(); g != nil {
		return g.Wait(ctx, epoch)
	}
	return nil
}

// SchemaChanged tells the other proxies that tables have changed: by gossip, and by the catalog, for those that gossip does
// not reach. It does not wait for the catalog.
func (k *Keeper) SchemaChanged() {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), keeperCatalogTime)
		defer cancel()
		if err := k.cfg.Catalog.TellSchema(ctx, k.id); err != nil {
			k.cfg.Log.Debug("a change of tables was not told by the catalog", "error", err)
		}
	}()
	if g := k.gossip.Load(); g != nil {
		g.SchemaChanged()
	}
}

// SchemaNews passes on that a peer has changed tables.
func (k *Keeper) SchemaNews() {
	if k.cfg.OnSchema != nil {
		k.cfg.OnSchema()
	}
}

// Gossip makes g the way to the peers. Call it before g runs.
func (k *Keeper) Gossip(g *Gossip) { k.gossip.Store(g) }

// Local is the map that we go by, with nothing under way that was planned by one before.
func (k *Keeper) Local() MapState {
	s := k.inForce.Load()
	if s == nil {
		return MapState{}
	}
	return MapState{Epoch: s.Epoch, Checksum: s.Checksum()}
}

// Deliver takes a change that a peer has broadcast.
func (k *Keeper) Deliver(from string, _ MapState, kind byte, payload []byte) {
	if kind != keeperDelta || k.current.Load() == nil {
		return
	}
	d, err := DecodeDelta(payload)
	if err != nil {
		k.cfg.Log.Warn("a change that cannot be read came by gossip", "peer", from, "error", err)
		return
	}
	k.takeDeltas([]Delta{d})
}

// CatchUp fetches the map of a peer that has a later one. A peer with another map of our epoch is a fault that only the
// catalog can decide.
func (k *Keeper) CatchUp(ctx context.Context, peer string, at MapState) error {
	have := k.Local()
	if have.Epoch == at.Epoch && have.Checksum != at.Checksum {
		s, err := k.cfg.Catalog.Load(ctx)
		if err != nil {
			return fmt.Errorf("peer %s has another map of epoch %d, and the catalog cannot be asked: %w", peer, at.Epoch, err)
		}
		if s.Epoch == have.Epoch && s.Checksum() != have.Checksum {
			k.cfg.Log.Error("our map differed from the catalog's at the same epoch", "epoch", have.Epoch)
			k.mu.Lock()
			k.current.Store(nil)
			k.takeLocked(s)
			k.mu.Unlock()
			return nil
		}
		k.take(s)
		return nil
	}
	g := k.gossip.Load()
	if g == nil {
		return nil
	}
	data, err := g.Fetch(ctx, peer)
	if err != nil {
		return err
	}
	s, err := DecodeSnapshot(data)
	if err != nil {
		return err
	}
	if s.Cluster != k.cfg.Cluster {
		return fmt.Errorf("peer %s sent the map of cluster %q", peer, s.Cluster)
	}
	k.take(s)
	return nil
}

// WriteMap gives a peer our whole map.
func (k *Keeper) WriteMap(_ MapState, w io.Writer) error {
	s := k.current.Load()
	if s == nil {
		return errors.New("there is no map yet")
	}
	_, err := io.Copy(w, bytes.NewReader(s.Encode()))
	return err
}

// Snapshot is the map that we go by, without a schema; nil before Start.
func (k *Keeper) Snapshot() *Snapshot { return k.current.Load() }

// Since is when this process began to go by the map.
func (k *Keeper) Since() time.Time { return time.Unix(0, k.since.Load()) }

var _ GossipHandler = (*Keeper)(nil)
