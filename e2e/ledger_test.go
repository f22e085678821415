package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/topology"
)

const (
	soakEnv     = "SHARDPROXY_SOAK"      // how long faults last, such as "5m"
	soakSeedEnv = "SHARDPROXY_SOAK_SEED" // of an earlier run: the same faults, though not at the same moments of the load

	bookWriters  = 8
	bookAccounts = 200       // of all writers
	bookFixed    = 1_000_000 // keys from here on are never written
	bookFixedMax = 400
)

// ledgerTest is a cluster with clients who keep a book, and with what disturbs them.
type ledgerTest struct {
	*faultCluster
	seed    uint64
	dsns    []string
	lives   []atomic.Int64 // of the proxies: odd while one is dead
	journal *topology.Catalog
	from    time.Time

	killing struct { // held from the death of somebody until it is back
		proxies [3]sync.Mutex
		shards  [shardCount]sync.Mutex
		catalog sync.Mutex
	}

	storyMu sync.Mutex // guards story
	story   []string
}

// TestLedger lets writers write through all proxies while key ranges are split, moved, reversed and merged without end, and while
// proxies and shards are killed and cut off. At the end all is there that was acknowledged, once, on its owner; clients were told
// nothing that the manual does not tell them to try again; and who counted rows that nobody changes was never told a wrong number.
//
// make soak lets it go on for longer.
func TestLedger(t *testing.T) {
	needCluster(t)
	l := newLedgerTest(t)
	defer l.tellStory(t)
	b := l.openBook(t)
	m := l.startMoves(t)
	b.progress(t, "all write and read before anything is disturbed")
	l.disturb(t, l.duration(t))
	l.awaitHealth(t)
	m.end(t)
	b.progress(t, "all write and read at the end")
	l.end(t, b)
	m.report(t)
}

// end ends the clients, and looks whether all is as they were told.
func (l *ledgerTest) end(t *testing.T, b *book) {
	t.Helper()
	b.stop()
	waitFor(t, "recovery has ended what the dead had prepared", func() bool {
		return onShards(t, l.harnessShards(), "SELECT count(*) FROM pg_prepared_xacts") == 0
	})
	b.check(t)
	l.checkCluster(t)
	b.report(t)
}

func newLedgerTest(t *testing.T) *ledgerTest {
	t.Helper()
	l := &ledgerTest{seed: rand.Uint64N(1 << 32), from: time.Now()}
	if text := os.Getenv(soakSeedEnv); text != "" {
		var err error
		if l.seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", soakSeedEnv, err)
		}
	}
	t.Logf("%s=%d", soakSeedEnv, l.seed)
	l.faultCluster = newFaultCluster(t)
	l.lives = make([]atomic.Int64, len(l.proxies))
	for _, p := range l.proxies {
		l.dsns = append(l.dsns, p.DSN)
	}
	var err error
	if l.journal, err = topology.OpenCatalog(l.catalog.DSNAs("app", "app", "app")); err != nil {
		t.Fatal(err)
	}
	s := connect(t, l.dsns[0])
	s.must(t, "CREATE TABLE users (id bigint PRIMARY KEY, n bigint NOT NULL, m bigint NOT NULL, pad text)")
	s.must(t, "CREATE TABLE projects (creator_user_id bigint REFERENCES users, id bigint, PRIMARY KEY (creator_user_id, id))")
	s.must(t, "CREATE TABLE settings (user_id bigint, id bigint, v bigint NOT NULL, PRIMARY KEY (user_id, id))")
	for _, keys := range [][2]int{{1, bookAccounts}, {bookFixed, bookFixed + bookFixedMax - 1}} {
		var users, projects []string
		for k := keys[0]; k <= keys[1]; k++ {
			users = append(users, fmt.Sprintf("(%d, 0, 0, '%s')", k, strings.Repeat("x", 300)))
			projects = append(projects, fmt.Sprintf("(%d, 0)", k))
		}
		s.mustf(t, "INSERT INTO users VALUES %s", strings.Join(users, ", "))
		s.mustf(t, "INSERT INTO projects VALUES %s", strings.Join(projects, ", "))
	}
	l.proxies[0].console(t).must(t, "FENCE INSTALL")
	return l
}

func (l *ledgerTest) duration(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv(soakEnv)
	if text == "" {
		return 45 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", soakEnv, err)
	}
	return d
}

// tell adds a line to the story of the run.
func (l *ledgerTest) tell(format string, args ...any) {
	l.storyMu.Lock()
	defer l.storyMu.Unlock()
	l.story = append(l.story, fmt.Sprintf("%s %7.2fs  %s", time.Now().UTC().Format("15:04:05.000"), time.Since(l.from).Seconds(), fmt.Sprintf(format, args...)))
}

// tellStory also lists, of a run that has failed, what became of the map.
func (l *ledgerTest) tellStory(t *testing.T) {
	t.Helper()
	l.storyMu.Lock()
	defer l.storyMu.Unlock()
	if t.Failed() {
		rows, err := l.catalog.Connect(t, "app").Query(t.Context(), "SELECT to_char(at AT TIME ZONE 'UTC', 'HH24:MI:SS.MS') || '           epoch ' || epoch || ': ' || what FROM shardproxy.changes ORDER BY epoch")
		if err != nil {
			t.Fatal(err)
		}
		changes, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		l.story = append(l.story, changes...)
		slices.Sort(l.story) // all begin with the time of day
	}
	t.Logf("the story:\n%s", strings.Join(l.story, "\n"))
}

// command runs a command at the console of a proxy.
func (l *ledgerTest) command(ctx context.Context, proxy int, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, consolePatient)
	defer cancel()
	conn, err := pgconn.Connect(ctx, strings.Replace(l.dsns[proxy], "/app?", "/shardproxy?", 1))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql).ReadAll()
	return err
}

// phases of the moves that are open.
func (l *ledgerTest) phases(t *testing.T) string {
	t.Helper()
	open, err := l.journal.LoadMoves(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, r := range open {
		list = append(list, fmt.Sprintf("%d is %s", r.ID, r.Phase))
	}
	return strings.Join(list, ", ")
}

// coordinator says which of the proxies carries out the moves.
func (l *ledgerTest) coordinator(t *testing.T) (i int, ok bool) {
	t.Helper()
	conn := l.catalog.Connect(t, "app")
	defer conn.Close(context.WithoutCancel(t.Context()))
	var holder string
	if err := conn.QueryRow(t.Context(), "SELECT coalesce(holder, '') FROM shardproxy.coordinator").Scan(&holder); err != nil {
		t.Fatal(err)
	}
	i = slices.IndexFunc(l.proxies, func(p *faultProxy) bool { return p.name == holder })
	return i, i >= 0
}

func (l *ledgerTest) awaitHealth(t *testing.T) {
	t.Helper()
	l.tell("all faults have ended")
	waitFor(t, "all is well", func() bool {
		for i, p := range l.proxies {
			if get(t, p.HTTP+"/readyz") != "ready\n" || l.alivePeers(t, i) != 2 {
				return false
			}
		}
		return true
	})
}

// checkCluster looks for what moves and the dead have left.
func (l *ledgerTest) checkCluster(t *testing.T) {
	t.Helper()
	ctl := &controller{t, buildShardctl(t).path, strings.Replace(l.dsns[1], "/app?", "/shardproxy?", 1)}
	ctl.ok("verify")
	ctl.ok("doctor", "--deep", "--strict")
	nothingLeft(t, l.harnessShards())
}
