package doctor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"shardproxy/topology"
)

// Whole tables are read by few at a time, however long that takes.
const (
	deepParallel = 4
	deepTries    = 3 // of a reference table that is not as on another shard: it may be written to
	// Rows that a policy hides would be missed: the server refuses to hide any.
	deepSettings = `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = '1h'; SET LOCAL lock_timeout = '10s';
		SET LOCAL row_security = off; ` + topology.StableTexts
)

// contents stands for the rows of a table.
type contents struct {
	rows int64
	sum  string // of their hashes
}

// rowsOf is what was found in the tables of one shard.
type rowsOf struct {
	err       error
	contents  map[topology.TableName]contents // of reference tables
	misplaced map[topology.TableName]int64    // rows of sharded tables that belong elsewhere
	failed    map[topology.TableName]error
}

// lookAtRows reads all rows of all tables on all shards that answer.
func (x *examination) lookAtRows(ctx context.Context, shards []shardVisit) {
	tables, bounds := x.tables(), x.bounds()
	found := make([]rowsOf, len(shards))
	var g errgroup.Group
	g.SetLimit(deepParallel)
	for i := range shards {
		if v := &shards[i]; v.answers() {
			g.Go(func() error {
				found[i] = x.readRows(ctx, v, tables, bounds[i])
				return nil
			})
		}
	}
	_ = g.Wait() // nobody gives an error
	x.judgePlacement(shards, found, tables)
	x.judgeReference(ctx, shards, found, tables)
}

// readRows reads the tables of one shard, by one connection.
func (x *examination) readRows(ctx context.Context, v *shardVisit, tables []*topology.Table, bounds string) rowsOf {
	r := rowsOf{
		contents: make(map[topology.TableName]contents), misplaced: make(map[topology.TableName]int64), failed: make(map[topology.TableName]error),
	}
	r.err = x.OnNode(ctx, v.primary.node, func(query topology.Query) error {
		for _, t := range tables {
			var err error
			switch hash := keyHash(t); {
			case t.Kind == topology.Reference:
				r.contents[t.TableName], err = readContents(ctx, query, t)
			case hash != "":
				r.misplaced[t.TableName], err = countMisplaced(ctx, query, t, hash, bounds)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				r.failed[t.TableName] = err
			}
		}
		return nil
	})
	return r
}

func readContents(ctx context.Context, query topology.Query, t *topology.Table) (c contents, err error) {
	rows, err := query(ctx, deepSettings+"SELECT count(*), coalesce(sum(hashtextextended((t.*)::text, 0)::numeric), 0) FROM "+qualified(t.TableName)+" t")
	if err == nil && (len(rows) != 1 || len(rows[0]) != 2) {
		err = fmt.Errorf("%d rows instead of one", len(rows))
	}
	if err != nil {
		return c, err
	}
	c.rows, err = strconv.ParseInt(rows[0][0], 10, 64)
	c.sum = rows[0][1]
	return c, err
}

