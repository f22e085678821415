package fence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"shardproxy/topology"
)

// summary is a result without its problems' hints.
func summary(list []Result) (lines []string) {
	for _, r := range list {
		line := fmt.Sprintf("%s: epoch %d, %d tables, changed %v", r.Shard, r.Epoch, r.Tables, r.Changed)
		for _, p := range r.Problems {
			line += "; " + p.String()
		}
		if r.Err != nil {
			line += "; " + r.Err.Error()
		}
		lines = append(lines, line)
	}
	return lines
}

// TestAll installs and checks over shards of which one cannot be reached, one is busy at first, and one has other tables.
func TestAll(t *testing.T) {
	const ddl = "CREATE TABLE users (id int PRIMARY KEY); CREATE TABLE plans (id int); CREATE TABLE odd (user_id json)"
	shards := []*shard{newShard(t, ddl), nil, newShard(t, ddl), newShard(t, "CREATE TABLE users (id int PRIMARY KEY)")}
	snap := snapshotOf(t, 7, "a b c d", topology.EqualRanges(4)...)
	snap.Rules = topology.DefaultKeyRules()
	writer := shards[2].session(0)
	shards[2].must(writer, "BEGIN; INSERT INTO users VALUES (1)")
	var attempts atomic.Int32
	onShard := func(_ context.Context, id topology.ShardID, f func(topology.Query) error) error {
		s := shards[id]
		if s == nil {
			return errors.New("connection refused")
		}
		if id == 2 && attempts.Add(1) == 2 {
			if err := s.exec(writer, "ROLLBACK"); err != nil {
				t.Error(err)
			}
		}
		return f(s.query)
	}
	const odd = `; public.odd: it has no fence, as its rows cannot be placed: shard key public.odd.user_id: type OID 114 cannot be a shard key; smallint, integer, bigint, text, varchar and uuid can`
	want := []string{
		"a: epoch 0, 2 tables, changed false; the shard has no fence" + odd,
		"b: epoch 0, 0 tables, changed false; shard b: connection refused",
		"c: epoch 0, 2 tables, changed false; the shard has no fence" + odd,
		"d: epoch 0, 1 tables, changed false; the shard has no fence",
	}
	if diff := cmp.Diff(want, summary(CheckAll(t.Context(), snap, onShard))); diff != "" {
		t.Errorf("before: %s", diff)
	}
	attempts.Store(0)
	for _, changed := range []bool{true, false} {
		want = []string{
			fmt.Sprintf("a: epoch 7, 2 tables, changed %v%s", changed, odd),
			"b: epoch 0, 0 tables, changed false; shard b: connection refused",
			fmt.Sprintf("c: epoch 7, 2 tables, changed %v%s", changed, odd),
			fmt.Sprintf("d: epoch 7, 1 tables, changed %v", changed),
		}
		if diff := cmp.Diff(want, summary(InstallAll(t.Context(), snap, onShard))); diff != "" {
			t.Errorf("install: %s", diff)
		}
	}
	if n := attempts.Load(); n < 3 {
		t.Errorf("the busy shard was asked %d times", n)
	}
	for i, s := range shards {
		if s != nil {
			if diff := cmp.Diff(StateOf(snap, topology.ShardID(i)), s.read()); diff != "" {
				t.Error(diff)
			}
		}
	}

	shards[0].set(State{Shard: "a", Epoch: 9})
	if got := summary(InstallAll(t.Context(), snap, onShard))[0]; got != "a: epoch 9, 2 tables, changed false"+odd+"; the fence is at epoch 9, above the map's 7" {
		t.Errorf("a later fence: %s", got)
	}
	if got := summary(CheckAll(t.Context(), snap, onShard))[0]; got != "a: epoch 9, 2 tables, changed false; the fence is at epoch 9, above the map's 7"+odd {
		t.Errorf("a later fence: %s", got)
	}
}

// TestAllIsBounded counts the shards that are worked on at the same time.
func TestAllIsBounded(t *testing.T) {
	const n = 3 * parallel
	snap := snapshotOf(t, 7, strings.Repeat("s ", n), topology.EqualRanges(n)...)
	var now, all atomic.Int32
	full := make(chan struct{})
	results := InstallAll(t.Context(), snap, func(_ context.Context, id topology.ShardID, _ func(topology.Query) error) error {
		if now.Add(1) > parallel {
			t.Error("too many at a time")
		}
		defer now.Add(-1)
		if all.Add(1) == parallel {
			close(full)
		}
		<-full // the first wait for each other, so they do run at the same time
		return fmt.Errorf("shard %d fails", id)
	})
	for i, r := range results {
		if r.Err == nil || !strings.Contains(r.Err.Error(), fmt.Sprintf("shard %d fails", i)) {
			t.Fatalf("%d: %v", i, r.Err)
		}
	}
	if all.Load() != n {
		t.Errorf("%d shards were asked", all.Load())
	}
}

func TestAllEndsWithItsContext(t *testing.T) {
	snap := snapshotOf(t, 7, strings.Repeat("s ", 100), topology.EqualRanges(100)...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asked atomic.Int32
	results := InstallAll(ctx, snap, func(context.Context, topology.ShardID, func(topology.Query) error) error {
		asked.Add(1)
		cancel()
		return ErrBusy
	})
	for i, r := range results {
		if !errors.Is(r.Err, context.Canceled) && !errors.Is(r.Err, ErrBusy) {
			t.Fatalf("%d: %v", i, r.Err)
		}
	}
	if n := asked.Load(); n > parallel {
		t.Errorf("%d shards were asked", n)
	}
}
