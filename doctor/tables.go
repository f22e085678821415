package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"shardproxy/topology"
)

// judgeTables looks at the tables that statements are planned with. Partitions and children are as their parents.
func (x *examination) judgeTables(ctx context.Context, shards []shardVisit) {
	n := 0
	for _, t := range x.tables() {
		n++
		if t.Problem != "" {
			x.notes.add(checkTables, Error, t.String(), "its rows cannot be placed: "+t.Problem, "shardctl table add names its shard key, or makes it a reference table.")
		}
		if len(t.Primary) == 0 && t.Kind == topology.Sharded && t.Problem == "" { // a new shard gets reference tables by their rows' hashes
			x.notes.add(checkTables, Warning, t.String(), "has no primary key: without another replica identity its rows cannot be moved to another shard", "Add one, with the shard key in it.")
		}
	}
	if reference := first(shards); reference != nil {
		x.judgeUnique(ctx, reference)
	}
	x.notes.ok(checkTables, "%s placed", agree(n, "table", "is", "are"))
}

// tables gives those with rows that are placed, by name, without partitions and children.
func (x *examination) tables() []*topology.Table {
	var list []*topology.Table
	for _, t := range slices.SortedFunc(maps.Values(x.snap.Schema.Tables), func(a, b *topology.Table) int {
		return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
	}) {
		if (t.Kind == topology.Sharded || t.Kind == topology.Reference) && t.Parent == (topology.TableName{}) {
			list = append(list, t)
		}
	}
	return list
}

// uniqueIndex has the names of its columns; an expression has none.
type uniqueIndex struct {
	table   topology.TableName
	name    string
	columns []string
}

// Constraints of exclusion are like unique ones.
const uniqueQuery = `
	SELECT n.nspname, t.relname, x.relname,
	       pg_catalog.array_to_string(ARRAY(SELECT a.attname FROM pg_catalog.unnest(i.indkey) WITH ORDINALITY k(attnum, at)
	            JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum WHERE k.at <= i.indnkeyatts ORDER BY k.at), pg_catalog.chr(31))
	FROM pg_catalog.pg_index i
	JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
	JOIN pg_catalog.pg_class t ON t.oid = i.indrelid
	JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
	WHERE (i.indisunique OR i.indisexclusion) AND n.nspname OPERATOR(pg_catalog.!~) '^pg_' AND n.nspname NOT IN ('information_schema', 'shardproxy')
	ORDER BY 1, 2, 3`

// judgeUnique tells of unique indexes that a shard can keep for its own rows only.
func (x *examination) judgeUnique(ctx context.Context, reference *shardVisit) {
	ctx, cancel := context.WithTimeout(ctx, x.ShardTime)
	defer cancel()
	var rows [][]string
	err := x.OnNode(ctx, reference.primary.node, func(query topology.Query) (err error) {
		rows, err = query(ctx, uniqueQuery)
		return err
	})
	if err != nil {
		x.notes.add(checkTables, Warning, reference.Name, "the unique indexes could not be read: "+err.Error(), "Repeat this.")
		return
	}
	for _, row := range rows {
		if len(row) != 4 {
			continue
		}
		u := uniqueIndex{table: topology.TableName{Schema: row[0], Name: row[1]}, name: row[2], columns: strings.Split(row[3], "\x1f")}
		t := x.snap.Schema.Tables[u.table]
		if t == nil || t.Kind != topology.Sharded || t.Key < 0 || t.Parent != (topology.TableName{}) || slices.Contains(u.columns, t.KeyColumn()) {
			continue
		}
		x.notes.add(checkTables, Warning, t.String(),
			fmt.Sprintf("unique index %s lacks the shard key %s: each shard keeps it for its own rows only", u.name, t.KeyColumn()),
			"Add the shard key to it, or take its values from what is unique by itself, such as a uuid.")
	}
}
