package e2e

import (
	"context"
	"fmt"
	"regexp"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"shardproxy/e2e/harness"
)

// connectionLost are the errors by which a driver knows that the server behind its connection is gone.
var connectionLost = regexp.MustCompile(`^error (ERROR|FATAL) (08|57P)`)

// TestKilledShard kills the server of one shard in mid-statement. Its clients must get an error; those of
// other shards must notice nothing. It has a cluster of its own.
func TestKilledShard(t *testing.T) {
	needCluster(t)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c, err := harness.StartCluster(ctx, harness.Options{Binary: proxyBin, Shards: shardCount})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	}()
	const victim = 1
	s := connect(t, c.DSN())
	s.must(t, "CREATE TABLE kill_t (user_id bigint PRIMARY KEY, n int)")
	keys := make([]int, shardCount)
	for shard := range keys {
		keys[shard] = keyOn(t, c, shard, 0)
		s.mustf(t, "INSERT INTO kill_t VALUES (%d, 0)", keys[shard])
	}

	// Running on the victim, idle in a transaction on it, in a transaction over two shards, and elsewhere.
	sleeping, idle, both, fresh := connect(t, c.DSN()), connect(t, c.DSN()), connect(t, c.DSN()), connect(t, c.DSN())
	idle.must(t, "BEGIN")
	idle.mustf(t, "UPDATE kill_t SET n = 1 WHERE user_id = %d", keys[victim])
	both.must(t, "BEGIN")
	half := keyOn(t, c, 0, 1)
	both.mustf(t, "INSERT INTO kill_t VALUES (%d, 7)", half)
	both.mustf(t, "INSERT INTO kill_t VALUES (%d, 7)", keyOn(t, c, victim, 1))
	answered := make(chan string, 1)
	go func() {
		line, _ := sleeping.simple(&entry{sql: fmt.Sprintf("SELECT pg_sleep(600), 'kill' FROM kill_t WHERE user_id = %d", keys[victim])}).failed()
		answered <- line
	}()
	waitFor(t, "the statement runs", func() bool { return sleepers(t, c, "kill") == 1 })

	var group errgroup.Group
	var rounds atomic.Int64
	stop := make(chan struct{})
	for shard, key := range keys {
		if shard == victim {
			continue
		}
		elsewhere := connect(t, c.DSN())
		group.Go(func() error {
			for {
				select {
				case <-stop:
					return nil
				default:
				}
				if line, failed := elsewhere.simple(&entry{sql: fmt.Sprintf("UPDATE kill_t SET n = n WHERE user_id = %d", key)}).failed(); failed {
					return fmt.Errorf("a client of shard %d: %s", shard, line)
				}
				rounds.Add(1)
			}
		})
	}
	moreRounds := func(what string) {
		t.Helper()
		from := rounds.Load()
		waitFor(t, what, func() bool { return rounds.Load() > from+30 })
	}
	moreRounds("clients of other shards work")
	if err := syscall.Kill(c.Shards[victim].Primary().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case line := <-answered:
		if !connectionLost.MatchString(line) {
			t.Errorf("the running statement ends with %q", line)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the client of the killed shard gets no answer")
	}
	moreRounds("clients of other shards go on")

	update := &entry{sql: fmt.Sprintf("UPDATE kill_t SET n = 2 WHERE user_id = %d", keys[victim])}
	for name, s := range map[string]*session{"idle in a transaction": idle, "that asks anew": fresh} {
		begin := time.Now()
		if line, failed := s.simple(update).failed(); !failed || !connectionLost.MatchString(line) {
			t.Errorf("a client %s gets %q", name, line)
		}
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("a client %s waits %v for its error", name, took)
		}
	}
	commit := both.simple(&entry{sql: "COMMIT"})
	if line, _ := commit.failed(); !connectionLost.MatchString(line) && commit.lines[0] != "tag ROLLBACK" {
		t.Errorf("COMMIT of a transaction that wrote on the killed shard gets %q", commit.lines)
	}
	if fresh.tx != 0 {
		fresh.mustf(t, "UPDATE kill_t SET n = n WHERE user_id = %d", keys[2])
	}
	moreRounds("clients of other shards go on afterwards")
	close(stop)
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if got := onShard(t, c.Shards[0], fmt.Sprintf("SELECT n FROM kill_t WHERE user_id = %d", half)); len(got) > 0 {
		t.Errorf("half of a transaction stays: %v", got)
	}
	if !c.Alive() {
		t.Error("the proxy has died")
	}
	late := connect(t, c.DSN())
	late.mustf(t, "SELECT n FROM kill_t WHERE user_id = %d", keys[0])
}
