package router

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"shardproxy/topology"
)

// movingSnapshot is testSnapshot while a third of the keys is on a second shard: moves to it, or has just moved away from it.
func movingSnapshot(t *testing.T, rng *rand.Rand) *topology.Snapshot {
	t.Helper()
	snap := testSnapshot(t)
	const cells = 256
	ranges := map[[2]string][]topology.KeyRange{}
	for cell := range topology.KeyHash(cells) {
		r := topology.KeyRange{Start: cell << 56, End: (cell + 1) << 56}
		owner := snap.Owner(r.Start)
		other := (int(owner) + 1 + rng.IntN(len(snap.Shards)-1)) % len(snap.Shards)
		pair := [2]string{snap.Shards[owner].Name, snap.Shards[other].Name}
		if rng.IntN(2) == 0 {
			pair[0], pair[1] = pair[1], pair[0]
		}
		if rng.IntN(3) == 0 {
			ranges[pair] = append(ranges[pair], r)
		}
	}
	id := int64(0)
	for pair, list := range ranges {
		id++
		var err error
		if snap, err = snap.Apply(topology.SetMoving{Moving: topology.Moving{ID: id, Source: pair[0], Target: pair[1], Ranges: list}}); err != nil {
			t.Fatal(err)
		}
	}
	return snap
}

// isForeign says whether a shard may hold the rows of a key that count elsewhere.
func isForeign(snap *topology.Snapshot, shard topology.ShardID, hash topology.KeyHash) bool {
	return slices.ContainsFunc(snap.Foreign(shard), func(r topology.KeyRange) bool { return r.Start <= hash && hash <= r.End-1 })
}

// ownedSQL is the condition of a row to count on a shard, written otherwise than Owned does.
func (c *cluster) ownedSQL(table *topology.Table, shard topology.ShardID) string {
	foreign := c.snap.Foreign(shard)
	if table.Kind != topology.Sharded || len(foreign) == 0 {
		return ""
	}
	hash := map[topology.KeyType]string{
		topology.KeyInt:  "hashint8extended(x.%q, 8816678312871386365)",
		topology.KeyText: "hashtextextended(x.%q, 8816678312871386365)",
		topology.KeyUUID: "uuid_hash_extended(x.%q, 8816678312871386365)",
	}[table.KeyType]
	var outside []string
	for _, r := range foreign {
		outside = append(outside, fmt.Sprintf("%s NOT BETWEEN %d AND %d", fmt.Sprintf(hash, table.KeyColumn()), r.Start.Signed(), (r.End-1).Signed()))
	}
	return " WHERE (" + strings.Join(outside, " AND ") + ") IS NOT FALSE"
}

// foreignRows gives the rows of a table that count elsewhere.
func (c *cluster) foreignRows(t *testing.T, table *topology.Table) (rows []string) {
	t.Helper()
	for i, conn := range c.shards {
		owned := c.ownedSQL(table, topology.ShardID(i))
		if owned == "" || table.Problem != "" {
			continue
		}
		of := "SELECT x FROM " + tableSQL(table) + " x"
		list, err := rowsOf(context.Background(), conn, of+" EXCEPT ALL "+of+owned, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range list {
			rows = append(rows, fmt.Sprint(i, row))
		}
	}
	slices.Sort(rows)
	return rows
}

// TestMovingPlansAreExact runs the statements of testdata/plans.txt, and random ones, while rows are on two shards. That nothing
// of it holds without the conditions which Owned adds is seen by the count of them, and of the rows that count elsewhere.
func TestMovingPlansAreExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(*exactSeed, 1))
	c := newClusterOf(t, movingSnapshot(t, rng))
	second := 0
	c.foreign = map[*topology.Table][]string{}
	for _, table := range c.sorted() {
		c.foreign[table] = c.foreignRows(t, table)
		second += len(c.foreign[table])
	}
	if second < 100 {
		t.Fatalf("only %d rows are on a second shard", second)
	}
	text, err := os.ReadFile("testdata/plans.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range strings.Split(string(text), "\n\n") {
		sql, _, _ := strings.Cut(block, "\n----")
		var params testParams
		if line, rest, ok := strings.Cut(sql, "\n"); ok && strings.HasPrefix(line, "# params:") {
			params, sql = strings.Split(strings.TrimPrefix(line, "# params:"), ";"), rest
		}
		if !undetermined(sql) {
			c.check(t, sql, params)
		}
	}
	for _, sql := range []string{"SELECT * FROM loose", "DELETE FROM loose", "UPDATE loose SET x = 'new'"} { // rows without a key
		c.check(t, sql, nil)
	}
	if c.owned < 100 {
		t.Errorf("only %d texts of testdata/plans.txt were changed", c.owned)
	}
	c.owned = 0
	g := &generator{rng: rng}
	ran := 0
	for i := range *exactCount {
		if c.check(t, g.statement(), nil) {
			ran++
		}
		if t.Failed() {
			t.Fatalf("statement %d of seed %d", i, *exactSeed)
		}
	}
	t.Logf("%d of %d statements ran, %d texts were changed", ran, *exactCount, c.owned)
	if c.owned < *exactCount/10 {
		t.Errorf("only %d texts of %d random statements were changed", c.owned, *exactCount)
	}
}
