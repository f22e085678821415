package join

import (
	"testing"

	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

// TestRowsAreCompared follows changes of a table one of whose columns has the name by which our statements call the table.
func TestRowsAreCompared(t *testing.T) {
	server := pgtest.Start(t)
	server.Exec(t, "postgres", "CREATE DATABASE new")
	j := &Joiner{DSN: func(n topology.Node) string { return server.DSN(n.Database) }}
	a := &addition{Joiner: j}
	for db, s := range map[string]**session{"postgres": &a.old, "new": &a.new} {
		server.Exec(t, db, "CREATE TABLE r (t text, v text)")
		var err error
		if *s, err = j.open(t.Context(), db, topology.Node{Database: db}); err != nil {
			t.Fatal(err)
		}
		defer (*s).close()
	}
	schema := &topology.Schema{Tables: map[topology.TableName]*topology.Table{}}
	name := topology.TableName{Schema: "public", Name: "r"}
	schema.Tables[name] = &topology.Table{TableName: name, Kind: topology.Reference, Columns: []topology.Column{{Name: "t"}, {Name: "v"}}}
	tables := referenceTables(schema)
	for _, sql := range []string{
		"INSERT INTO r SELECT 't' || n, 'v' FROM generate_series(1, 10) n", "UPDATE r SET v = 'w' WHERE t = 't3'",
		"INSERT INTO r VALUES (NULL, NULL), (NULL, 'null')", "UPDATE r SET v = 'x' WHERE t IS NULL", "DELETE FROM r WHERE t = 't4'", "TRUNCATE r",
	} {
		server.Exec(t, "postgres", sql)
		changed, err := a.syncRows(t.Context(), tables)
		if err != nil || len(changed) != 1 {
			t.Errorf("%s: %d tables changed, %v", sql, len(changed), err)
		}
		const all = "SELECT coalesce(string_agg(ROW(r.*)::text, ' ' ORDER BY ROW(r.*)::text), '') FROM r"
		there, err := a.old.column(t.Context(), all)
		if err != nil {
			t.Fatal(err)
		}
		here, err := a.new.column(t.Context(), all)
		if err != nil {
			t.Fatal(err)
		}
		if here[0] != there[0] {
			t.Errorf("%s: %s, want %s", sql, here[0], there[0])
		}
	}
}
