package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/e2e/harness"
	"shardproxy/topology"
)

const (
	lifePatience = 4 * time.Minute         // with one move; it takes half a minute on a quiet machine
	deadFor      = 300 * time.Millisecond  // a victim is at least: the others shall notice
	orderFor     = 2500 * time.Millisecond // an order has to come to the coordinator
	busyFor      = 10 * time.Second        // a lock waits for its cutover, some of whose budgets that is; while it is there none begins
)

// busy is the victim of a stop at which a cutover is kept waiting, by a shard on which a table is locked.
const busy = "busy"

// crashLane moves one key range to and fro between two shards. Lanes run side by side, each with shards of its own; the proxies and
// the catalog are everybody's, so the victims of one lane are faults for the other.
type crashLane struct {
	*ledgerTest
	number int
	stops  stops
	ids    int                // of stops, so far
	left   map[int]crashCell  // of this life, that are not reached yet, by their stops
	free   context.CancelFunc // ends the lock that keeps a cutover waiting
	dead   sync.WaitGroup     // those who are started again
	before int64              // the last move of any lane before this life
}

// shard names one of the two shards of the lane.
func (w *crashLane) shard(i int) string { return fmt.Sprintf("s%d", w.index(i)+1) }

func (w *crashLane) index(i int) int { return 2*w.number + i }

func (w *crashLane) run(t *testing.T, lives <-chan crashLife) {
	defer w.dead.Wait()
	w.stops.ledgerTest, w.free = w.ledgerTest, func() {}
	for life := range lives {
		from := time.Now()
		w.live(t, life)
		if t.Failed() {
			return // what follows would only fail for the same reason
		}
		t.Logf("%v, %s: %v", life, life.way.end, time.Since(from).Round(time.Second))
	}
}

// live lets one move come to its end, with a victim at each of the stops.
func (w *crashLane) live(t *testing.T, life crashLife) {
	ctx, cancel := context.WithTimeout(t.Context(), lifePatience)
	defer cancel()
	w.left = make(map[int]crashCell)
	for _, c := range life.cells {
		w.put(ctx, t, c)
	}
	w.putBusy(ctx, t)
	if life.way.order == "abort" {
		w.put(ctx, t, crashCell{"abort", true, "streaming"}) // there are rows to be deleted
	}
	source, target := w.direction(ctx, t)
	w.tell("%v: from %s to %s, to be %s", life, w.shard(source), w.shard(target), life.way.end)
	asking, asked := context.WithCancel(ctx)
	defer asked()
	go w.ask(asking, w.shard(target))
	ordered, phase := false, ""
	for {
		id, err := w.stops.next(ctx, w.shard(0))
		if err == nil && id != 0 {
			w.strike(ctx, t, id, w.index(source), w.index(target))
			continue
		}
		r, found, err := w.move(ctx)
		if found && r.Phase != phase {
			phase = r.Phase
			w.tell("move %d is %s: %s", r.ID, phase, r.Error)
		}
		switch {
		case ctx.Err() != nil:
			t.Fatalf("%v: move %d is still %s: %s\n%s", life, r.ID, r.Phase, r.Error, r.State)
		case err != nil || !found: // the catalog is down, or the move is being asked for
		case r.Done:
			w.checkEnd(ctx, t, life, r)
			return
		case r.Phase == "failed-verification":
			t.Fatalf("%v: move %d has found differences: %s", life, r.ID, r.Error)
		case r.Phase == "soak" && !ordered:
			ordered = true
			w.order(ctx, t, life.way.order)
		default:
			asked()
		}
	}
}

// put makes a stop for a cell.
func (w *crashLane) put(ctx context.Context, t *testing.T, c crashCell) {
	t.Helper()
	w.ids++
	id := w.ids*shardCount + w.number
	w.left[id] = c
	w.patiently(ctx, t, func() error { return w.stops.put(ctx, id, w.shard(0), c) })
}

// putBusy makes a stop at the next cutover if it has to be taken back for a cell that is left: by a lock that its fence waits for.
func (w *crashLane) putBusy(ctx context.Context, t *testing.T) bool {
	t.Helper()
	for _, c := range w.left {
		if strings.HasPrefix(c.state, "returning") {
			w.put(ctx, t, crashCell{busy, true, strings.Replace(c.state, "returning", "hold", 1)})
			return true
		}
	}
	return false
}

// patiently runs f until it succeeds: the catalog may be down for a moment.
func (w *crashLane) patiently(ctx context.Context, t *testing.T, f func() error) {
	t.Helper()
	for err := f(); err != nil; err = f() {
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(crashPoll):
		}
	}
}

// direction says which of the two shards owns the lane's range, and which it is to go to.
func (w *crashLane) direction(ctx context.Context, t *testing.T) (source, target int) {
	w.patiently(ctx, t, func() error {
		snap, err := w.journal.Load(ctx)
		if err != nil {
			return err
		}
		source = int(snap.Owner(w.start())) - w.index(0)
		list, err := w.journal.LoadMoves(ctx, true)
		for _, r := range list {
			w.before = max(w.before, r.ID)
		}
		return err
	})
	return source, 1 - source
}

// start of the range that is moved: the whole share that the first shard of the lane has had.
func (w *crashLane) start() topology.KeyHash {
	return topology.EqualRanges(shardCount)[w.index(0)].Start
}

// move is the last one of the lane, in this life.
func (w *crashLane) move(ctx context.Context) (last topology.MoveRecord, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, crashPatience)
	defer cancel()
	list, err := w.journal.LoadMoves(ctx, true)
	for _, r := range list {
		if r.ID > w.before && slices.Contains([]string{w.shard(0), w.shard(1)}, r.Source) {
			last, found = r, true
		}
	}
	return last, found, err
}

