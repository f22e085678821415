package mover

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

func TestNewRanges(t *testing.T) {
	r := func(pairs ...uint64) (list []topology.KeyRange) {
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, topology.KeyRange{Start: topology.KeyHash(pairs[i]), End: topology.KeyHash(pairs[i+1]), Shard: topology.ShardID(i)})
		}
		return list
	}
	for _, c := range []struct {
		in   []topology.KeyRange
		want string
	}{
		{r(5, 9, 1, 3), "[{1 3} {5 9}]"},
		{r(5, 9, 1, 5, 9, 0), "[{1 0}]"},
		{r(0, 0), "[{0 0}]"},
		{r(1, 5, 4, 6), "error"},
		{r(1, 0, 4, 6), "error"},
		{r(4, 4), "error"},
		{r(4, 3), "error"},
		{nil, "error"},
	} {
		got, err := newRanges(c.in)
		var text []string
		for _, one := range got {
			text = append(text, fmt.Sprintf("{%d %d}", one.Start, one.End))
		}
		s := "[" + strings.Join(text, " ") + "]"
		if err != nil {
			s = "error"
		}
		if s != c.want {
			t.Errorf("%v: %s, want %s", c.in, s, c.want)
		}
	}
}

// TestPredicateAgreesWithContain compares SQL and Go on the borders of random ranges.
func TestPredicateAgreesWithContain(t *testing.T) {
	conn := pgtest.Shared(t).Connect(t, "postgres")
	rapid.Check(t, func(rt *rapid.T) {
		borders := rapid.SliceOfNDistinct(rapid.OneOf(rapid.Uint64(), rapid.SampledFrom([]uint64{0, 1, 1 << 63, 1<<63 - 1, 1<<64 - 1})), 2, 12, rapid.ID).Draw(rt, "borders")
		var list []topology.KeyRange
		for i := 0; i+1 < len(borders); i += 2 {
			list = append(list, topology.KeyRange{Start: topology.KeyHash(borders[i]), End: topology.KeyHash(borders[i+1])})
		}
		r, err := newRanges(list)
		if err != nil {
			rt.Skip(err)
		}
		var hashes, want []string
		for _, b := range borders {
			for _, h := range []topology.KeyHash{topology.KeyHash(b) - 1, topology.KeyHash(b), topology.KeyHash(b) + 1} {
				hashes = append(hashes, fmt.Sprintf("('%d'::int8)", h.Signed()))
				want = append(want, strconv.FormatBool(r.contain(h)))
			}
		}
		var got string
		sql := fmt.Sprintf("SELECT string_agg((%s)::text, ' ') FROM (VALUES %s) v(h)", r.predicate("h"), strings.Join(hashes, ", "))
		if err := conn.QueryRow(t.Context(), sql).Scan(&got); err != nil {
			rt.Fatal(err)
		}
		if got != strings.Join(want, " ") {
			rt.Fatalf("%v: SQL says %s, Go says %v", r, got, want)
		}
	})
}

func TestMoveName(t *testing.T) {
	long := moveName(strings.Repeat("x", 100), 1<<63-1) + "_back"
	if len(long) > 63 {
		t.Errorf("%s is too long for a replication slot", long)
	}
	if a, b := moveName("Prod", 1), moveName("prod", 1); a == b || strings.ToLower(a) != a {
		t.Errorf("%s, %s", a, b)
	}
	if got := moveName("prod1", 7); got != "shardproxy_move_prod1_7" {
		t.Error(got)
	}
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := int64(1 << 20)
		th := &throttle{perSecond: func() int64 { return limit }}
		from := time.Now()
		for range 100 {
			if err := th.wait(t.Context(), 1<<16); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(from).Round(100 * time.Millisecond); took < 6*time.Second || took > 6300*time.Millisecond {
			t.Errorf("6.25 MB at 1 MB/s took %v", took)
		}
		limit = 0
		if err := th.wait(t.Context(), 1<<30); err != nil || time.Since(from) > 6300*time.Millisecond {
			t.Errorf("without a limit: %v after %v", err, time.Since(from))
		}
		limit = 1 << 20
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errStopTest)
		if err := th.wait(ctx, 1<<20); !errors.Is(err, errStopTest) {
			t.Errorf("a cancelled wait: %v", err)
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1000)
		pushed := 0
		go func() {
			for i := range 100 {
				if q.push(t.Context(), change{lsn: LSN(i), size: 300}) != nil {
					return
				}
				pushed++
			}
			q.close(errStopTest)
		}()
		synctest.Wait()
		if pushed != 4 {
			t.Errorf("%d changes of 300 bytes in a queue of 1000", pushed)
		}
		next := LSN(0)
		var buffer []change
		for {
			list, err := q.take(t.Context(), buffer)
			if err != nil {
				if !errors.Is(err, errStopTest) {
					t.Error(err)
				}
				break
			}
			for _, c := range list {
				if c.lsn != next {
					t.Fatalf("%d after %d", c.lsn, next)
				}
				next++
			}
			buffer = list
		}
		if next != 100 {
			t.Errorf("%d changes came out", next)
		}
	})
}
