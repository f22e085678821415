package proxy

import (
	"testing"
)

// TestDecisionsAgainstOthers makes the table of decisions while somebody else makes the schema that it is in, as `fence install` and
// other proxies do. Whatever PostgreSQL then refuses, the table must be there afterwards.
func TestDecisionsAgainstOthers(t *testing.T) {
	for _, test := range []struct{ name, before, during string }{
		{"schema", "", "CREATE SCHEMA shardproxy"},
		{"rights on the schema", "CREATE SCHEMA shardproxy", "GRANT USAGE ON SCHEMA shardproxy TO PUBLIC"},
		{"all of it", "", commitTable},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := newKit(t)
			db := shardDatabases()[0]
			k.pg.Exec(t, db, test.before)
			other := k.pg.Connect(t, db)
			exec := func(sql string) {
				t.Helper()
				if _, err := other.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
					t.Fatal(err)
				}
			}
			exec("BEGIN")
			exec(test.during)
			made := make(chan error, 1)
			go func() {
				var r recovery
				made <- r.install(t.Context(), k.srv, k.srv.Snapshot(), 0)
			}()
			waitFor(t, "it waits for the other", func() bool {
				return k.count(0, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '"+db+"'") == 1
			})
			exec("COMMIT")
			if err := <-made; err != nil {
				t.Error(err)
			}
			if k.count(0, "SELECT 1 FROM pg_tables WHERE schemaname = 'shardproxy' AND tablename = 'commits'") != 1 {
				t.Error("there is no table of decisions")
			}
		})
	}
}
