package topology

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A client's transaction may have tables that are not committed yet, any settings, and temporary tables
// that are named like what the loader reads.
func TestLoadInTransaction(t *testing.T) {
	conn := database(t, `
		CREATE TABLE projects (id bigserial, user_id bigint NOT NULL, name text DEFAULT upper('x'));
		CREATE VIEW mine AS SELECT id FROM projects`)
	before := mustLoad(t, conn, DefaultKeyRules())
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	exec(`SET standard_conforming_strings = off; SET escape_string_warning = off`)
	exec(`BEGIN`)
	exec(`CREATE TABLE fresh (user_id uuid);
		CREATE TEMP TABLE pg_class (oid oid); CREATE TEMP TABLE pg_proc (oid oid); CREATE TEMP TABLE text (x int);
		SET LOCAL search_path = pg_catalog, pg_temp`)
	s, err := LoadSchema(t.Context(), connQuery(conn.PgConn()), DefaultKeyRules())
	if err != nil {
		t.Fatal(err)
	}
	if status := conn.PgConn().TxStatus(); status != 'T' {
		t.Fatalf("the transaction is in state %q", status)
	}
	fresh := TableName{"public", "fresh"}
	if table := s.Tables[fresh]; table == nil || table.KeyType != KeyUUID {
		t.Errorf("the table of the transaction is %+v", table)
	}
	delete(s.Tables, fresh)
	if diff := cmp.Diff(before.Tables, s.Tables); diff != "" {
		t.Errorf("tables (-alone +in the transaction):\n%s", diff)
	}
	if diff := cmp.Diff(before.Functions, s.Functions); diff != "" {
		t.Errorf("functions (-alone +in the transaction):\n%s", diff)
	}
	exec(`ROLLBACK`)
	if s := mustLoad(t, conn, DefaultKeyRules()); s.Tables[fresh] != nil {
		t.Error("the table is there after ROLLBACK")
	}
}

// script gives a Query that answers the n-th statement with the n-th of results, and then with no rows.
func script(results ...[][]string) Query {
	return func(context.Context, string) (rows [][]string, err error) {
		if len(results) > 0 {
			rows, results = results[0], results[1:]
		}
		return rows, nil
	}
}

func TestLoadText(t *testing.T) {
	s, err := LoadSchema(t.Context(), script(
		[][]string{{"4294967295", "public", "child", "r", "", "t", "t", "7,8"}, {"7", "public", "users", "r", "", "f", "f", ""}},
		[][]string{
			{"7", "id", "20", "", "t", "z", "\"public\".\"s\"", "t", "t", "f", "f", "1"},
			{"9", "of a dropped table", "20", "", "f", "", "", "f", "f", "f", "f", ""},
			{"4294967295", "id", "20", "", "f", "s", "", "f", "f", "f", "t", ""},
			{"7", "code", "1043", "5", "f", "", "", "f", "f", "f", "f", "0"},
		},
		[][]string{{"now", "s", "t", "f", "f"}},
		[][]string{{"=", "i", "t"}},
		[][]string{{"t"}},
	), DefaultKeyRules())
	if err != nil {
		t.Fatal(err)
	}
	users, child := TableName{"public", "users"}, TableName{"public", "child"}
	want := map[TableName]*Table{
		users: {TableName: users, Kind: Sharded, KeyType: KeyInt, Triggers: true, Primary: []string{"code", "id"}, Columns: []Column{
			{Name: "id", Type: oidInt8, NotNull: true, Default: Volatile, Sequence: true, Draws: `"public"."s"`, Identity: true, Always: true}, {Name: "code", Type: oidVarchar, Length: 5},
		}},
		child: {TableName: child, Kind: Sharded, KeyType: KeyInt, Parent: users, Triggers: true, Fenced: true, Columns: []Column{{Name: "id", Type: oidInt8, Default: Stable, Fuzzy: true}}},
	}
	if !s.Fenced {
		t.Error("the fences were not seen")
	}
	if diff := cmp.Diff(want, s.Tables); diff != "" {
		t.Errorf("tables (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]Function{"now": {Volatility: Stable, Builtin: true}}, s.Functions); diff != "" {
		t.Errorf("functions (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]Operator{"=": {Volatility: Immutable, Keys: true}}, s.Operators); diff != "" {
		t.Errorf("operators (-want +got):\n%s", diff)
	}
}

func TestLoadFaults(t *testing.T) {
	table := [][]string{{"7", "public", "users", "r", "", "f", "f", ""}}
	tests := []struct {
		want    string
		results [][][]string
	}{
		{"6 values instead of 8", [][][]string{{{"7", "public", "users", "r", "", "f"}}}},
		{`"x" is not an OID`, [][][]string{{{"x", "public", "users", "r", "", "f", "f", ""}}}},
		{`"4294967296" is not an OID`, [][][]string{{{"7", "public", "users", "r", "", "f", "f", "1,4294967296"}}}},
		{`"true" is not a bool`, [][][]string{{{"7", "public", "users", "r", "", "true", "f", ""}}}},
		{"view public.mine was dropped", [][][]string{{{"7", "public", "mine", "v", "", "f", "f", ""}}}},
		{"11 values instead of 12", [][][]string{table, {{"7", "id", "20", "", "t", "", "", "f", "f", "f", "f"}}}},
		{`"-1" is not an OID`, [][][]string{table, {{"7", "id", "-1", "", "t", "", "", "f", "f", "f", "f", ""}}}},
		{`"-5" is not a number`, [][][]string{table, {{"7", "id", "20", "-5", "t", "", "", "f", "f", "f", "f", ""}}}},
		{`"vv" is not a volatility`, [][][]string{table, {{"7", "id", "20", "", "t", "vv", "", "f", "f", "f", "f", ""}}}},
		{`"x" is not a number`, [][][]string{table, {{"7", "id", "20", "", "t", "", "", "f", "f", "f", "f", "x"}}}},
		{"0 values instead of 5", [][][]string{table, nil, {{}}}},
		{`"" is not a volatility`, [][][]string{table, nil, {{"now", "", "t", "f", "f"}}}},
		{`"" is not a bool`, [][][]string{table, nil, {{"now", "s", "t", "f", ""}}}},
		{"2 values instead of 3", [][][]string{table, nil, nil, {{"=", "i"}}}},
		{`"x" is not a volatility`, [][][]string{table, nil, nil, {{"=", "x", "t"}}}},
	}
	for _, test := range tests {
		s, err := LoadSchema(t.Context(), script(test.results...), DefaultKeyRules())
		if s != nil || err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v; want an error with %q", err, test.want)
		}
	}
}

func TestLoadQueryError(t *testing.T) {
	broken := errors.New("broken")
	for n := range 5 {
		calls := 0
		query := func(context.Context, string) ([][]string, error) {
			if calls++; calls > n {
				return nil, broken
			}
			return nil, nil
		}
		if s, err := LoadSchema(t.Context(), query, DefaultKeyRules()); s != nil || !errors.Is(err, broken) || calls != n+1 {
			t.Errorf("statement %d failed: schema %v, error %v after %d statements", n+1, s, err, calls)
		}
	}
}
