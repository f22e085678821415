package fence

import (
	"cmp"
	"slices"

	"shardproxy/topology"
)

// Table is a table that is to be fenced. Names are without quotes.
type Table struct {
	topology.TableName
	Key     string           // the column that is the shard key, "" for a reference table
	KeyType topology.KeyType // of a sharded table
	// PostgreSQL itself gives the row triggers of a partitioned table to its partitions, those that come later too, and so
	// a partition gets none of its own. Statement triggers it gives to nobody.
	Partitioned, Partition bool
}

// Tables lists the sharded and reference tables of a schema by name, partitions and inheritance children included. A table
// that cannot be placed has no fence and is not in it.
func Tables(schema *topology.Schema) []Table {
	var list []Table
	for _, t := range schema.Tables {
		if !placed(t) {
			continue
		}
		parent := schema.Tables[t.Parent]
		list = append(list, Table{
			TableName: t.TableName, Key: t.KeyColumn(), KeyType: t.KeyType,
			Partitioned: t.Partitioned, Partition: parent != nil && parent.Partitioned,
		})
	}
	slices.SortFunc(list, func(a, b Table) int { return compareNames(a.TableName, b.TableName) })
	return list
}

func placed(t *topology.Table) bool {
	return t.Problem == "" && (t.Kind == topology.Reference || t.Kind == topology.Sharded && t.KeyType != topology.KeyNone)
}

// unplaced tells of the tables of a schema that cannot be fenced.
func unplaced(schema *topology.Schema) []Problem {
	var list []Problem
	for _, t := range schema.Tables {
		if t.Problem != "" {
			list = append(list, Problem{
				Table: t.TableName, What: "it has no fence, as its rows cannot be placed: " + t.Problem,
				Hint: "shardctl table add says how a table is placed.",
			})
		}
	}
	slices.SortFunc(list, func(a, b Problem) int { return compareNames(a.Table, b.Table) })
	return list
}

func compareNames(a, b topology.TableName) int {
	return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
}