// countMisplaced counts the rows whose key hash lies between an even number of bounds: before the first range, or behind the end
// of one and before the start of the next.
func countMisplaced(ctx context.Context, query topology.Query, t *topology.Table, hash, bounds string) (int64, error) {
	rows, err := query(ctx, deepSettings+"SELECT count(*) FROM "+qualified(t.TableName)+" t WHERE width_bucket("+hash+", '{"+bounds+"}'::int8[]) % 2 = 0")
	if err == nil && (len(rows) != 1 || len(rows[0]) != 1) {
		err = fmt.Errorf("%d rows instead of one", len(rows))
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(rows[0][0], 10, 64)
}

// keyHash is SQL for the key hash of a row of t, "" where it has none.
func keyHash(t *topology.Table) string {
	if t.Kind != topology.Sharded || t.Key < 0 || t.KeyType == topology.KeyNone {
		return ""
	}
	return t.KeyType.HashSQL("t." + identifier(t.KeyColumn()))
}

// bounds lists for each shard the starts and ends of the key ranges whose rows may be on it: those that it owns, and those that
// are on their way to it or away. An end at the end of the ring is left out.
func (x *examination) bounds() []string {
	may := make([][]topology.KeyRange, len(x.snap.Shards))
	for _, r := range x.snap.Ranges() {
		may[r.Shard] = append(may[r.Shard], r)
	}
	list := make([]string, len(may))
	for i, ranges := range may {
		ranges = append(ranges, x.snap.Foreign(topology.ShardID(i))...)
		slices.SortFunc(ranges, func(a, b topology.KeyRange) int { return cmp.Compare(a.Start, b.Start) })
		var b []string
		for j, r := range ranges {
			if j == 0 || ranges[j-1].End != r.Start {
				b = append(b, strconv.FormatInt(r.Start.Signed(), 10))
			}
			if r.End != 0 && (j == len(ranges)-1 || ranges[j+1].Start != r.End) {
				b = append(b, strconv.FormatInt(r.End.Signed(), 10))
			}
		}
		list[i] = strings.Join(b, ",")
	}
	return list
}

func (x *examination) judgePlacement(shards []shardVisit, found []rowsOf, tables []*topology.Table) {
	status, hint := Error, "Statements with their key do not find them, others count them. They were written past the proxy, or are left of a move: look at them on the shard, insert through the proxy what counts, and delete them on the shard, past its fence: SET session_replication_role = replica."
	if x.Snapshot().Epoch != x.snap.Epoch {
		status, hint = Warning, "The map was changed meanwhile: repeat this."
	}
	n := 0
	for _, t := range tables {
		if keyHash(t) == "" {
			continue
		}
		n++
		for i := range shards {
			count, err := found[i].misplaced[t.TableName], found[i].failed[t.TableName]
			if err != nil {
				x.notes.add(checkPlacement, Warning, shards[i].Name, fmt.Sprintf("the rows of %v could not be read: %v", t, err), "Look at the rights of the service user.")
			}
			if count > 0 {
				x.notes.add(checkPlacement, status, shards[i].Name, fmt.Sprintf("%v has %s of keys that the shard does not own", t, plural(int(count), "row")), hint)
			}
		}
	}
	x.tellUnread(checkPlacement, shards, found)
	x.notes.ok(checkPlacement, "all rows of %s are where the map has them", plural(n, "sharded table"))
}

// tellUnread adds the shards that could not be read at all.
func (x *examination) tellUnread(check string, shards []shardVisit, found []rowsOf) {
	for i := range shards {
		if err := found[i].err; err != nil {
			x.notes.add(check, Warning, shards[i].Name, "not all tables could be read: "+err.Error(), "Repeat this.")
		}
	}
}

func (x *examination) judgeReference(ctx context.Context, shards []shardVisit, found []rowsOf, tables []*topology.Table) {
	reference := slices.IndexFunc(shards, func(v shardVisit) bool { return v.answers() })
	if reference < 0 {
		return
	}
	n := 0
	for _, t := range tables {
		if t.Kind != topology.Reference {
			continue
		}
		n++
		was, known := found[reference].contents[t.TableName]
		for i := range shards {
			is, read := found[i].contents[t.TableName]
			err := found[i].failed[t.TableName]
			if err != nil {
				x.notes.add(checkReference, Warning, shards[i].Name, fmt.Sprintf("the rows of %v could not be read: %v", t, err), "Look at the rights of the service user.")
				continue
			}
			if known && read && found[reference].failed[t.TableName] == nil && is != was {
				x.compareContents(ctx, &shards[reference], &shards[i], t)
			}
		}
	}
	x.notes.ok(checkReference, "%s the same rows on all shards", agree(n, "reference table", "has", "have"))
}

// compareContents reads a table on two shards again, at almost the same time, for it may be written to.
func (x *examination) compareContents(ctx context.Context, reference, other *shardVisit, t *topology.Table) {
	var was, is contents
	for range deepTries {
		var g errgroup.Group
		g.Go(func() (err error) { was, err = x.contentsOn(ctx, reference, t); return err })
		g.Go(func() (err error) { is, err = x.contentsOn(ctx, other, t); return err })
		if err := g.Wait(); err != nil {
			x.notes.add(checkReference, Warning, other.Name, fmt.Sprintf("the rows of %v could not be read again: %v", t, err), "Repeat this.")
			return
		}
		if was == is {
			return
		}
	}
	detail := fmt.Sprintf("%v has other rows here than on %s", t, reference.Name)
	if was.rows != is.rows {
		detail = fmt.Sprintf("%v has %s here, %d on %s", t, plural(int(is.rows), "row"), was.rows, reference.Name)
	}
	x.notes.add(checkReference, Error, other.Name, detail,
		"If it is written to all the time, repeat this. Else it was changed past the proxy: make it right on the shard, or empty it through the proxy and fill it again.")
}

func (x *examination) contentsOn(ctx context.Context, v *shardVisit, t *topology.Table) (c contents, err error) {
	err = x.OnNode(ctx, v.primary.node, func(query topology.Query) (err error) {
		c, err = readContents(ctx, query, t)
		return err
	})
	return c, err
}

func identifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func qualified(n topology.TableName) string { return identifier(n.Schema) + "." + identifier(n.Name) }
