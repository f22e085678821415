package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"shardproxy/topology"
	"shardproxy/wire"
)

const (
	// differencesNamed is how many differences of a new shard's schema its refusal names.
	differencesNamed = 3
	// contentsTries is how often a reference table is compared that is written to meanwhile.
	contentsTries = 3
)

// fits refuses a shard on which statements would find other tables than on the shards that there are, or other rows in reference
// tables: from the moment when it is in the map, it is asked.
func (s *session) fits(ctx context.Context, shard topology.Shard) *wire.Error {
	m, snap := s.console.cfg.Mover, s.console.src.Snapshot()
	if m == nil || len(shard.Nodes) == 0 || len(snap.Shards) == 0 {
		return nil
	}
	was, there := topology.Shard{Name: snap.Shards[0].Name, Nodes: snap.Shards[0].Nodes}, shard
	differences, err := differ(ctx, m, was, there)
	switch {
	case err != nil:
		return wire.Errorf(wire.CodeCannotConnectNow, "the new shard cannot be compared with the others: %v", err).
			WithHint("It must answer, with the tables of the other shards and the rows of the reference tables, before it is added.")
	case len(differences) > 0:
		text := strings.Join(differences[:min(len(differences), differencesNamed)], "; ")
		if more := len(differences) - differencesNamed; more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
		return wire.Errorf(wire.CodeObjectNotInPrerequisite, "the schema of the new shard is not that of %s: %s", was.Name, text).
			WithHint("Restore what pg_dump --schema-only gives of %s there. docs/operations.md, Growing the cluster, has the steps.", was.Name)
	}
	for _, t := range references(snap.Schema) {
		same, err := alike(ctx, m, was, there, t)
		if err != nil {
			return wire.Errorf(wire.CodeCannotConnectNow, "reference table %v cannot be compared: %v", t, err).WithHint("Repeat this; look at the rights of the service user.")
		}
		if !same {
			return wire.Errorf(wire.CodeObjectNotInPrerequisite, "reference table %v has other rows on the new shard than on %s", t, was.Name).
				WithHint("Copy them once nobody writes to the table. docs/operations.md, Growing the cluster, has the steps.")
		}
	}
	return nil
}

// differ lists what would give a statement another result on one shard than on the other.
func differ(ctx context.Context, m Mover, was, is topology.Shard) (list []string, err error) {
	var found [2]*topology.Fingerprint
	for i, shard := range []topology.Shard{was, is} {
		err := m.OnNode(ctx, shard.Nodes[0], func(query topology.Query) (err error) {
			found[i], err = topology.ReadFingerprint(ctx, query, shard.Name)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("shard %s: %w", shard.Name, err)
		}
	}
	for _, d := range topology.Differences(found[0], found[1]) {
		if !d.Lesser() {
			list = append(list, d.String())
		}
	}
	return list, nil
}

// references are the reference tables, without parts of others.
func references(schema *topology.Schema) []*topology.Table {
	tables := slices.SortedFunc(maps.Values(schema.Tables), func(a, b *topology.Table) int { return compareNames(a.TableName, b.TableName) })
	return slices.DeleteFunc(tables, func(t *topology.Table) bool { return t.Kind != topology.Reference || t.Parent.Name != "" })
}

// alike says whether a table has the same rows on two shards. One that is written to is looked at again.
func alike(ctx context.Context, m Mover, a, b topology.Shard, t *topology.Table) (same bool, err error) {
	sql := verifySettings + topology.StableTexts + "SELECT count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM " +
		identifier(t.Schema) + "." + identifier(t.Name) + " t"
	for range contentsTries {
		var sums [2]string
		for i, shard := range []topology.Shard{a, b} {
			err := m.OnNode(ctx, shard.Nodes[0], func(query topology.Query) error {
				rows, err := query(ctx, sql)
				if err == nil {
					sums[i] = rows[0][0]
				}
				return err
			})
			if err != nil {
				return false, err
			}
		}
		if sums[0] == sums[1] {
			return true, nil
		}
	}
	return false, nil
}
