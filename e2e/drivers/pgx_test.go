package drivers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

// TestPgx drives the proxy in each of pgx's ways to send a query.
func TestPgx(t *testing.T) {
	modes := []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	}
	for _, mode := range modes {
		t.Run(strings.ReplaceAll(mode.String(), " ", "_"), func(t *testing.T) {
			s := newPgxSuite(t, mode)
			t.Run("rows", s.rows)
			t.Run("batch", s.batch)
			t.Run("transactions", s.transactions)
			t.Run("copy", s.copy)
			t.Run("errors", s.errors)
			t.Run("cancel", s.cancel)
			t.Run("many at once", s.manyAtOnce)
		})
	}
}

type pgxSuite struct {
	pool  *pgxpool.Pool
	table string
}

func newPgxSuite(t *testing.T, mode pgx.QueryExecMode) *pgxSuite {
	t.Helper()
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.DefaultQueryExecMode = mode
	config.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	s := &pgxSuite{pool: pool, table: "drv_pgx_" + strings.ReplaceAll(mode.String(), " ", "_")}
	s.exec(t, "DROP TABLE IF EXISTS "+s.table)
	s.exec(t, "CREATE TABLE "+s.table+` (
		user_id bigint PRIMARY KEY, name text, tags text[], at timestamptz, day date, doc jsonb, price numeric(10, 2), raw bytea, n int)`)
	t.Cleanup(func() { _, _ = pool.Exec(context.Background(), "DROP TABLE "+s.table) })
	return s
}

func (s *pgxSuite) exec(t *testing.T, sql string, args ...any) {
	t.Helper()
	if _, err := s.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

type pgxRow struct {
	Name  *string
	Tags  []string
	At    *time.Time
	Day   *time.Time
	Doc   map[string]any
	Price *string
	Raw   []byte
}

func (s *pgxSuite) rows(t *testing.T) {
	name, price := "ünïcödé 日本 🐘 'quoted' \\", "12.34"
	at := time.Date(2024, 2, 29, 12, 30, 0, 123456000, time.UTC)
	day := time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)
	full := pgxRow{
		Name: &name, Tags: []string{"a", `b"c`, ""}, At: &at, Day: &day, Doc: map[string]any{"k": []any{1.0, nil, "x"}},
		Price: &price, Raw: []byte{0, 1, 255},
	}
	insert := "INSERT INTO " + s.table + " (user_id, name, tags, at, day, doc, price, raw) VALUES ($1, $2, $3, $4, $5, $6, $7::text::numeric, $8)"
	s.exec(t, insert, int64(1), name, full.Tags, at, day, `{"k": [1, null, "x"]}`, price, full.Raw)
	s.exec(t, insert, int64(-2), nil, nil, nil, nil, nil, nil, nil)
	s.exec(t, "INSERT INTO "+s.table+" (user_id, n) VALUES ($1, 1), ($2, 2), ($3, 3)", 3, 4, 5)

	read := "SELECT name, tags, at, day, doc, price::text, raw FROM " + s.table + " WHERE user_id = $1"
	for range 3 { // so that a prepared statement is used again
		for key, want := range map[int64]pgxRow{1: full, -2: {}} {
			var got pgxRow
			err := s.pool.QueryRow(t.Context(), read, key).Scan(&got.Name, &got.Tags, &got.At, &got.Day, &got.Doc, &got.Price, &got.Raw)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("row %d (-want +got)\n%s", key, diff)
			}
		}
	}
	if err := s.pool.QueryRow(t.Context(), read, 404).Scan(); !errors.Is(err, pgx.ErrNoRows) {
		t.Errorf("a key that is not there: %v", err)
	}
	rows, err := s.pool.Query(t.Context(), "SELECT n FROM "+s.table+" WHERE user_id = ANY ($1)", []int64{3, 4, 5})
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for n, err := range pgxInts(rows) {
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	if sum != 6 {
		t.Errorf("sum over three keys = %d, want 6", sum)
	}
}

// pgxInts ranges over rows of one integer.
func pgxInts(rows pgx.Rows) func(yield func(int, error) bool) {
	return func(yield func(int, error) bool) {
		defer rows.Close()
		for rows.Next() {
			var n int
			err := rows.Scan(&n)
			if !yield(n, err) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(0, err)
		}
	}
}

func (s *pgxSuite) batch(t *testing.T) {
	const n = 40
	batch := &pgx.Batch{}
	for i := range n {
		batch.Queue("INSERT INTO "+s.table+" (user_id, n) VALUES ($1, $2)", 1000+i, i)
	}
	for i := range n {
		batch.Queue("SELECT n FROM "+s.table+" WHERE user_id = $1", 1000+i).QueryRow(func(row pgx.Row) error {
			var got int
			if err := row.Scan(&got); err != nil {
				return err
			}
			if got != i {
				return fmt.Errorf("key %d gives %d, want %d", 1000+i, got, i)
			}
			return nil
		})
	}
	if err := s.pool.SendBatch(t.Context(), batch).Close(); err != nil {
		t.Error(err)
	}
}

