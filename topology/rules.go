package topology

import "fmt"

// KeyRules say which column is the shard key of a table, and which tables are copied to every
// shard. The first rule that speaks of a table places it, in the order of the fields.
type KeyRules struct {
	Explicit map[TableName]string // table → shard-key column
	// Reference lists tables that are a full copy on every shard although a rule below fits them.
	Reference map[TableName]bool
	Columns   []string             // a column of this name is the key; the earlier name wins
	Named     map[TableName]string // table → column; an empty schema stands for any schema
	// RefuseUnlisted refuses a table of which no rule speaks. Else it becomes a reference table.
	RefuseUnlisted bool
}

// DefaultKeyRules places by user_id, creator_user_id and users.id.
func DefaultKeyRules() KeyRules {
	return KeyRules{
		Columns: []string{"user_id", "creator_user_id"},
		Named:   map[TableName]string{{Name: "users"}: "id"},
	}
}

// Place says where the rows of a table with these columns live. Key is the index of the shard key
// in columns, -1 for a reference table. An error says why its rows cannot be placed; kind is then
// Sharded and keyType KeyNone, and key is -1 unless it is the type of the key that is wrong.
func (r KeyRules) Place(name TableName, columns []Column) (kind TableKind, key int, keyType KeyType, err error) {
	column, sharded := r.keyOf(name, columns)
	if !sharded {
		if r.RefuseUnlisted && !r.Reference[name] {
			return Sharded, -1, KeyNone, fmt.Errorf("table %v has no shard key: no rule names one and it is not listed as a reference table", name)
		}
		return Reference, -1, KeyNone, nil
	}
	key = columnIndex(columns, column)
	if key < 0 {
		return Sharded, -1, KeyNone, fmt.Errorf("table %v has no column %q, which the rules name as its shard key", name, column)
	}
	if keyType, err = columns[key].keyType(); err != nil {
		return Sharded, key, KeyNone, fmt.Errorf("shard key %v.%s: %w", name, column, err)
	}
	return Sharded, key, keyType, nil
}

// keyOf finds the column that the rules name. An explicit rule may name one that the table has not.
func (r KeyRules) keyOf(name TableName, columns []Column) (column string, sharded bool) {
	if column, ok := r.Explicit[name]; ok {
		return column, true
	}
	if r.Reference[name] {
		return "", false
	}
	for _, column := range r.Columns {
		if columnIndex(columns, column) >= 0 {
			return column, true
		}
	}
	for _, n := range []TableName{name, {Name: name.Name}} {
		if column, ok := r.Named[n]; ok && columnIndex(columns, column) >= 0 {
			return column, true
		}
	}
	return "", false
}

func columnIndex(columns []Column, name string) int {
	for i := range columns {
		if columns[i].Name == name {
			return i
		}
	}
	return -1
}
