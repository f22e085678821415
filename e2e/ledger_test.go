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

	storyMu sync.Mutex // guards story
	story   []string
}

// TestLedger lets writers write through all proxies while key ranges are split, moved, reversed and merged without end, and while
// proxies and shards are killed and cut off. At the end all is there that was acknowledged, once, on its owner; clients were told
// nothing that the manual does not tell them to try again; and who counted rows that nobody changes was never told a wrong number.
//
// It takes one to two minutes of a whole machine, and so runs by `make soak` alone.
func TestLedger(t *testing.T) {
	if os.Getenv(soakEnv) == "" {
		t.Skip("make soak runs it")
	}
	needCluster(t)
	l := newLedgerTest(t)
	defer func() {
		l.storyMu.Lock()
		defer l.storyMu.Unlock()
		t.Logf("the story:\n%s", strings.Join(l.story, "\n"))
	}()
	b := l.openBook(t)
	m := l.startMoves(t)
	b.progress(t, "all write and read before anything is disturbed")
	l.disturb(t, l.duration(t))
	l.awaitHealth(t)
	m.end(t)
	b.progress(t, "all write and read at the end")
	b.stop()
	waitFor(t, "recovery has ended what the dead had prepared", func() bool {
		return onShards(t, l.harnessShards(), "SELECT count(*) FROM pg_prepared_xacts") == 0
	})
	b.check(t)
	l.checkCluster(t)
	m.report(t)
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
	d, err := time.ParseDuration(os.Getenv(soakEnv))
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

// disturb lets one fault after the other happen, often two at a time, and ends them all.
func (l *ledgerTest) disturb(t *testing.T, lasts time.Duration) {
	t.Helper()
	random := rand.New(rand.NewPCG(l.seed, 1))
	until := time.Now().Add(lasts)
	pause := func(most time.Duration) { // of the faults: all others go on meanwhile
		d := time.Duration(random.Int64N(int64(most)))
		<-time.After(min(d, max(0, time.Until(until))))
	}
	for time.Now().Before(until) {
		pause(2 * time.Second)
		cut, heal := random.IntN(len(l.proxies)), func() {}
		if random.IntN(2) == 0 {
			heal = l.cut(cut, random.IntN(3))
			pause(2 * time.Second)
		}
		if phase := faultPhases[random.IntN(len(faultPhases))]; random.IntN(2) == 0 {
			l.lieInWait(t, phase)
		}
		switch random.IntN(5) {
		case 0: // nothing but the cut
			pause(6 * time.Second)
		case 1, 2:
			i := random.IntN(len(l.proxies))
			if who, ok := l.coordinator(t); ok && random.IntN(2) == 0 {
				i = who
			}
			l.tell("kill proxy %s; %s", l.proxies[i].name, l.phases(t))
			l.lives[i].Add(1)
			l.proxies[i].kill(t)
			pause(2 * time.Second)
			l.proxies[i].start(t)
			l.lives[i].Add(1)
			l.tell("proxy %s is back", l.proxies[i].name)
		default:
			i := random.IntN(len(l.shards))
			l.tell("kill shard s%d; %s", i+1, l.phases(t))
			if err := l.shards[i].Kill(); err != nil {
				t.Fatal(err)
			}
			pause(1500 * time.Millisecond)
			if err := l.shards[i].Restart(); err != nil {
				t.Fatal(err)
			}
			l.tell("shard s%d is back", i+1)
		}
		pause(time.Second)
		heal()
	}
}

// faultPhases are those in which moves have the most to lose.
var faultPhases = []string{"copying", "streaming", "hold", "fenced", "drained", "opened", "returning", "flipped", "released", "verified", "reversing", "cleaning", "aborting"}

// lieInWait waits a while for a move in some phase.
func (l *ledgerTest) lieInWait(t *testing.T, phase string) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if strings.Contains(l.phases(t), phase) {
			return
		}
	}
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

// cut cuts a proxy off from its peers, from the catalog, or from both.
func (l *ledgerTest) cut(i, what int) (heal func()) {
	gossip, catalog := what != 0, what != 1
	set := func(cut bool) {
		if gossip {
			l.cutGossip(i, cut)
		}
		if catalog {
			l.cutCatalog(i, cut)
		}
	}
	l.tell("cut proxy %s off: gossip %v, catalog %v", l.proxies[i].name, gossip, catalog)
	set(true)
	return func() {
		set(false)
		l.tell("proxy %s is no longer cut off", l.proxies[i].name)
	}
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
	ctl.ok("doctor", "--deep")
	nothingLeft(t, l.harnessShards())
}
