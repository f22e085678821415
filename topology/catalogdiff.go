package topology

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// diff is what to write so that a catalog that holds one snapshot holds another. What is changed is deleted and
// inserted, but for the state of a shard.
type diff struct {
	removedShards []string
	addedShards   []ShardID // in ascending order
	changedState  []ShardID
	renodedShards []ShardID // whose nodes differ, added ones included
	removedRanges []KeyRange
	addedRanges   []KeyRange
	rules         bool

	removedMoving []int64
	addedMoving   []Moving
}

// difference costs little where the snapshots share their lists.
func difference(base, next *Snapshot) (d diff) {
	d.rules = !sameRules(&base.Rules, &next.Rules)
	d.shards(base, next)
	d.ranges(base, next)
	d.moving(base, next)
	return d
}

// moving walks both in the order of their numbers.
func (d *diff) moving(base, next *Snapshot) {
	if sameList(base.moving, next.moving) {
		return
	}
	for _, m := range base.moving {
		if i, found := findMoving(next.moving, m.ID); !found || next.moving[i].sum() != m.sum() {
			d.removedMoving = append(d.removedMoving, m.ID)
		}
	}
	for _, m := range next.moving {
		if i, found := findMoving(base.moving, m.ID); !found || base.moving[i].sum() != m.sum() {
			d.addedMoving = append(d.addedMoving, m)
		}
	}
}

// shards walks both in the order of their names.
func (d *diff) shards(base, next *Snapshot) {
	if sameList(base.Shards, next.Shards) {
		return
	}
	i, j := 0, 0
	for i < len(base.names) || j < len(next.names) {
		var order int
		switch {
		case i == len(base.names):
			order = 1
		case j == len(next.names):
			order = -1
		default:
			order = strings.Compare(base.Shards[base.names[i]].Name, next.Shards[next.names[j]].Name)
		}
		switch {
		case order < 0:
			d.removedShards = append(d.removedShards, base.Shards[base.names[i]].Name)
			i++
		case order > 0:
			d.addedShards = append(d.addedShards, next.names[j])
			d.renodedShards = append(d.renodedShards, next.names[j])
			j++
		default:
			a, b := &base.Shards[base.names[i]], &next.Shards[next.names[j]]
			if a.State != b.State {
				d.changedState = append(d.changedState, next.names[j])
			}
			if !sameList(a.Nodes, b.Nodes) && !slices.Equal(a.Nodes, b.Nodes) {
				d.renodedShards = append(d.renodedShards, next.names[j])
			}
			i, j = i+1, j+1
		}
	}
	slices.Sort(d.addedShards) // the order of their ids is the order of the shards
}

