package topology

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jackc/pgx/v5"
)

const leaseTest = time.Minute

func takeLease(t *testing.T, c *Catalog, holder string) Lease {
	t.Helper()
	l, err := c.TakeLease(t.Context(), holder, leaseTest)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// endLease lets the lease run out, by the database's clock.
func endLease(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), "UPDATE shardproxy.coordinator SET expires_at = clock_timestamp()"); err != nil {
		t.Fatal(err)
	}
}

func record(source, target string, ranges ...KeyRange) MoveRecord {
	return MoveRecord{Kind: "move", Source: source, Target: target, Phase: "planned", Ranges: ranges, Actor: "dba", State: json.RawMessage(`{"task": "preflight"}`)}
}

func loadMoves(t *testing.T, c *Catalog, all bool) []MoveRecord {
	t.Helper()
	records, err := c.LoadMoves(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// sameRecords compares but for the times.
func sameRecords(t *testing.T, want, got []MoveRecord) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(MoveRecord{}, "CreatedAt", "UpdatedAt")); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestCatalogLease(t *testing.T) {
	c, conn, _ := filledCatalog(t, modelContent())
	first := takeLease(t, c, "p1")
	var held ErrLeaseHeld
	for _, holder := range []string{"p2", "p1"} {
		if _, err := c.TakeLease(t.Context(), holder, leaseTest); !errors.As(err, &held) || held.Holder != "p1" || held.For <= 0 || held.For > leaseTest {
			t.Errorf("%s: %v", holder, err)
		}
	}
	if err := c.RenewLease(t.Context(), first, 2*leaseTest, []byte(`[{"id": 7}]`)); err != nil {
		t.Error(err)
	}
	if _, err := c.TakeLease(t.Context(), "p2", leaseTest); !errors.As(err, &held) || held.For <= leaseTest {
		t.Errorf("a renewed lease: %v", err)
	}
	endLease(t, conn)
	told := func(want string) {
		t.Helper()
		if got, err := c.Progress(t.Context()); string(got) != want || err != nil {
			t.Errorf("progress %q, %v, want %q", got, err, want)
		}
	}
	told("") // nobody coordinates
	if err := c.RenewLease(t.Context(), first, leaseTest, nil); err != nil {
		t.Errorf("one that has run out, but was not taken: %v", err)
	}
	told(`[{"id": 7}]`)
	if err := c.EndLease(t.Context(), first); err != nil {
		t.Error(err)
	}
	second := takeLease(t, c, "p2")
	if second.Token <= first.Token {
		t.Errorf("token %d follows %d", second.Token, first.Token)
	}
	told("") // by another one
	for name, err := range map[string]error{
		"RenewLease": c.RenewLease(t.Context(), first, leaseTest, nil),
		"EndLease":   c.EndLease(t.Context(), first),
	} {
		if !errors.Is(err, ErrLeaseLost) {
			t.Errorf("%s with an old token: %v", name, err)
		}
	}
}

// TestCatalogLeaseOfOne holds that of several that take a free lease one gets it.
func TestCatalogLeaseOfOne(t *testing.T) {
	c, _, _ := filledCatalog(t, modelContent())
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 6 {
		wg.Go(func() {
			_, err := c.TakeLease(t.Context(), fmt.Sprint("p", i), leaseTest)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.As(err, new(ErrLeaseHeld)) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d of 6 hold the lease", won)
	}
}

func TestCatalogMoves(t *testing.T) {
	c, conn, _ := filledCatalog(t, modelContent())
	moves := []MoveRecord{record("a", "b", KeyRange{Start: 0, End: 1}, KeyRange{Start: 1 << 63, End: 0}), record("b", "c", KeyRange{Start: 1, End: 1 << 40})}
	if err := c.AddMoves(t.Context(), moves); err != nil {
		t.Fatal(err)
	}
	sameRecords(t, moves, loadMoves(t, c, false))

	for _, overlap := range []KeyRange{{Start: 0, End: 0}, {Start: 1<<40 - 1, End: 1 << 41}, {Start: 1<<64 - 1, End: 0}} {
		err := c.AddMoves(t.Context(), []MoveRecord{record("a", "c", KeyRange{Start: 1 << 50, End: 1 << 51}), record("a", "c", overlap)})
		if !errors.Is(err, ErrMoveOverlap) {
			t.Errorf("%v: %v", overlap, err)
		}
	}
	sameRecords(t, moves, loadMoves(t, c, false))

	l := takeLease(t, c, "p1")
	next := moves[1]
	next.Rev, next.Phase, next.Epoch, next.Error, next.State = 2, "hold", 7, "why", json.RawMessage(`{"task": "hold"}`)
	for range 2 { // it may be repeated
		if err := c.SaveMove(t.Context(), l, next); err != nil {
			t.Fatal(err)
		}
	}
	sameRecords(t, []MoveRecord{moves[0], next}, loadMoves(t, c, false))

	other := next
	other.Error = "something else"
	if err := c.SaveMove(t.Context(), l, other); !errors.Is(err, ErrMoveConflict) {
		t.Errorf("the same revision with other content: %v", err)
	}
	other.Rev = 4
	if err := c.SaveMove(t.Context(), l, other); !errors.Is(err, ErrMoveConflict) {
		t.Errorf("a revision is missing: %v", err)
	}
	endLease(t, conn)
	second := takeLease(t, c, "p2")
	next.Rev, next.Phase = 3, "aborted"
	if err := c.SaveMove(t.Context(), l, next); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("an old token: %v", err)
	}
	if err := c.SaveMove(t.Context(), second, next); err != nil {
		t.Fatal(err)
	}
	next.Done = true
	sameRecords(t, moves[:1], loadMoves(t, c, false))
	sameRecords(t, []MoveRecord{moves[0], next}, loadMoves(t, c, true))
	if err := c.AddMoves(t.Context(), []MoveRecord{record("b", "c", KeyRange{Start: 1, End: 1 << 40})}); err != nil {
		t.Errorf("ranges whose move has ended: %v", err)
	}
}

// flipping is a catalog with a move that is about to be flipped, and its next revision.
func flipping(t *testing.T) (*Catalog, *pgx.Conn, *Snapshot, Lease, MoveRecord) {
	t.Helper()
	c, conn, s := filledCatalog(t, modelContent())
	r := s.Ranges()[0]
	moves := []MoveRecord{record(s.Shards[r.Shard].Name, "c", r)}
	if err := c.AddMoves(t.Context(), moves); err != nil {
		t.Fatal(err)
	}
	next := moves[0]
	next.Rev, next.Phase, next.Epoch = 2, "flipped", s.Epoch+1
	return c, conn, s, takeLease(t, c, "p1"), next
}

func flip(r MoveRecord) Change {
	return MoveRange{Start: r.Ranges[0].Start, End: r.Ranges[0].End, Shard: r.Target}
}

// TestCatalogFlip holds that the owner and the journal change together, or not at all.
func TestCatalogFlip(t *testing.T) {
	c, conn, s, l, next := flipping(t)
	wrong := next
	wrong.Rev = 3
	if _, err := c.FlipMove(t.Context(), s, flip(next), l, wrong, dba); !errors.Is(err, ErrMoveConflict) {
		t.Errorf("another revision: %v", err)
	}
	if _, err := c.FlipMove(t.Context(), s, flip(next), Lease{"p0", l.Token - 1}, next, dba); !errors.Is(err, ErrLeaseLost) {
		t.Errorf("an old token: %v", err)
	}
	sameContent(t, s, loadCatalog(t, c))
	for range 2 { // it may be repeated
		flipped, err := c.FlipMove(t.Context(), s, flip(next), l, next, dba)
		if err != nil {
			t.Fatal(err)
		}
		sameContent(t, flipped, loadCatalog(t, c))
	}
	next.Flipped = s.Epoch + 1
	sameRecords(t, []MoveRecord{next}, loadMoves(t, c, false))

	// Whoever comes late with another change finds the epoch taken.
	late := next
	late.Rev = 3
	if _, err := c.FlipMove(t.Context(), s, flip(next), l, late, dba); !errors.As(err, new(ErrConflict)) {
		t.Errorf("an old epoch: %v", err)
	}
	sameRecords(t, []MoveRecord{next}, loadMoves(t, c, false))
	var log int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM shardproxy.changes").Scan(&log); err != nil || log != 2 {
		t.Errorf("%d lines in the log, %v", log, err)
	}
}

// TestCatalogFlipAgain holds that a flip whose outcome was not known is found to be made when it is repeated.
func TestCatalogFlipAgain(t *testing.T) {
	c, _, s, l, next := flipping(t)
	cfg, cut := c.cfg.Copy(), false
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if cut {
			return nil, errors.New("the catalog is away")
		}
		cut = true
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &cutConn{Conn: conn}, err
	}
	away := &Catalog{cfg: cfg}
	if _, err := away.FlipMove(t.Context(), s, flip(next), l, next, dba); !errors.Is(err, ErrOutcomeUnknown) {
		t.Fatal(err)
	}
	flipped, err := c.FlipMove(t.Context(), s, flip(next), l, next, dba)
	if err != nil {
		t.Fatal(err)
	}
	sameContent(t, flipped, loadCatalog(t, c))
}

