package topology

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

// published collects what a Keeper gives to its proxy.
type published struct {
	mu   sync.Mutex // guards maps
	maps []*Snapshot
}

func (p *published) add(s *Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.maps = append(p.maps, s)
}

func (p *published) epoch() Epoch {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.maps) == 0 {
		return 0
	}
	return p.maps[len(p.maps)-1].Epoch
}

func twoShards(t *testing.T) *Snapshot {
	t.Helper()
	s, err := New(Content{
		Cluster: "kept", Epoch: 1, Ranges: EqualRanges(2), Rules: DefaultKeyRules(),
		Shards: []Shard{{Name: "a", Nodes: []Node{{Host: "h1", Port: 1, Database: "d"}}}, {Name: "b", Nodes: []Node{{Host: "h2", Port: 1, Database: "d"}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// Two keepers of one catalog go by each other's changes; one that starts without the catalog goes by its file.
func TestKeeper(t *testing.T) {
	server := pgtest.Start(t)
	catalog, err := OpenCatalog(server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	file := filepath.Join(t.TempDir(), "map")
	cfg := KeeperConfig{Catalog: catalog, Cluster: "kept", StateFile: file, Log: log}
	var first, second, third published
	k := NewKeeper(cfg, first.add)
	if err := k.Start(t.Context()); !errors.Is(err, ErrNoCatalog) {
		t.Fatalf("an empty database: %v", err)
	}
	if _, err := catalog.Init(t.Context(), twoShards(t), Actor{User: "test"}); err != nil {
		t.Fatal(err)
	}
	if err := NewKeeper(KeeperConfig{Catalog: catalog, Cluster: "other", Log: log}, third.add).Start(t.Context()); err == nil || !strings.Contains(err.Error(), `"kept"`) {
		t.Errorf("another cluster: %v", err)
	}
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := NewKeeper(KeeperConfig{Catalog: catalog, Cluster: "kept", Log: log}, second.add)
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() { _ = other.Run(ctx) })
	kept, stopKept := context.WithCancel(t.Context())
	defer stopKept()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = k.Run(kept)
	}()

	next, err := k.Apply(t.Context(), MoveRange{Start: 0, End: 1 << 62, Shard: "b"}, Actor{User: "test"})
	if err != nil || next.Epoch != 2 || first.epoch() != 2 {
		t.Fatalf("epoch %d published after %v, %v", first.epoch(), next, err)
	}
	until(t, "the other keeper follows", func() bool { return second.epoch() == 2 })
	if other.Local() != k.Local() {
		t.Errorf("maps differ: %v and %v", other.Local(), k.Local())
	}

	// Both change at once: one wins, the other is told and has caught up.
	errs := make(chan error, 2)
	for i, keeper := range []*Keeper{k, other} {
		go func() {
			_, err := keeper.Apply(t.Context(), SplitRange{At: KeyHash(i+1) << 60}, Actor{User: "test"})
			errs <- err
		}()
	}
	var conflicts int
	for range 2 {
		var conflict ErrConflict
		if err := <-errs; errors.As(err, &conflict) {
			conflicts++
		} else if err != nil {
			t.Error(err)
		}
	}
	until(t, "both have the newest map", func() bool {
		epoch, err := catalog.Epoch(t.Context())
		return err == nil && first.epoch() == epoch && second.epoch() == epoch || conflicts == 0
	})

	stopKept()
	<-ended // the last map is in the file
	server.Stop()
	until(t, "the loss of the catalog is noticed", func() bool { return other.Trouble() != "" })
	again := NewKeeper(cfg, third.add)
	if err := again.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again.Local() != k.Local() || again.Trouble() == "" {
		t.Errorf("from the file: %v, trouble %q; want %v", again.Local(), again.Trouble(), k.Local())
	}
	if _, err := again.Apply(t.Context(), SplitRange{At: 77}, Actor{}); err == nil {
		t.Error("a change without the catalog")
	}
	if err := NewKeeper(KeeperConfig{Catalog: catalog, Cluster: "kept", Log: log}, third.add).Start(t.Context()); err == nil {
		t.Error("a start with neither catalog nor file")
	}
}

// A change that a peer has broadcast is taken once, whatever comes again, late, or from nowhere.
func TestKeeperDeliver(t *testing.T) {
	var got published
	k := NewKeeper(KeeperConfig{Cluster: "kept", Log: slog.New(slog.DiscardHandler)}, got.add)
	base := twoShards(t)
	k.Deliver("peer", MapState{}, keeperDelta, base.Delta(SplitRange{At: 5}).Encode()) // before the first map
	k.take(base)
	change := SplitRange{At: 5}
	next, err := base.Apply(change)
	if err != nil {
		t.Fatal(err)
	}
	delta := next.Delta(change).Encode()
	for range 2 {
		k.Deliver("peer", MapState{}, keeperDelta, delta)
	}
	later, err := next.Apply(SplitRange{At: 6})
	if err != nil {
		t.Fatal(err)
	}
	after, err := later.Apply(SplitRange{At: 7})
	if err != nil {
		t.Fatal(err)
	}
	k.Deliver("peer", MapState{}, keeperDelta, after.Delta(SplitRange{At: 7}).Encode()) // one is missing
	k.Deliver("peer", MapState{}, keeperDelta, []byte("garbage"))
	if got.epoch() != 2 || k.Local() != (MapState{Epoch: 2, Checksum: next.Checksum()}) || len(got.maps) != 2 {
		t.Errorf("%d maps, the last of epoch %d", len(got.maps), got.epoch())
	}
}

// A map is confirmed once the sessions go by it, not while they are waited for; whoever asks for a map has it by then.
func TestKeeperConfirmsLate(t *testing.T) {
	var k *Keeper
	k = NewKeeper(KeeperConfig{Cluster: "kept", Log: slog.New(slog.DiscardHandler)}, func(s *Snapshot) {
		if at := k.Local().Epoch; at >= s.Epoch || k.Snapshot() != s {
			t.Errorf("epoch %d is confirmed while %d is published", at, s.Epoch)
		}
	})
	base := twoShards(t)
	next, err := base.Apply(SplitRange{At: 5})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Snapshot{base, next} {
		k.take(s)
		if k.Local() != (MapState{Epoch: s.Epoch, Checksum: s.Checksum()}) {
			t.Errorf("confirmed: %v", k.Local())
		}
	}
}
