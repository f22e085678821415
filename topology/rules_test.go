package topology

import (
	"strings"
	"testing"
)

func TestPlace(t *testing.T) {
	const numeric = 1700
	column := func(name string, oid uint32) Column { return Column{Name: name, Type: oid} }
	id, user, creator := column("id", oidInt8), column("user_id", oidUUID), column("creator_user_id", oidText)
	rules := DefaultKeyRules()
	rules.Explicit = map[TableName]string{
		{"public", "accounts"}: "aid",
		{"public", "both"}:     "id",
		{"app", "ghost"}:       "gone",
	}
	rules.Reference = map[TableName]bool{{"public", "copied"}: true}
	refuse := rules
	refuse.RefuseUnlisted = true

	tests := []struct {
		name    string
		rules   KeyRules
		table   TableName
		columns []Column
		kind    TableKind
		key     int
		keyType KeyType
		err     string
	}{
		{"explicit", rules, TableName{"public", "accounts"}, []Column{column("b", oidInt4), column("aid", oidInt4)}, Sharded, 1, KeyInt, ""},
		{"explicit before the column rules", rules, TableName{"public", "both"}, []Column{user, id}, Sharded, 1, KeyInt, ""},
		{"explicit is of one schema", rules, TableName{"other", "accounts"}, []Column{column("aid", oidInt4)}, Reference, -1, KeyNone, ""},
		{"explicit column is missing", rules, TableName{"app", "ghost"}, []Column{id}, Sharded, -1, KeyNone, `no column "gone"`},
		{"reference before the column rules", rules, TableName{"public", "copied"}, []Column{user}, Reference, -1, KeyNone, ""},
		{"reference is of one schema", rules, TableName{"app", "copied"}, []Column{user}, Sharded, 0, KeyUUID, ""},
		{"first column rule wins", rules, TableName{"public", "t"}, []Column{creator, user}, Sharded, 1, KeyUUID, ""},
		{"second column rule", rules, TableName{"any", "t"}, []Column{id, creator}, Sharded, 1, KeyText, ""},
		{"users.id in any schema", rules, TableName{"auth", "users"}, []Column{id}, Sharded, 0, KeyInt, ""},
		{"users without id", rules, TableName{"public", "users"}, []Column{column("name", oidText)}, Reference, -1, KeyNone, ""},
		{"column rules before users.id", rules, TableName{"public", "users"}, []Column{id, user}, Sharded, 1, KeyUUID, ""},
		{"no rule", rules, TableName{"public", "plans"}, []Column{id}, Reference, -1, KeyNone, ""},
		{"no rule, refused", refuse, TableName{"public", "plans"}, []Column{id}, Sharded, -1, KeyNone, "no shard key"},
		{"listed, not refused", refuse, TableName{"public", "copied"}, []Column{id}, Reference, -1, KeyNone, ""},
		{"key of a type without a hash", rules, TableName{"public", "t"}, []Column{column("user_id", numeric)}, Sharded, 0, KeyNone, "OID 1700"},
		{"fuzzy key", rules, TableName{"public", "t"}, []Column{{Name: "user_id", Type: oidText, Fuzzy: true}}, Sharded, 0, KeyNone, "deterministic"},
		{"generated key", rules, TableName{"public", "t"}, []Column{{Name: "user_id", Type: oidInt8, Generated: true}}, Sharded, 0, KeyNone, "generated"},
		{"smallint", rules, TableName{"public", "t"}, []Column{column("user_id", oidInt2)}, Sharded, 0, KeyInt, ""},
		{"varchar", rules, TableName{"public", "t"}, []Column{column("user_id", oidVarchar)}, Sharded, 0, KeyText, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			kind, key, keyType, err := test.rules.Place(test.table, test.columns)
			if kind != test.kind || key != test.key || keyType != test.keyType {
				t.Errorf("%v, %d, %v; want %v, %d, %v", kind, key, keyType, test.kind, test.key, test.keyType)
			}
			if (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v; want %q", err, test.err)
			}
		})
	}
}
