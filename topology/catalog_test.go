package topology

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"shardproxy/internal/pgtest"
)

var dba = Actor{User: "dba", From: "10.1.2.3"}

// newCatalog is an empty database with its catalog, and a connection to it.
func newCatalog(t *testing.T) (*Catalog, *pgx.Conn) {
	t.Helper()
	pg := pgtest.Shared(t)
	db := pg.CreateDatabase(t)
	c, err := OpenCatalog(pg.DSN(db))
	if err != nil {
		t.Fatal(err)
	}
	return c, pg.Connect(t, db)
}

// filledCatalog holds c.
func filledCatalog(t *testing.T, c Content) (*Catalog, *pgx.Conn, *Snapshot) {
	t.Helper()
	catalog, conn := newCatalog(t)
	s := mustNew(t, c)
	if created, err := catalog.Init(t.Context(), s, dba); err != nil || !created {
		t.Fatal(created, err)
	}
	return catalog, conn, s
}

func loadCatalog(t *testing.T, c *Catalog) *Snapshot {
	t.Helper()
	s, err := c.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCatalogInitAndLoad(t *testing.T) {
	for _, content := range []Content{richContent(), modelContent(), scaleContent(500)} {
		c, _, s := filledCatalog(t, content)
		got := loadCatalog(t, c)
		sameContent(t, s, got)
		if epoch, err := c.Epoch(t.Context()); err != nil || epoch != s.Epoch {
			t.Errorf("epoch %d, %v", epoch, err)
		}
	}
}

// TestCatalogInitTwice holds that it may be repeated, at the same time too, and guards what is there.
func TestCatalogInitTwice(t *testing.T) {
	c, conn := newCatalog(t)
	if _, err := c.Load(t.Context()); !errors.Is(err, ErrNoCatalog) {
		t.Errorf("an empty database: %v", err)
	}
	s := mustNew(t, modelContent())
	var wg sync.WaitGroup
	var mu sync.Mutex
	created := 0
	for range 4 {
		wg.Go(func() {
			was, err := c.Init(t.Context(), s, dba)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if was {
				created++
			}
		})
	}
	wg.Wait()
	if created != 1 {
		t.Errorf("%d of 4 created the cluster", created)
	}
	other := modelContent()
	other.Cluster = "other"
	var exists ErrExists
	if _, err := c.Init(t.Context(), mustNew(t, other), dba); !errors.As(err, &exists) || exists.Cluster != "model" {
		t.Errorf("another cluster: %v", err)
	}
	if _, err := c.Commit(t.Context(), mustNew(t, other), SplitRange{1}, dba); !errors.As(err, &exists) {
		t.Errorf("a change for another cluster: %v", err)
	}
	sameContent(t, s, loadCatalog(t, c))

	if _, err := conn.Exec(t.Context(), "INSERT INTO shardproxy.catalog_version (version, file) VALUES (1000, 'later')"); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"Init":   func() error { _, err := c.Init(t.Context(), s, dba); return err },
		"Load":   func() error { _, err := c.Load(t.Context()); return err },
		"Commit": func() error { _, err := c.Commit(t.Context(), s, SplitRange{1}, dba); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), "use a newer shardproxy") {
			t.Errorf("%s on a newer catalog: %v", name, err)
		}
	}
}

// TestCatalogCommit draws changes and holds that the catalog always is what Apply says, and that the log leads there too.
func TestCatalogCommit(t *testing.T) {
	c, _, first := filledCatalog(t, modelContent())
	s, made := first, 0
	for seed := 0; made < 60; seed++ {
		change := rapid.Custom(func(t *rapid.T) Change {
			if rapid.IntRange(0, 4).Draw(t, "batch") == 0 {
				return Batch{drawChange(t), drawChange(t)}
			}
			return drawChange(t)
		}).Example(seed)
		if _, err := s.Apply(change); err != nil {
			continue
		}
		next, err := c.Commit(t.Context(), s, change, dba)
		if err != nil {
			t.Fatal(err)
		}
		s = next
		if made++; made%5 == 0 {
			sameContent(t, s, withNumbersOf(t, s, loadCatalog(t, c)))
		}
	}
	deltas, err := c.ChangesSince(t.Context(), first.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	followed := first
	for _, d := range deltas {
		if followed, err = followed.Follow(d); err != nil {
			t.Fatal(err)
		}
	}
	sameContent(t, s, followed)

	log, err := c.Log(t.Context(), 1000)
	if err != nil || len(log) != made+1 {
		t.Fatalf("%d lines of %d changes, %v", len(log), made, err)
	}
	last := log[0]
	if last.Epoch != s.Epoch || last.Who != dba || last.What != deltas[len(deltas)-1].Change.String() || last.At.IsZero() {
		t.Errorf("%+v", last)
	}
}

// withNumbersOf gives got with the shards numbered as in want: a batch that removes a shard and adds it again lets it keep
// its place in the catalog.
func withNumbersOf(t *testing.T, want, got *Snapshot) *Snapshot {
	t.Helper()
	c := Content{Cluster: got.Cluster, Epoch: got.Epoch, Rules: got.Rules, Moving: got.Moving()}
	for _, s := range want.Shards {
		if id, ok := got.ShardByName(s.Name); ok {
			c.Shards = append(c.Shards, got.Shards[id])
		}
	}
	for _, r := range got.Ranges() {
		r.Shard, _ = want.ShardByName(got.Shards[r.Shard].Name)
		c.Ranges = append(c.Ranges, r)
	}
	return mustNew(t, c)
}

// TestCatalogConcurrentCommits holds that of several changes for one epoch exactly one is made.
func TestCatalogConcurrentCommits(t *testing.T) {
	c, _, base := filledCatalog(t, modelContent())
	for round := range 5 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var winners []*Snapshot
		for i := range 6 {
			wg.Go(func() {
				at := KeyHash(1+round*6+i) << 40
				next, err := c.Commit(t.Context(), base, SplitRange{at}, dba)
				mu.Lock()
				defer mu.Unlock()
				var conflict ErrConflict
				switch {
				case err == nil:
					winners = append(winners, next)
				case !errors.As(err, &conflict):
					t.Error(err)
				case conflict != ErrConflict{Have: base.Epoch + 1, Want: base.Epoch}:
					t.Errorf("%+v at epoch %d", conflict, base.Epoch)
				}
			})
		}
		wg.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d of 6 changes for one epoch were made", len(winners))
		}
		base = winners[0]
		sameContent(t, base, loadCatalog(t, c))
	}
}