// ask asks one proxy after the other for the move, until it is known that there is one.
func (w *crashLane) ask(ctx context.Context, target string) {
	sql := fmt.Sprintf("MOVE RANGE 0x%016x TO %s", uint64(w.start()), target)
	for i := w.number; ctx.Err() == nil; i++ {
		err := w.command(ctx, i%len(w.dsns), sql)
		w.tell("%s: %v", sql, err)
		if err == nil {
			return
		}
		<-time.After(100 * time.Millisecond)
	}
}

// order gives an order to the lane's move, as any proxy would.
func (w *crashLane) order(ctx context.Context, t *testing.T, what string) {
	w.patiently(ctx, t, func() error {
		r, _, err := w.move(ctx)
		if err == nil {
			_, err = w.journal.AddMoveOrder(ctx, r.ID, what, topology.Actor{User: "test", From: "e2e"})
		}
		return err
	})
}

// strike kills the victim of a stop, lets the move go on, and starts the victim again a little later.
func (w *crashLane) strike(ctx context.Context, t *testing.T, id, source, target int) {
	t.Helper()
	c := w.left[id]
	delete(w.left, id)
	if strings.HasPrefix(c.state, "returning") {
		w.free()
	}
	switch c.victim {
	case "abort":
		w.order(ctx, t, c.victim)
		<-time.After(orderFor)
	case busy:
		owner := source
		if strings.HasSuffix(c.state, "-back") {
			owner = target
		}
		w.keepBusy(ctx, t, c, owner)
	case "coordinator", "proxy":
		i := w.victim(ctx, t, c.victim)
		w.kill(ctx, t, c, w.proxies[i].name, &w.killing.proxies[i], func() error {
			w.lives[i].Add(1)
			w.proxies[i].kill(t)
			return nil
		}, func() error {
			w.proxies[i].start(t)
			w.lives[i].Add(1)
			return nil
		})
	case "source", "target":
		i := source
		if c.victim == "target" {
			i = target
		}
		w.kill(ctx, t, c, fmt.Sprintf("s%d", i+1), &w.killing.shards[i], w.shards[i].Kill, w.shards[i].Restart)
	case "catalog":
		w.kill(ctx, t, c, "the catalog", &w.killing.catalog, w.catalog.Kill, w.catalog.Restart)
	}
	w.patiently(ctx, t, func() error { return w.stops.release(ctx, id) })
}

// keepBusy locks a table of the owner until the cutover is taken back. The next cutover gets a stop too: of this one the journal knows
// nothing yet, and if somebody is killed first, there may be none before the lock is gone.
func (w *crashLane) keepBusy(ctx context.Context, t *testing.T, c crashCell, owner int) {
	t.Helper()
	w.free()
	if !w.putBusy(ctx, t) { // a cutover was taken back meanwhile
		return
	}
	var conn *pgx.Conn
	w.patiently(ctx, t, func() (err error) { // the shard may be down
		if conn, err = pgx.Connect(ctx, w.shards[owner].DSN("app")); err != nil {
			return err
		}
		if _, err = conn.Exec(ctx, "BEGIN; LOCK TABLE users IN ROW EXCLUSIVE MODE"); err != nil {
			_ = conn.Close(context.Background())
		}
		return err
	})
	w.tell("%v: s%d is", c, owner+1)
	locked, free := context.WithTimeout(ctx, busyFor)
	w.free = free
	w.dead.Go(func() {
		defer free()
		<-locked.Done()
		_ = conn.Close(context.Background())
	})
}

// kill kills somebody whom nobody else may kill until it is back.
func (w *crashLane) kill(ctx context.Context, t *testing.T, c crashCell, name string, alive *sync.Mutex, kill, start func() error) {
	alive.Lock()
	if err := kill(); err != nil {
		t.Error(err)
	}
	r, _, _ := w.move(ctx) // not where the catalog is dead
	w.tell("%v: killed %s; the journal says %s", c, name, r.Phase)
	w.dead.Go(func() {
		defer alive.Unlock()
		<-time.After(deadFor)
		if err := start(); err != nil {
			t.Error(err)
		}
		w.tell("%s is back", name)
	})
}

// victim is the proxy that coordinates moves, or another one.
func (w *crashLane) victim(ctx context.Context, t *testing.T, which string) (i int) {
	w.patiently(ctx, t, func() error {
		holders, err := w.stops.run(ctx, "SELECT ascii(holder) - ascii('a') FROM shardproxy.coordinator")
		if err == nil {
			i = holders[0]
		}
		return err
	})
	if which == "proxy" {
		i = (i + 1) % len(w.proxies)
	}
	return i
}

// checkEnd looks whether the move has ended as it should, and for what is left of it.
func (w *crashLane) checkEnd(ctx context.Context, t *testing.T, life crashLife, r topology.MoveRecord) {
	w.free()
	w.dead.Wait()
	if r.Phase != life.way.end {
		t.Errorf("%v: move %d is %s, not %s: %s\n%s", life, r.ID, r.Phase, life.way.end, r.Error, r.State)
	}
	for _, c := range w.left {
		if c.victim != busy {
			t.Errorf("%v: %v was not reached", life, c)
		}
	}
	w.patiently(ctx, t, func() error { return w.stops.clear(ctx, w.shard(0)) })
	var snap *topology.Snapshot
	w.patiently(ctx, t, func() (err error) {
		snap, err = w.journal.Load(ctx)
		return err
	})
	for _, m := range snap.Moving() {
		if m.ID == r.ID {
			t.Errorf("%v: the map still tells of move %+v", life, m)
		}
	}
	all := w.harnessShards().Shards
	nothingLeft(t, &harness.Cluster{Dev: harness.Dev{Shards: all[w.index(0) : w.index(1)+1]}})
}
