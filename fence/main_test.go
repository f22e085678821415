package fence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// shard is a database with the connection that changes its fence.
type shard struct {
	testing.TB
	pg    *pgtest.Server
	db    string
	conn  *pgx.Conn
	query topology.Query
	rules topology.KeyRules
}

// newShard is an empty database, in which sql is run.
func newShard(t testing.TB, sql string) *shard {
	t.Helper()
	pg := pgtest.Shared(t)
	s := &shard{TB: t, pg: pg, db: pg.CreateDatabase(t), rules: topology.DefaultKeyRules()}
	s.conn = pg.Connect(t, s.db)
	s.query = queryOf(s.conn)
	s.must(s.conn, sql)
	return s
}

// queryOf is a Query over a connection, in the simple protocol.
func queryOf(conn *pgx.Conn) topology.Query {
	return func(ctx context.Context, sql string) (rows [][]string, err error) {
		results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
		for _, r := range results {
			for _, values := range r.Rows {
				row := make([]string, len(values))
				for i, v := range values {
					row[i] = string(v)
				}
				rows = append(rows, row)
			}
		}
		return rows, err
	}
}

// session is another connection, which works by a map of this epoch; 0: it says nothing of one.
func (s *shard) session(epoch topology.Epoch) *pgx.Conn {
	s.Helper()
	conn := s.pg.Connect(s, s.db)
	if epoch > 0 {
		s.stamp(conn, epoch)
	}
	return conn
}

func (s *shard) stamp(conn *pgx.Conn, epoch topology.Epoch) {
	s.Helper()
	s.must(conn, fmt.Sprintf("SET shardproxy.epoch = %d", epoch))
}

// exec runs statements and gives the error of the first that failed.
func (s *shard) exec(conn *pgx.Conn, sql string) error {
	_, err := conn.PgConn().Exec(s.Context(), sql).ReadAll()
	return err
}

func (s *shard) must(conn *pgx.Conn, sql string) {
	s.Helper()
	if err := s.exec(conn, sql); err != nil {
		s.Fatalf("%s: %v", sql, err)
	}
}

// one gives the only value of a query.
func (s *shard) one(sql string) string {
	s.Helper()
	rows, err := s.query(s.Context(), sql)
	if err != nil || len(rows) != 1 || len(rows[0]) != 1 {
		s.Fatalf("%s: %v, %v", sql, rows, err)
	}
	return rows[0][0]
}

// tables are those that the database has now.
func (s *shard) tables() []Table {
	s.Helper()
	schema, err := topology.LoadSchemaConn(s.Context(), s.conn, s.rules)
	if err != nil {
		s.Fatal(err)
	}
	return Tables(schema)
}

func (s *shard) install(st State) {
	s.Helper()
	if err := Install(s.Context(), s.query, st, s.tables()); err != nil {
		s.Fatal(err)
	}
}

// installComplete is what InstallAll does on one shard.
func (s *shard) installComplete(st State) {
	s.Helper()
	err := change(s.Context(), s.query, func(tx *transaction) error {
		tables, err := tx.tables(s.Context(), s.rules, &Result{})
		if err == nil {
			_, _, err = tx.install(s.Context(), &st, tables, true)
		}
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
}

func (s *shard) set(st State) {
	s.Helper()
	if err := Set(s.Context(), s.query, st, s.tables()); err != nil {
		s.Fatal(err)
	}
}

// check gives what Check finds, a line each.
func (s *shard) check(st State) (list []string) {
	s.Helper()
	found, err := Check(s.Context(), s.query, st, s.tables())
	if err != nil {
		s.Fatal(err)
	}
	for _, p := range found {
		if p.Hint == "" {
			s.Errorf("%v: no hint", p)
		}
		list = append(list, p.String())
	}
	return list
}

// read gives the state of the fence, which must be there.
func (s *shard) read() State {
	s.Helper()
	st, installed, err := Read(s.Context(), s.query)
	if err != nil || !installed {
		s.Fatalf("installed %v, %v", installed, err)
	}
	return st
}

// refusal is the SQLSTATE and the constraint of an error, "" for none.
func refusal(err error) string {
	var e *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &e):
		return err.Error()
	case e.ConstraintName == "" || e.SchemaName != Schema:
		return e.Code + " " + e.Message
	}
	return e.Code + " " + e.ConstraintName
}

const (
	staleWrite = "40001 " + ConstraintEpoch
	foreignRow = "23514 " + ConstraintOwner
)

// all and none are of the ring.
var all = []topology.KeyRange{{}}

// half is the lower or the upper half of the ring, and has says which keys are there.
func half(upper bool) []topology.KeyRange {
	if upper {
		return []topology.KeyRange{{Start: 1 << 63}}
	}
	return []topology.KeyRange{{End: 1 << 63}}
}

func contains(owned []topology.KeyRange, h topology.KeyHash) bool {
	for _, r := range owned {
		if h >= r.Start && (h < r.End || r.End == 0) {
			return true
		}
	}
	return false
}

// keys gives n integers that the lower half of the ring holds, and n that the upper half does.
func keys(n int) (lower, upper []int) {
	for k := 1; len(lower) < n || len(upper) < n; k++ {
		if contains(half(true), topology.HashInt(int64(k))) {
			upper = append(upper, k)
		} else {
			lower = append(lower, k)
		}
	}
	return lower[:n], upper[:n]
}
