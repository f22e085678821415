package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"shardproxy/rebalance"
	"shardproxy/topology"
	"shardproxy/wire"
)

const (
	// verifyTimeout ends VERIFY: it reads whole tables.
	verifyTimeout = 6 * time.Hour
	// verifyParallel shards are read at a time.
	verifyParallel = 4
	// verifyTries is how often rows are counted anew where the map has changed meanwhile.
	verifyTries = 5
	// keysNamed is how many keys of misplaced rows are named for a table and shard.
	keysNamed = 10

	placementColumns = "shard table rows# misplaced# moving# keys"
	// Rows that a policy hides would be missed: the server refuses to hide any.
	verifySettings = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY; SET LOCAL statement_timeout = 0; SET LOCAL row_security = off; "
)

// placements are the verbs that look whether rows are where the map has them.
func placements() []verb {
	verify := func(name, args, help string, read func(a *arguments) where) verb {
		return verb{
			name: name, args: args, help: help, role: RoleAdmin, fields: fields(placementColumns),
			read: func(a *arguments) (reply, *wire.Error) {
				at := read(a)
				if err := a.done(); err != nil {
					return nil, err
				}
				return func(ctx context.Context, s *session) ([][]any, *wire.Error) { return s.verify(ctx, at) }, nil
			},
		}
	}
	return []verb{
		verify("VERIFY SHARD", "name", "count the rows of a shard, and those that belong to another one; names some of their keys", func(a *arguments) where {
			return where{shard: a.shard()}
		}),
		verify("VERIFY RANGE", "start", "count the rows of a key range on all shards: those that are not on its owner are misplaced", func(a *arguments) where {
			start := a.hash("the first hash of a range")
			return where{start: &start}
		}),
		{
			name: "VERIFY MOVE", args: "id", help: "what came of the comparison of both shards after a move", role: RoleStats,
			fields: fields("id# phase verified detail"), read: readVerifyMove,
		},
		verify("VERIFY", "", "count the rows of all shards, and those that belong to another one", func(*arguments) where { return where{} }),
	}
}

// where says which rows are looked at: those of a shard, those of a range, or all.
type where struct {
	shard string
	start *topology.KeyHash
}

// counted is a table on a shard.
type counted struct {
	rows, misplaced, moving int64
	keys                    []string // of some that are misplaced
}

func (s *session) verify(ctx context.Context, at where) (rows [][]any, refused *wire.Error) {
	m := s.console.cfg.Mover
	if m == nil {
		return nil, wire.Errorf(wire.CodeFeatureNotSupported, "this proxy moves no rows: its topology comes from the configuration file").
			WithHint("DOCTOR DEEP counts misplaced rows too.")
	}
	err := s.patiently(ctx, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
		defer cancel()
		for range verifyTries {
			snap := s.console.src.Snapshot()
			shards, within, unknown := at.find(snap)
			if refused = unknown; refused != nil {
				return nil
			}
			if rows, err = verify(ctx, m, snap, shards, within); err != nil || snap.Epoch == s.console.src.Snapshot().Epoch {
				break // a row that has moved meanwhile would look misplaced
			}
		}
		return err
	})
	if err != nil {
		return nil, wire.Errorf(wire.CodeCannotConnectNow, "not all rows could be read: %v", err).
			WithHint("Repeat this; look at the rights of the service user.")
	}
	return rows, refused
}

