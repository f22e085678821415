package fence

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/topology"
)

// spread is n ranges that together are half of the ring.
func spread(n int) []topology.KeyRange {
	owned := make([]topology.KeyRange, n)
	half := topology.EqualRanges(2 * n)[1].Start
	for i, r := range topology.EqualRanges(n) {
		owned[i] = topology.KeyRange{Start: r.Start, End: r.Start + half}
	}
	return owned
}

// benchRows is how many rows there are in users, and statements write.
const benchRows = 100_000

// benchShards runs f on a shard without a fence, and with fences of some numbers of ranges that own all rows in users and keys.
func benchShards(b *testing.B, f func(b *testing.B, s *shard)) {
	for _, n := range []int{0, 1, 1_600, 16_384} {
		name := "unfenced"
		if n > 0 {
			name = fmt.Sprintf("ranges=%d", n)
		}
		b.Run(name, func(b *testing.B) {
			s := newShard(b, "CREATE TABLE users (id bigint PRIMARY KEY, n int) WITH (autovacuum_enabled = off); CREATE TABLE keys (id bigint)")
			owned := "true"
			if n > 0 {
				s.install(State{Shard: "s1", Epoch: 1, Owned: spread(n)})
				s.must(s.conn, "ALTER TABLE keys DISABLE TRIGGER ALL; SET shardproxy.epoch = 1")
				owned = "shardproxy.owns(hashint8extended(k, " + hashSeed + "))"
			}
			s.must(s.conn, fmt.Sprintf("INSERT INTO keys SELECT k FROM generate_series(1, %d) k WHERE %s LIMIT %d", 4*benchRows, owned, benchRows))
			s.must(s.conn, "INSERT INTO users SELECT id, 0 FROM keys")
			s.must(s.conn, "VACUUM ANALYZE")
			f(b, s)
		})
	}
}

// cpu is the time that a backend has been running. On a busy machine it tells more than the clock.
func cpu(b *testing.B, conn *pgx.Conn) (ns int64) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", conn.PgConn().PID()))
	if err == nil {
		_, err = fmt.Sscan(string(text), &ns)
	}
	if err != nil {
		b.Skipf("the time of a backend is not known: %v", err)
	}
	return ns
}

// measure runs sql, which does n times the same, and rolls it back.
func measure(b *testing.B, s *shard, n int, unit, sql string) {
	var busy int64
	for b.Loop() {
		s.must(s.conn, "BEGIN")
		from := cpu(b, s.conn)
		s.must(s.conn, sql)
		busy += cpu(b, s.conn) - from
		s.must(s.conn, "ROLLBACK")
		s.must(s.conn, "VACUUM users")
	}
	b.ReportMetric(float64(busy)/float64(b.N*n), "cpu-ns/"+unit)
	b.ReportMetric(0, "ns/op") // it has the vacuum in it
}

// BenchmarkPointUpdate is a prepared statement from a client over TCP.
func BenchmarkPointUpdate(b *testing.B) {
	benchShards(b, func(b *testing.B, s *shard) {
		var id int64
		if err := s.conn.QueryRow(b.Context(), "SELECT min(id) FROM users").Scan(&id); err != nil {
			b.Fatal(err)
		}
		from := cpu(b, s.conn)
		for b.Loop() {
			if _, err := s.conn.Exec(b.Context(), "UPDATE users SET n = n + 1 WHERE id = $1", id); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(cpu(b, s.conn)-from)/float64(b.N), "cpu-ns/op")
	})
}

// BenchmarkStatement is a planned statement within the server, without the network.
func BenchmarkStatement(b *testing.B) {
	const statements = 10_000
	for name, sql := range map[string]string{
		"insert": "INSERT INTO users VALUES (key, 0)", "update": "UPDATE users SET n = n + 1 WHERE id = key",
		"delete": "DELETE FROM users WHERE id = key", "nothing": "UPDATE users SET n = 0 WHERE id = -1",
	} {
		b.Run(name, func(b *testing.B) {
			benchShards(b, func(b *testing.B, s *shard) {
				if name == "insert" {
					s.must(s.conn, "DELETE FROM users")
				}
				measure(b, s, statements, "statement", fmt.Sprintf("DO $$ DECLARE key bigint; BEGIN FOR key IN SELECT id FROM keys LIMIT %d LOOP %s; END LOOP; END $$", statements, sql))
			})
		})
	}
}

// BenchmarkRow is a row of a statement that writes many.
func BenchmarkRow(b *testing.B) {
	for name, sql := range map[string]string{"insert": "INSERT INTO users SELECT id, 0 FROM keys", "update": "UPDATE users SET n = n + 1", "delete": "DELETE FROM users"} {
		b.Run(name, func(b *testing.B) {
			benchShards(b, func(b *testing.B, s *shard) {
				if name == "insert" {
					s.must(s.conn, "DELETE FROM users")
				}
				measure(b, s, benchRows, "row", sql)
			})
		})
	}
}

// BenchmarkFirstWrite is the first statement of a session, which reads the functions.
func BenchmarkFirstWrite(b *testing.B) {
	benchShards(b, func(b *testing.B, s *shard) {
		var busy int64
		for b.Loop() {
			conn, err := pgx.Connect(b.Context(), s.pg.DSN(s.db))
			if err != nil {
				b.Fatal(err)
			}
			s.must(conn, "SET shardproxy.epoch = 1")
			from := cpu(b, conn)
			s.must(conn, "UPDATE users SET n = n + 1 WHERE id = (SELECT id FROM keys LIMIT 1)")
			busy += cpu(b, conn) - from
			conn.Close(context.WithoutCancel(b.Context()))
		}
		b.ReportMetric(float64(busy)/float64(b.N), "cpu-ns/session")
		b.ReportMetric(0, "ns/op") // it has the connection in it
	})
}

// BenchmarkSet moves a fence with nobody in the way. hold-ns is how long writers would wait: from the lock to the answer of COMMIT.
func BenchmarkSet(b *testing.B) {
	for _, tables := range []int{2, 50} {
		for _, n := range []int{1, 1_600, 16_384} {
			b.Run(fmt.Sprintf("tables=%d/ranges=%d", tables, n), func(b *testing.B) {
				ddl := ""
				for i := range tables {
					ddl += fmt.Sprintf("CREATE TABLE t%d (user_id bigint);", i)
				}
				s := newShard(b, ddl)
				st := State{Shard: "s1", Epoch: 1, Owned: spread(n)}
				s.install(st)
				list := s.tables()
				var locked time.Time
				var held time.Duration
				spy := func(ctx context.Context, sql string) ([][]string, error) {
					if strings.HasPrefix(sql, "LOCK TABLE") {
						locked = time.Now()
					}
					rows, err := s.query(ctx, sql)
					if sql == "COMMIT" {
						held += time.Since(locked)
					}
					return rows, err
				}
				for b.Loop() {
					st.Epoch++
					st.Owned[0].Start ^= 1 // other ranges each time
					if err := Set(b.Context(), spy, st, list); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(held.Nanoseconds())/float64(b.N), "hold-ns")
			})
		}
	}
}
