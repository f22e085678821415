package e2e

import (
	"context"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
)

// pgbenchModes are the ways in which pgbench sends its statements.
var pgbenchModes = []string{"simple", "extended", "prepared"}

// balances are the sums of pgbench's four tables, of which each transaction of TPC-B changes all by the same amount.
type balances struct{ accounts, branches, tellers, history, transactions int }

// balancesAt adds up what a proxy or each of several shards says.
func balancesAt(t *testing.T, dsns ...string) (b balances) {
	t.Helper()
	const sql = `SELECT sum(abalance) FROM pgbench_accounts; SELECT coalesce(sum(bbalance), 0) FROM pgbench_branches;
		SELECT coalesce(sum(tbalance), 0) FROM pgbench_tellers; SELECT coalesce(sum(delta), 0), count(*) FROM pgbench_history`
	for _, dsn := range dsns {
		rows, err := rowsAt(t.Context(), dsn, sql)
		if err != nil {
			t.Fatal(err)
		}
		for i, to := range []*int{&b.accounts, &b.branches, &b.tellers, &b.history} {
			*to += number(t, rows[i][0])
		}
		b.transactions += number(t, rows[3][1])
	}
	return b
}

// TestTPCB runs pgbench's own transactions, whose rows are on shards of their own: accounts by aid, branches by bid, tellers
// by tid, history by aid. None fails, and all sums agree.
func TestTPCB(t *testing.T) {
	const clients, transactions = 16, 25
	pgbench(t, "-i", "-q", "-s", "4")
	var before balances
	for i, builtin := range []string{"tpcb-like", "simple-update"} {
		for j, mode := range pgbenchModes {
			args := []string{"-b", builtin, "-M", mode, "-c", strconv.Itoa(clients), "-j", "2", "-t", strconv.Itoa(transactions)}
			if i+j > 0 {
				args = append(args, "-n") // VACUUM, and TRUNCATE of the history, before the first of all
			}
			wantProcessed(t, pgbench(t, args...), clients*transactions)
			now := balancesAt(t, proxyDSN)
			t.Logf("%s, %s: %+v", builtin, mode, now)
			want := balances{now.accounts, now.accounts, now.accounts, now.accounts, before.transactions + clients*transactions}
			if builtin == "simple-update" { // of accounts and history alone
				want.branches, want.tellers = before.branches, before.branches
			}
			if now != want {
				t.Errorf("%s, %s: %+v, want %+v", builtin, mode, now, want)
			}
			before = now
		}
	}
}

// TestTPCBFaults kills a proxy and then a shard under TPC-B, and starts each again. Clients of another proxy than the dead one do not
// fail. At the end nothing is left prepared, the sums agree exactly, and all is there that was acknowledged.
func TestTPCBFaults(t *testing.T) {
	needCluster(t)
	c := newFaultCluster(t)
	pgbenchAt(t, c.proxies[0].DSN, "-i", "-q", "-s", "4")
	b := &tpcbLoad{rounds: make([]atomic.Int64, len(c.proxies))}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for i, p := range c.proxies {
		b.wg.Go(func() { b.run(ctx, i, p.DSN) })
	}
	everywhere := []int{0, 1, 2}
	b.progress(t, "all proxies serve", everywhere)

	c.proxies[0].kill(t)
	b.progress(t, "what the dead proxy had locked is free", []int{1, 2})
	for _, text := range append(b.failures(1), b.failures(2)...) {
		t.Errorf("a client of a proxy that lives: %s", text)
	}
	c.proxies[0].start(t)
	b.progress(t, "the proxy is back", everywhere)

	if err := c.shards[1].Kill(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "clients of the shard fail", func() bool { return len(b.failures(1)) > 0 && len(b.failures(2)) > 0 })
	if err := c.shards[1].Restart(); err != nil {
		t.Fatal(err)
	}
	b.progress(t, "the shard is back", everywhere)
	cancel()
	b.wg.Wait()

	shards := c.harnessShards()
	waitFor(t, "recovery has ended what the dead had prepared", func() bool {
		return onShards(t, shards, "SELECT count(*) FROM pg_prepared_xacts") == 0
	})
	var dsns []string
	for _, shard := range shards.Shards {
		dsns = append(dsns, shard.Primary().DSN)
	}
	now, acknowledged := balancesAt(t, dsns...), int(b.acknowledged.Load())
	t.Logf("%+v, acknowledged %d", now, acknowledged)
	if want := (balances{now.accounts, now.accounts, now.accounts, now.accounts, now.transactions}); now != want {
		t.Errorf("%+v, want %+v", now, want)
	}
	if now.transactions < acknowledged || acknowledged == 0 {
		t.Errorf("the history has %d rows; %d transactions were acknowledged", now.transactions, acknowledged)
	}
}

// tpcbLoad is one pgbench after the other at each of several proxies.
type tpcbLoad struct {
	wg           sync.WaitGroup
	rounds       []atomic.Int64 // that have succeeded, by proxies
	acknowledged atomic.Int64   // transactions, of rounds that failed too

	mu     sync.Mutex // guards failed
	failed [3][]string
}

func (b *tpcbLoad) run(ctx context.Context, proxy int, dsn string) {
	processed := regexp.MustCompile(`actually processed: (\d+)/`)
	for ctx.Err() == nil {
		out, err := runPgbench(context.WithoutCancel(ctx), dsn, "-n", "-b", "tpcb-like", "-M", pgbenchModes[proxy], "-c", "4", "-t", "20")
		if found := processed.FindStringSubmatch(out); found != nil {
			n, _ := strconv.ParseInt(found[1], 10, 64)
			b.acknowledged.Add(n)
		}
		if err == nil {
			b.rounds[proxy].Add(1)
			continue
		}
		b.mu.Lock()
		b.failed[proxy] = append(b.failed[proxy], err.Error())
		b.mu.Unlock()
	}
}

func (b *tpcbLoad) failures(proxy int) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed[proxy]
}

// progress waits for a round at each of the proxies that has begun after now.
func (b *tpcbLoad) progress(t *testing.T, what string, proxies []int) {
	t.Helper()
	for _, i := range proxies {
		from := b.rounds[i].Load()
		waitFor(t, what, func() bool { return b.rounds[i].Load() >= from+2 })
	}
}