func TestCatalogCommitRefuses(t *testing.T) {
	c, _, s := filledCatalog(t, modelContent())
	if _, err := c.Commit(t.Context(), s, RemoveShard{"a"}, dba); err == nil || !strings.Contains(err.Error(), "owns key ranges") {
		t.Errorf("what Apply refuses: %v", err)
	}
	differs := modelContent()
	differs.Shards[0].Nodes[0].Port = 2
	if _, err := c.Commit(t.Context(), mustNew(t, differs), SplitRange{1}, dba); err == nil || !strings.Contains(err.Error(), "disagree on epoch 1") {
		t.Errorf("another map of the same epoch: %v", err)
	}
	sameContent(t, s, loadCatalog(t, c))
}

// cutConn passes a COMMIT on and then breaks.
type cutConn struct {
	net.Conn
	cut bool
}

func (c *cutConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.cut = c.cut || bytes.Contains(bytes.ToLower(b), []byte("commit\x00"))
	return n, err
}

func (c *cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b) // so that the server has done it
	if c.cut {
		_ = c.Conn.Close()
		return 0, errors.New("the cable was cut")
	}
	return n, err
}

// TestCatalogCommitResolves holds that a connection that breaks at the COMMIT does not hide that the change was made.
func TestCatalogCommitResolves(t *testing.T) {
	c, _, s := filledCatalog(t, modelContent())
	// cutting gives the catalog through a connection that is cut, and says how often it was dialled. pgx dials once more in the
	// background, to cancel what a broken connection ran, so each attempt counts its own.
	cutting := func(fail bool) (*Catalog, *atomic.Int32) {
		cfg, dials := c.cfg.Copy(), new(atomic.Int32)
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			n := dials.Add(1)
			if n > 1 && fail {
				return nil, errors.New("the catalog is away")
			}
			conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if n > 1 {
				return conn, err
			}
			return &cutConn{Conn: conn}, err
		}
		return &Catalog{cfg: cfg}, dials
	}
	cut, dials := cutting(false)
	next, err := cut.Commit(t.Context(), s, SplitRange{1}, dba)
	if err != nil || dials.Load() < 2 {
		t.Fatalf("%v after %d connections", err, dials.Load())
	}
	sameContent(t, next, loadCatalog(t, c))

	cut, _ = cutting(true)
	if _, err := cut.Commit(t.Context(), next, SplitRange{2}, dba); !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("a catalog that stays away: %v", err)
	}
	cut, _ = cutting(true)
	if _, err := cut.Commit(t.Context(), next, SplitRange{3}, dba); !errors.As(err, new(ErrConflict)) {
		t.Errorf("an old epoch: %v", err)
	}
}

func TestCatalogChangesSince(t *testing.T) {
	c, conn, s := filledCatalog(t, modelContent())
	for i := range 3 {
		next, err := c.Commit(t.Context(), s, SplitRange{KeyHash(i + 1)}, dba)
		if err != nil {
			t.Fatal(err)
		}
		s = next
	}
	if deltas, err := c.ChangesSince(t.Context(), 4); err != nil || len(deltas) != 0 {
		t.Errorf("nothing new: %v, %v", deltas, err)
	}
	if deltas, err := c.ChangesSince(t.Context(), 2); err != nil || fmt.Sprint(deltas[1].Change) != "split at 0000000000000003" || len(deltas) != 2 {
		t.Errorf("since 2: %v, %v", deltas, err)
	}
	for _, since := range []Epoch{0, 5} {
		if _, err := c.ChangesSince(t.Context(), since); !errors.Is(err, ErrOutOfStep) {
			t.Errorf("since %d: %v", since, err)
		}
	}
	if _, err := conn.Exec(t.Context(), "DELETE FROM shardproxy.changes WHERE epoch = 3"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ChangesSince(t.Context(), 2); !errors.Is(err, ErrOutOfStep) {
		t.Errorf("a gap: %v", err)
	}
}
