package topology

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestCatalogRefusesBadRows tries by hand what the constraints are there for.
func TestCatalogRefusesBadRows(t *testing.T) {
	c, conn, s := filledCatalog(t, modelContent()) // four ranges, 1 << 62 each
	for _, test := range []struct{ sql, constraint string }{
		{"DELETE FROM shardproxy.ranges WHERE first = 0", "ranges_cover_the_ring"},
		{"DELETE FROM shardproxy.ranges", "meta_ring_fkey"},
		{"UPDATE shardproxy.ranges SET last = last - 1 WHERE first = 0", "ranges_cover_the_ring"},
		{"UPDATE shardproxy.ranges SET last = 9223372036854775807 WHERE first = 0", "ranges_do_not_overlap"},
		{"UPDATE shardproxy.ranges SET first = 1 WHERE first = 0", "ranges_cover_the_ring"},
		{"UPDATE shardproxy.ranges SET last = first - 1 WHERE first = 0", "ranges_check"},
		{"INSERT INTO shardproxy.ranges (first, last, shard_id) VALUES (5, 9, 1)", "ranges_cover_the_ring"},
		{"INSERT INTO shardproxy.ranges (first, last, shard_id) VALUES (5, 9, 1), (10, 4611686018427387903, 1)", "ranges_do_not_overlap"},
		{"UPDATE shardproxy.ranges SET shard_id = 99 WHERE first = 0", "ranges_shard_id_fkey"},
		{"DELETE FROM shardproxy.shards WHERE id = 1", "nodes_shard_id_fkey"},
		{"INSERT INTO shardproxy.shards (name, state) VALUES ('a', 'active')", "shards_name_key"},
		{"UPDATE shardproxy.shards SET state = 'asleep'", "shards_state_check"},
		{"INSERT INTO shardproxy.nodes SELECT 1, 'x', port, database, 'primary' FROM shardproxy.nodes LIMIT 1", "nodes_one_primary"},
		{"INSERT INTO shardproxy.nodes SELECT 1, host, port, database, 'replica' FROM shardproxy.nodes LIMIT 1", "nodes_pkey"},
		{"INSERT INTO shardproxy.meta SELECT * FROM shardproxy.meta", "meta_pkey"},
		{"UPDATE shardproxy.meta SET epoch = epoch + 2", "the epoch of the topology goes from 1 to 2, not to 3"},
		{"UPDATE shardproxy.meta SET epoch = epoch", "not to 1"},
		{"INSERT INTO shardproxy.tables VALUES ('public', 't', 'sharded', 'a'), ('public', 't', 'reference', NULL)", "tables_one_rule"},
		{"INSERT INTO shardproxy.tables VALUES ('public', 't', 'sharded', NULL)", "tables_check"},
	} {
		_, err := conn.Exec(t.Context(), test.sql)
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.ConstraintName != test.constraint && !strings.Contains(refused.Message, test.constraint) {
			t.Errorf("%s: %v, want %s", test.sql, err, test.constraint)
		}
	}
	sameContent(t, s, loadCatalog(t, c))
	split := `
		BEGIN;
		UPDATE shardproxy.ranges SET last = 4 WHERE first = 0;
		INSERT INTO shardproxy.ranges (first, last, shard_id) VALUES (5, 4611686018427387903, 1);
		COMMIT`
	if _, err := conn.PgConn().Exec(t.Context(), split).ReadAll(); err != nil {
		t.Errorf("a split by hand: %v", err)
	}
}