// sameList says that a and b are one list in memory.
func sameList[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// ranges walks both in the order of the ring.
func (d *diff) ranges(base, next *Snapshot) {
	if sameList(base.ranges, next.ranges) {
		return
	}
	sameShards := sameList(base.Shards, next.Shards)
	same := func(a, b KeyRange) bool {
		if a.Start != b.Start || a.End != b.End {
			return false
		}
		return sameShards && a.Shard == b.Shard || base.Shards[a.Shard].Name == next.Shards[b.Shard].Name
	}
	i, j := 0, 0
	for i < len(base.ranges) || j < len(next.ranges) {
		switch {
		case j == len(next.ranges), i < len(base.ranges) && base.ranges[i].Start < next.ranges[j].Start:
			d.removedRanges = append(d.removedRanges, base.ranges[i])
			i++
		case i == len(base.ranges), base.ranges[i].Start > next.ranges[j].Start:
			d.addedRanges = append(d.addedRanges, next.ranges[j])
			j++
		default:
			if !same(base.ranges[i], next.ranges[j]) {
				d.removedRanges = append(d.removedRanges, base.ranges[i])
				d.addedRanges = append(d.addedRanges, next.ranges[j])
			}
			i, j = i+1, j+1
		}
	}
}

// queue deletes before it inserts: ranges, nodes, shards, and then the other way round. A statement that finds other rows
// than expected is an error: the catalog is not what its checksum says.
func (d *diff) queue(batch *pgx.Batch, next *Snapshot) {
	steps := []diffStep{
		{len(d.removedRanges), "DELETE FROM shardproxy.ranges WHERE first = ANY($1)", []any{firsts(d.removedRanges)}},
		{
			-min(1, len(d.removedShards)+len(d.renodedShards)),
			"DELETE FROM shardproxy.nodes n USING shardproxy.shards s WHERE s.id = n.shard_id AND s.name = ANY($1)",
			[]any{append(next.namesOf(d.renodedShards), d.removedShards...)},
		},
		{len(d.removedShards), "DELETE FROM shardproxy.shards WHERE name = ANY($1)", []any{d.removedShards}},
		{
			len(d.changedState), "UPDATE shardproxy.shards s SET state = u.state FROM unnest($1::text[], $2::text[]) u(name, state) WHERE s.name = u.name",
			[]any{next.namesOf(d.changedState), next.statesOf(d.changedState)},
		},
		{
			len(d.addedShards), `INSERT INTO shardproxy.shards (name, state)
			SELECT u.name, u.state FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u(name, state, n) ORDER BY n`,
			[]any{next.namesOf(d.addedShards), next.statesOf(d.addedShards)},
		},
	}
	steps = append(steps, d.nodeStep(next), d.rangeStep(next))
	steps = append(steps, diffStep{len(d.removedMoving), "DELETE FROM shardproxy.moving WHERE id = ANY($1)", []any{d.removedMoving}})
	for _, m := range d.addedMoving {
		steps = append(steps, movingStep(&m))
	}
	for _, step := range steps {
		if step.count == 0 {
			continue
		}
		batch.Queue(step.sql, step.args...).Exec(func(tag pgconn.CommandTag) error {
			if got := int(tag.RowsAffected()); step.count > 0 && got != step.count {
				return fmt.Errorf("%w: %d rows instead of %d are concerned by: %s", ErrDamaged, got, step.count, step.sql)
			}
			return nil
		})
	}
}

// storeRules writes the rules of single tables anew.
func (d *diff) storeRules(ctx context.Context, tx pgx.Tx, next *Snapshot) error {
	if !d.rules {
		return nil
	}
	if _, err := tx.Exec(ctx, "DELETE FROM shardproxy.tables"); err != nil {
		return err
	}
	return insertRules(ctx, tx, &next.Rules)
}

// diffStep is one statement of a diff.
type diffStep struct {
	count int // of the rows that it must touch; 0: there is nothing to do; -1: any number
	sql   string
	args  []any
}

func (d *diff) nodeStep(next *Snapshot) diffStep {
	var shards, hosts, databases, roles []string
	var ports []int32
	for _, id := range d.renodedShards {
		for _, n := range next.Shards[id].Nodes {
			shards, hosts, ports = append(shards, next.Shards[id].Name), append(hosts, n.Host), append(ports, int32(n.Port))
			databases, roles = append(databases, n.Database), append(roles, n.Role.String())
		}
	}
	const sql = `INSERT INTO shardproxy.nodes (shard_id, host, port, database, role)
		SELECT s.id, u.host, u.port, u.database, u.role
		FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[]) u(shard, host, port, database, role)
		JOIN shardproxy.shards s ON s.name = u.shard`
	return diffStep{len(shards), sql, []any{shards, hosts, ports, databases, roles}}
}

func (d *diff) rangeStep(next *Snapshot) diffStep {
	lasts, shards := make([]int64, len(d.addedRanges)), make([]string, len(d.addedRanges))
	for i, r := range d.addedRanges {
		lasts[i], shards[i] = (r.End - 1).Signed(), next.Shards[r.Shard].Name
	}
	const sql = `INSERT INTO shardproxy.ranges (first, last, shard_id)
		SELECT u.first, u.last, s.id FROM unnest($1::bigint[], $2::bigint[], $3::text[]) u(first, last, shard)
		JOIN shardproxy.shards s ON s.name = u.shard`
	return diffStep{len(d.addedRanges), sql, []any{firsts(d.addedRanges), lasts, shards}}
}

func movingStep(m *Moving) diffStep {
	lasts := make([]int64, len(m.Ranges))
	for i, r := range m.Ranges {
		lasts[i] = (r.End - 1).Signed()
	}
	const sql = "INSERT INTO shardproxy.moving (id, source, target, hold_epoch, firsts, lasts) VALUES ($1, $2, $3, $4, $5, $6)"
	return diffStep{1, sql, []any{m.ID, m.Source, m.Target, int64(m.Hold), firsts(m.Ranges), lasts}}
}

func firsts(ranges []KeyRange) []int64 {
	starts := make([]int64, len(ranges))
	for i, r := range ranges {
		starts[i] = r.Start.Signed()
	}
	return starts
}

func (s *Snapshot) namesOf(ids []ShardID) []string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = s.Shards[id].Name
	}
	return names
}

func (s *Snapshot) statesOf(ids []ShardID) []string {
	states := make([]string, len(ids))
	for i, id := range ids {
		states[i] = s.Shards[id].State.String()
	}
	return states
}