// TestCatalogBurn holds that an epoch can be used up, and that a flip that comes late then fails.
func TestCatalogBurn(t *testing.T) {
	c, _, s, l, next := flipping(t)
	burnt, err := c.Commit(t.Context(), s, BurnEpoch{}, dba)
	if err != nil || burnt.Epoch != s.Epoch+1 || burnt.Checksum() != s.Checksum() {
		t.Fatal(burnt, err)
	}
	sameContent(t, burnt, loadCatalog(t, c))
	deltas, err := c.ChangesSince(t.Context(), s.Epoch)
	if err != nil || len(deltas) != 1 {
		t.Fatal(deltas, err)
	}
	followed, err := s.Follow(deltas[0])
	if err != nil {
		t.Fatal(err)
	}
	sameContent(t, burnt, followed)
	if _, err := c.FlipMove(t.Context(), s, flip(next), l, next, dba); !errors.As(err, new(ErrConflict)) {
		t.Errorf("a flip for the burnt epoch: %v", err)
	}
}

// TestCatalogCommitForMove holds that only who may write the move changes the map for it.
func TestCatalogCommitForMove(t *testing.T) {
	c, _, s, l, next := flipping(t)
	for name, test := range map[string]struct {
		lease     Lease
		move, rev int64
		want      error
	}{
		"an old token":         {Lease{"p0", l.Token - 1}, next.ID, 1, ErrLeaseLost},
		"an older revision":    {l, next.ID, 0, ErrMoveConflict},
		"a move that is not":   {l, next.ID + 1, 1, ErrMoveConflict},
		"a revision to become": {l, next.ID, 2, ErrMoveConflict},
	} {
		if _, err := c.CommitForMove(t.Context(), s, BurnEpoch{}, test.lease, test.move, test.rev, dba); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	sameContent(t, s, loadCatalog(t, c))
	burnt, err := c.CommitForMove(t.Context(), s, BurnEpoch{}, l, next.ID, 1, dba)
	if err != nil {
		t.Fatal(err)
	}
	sameContent(t, burnt, loadCatalog(t, c))
}

func TestCatalogMoveOrders(t *testing.T) {
	c, conn, _, l, next := flipping(t)
	if _, err := c.AddMoveOrder(t.Context(), 99, "abort", dba); err == nil || !strings.Contains(err.Error(), "there is no move 99") {
		t.Error(err)
	}
	var ids []int64
	for _, what := range []string{"pause", "abort"} {
		id, err := c.AddMoveOrder(t.Context(), next.ID, what, dba)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	orders, err := c.MoveOrders(t.Context())
	want := []MoveOrder{{ids[0], next.ID, "pause", dba}, {ids[1], next.ID, "abort", dba}}
	if diff := cmp.Diff(want, orders); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if err := c.AnswerMoveOrder(t.Context(), l, ids[1], "too late"); err != nil {
		t.Error(err)
	}
	if err := c.AnswerMoveOrder(t.Context(), l, ids[1], "another answer"); err != nil {
		t.Error(err)
	}
	if answered, refusal, err := c.MoveOrderAnswer(t.Context(), ids[1]); !answered || refusal != "too late" || err != nil {
		t.Error(answered, refusal, err)
	}
	if answered, _, err := c.MoveOrderAnswer(t.Context(), ids[0]); answered || err != nil {
		t.Error(answered, err)
	}
	if orders, err := c.MoveOrders(t.Context()); len(orders) != 1 || err != nil {
		t.Error(orders, err)
	}
	endLease(t, conn)
	takeLease(t, c, "p2")
	if err := c.AnswerMoveOrder(t.Context(), l, ids[0], ""); !errors.Is(err, ErrLeaseLost) {
		t.Error(err)
	}
}

// TestCatalogFromVersion1 brings a catalog up to date that holds data, a move that was never carried out among it.
func TestCatalogFromVersion1(t *testing.T) {
	c, conn := newCatalog(t)
	content := richContent()
	content.Moving = nil // which version 1 does not know
	s := mustNew(t, content)
	err := c.transact(t.Context(), pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := migrateTo(t.Context(), tx, 1); err != nil {
			return err
		}
		return insertAll(t.Context(), tx, s, dba)
	})
	if err != nil {
		t.Fatal(err)
	}
	const old = `
		INSERT INTO shardproxy.moves (source, target, phase, epoch, actor) VALUES ('a', 'b', 'copying', 1, 'dba'), ('b', 'a', 'cleaned', 1, 'dba');
		INSERT INTO shardproxy.move_ranges (move_id, first, last) VALUES (1, 0, 9), (2, 5, 9223372036854775807)`
	if _, err := conn.PgConn().Exec(t.Context(), old).ReadAll(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "`shardctl init` brings it up to date") {
		t.Errorf("version 1: %v", err)
	}
	if created, err := c.Init(t.Context(), s, dba); created || err != nil {
		t.Fatal(created, err)
	}
	sameContent(t, s, loadCatalog(t, c))
	if open := loadMoves(t, c, false); len(open) != 0 {
		t.Errorf("%+v is under way", open)
	}
	all := loadMoves(t, c, true)
	if len(all) != 2 || all[0].Phase != "aborted" || all[1].Phase != "cleaned" || all[1].Ranges[0] != (KeyRange{Start: 1<<63 + 5, End: 0}) {
		t.Errorf("%+v", all)
	}
	if err := c.AddMoves(t.Context(), []MoveRecord{record("a", "b", KeyRange{})}); err != nil {
		t.Errorf("the whole ring: %v", err)
	}
	if takeLease(t, c, "p1").Token != 1 {
		t.Error("the first token is not 1")
	}
}