func (s *pgxSuite) transactions(t *testing.T) {
	ctx := t.Context()
	count := func(q interface {
		QueryRow(context.Context, string, ...any) pgx.Row
	}, key int,
	) (n int) {
		t.Helper()
		if err := q.QueryRow(ctx, "SELECT count(*) FROM "+s.table+" WHERE user_id = $1", key).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	rollback := errors.New("rolled back on purpose")
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		for key := 2000; key < 2004; key++ {
			if _, err := tx.Exec(ctx, "INSERT INTO "+s.table+" (user_id) VALUES ($1)", key); err != nil {
				return err
			}
		}
		if count(tx, 2001) != 1 {
			t.Error("a transaction does not see its own row")
		}
		return rollback
	})
	if !errors.Is(err, rollback) || count(s.pool, 2001) != 0 {
		t.Errorf("rollback: %v, %d rows stay", err, count(s.pool, 2001))
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "INSERT INTO "+s.table+" (user_id) VALUES ($1)", 2010); err != nil {
			return err
		}
		nested := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { // a savepoint
			_, err := tx.Exec(ctx, "INSERT INTO "+s.table+" (user_id) VALUES ($1)", 2010)
			return err
		})
		if code(nested) != "23505" {
			t.Errorf("nested transaction: %v, want 23505", nested)
		}
		_, err := tx.Exec(ctx, "INSERT INTO "+s.table+" (user_id) VALUES ($1)", 2011)
		return err
	})
	if err != nil || count(s.pool, 2010) != 1 || count(s.pool, 2011) != 1 {
		t.Errorf("commit: %v, rows %d and %d", err, count(s.pool, 2010), count(s.pool, 2011))
	}
}

func (s *pgxSuite) copy(t *testing.T) {
	const n = 500
	rows := make([][]any, n)
	for i := range rows {
		rows[i] = []any{int64(5000 + i), fmt.Sprintf("copied %d", i), []string{"x"}, i}
	}
	copied, err := s.pool.CopyFrom(t.Context(), pgx.Identifier{s.table}, []string{"user_id", "name", "tags", "n"}, pgx.CopyFromRows(rows))
	if err != nil || copied != n {
		t.Fatalf("copied %d of %d: %v", copied, n, err)
	}
	for _, i := range []int{0, 1, 77, n - 1} {
		var name string
		err := s.pool.QueryRow(t.Context(), "SELECT name FROM "+s.table+" WHERE user_id = $1", 5000+i).Scan(&name)
		if err != nil || name != rows[i][1] {
			t.Errorf("row %d = %q, %v", i, name, err)
		}
	}
}

func code(err error) string {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		return pgErr.Code
	}
	return ""
}

func (s *pgxSuite) errors(t *testing.T) {
	for _, c := range []struct {
		sql  string
		args []any
		want string
	}{
		{"INSERT INTO " + s.table + " (user_id) VALUES ($1)", []any{1}, "23505"},
		{"SELECT nosuch FROM " + s.table + " WHERE user_id = $1", []any{1}, "42703"},
		{"SELECT 1 / (user_id - 1) FROM " + s.table + " WHERE user_id = $1", []any{1}, "22012"},
		{"SELEC 1", nil, "42601"},
	} {
		if _, err := s.pool.Exec(t.Context(), c.sql, c.args...); code(err) != c.want {
			t.Errorf("%s: %v, want %s", c.sql, err, c.want)
		}
	}
}

func (s *pgxSuite) cancel(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := s.pool.Exec(ctx, "SELECT pg_sleep(30)"); err == nil || time.Since(begin) > 10*time.Second {
		t.Errorf("a query beyond its deadline: %v after %v", err, time.Since(begin))
	}
	s.exec(t, "SELECT 1")

	begin = time.Now()
	err := pgx.BeginFunc(t.Context(), s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SET LOCAL statement_timeout = 50"); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), "SELECT pg_sleep(30) FROM "+s.table+" WHERE user_id = 1")
		return err
	})
	if code(err) != "57014" || time.Since(begin) > 10*time.Second {
		t.Errorf("statement_timeout: %v after %v, want 57014", err, time.Since(begin))
	}
}

func (s *pgxSuite) manyAtOnce(t *testing.T) {
	group, ctx := errgroup.WithContext(t.Context())
	for worker := range 16 {
		group.Go(func() error {
			for i := range 25 {
				key := 10000 + worker*100 + i
				var got int
				err := s.pool.QueryRow(ctx, "INSERT INTO "+s.table+" (user_id, n) VALUES ($1, $2) RETURNING n", key, i).Scan(&got)
				if err != nil || got != i {
					return fmt.Errorf("insert %d gave %d: %w", key, got, err)
				}
				if err := s.pool.QueryRow(ctx, "SELECT n FROM "+s.table+" WHERE user_id = $1", key).Scan(&got); err != nil || got != i {
					return fmt.Errorf("read of %d gave %d: %w", key, got, err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