// TestCatalogRefusesDamage takes the constraints away and holds that Load serves nothing that is not whole.
func TestCatalogRefusesDamage(t *testing.T) {
	c, conn, s := filledCatalog(t, modelContent())
	const unlock = `SET session_replication_role = replica;
		ALTER TABLE shardproxy.ranges DROP CONSTRAINT ranges_do_not_overlap, DROP CONSTRAINT ranges_check;
		ALTER TABLE shardproxy.shards DROP CONSTRAINT shards_state_check, DROP CONSTRAINT shards_name_key CASCADE;
		ALTER TABLE shardproxy.nodes DROP CONSTRAINT nodes_pkey, DROP CONSTRAINT nodes_role_check;
		DROP INDEX shardproxy.nodes_one_primary;
		ALTER TABLE shardproxy.tables DROP CONSTRAINT tables_kind_check, DROP CONSTRAINT tables_check`
	if _, err := conn.PgConn().Exec(t.Context(), unlock).ReadAll(); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ sql, want string }{
		{"DELETE FROM shardproxy.ranges WHERE first = 0", "does not start at 8000000000000000"},
		{"DELETE FROM shardproxy.ranges WHERE last = 9223372036854775807", "the last range ends at c000000000000000"},
		{"DELETE FROM shardproxy.ranges", "at least one shard and one range"},
		{"INSERT INTO shardproxy.ranges (first, last, shard_id) VALUES (5, 9, 1)", "range 3 [8000000000000005,800000000000000a) does not start"},
		{"UPDATE shardproxy.ranges SET last = last + 1 WHERE first = 0", "does not start at c000000000000001"},
		{"UPDATE shardproxy.ranges SET shard_id = 99 WHERE first = 0", "is of shard id 99, which is not there"},
		{"UPDATE shardproxy.nodes SET shard_id = 99 WHERE host = 'a'", "node a:1 is of shard id 99, which is not there"},
		{"DELETE FROM shardproxy.nodes WHERE host = 'a'", `shard "a" has 0 primaries`},
		{"UPDATE shardproxy.nodes SET shard_id = 1 WHERE host = 'b'", `shard "a" has 2 primaries`},
		{"UPDATE shardproxy.nodes SET host = 'a' WHERE host = 'b'", `is listed twice, for shards "a" and "b"`},
		{"UPDATE shardproxy.nodes SET role = 'leader' WHERE host = 'b'", `unknown role "leader"`},
		{"UPDATE shardproxy.shards SET state = 'asleep' WHERE name = 'b'", `unknown state "asleep"`},
		{"UPDATE shardproxy.shards SET name = 'a' WHERE name = 'b'", `two shards "a"`},
		{"INSERT INTO shardproxy.tables VALUES ('public', 't', 'odd', 'a')", `unknown kind "odd"`},
		// What is whole, but not what was committed:
		{"UPDATE shardproxy.ranges SET shard_id = 1 WHERE first = 0", "a row was changed by hand"},
		{"UPDATE shardproxy.nodes SET port = 7 WHERE host = 'b'", "a row was changed by hand"},
		{"UPDATE shardproxy.meta SET refuse_unlisted = true", "a row was changed by hand"},
		{"INSERT INTO shardproxy.tables VALUES ('public', 't', 'reference', NULL)", "a row was changed by hand"},
		{"UPDATE shardproxy.meta SET checksum = 0", "its head says 0000000000000000"},
	} {
		// Load is another session, so a transaction that is rolled back would not do.
		restore := saveCatalog(t, conn)
		if _, err := conn.Exec(t.Context(), test.sql); err != nil {
			t.Fatalf("%s: %v", test.sql, err)
		}
		if _, err := c.Load(t.Context()); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.sql, err, test.want)
		}
		restore()
	}
	sameContent(t, s, loadCatalog(t, c))

	// A change that finds other rows than it expects is not made on top of them.
	if _, err := conn.Exec(t.Context(), "DELETE FROM shardproxy.ranges WHERE first = 0"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Commit(t.Context(), s, MoveRange{1 << 63, 3 << 62, "a"}, dba); !errors.Is(err, ErrDamaged) {
		t.Errorf("a change of a damaged catalog: %v", err)
	}
}

// saveCatalog gives a function that brings the tables back to what they hold now. conn must be free of constraints.
func saveCatalog(t *testing.T, conn *pgx.Conn) (restore func()) {
	t.Helper()
	tables := []string{"shards", "nodes", "tables", "meta"}
	var save, back strings.Builder
	for _, table := range tables {
		fmt.Fprintf(&save, "DROP TABLE IF EXISTS saved_%[1]s; CREATE TEMP TABLE saved_%[1]s AS TABLE shardproxy.%[1]s;", table)
		fmt.Fprintf(&back, "DELETE FROM shardproxy.%[1]s; INSERT INTO shardproxy.%[1]s TABLE saved_%[1]s;", table)
	}
	save.WriteString("DROP TABLE IF EXISTS saved_ranges; CREATE TEMP TABLE saved_ranges AS SELECT first, last, shard_id FROM shardproxy.ranges")
	back.WriteString("DELETE FROM shardproxy.ranges; INSERT INTO shardproxy.ranges (first, last, shard_id) TABLE saved_ranges")
	run := func(sql string) {
		if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
			t.Fatal(err)
		}
	}
	run(save.String())
	return func() { run(back.String()) }
}