// verify counts the rows of each table and shard by one map.
func verify(ctx context.Context, m Mover, snap *topology.Snapshot, shards []topology.ShardID, within []topology.KeyRange) (rows [][]any, err error) {
	tables := keyed(snap.Schema)
	found := make([][]counted, len(shards))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(verifyParallel)
	for i, id := range shards {
		g.Go(func() error {
			owned, foreign := rangesOf(snap, id)
			err := m.OnNode(ctx, snap.Shards[id].Nodes[0], func(query topology.Query) error {
				for _, t := range tables {
					c, err := count(ctx, query, t, owned, foreign, within)
					if err != nil {
						return fmt.Errorf("table %v: %w", t, err)
					}
					found[i] = append(found[i], c)
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("shard %s: %w", snap.Shards[id].Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, id := range shards {
		for j, c := range found[i] {
			rows = append(rows, []any{snap.Shards[id].Name, tables[j].String(), c.rows, c.misplaced, c.moving, orNull(strings.Join(c.keys, ", "))})
		}
	}
	return rows, nil
}

// find gives the shards to ask, and the ranges that rows are looked at in, nil for all.
func (at where) find(snap *topology.Snapshot) (shards []topology.ShardID, within []topology.KeyRange, refused *wire.Error) {
	if at.shard != "" {
		id, ok := snap.ShardByName(at.shard)
		if !ok {
			return nil, nil, wire.Errorf(wire.CodeUndefinedObject, "there is no shard \"%s\"", at.shard).WithHint("SHOW SHARDS lists them.")
		}
		return []topology.ShardID{id}, nil, nil
	}
	for id := range snap.Shards {
		shards = append(shards, topology.ShardID(id))
	}
	if at.start != nil {
		r, unknown := rangeAt(snap, *at.start)
		if unknown != nil {
			return nil, nil, unknown
		}
		within = []topology.KeyRange{{Start: r.Start, End: r.End}}
	}
	return shards, within, nil
}

// keyed are the sharded tables in the order of their names, without partitions: their rows are those of the whole.
func keyed(schema *topology.Schema) []*topology.Table {
	tables := slices.SortedFunc(maps.Values(schema.Tables), func(a, b *topology.Table) int { return compareNames(a.TableName, b.TableName) })
	return slices.DeleteFunc(tables, func(t *topology.Table) bool {
		return t.Kind != topology.Sharded || t.KeyType == topology.KeyNone || t.Parent.Name != ""
	})
}

// rangesOf gives what a shard owns, and what it may also have because it is moving.
func rangesOf(snap *topology.Snapshot, id topology.ShardID) (owned, foreign []topology.KeyRange) {
	for _, r := range snap.Ranges() {
		if r.Shard == id {
			owned = append(owned, r)
		}
	}
	return owned, snap.Foreign(id)
}

// count counts the rows of one table.
func count(ctx context.Context, query topology.Query, t *topology.Table, owned, foreign, within []topology.KeyRange) (c counted, err error) {
	key := "t." + identifier(t.KeyColumn())
	inside := func(ranges []topology.KeyRange) string {
		if len(ranges) == 0 {
			return "false"
		}
		return string(topology.AppendInRanges(nil, "h", ranges))
	}
	filter := "true"
	if within != nil {
		filter = inside(within)
	}
	from := fmt.Sprintf("FROM (SELECT %s AS k, %s AS h FROM %s.%s t) r WHERE %s", key, t.KeyType.HashSQL(key), identifier(t.Schema), identifier(t.Name), filter)
	misplaced := "NOT " + inside(owned) + " AND NOT " + inside(foreign)
	rows, err := query(ctx, fmt.Sprintf("%sSELECT count(*), count(*) FILTER (WHERE %s), count(*) FILTER (WHERE %s) %s", verifySettings, misplaced, inside(foreign), from))
	if err != nil {
		return c, err
	}
	for i, into := range []*int64{&c.rows, &c.misplaced, &c.moving} {
		if *into, err = strconv.ParseInt(rows[0][i], 10, 64); err != nil {
			return c, err
		}
	}
	if c.misplaced == 0 {
		return c, nil
	}
	rows, err = query(ctx, fmt.Sprintf("%sSELECT DISTINCT k::text %s AND %s ORDER BY 1 LIMIT %d", verifySettings, from, misplaced, keysNamed+1))
	for _, row := range rows {
		c.keys = append(c.keys, row[0])
	}
	if len(c.keys) > keysNamed {
		c.keys[keysNamed] = "and more"
	}
	return c, err
}

func identifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func readVerifyMove(a *arguments) (reply, *wire.Error) {
	id := a.moveID()
	return func(ctx context.Context, s *session) ([][]any, *wire.Error) { return s.verifyMove(ctx, id) }, a.done()
}

// verifyMove tells what the journal has of the comparison.
func (s *session) verifyMove(ctx context.Context, id int64) ([][]any, *wire.Error) {
	mover, refused := s.mover()
	if refused != nil {
		return nil, refused
	}
	ctx, cancel := context.WithTimeout(ctx, journalTimeout)
	defer cancel()
	records, err := mover.LoadMoves(ctx, true)
	if err != nil {
		return nil, journalError(err)
	}
	i := slices.IndexFunc(records, func(r topology.MoveRecord) bool { return r.ID == id })
	if i < 0 {
		return nil, wire.Errorf(wire.CodeUndefinedObject, "there is no move %d", id).WithHint("SHOW MOVES ALL lists them.")
	}
	m, err := rebalance.FromRecord(records[i])
	if err != nil {
		return nil, wire.Errorf(wire.CodeInternalError, "%v", err)
	}
	verified, detail := "not yet", "both shards are compared once the target owns the ranges"
	switch {
	case m.State == rebalance.FailedVerification:
		verified, detail = "no", m.Error
	case m.Unverified:
		verified, detail = "no", "the rows of the old owner could not be compared any more"
	case m.State == rebalance.Aborted || m.State == rebalance.Aborting:
		verified, detail = "no", "the move was given up"
	case m.Reverse || m.State == rebalance.Reversing || m.State == rebalance.Reversed:
		verified, detail = "no", "the ranges went back to the source"
	case slices.Contains([]rebalance.State{rebalance.Verified, rebalance.Soak, rebalance.Cleaning, rebalance.Cleaned}, m.State):
		verified, detail = "yes", "both shards had the same rows of the ranges"
	}
	return [][]any{{id, m.State.String(), verified, detail}}, nil
}
