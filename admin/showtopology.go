package admin

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"shardproxy/backend"
	"shardproxy/topology"
)

func (c *Console) showShards() [][]any {
	snap := c.src.Snapshot()
	ranges := make([]int64, len(snap.Shards))
	share := make([]float64, len(snap.Shards))
	for _, r := range snap.Ranges() {
		ranges[r.Shard]++
		size := float64(uint64(r.End - r.Start)) // also where End is 0, the end of the ring
		if r.End == r.Start {
			size = math.Exp2(64)
		}
		share[r.Shard] += size
	}
	var rows [][]any
	for i, s := range snap.Shards {
		var primary any
		replicas := int64(0)
		for _, n := range s.Nodes {
			if n.Role == topology.Primary {
				primary = n.Address()
			} else {
				replicas++
			}
		}
		rows = append(rows, []any{s.Name, primary, replicas, ranges[i], fmt.Sprintf("%.2f", 100*share[i]/math.Exp2(64)), s.State.String()})
	}
	return rows
}

func (c *Console) showNodes() [][]any {
	type use struct{ active, idle, connecting, waiting int }
	uses := make(map[backend.Key]use)
	for _, p := range pools(c.src) {
		key := backend.Key{Address: p.Key.Address, Database: p.Key.Database}
		u := uses[key]
		uses[key] = use{u.active + p.active, u.idle + p.Idle, u.connecting + p.connecting, u.waiting + p.Waiting}
	}
	var rows [][]any
	for _, s := range c.src.Snapshot().Shards {
		for _, n := range s.Nodes {
			u := uses[backend.Key{Address: n.Address(), Database: n.Database}]
			rows = append(rows, []any{
				s.Name, n.Role.String(), n.Host, int64(n.Port), n.Database,
				int64(u.active), int64(u.idle), int64(u.connecting), int64(u.waiting),
			})
		}
	}
	return rows
}

func (c *Console) showRanges() [][]any {
	snap := c.src.Snapshot()
	rows := make([][]any, 0, len(snap.Ranges()))
	for _, r := range snap.Ranges() {
		row := []any{hashText(r.Start), nil, r.Start.Signed(), nil, snap.Shards[r.Shard].Name}
		if r.End != 0 {
			row[1], row[3] = hashText(r.End), r.End.Signed()
		}
		rows = append(rows, row)
	}
	return rows
}

func hashText(h topology.KeyHash) string { return fmt.Sprintf("%016x", uint64(h)) }

func (c *Console) showTables() [][]any {
	tables := slices.SortedFunc(maps.Values(c.src.Snapshot().Schema.Tables), func(a, b *topology.Table) int {
		return compareNames(a.TableName, b.TableName)
	})
	var rows [][]any
	for _, t := range tables {
		var keyType any
		if t.KeyType != topology.KeyNone {
			keyType = t.KeyType.String()
		}
		rows = append(rows, []any{t.Schema, t.Name, t.Kind.String(), orNull(t.KeyColumn()), keyType, orNull(t.Problem)})
	}
	return rows
}

func (c *Console) showEpoch() [][]any {
	snap := c.src.Snapshot()
	return [][]any{{int64(snap.Epoch), orNull(snap.Cluster), checksum(snap.Checksum())}}
}

func checksum(sum uint64) string { return fmt.Sprintf("%016x", sum) }

// showRules lists the rules in the order in which they are tried.
func (c *Console) showRules() [][]any {
	rules := c.src.Snapshot().Rules
	var rows [][]any
	byTable := func(rule string, columns map[topology.TableName]string) {
		for _, t := range slices.SortedFunc(maps.Keys(columns), compareNames) {
			name := t.String()
			if t.Schema == "" {
				name = t.Name // in any schema
			}
			rows = append(rows, []any{rule, name, orNull(columns[t])})
		}
	}
	byTable("sharded", rules.Explicit)
	reference := make(map[topology.TableName]string, len(rules.Reference))
	for t := range rules.Reference {
		reference[t] = ""
	}
	byTable("reference", reference)
	for _, column := range rules.Columns {
		rows = append(rows, []any{"any table with the column", nil, column})
	}
	byTable("if it has the column", rules.Named)
	rest := "all others are reference tables"
	if rules.RefuseUnlisted {
		rest = "all others are refused"
	}
	return append(rows, []any{rest, nil, nil})
}

func compareNames(a, b topology.TableName) int {
	return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
}

func (c *Console) showPeers() [][]any {
	if c.cfg.Peers == nil {
		return nil
	}
	var rows [][]any
	for _, p := range c.cfg.Peers() {
		row := []any{p.Name, p.Addr, p.Status.String(), nil, nil, timeText(p.LastHeard), nil}
		if p.Map.Epoch != 0 {
			row[3], row[4] = int64(p.Map.Epoch), checksum(p.Map.Checksum)
		}
		if p.RTT != 0 {
			row[6] = p.RTT.Microseconds()
		}
		rows = append(rows, row)
	}
	return rows
}
