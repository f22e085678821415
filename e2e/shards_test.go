package e2e

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/e2e/harness"
)

// hashSeed is PostgreSQL's HASH_PARTITION_SEED (catalog/partition.h).
const hashSeed = "8816678312871386365"

// onShard runs SQL on the shard itself and gives its rows as text.
func onShard(t testing.TB, shard harness.Shard, sql string) [][]string {
	t.Helper()
	rows, err := rowsAt(t.Context(), shard.Primary().DSN, sql)
	if err != nil {
		t.Fatalf("shard %s: %s: %v", shard.Name, sql, err)
	}
	return rows
}

// rowsAt runs SQL on a server, or a proxy, and gives the rows of all statements as text.
func rowsAt(ctx context.Context, dsn, sql string) (rows [][]string, err error) {
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	for _, result := range results {
		for _, values := range result.Rows {
			row := make([]string, len(values))
			for i, v := range values {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// onShards sums up one number over all shards.
func onShards(t testing.TB, c *harness.Cluster, sql string) (sum int) {
	t.Helper()
	for _, shard := range c.Shards {
		n, err := strconv.Atoi(onShard(t, shard, sql)[0][0])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// waitPatience is what nothing takes that works, on a busy machine either.
const waitPatience = time.Minute

// waitFor polls a condition that nothing announces.
func waitFor(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitPatience); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, waitPatience)
		}
	}
}

// keyOn gives the n-th bigint key from 1 on that the shard owns.
func keyOn(t testing.TB, c *harness.Cluster, shard, n int) int {
	t.Helper()
	rows := onShard(t, c.Shards[0], fmt.Sprintf(
		"SELECT k FROM generate_series(1, 1000) k WHERE %s = %d ORDER BY k OFFSET %d LIMIT 1", shardOf("hashint8extended(k, "+hashSeed+")"), shard, n))
	key, err := strconv.Atoi(rows[0][0])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// shardOf is SQL for the number of the shard that owns a hash: equal ranges of the signed values, in the
// order of the shards.
func shardOf(hash string) string {
	return fmt.Sprintf("floor((%s::numeric + 9223372036854775808) * %d / 18446744073709551616)::int", hash, shardCount)
}

// TestRowsAreOnTheirShards asks every shard for its rows after all ways to bring rows in.
func TestRowsAreOnTheirShards(t *testing.T) {
	c := needCluster(t)
	for _, key := range []struct{ name, typ, hash, value string }{
		{"int8", "bigint", "hashint8extended(user_id, %s)", "(%d - 50) * 1000000007::bigint"},
		{"int4", "int", "hashint8extended(user_id, %s)", "%d - 50"},
		{"int2", "smallint", "hashint8extended(user_id, %s)", "%d - 50"},
		{"text", "text", "hashtextextended(user_id, %s)", "'key ü ' || %d"},
		{"varchar", "varchar(20)", "hashtextextended(user_id, %s)", "'v' || %d"},
		{"uuid", "uuid", "uuid_hash_extended(user_id, %s)", "md5('%d')::uuid"},
	} {
		t.Run(key.name, func(t *testing.T) {
			table := "place_" + key.name
			s := connect(t, proxyDSN)
			s.mustf(t, "DROP TABLE IF EXISTS %s", table)
			s.mustf(t, "CREATE TABLE %s (n int, user_id %s PRIMARY KEY)", table, key.typ)
			values := make([]string, 120)
			for i := range values {
				values[i] = onShard(t, c.Shards[0], "SELECT ("+fmt.Sprintf(key.value, i)+")::text")[0][0]
			}
			bringIn(t, s, table, values)

			hash := fmt.Sprintf(key.hash, hashSeed)
			total, owners := 0, 0
			for i, shard := range c.Shards {
				rows := onShard(t, shard, fmt.Sprintf("SELECT count(*), count(*) FILTER (WHERE %s <> %d) FROM %s", shardOf(hash), i, table))
				n, _ := strconv.Atoi(rows[0][0])
				if rows[0][1] != "0" {
					t.Errorf("shard %s holds %s rows of other shards", shard.Name, rows[0][1])
				}
				if total += n; n > 0 {
					owners++
				}
			}
			if total != len(values) || owners != len(c.Shards) {
				t.Errorf("%d rows on %d shards, want %d on %d", total, owners, len(values), len(c.Shards))
			}
			for i, v := range values {
				tr := s.simple(&entry{sql: fmt.Sprintf("SELECT n FROM %s WHERE user_id = '%s'", table, v)})
				if want := fmt.Sprintf("row %q", strconv.Itoa(i)); len(tr.lines) < 2 || tr.lines[1] != want {
					t.Errorf("key %q: %v, want %s", v, tr.lines, want)
				}
			}
			s.mustf(t, "DROP TABLE %s", table)
		})
	}
}

// bringIn inserts row i with key values[i] in turn by a literal, a parameter in text and binary format, one
// INSERT of many rows, and COPY in text, CSV and binary format.
func bringIn(t *testing.T, s *session, table string, values []string) {
	t.Helper()
	part := len(values) / 7
	ok := func(tr *transcript) {
		t.Helper()
		if line, failed := tr.failed(); failed {
			t.Fatal(line)
		}
	}
	row := func(i int) *entry {
		n := strconv.Itoa(i)
		return &entry{sql: "INSERT INTO " + table + " VALUES ($1, $2)", params: []*string{&n, &values[i]}}
	}
	many, text, csv := "", "", "n,user_id\n"
	for i := range values {
		switch i / part {
		case 0:
			s.mustf(t, "INSERT INTO %s (user_id, n) VALUES ('%s', %d)", table, values[i], i)
		case 1:
			ok(s.extended(row(i)))
		case 2:
			ok(s.prepared(row(i)))
		case 3:
			many += fmt.Sprintf(", (%d, '%s')", i, values[i])
		case 4:
			text += fmt.Sprintf("%d\t%s\n", i, values[i])
		case 5:
			csv += fmt.Sprintf("%d,\"%s\"\n", i, values[i])
		}
	}
	s.mustf(t, "INSERT INTO %s VALUES %s", table, many[2:])
	ok(s.simple(&entry{sql: "COPY " + table + " FROM STDIN", data: []byte(text), hasData: true}))
	ok(s.simple(&entry{sql: "COPY " + table + " FROM STDIN (FORMAT csv, HEADER)", data: []byte(csv), hasData: true}))
	ok(s.simple(&entry{sql: "COPY " + table + " FROM STDIN (FORMAT binary)", data: binaryRows(t, table, values, 6*part), hasData: true}))
}

// binaryRows lets a plain PostgreSQL write rows from the given number on in COPY's binary format.
func binaryRows(t *testing.T, table string, values []string, from int) []byte {
	t.Helper()
	typ := onShard(t, cluster.Shards[0], fmt.Sprintf("SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = '%s'::regclass AND attname = 'user_id'", table))[0][0]
	sql := ""
	for i := from; i < len(values); i++ {
		sql += fmt.Sprintf(", (%d, '%s'::%s)", i, values[i], typ)
	}
	return copyOut(t, plainDSN, "COPY (VALUES "+sql[2:]+") TO STDOUT (FORMAT binary)")
}

// TestReferenceTablesAreEverywhere asks every shard for the whole of a reference table.
func TestReferenceTablesAreEverywhere(t *testing.T) {
	c := needCluster(t)
	s := connect(t, proxyDSN)
	s.must(t, "DROP TABLE IF EXISTS place_ref")
	s.must(t, "CREATE TABLE place_ref (id int PRIMARY KEY, label text)")
	s.must(t, "INSERT INTO place_ref VALUES (1, 'one'), (2, 'two')")
	s.must(t, "UPDATE place_ref SET label = 'zwei' WHERE id = 2")
	if line, failed := s.simple(&entry{sql: "COPY place_ref FROM STDIN", data: []byte("3\tthree\n"), hasData: true}).failed(); failed {
		t.Fatal(line)
	}
	s.must(t, "DELETE FROM place_ref WHERE id = 1")
	for _, shard := range c.Shards {
		got := fmt.Sprint(onShard(t, shard, "SELECT id, label FROM place_ref ORDER BY id"))
		if want := "[[2 zwei] [3 three]]"; got != want {
			t.Errorf("shard %s has %s, want %s", shard.Name, got, want)
		}
	}
	s.must(t, "DROP TABLE place_ref")
}
