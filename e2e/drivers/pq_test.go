package drivers

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

// TestPq drives the proxy with lib/pq through database/sql.
func TestPq(t *testing.T) {
	for _, variant := range []struct{ name, option string }{{"text", ""}, {"binary_parameters", "&binary_parameters=yes"}} {
		t.Run(variant.name, func(t *testing.T) {
			db, err := sql.Open("postgres", dsn+variant.option)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			s := &pqSuite{db: db, table: "drv_pq_" + variant.name}
			s.exec(t, "DROP TABLE IF EXISTS "+s.table)
			s.exec(t, "CREATE TABLE "+s.table+" (user_id text PRIMARY KEY, name text, tags text[], at timestamptz, raw bytea, n int)")
			defer s.exec(t, "DROP TABLE "+s.table)
			t.Run("rows", s.rows)
			t.Run("transactions", s.transactions)
			t.Run("copy", s.copy)
			t.Run("errors", s.errors)
			t.Run("cancel", s.cancel)
		})
	}
}

type pqSuite struct {
	db    *sql.DB
	table string
}

func (s *pqSuite) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := s.db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (s *pqSuite) rows(t *testing.T) {
	at := time.Date(2024, 2, 29, 12, 30, 0, 123456000, time.UTC)
	tags := []string{"a", `b"c`, "日本"}
	insert, err := s.db.Prepare("INSERT INTO " + s.table + " (user_id, name, tags, at, raw, n) VALUES ($1, $2, $3, $4, $5, $6)")
	if err != nil {
		t.Fatal(err)
	}
	defer insert.Close()
	for i, key := range []string{"ann", "bob", "ünï", "it's", ""} {
		if _, err := insert.Exec(key, "name of "+key, pq.Array(tags), at, []byte{0, 255}, i); err != nil {
			t.Fatal(err)
		}
	}
	s.exec(t, "INSERT INTO "+s.table+" (user_id) VALUES ($1)", "nulls")

	read, err := s.db.Prepare("SELECT name, tags, at, raw, n FROM " + s.table + " WHERE user_id = $1")
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	for i, key := range []string{"ann", "bob", "ünï", "it's", ""} {
		var (
			name    string
			gotTags []string
			gotAt   time.Time
			raw     []byte
			n       int
		)
		if err := read.QueryRow(key).Scan(&name, pq.Array(&gotTags), &gotAt, &raw, &n); err != nil {
			t.Fatalf("%q: %v", key, err)
		}
		if name != "name of "+key || !slices.Equal(gotTags, tags) || !gotAt.Equal(at) || !slices.Equal(raw, []byte{0, 255}) || n != i {
			t.Errorf("%q = %q %q %v %x %d", key, name, gotTags, gotAt, raw, n)
		}
	}
	var name sql.NullString
	if err := s.db.QueryRow("SELECT name FROM "+s.table+" WHERE user_id = $1", "nulls").Scan(&name); err != nil || name.Valid {
		t.Errorf("NULL = %v, %v", name, err)
	}
}

func (s *pqSuite) transactions(t *testing.T) {
	for _, commit := range []bool{false, true} {
		tx, err := s.db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"t1", "t2", "t3"} {
			if _, err := tx.Exec("INSERT INTO "+s.table+" (user_id) VALUES ($1)", key); err != nil {
				t.Fatal(err)
			}
		}
		end, want := tx.Rollback, 0
		if commit {
			end, want = tx.Commit, 1
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := s.db.QueryRow("SELECT count(*) FROM " + s.table + " WHERE user_id = 't2'").Scan(&n); err != nil || n != want {
			t.Errorf("commit %v: %d rows, %v", commit, n, err)
		}
	}
}

func (s *pqSuite) copy(t *testing.T) {
	tx, err := s.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit there is nothing to roll back
	in, err := tx.Prepare("COPY " + s.table + " (user_id, name, n) FROM STDIN")
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"c1", "tab\there", `back\slash`, "new\nline"}
	for i, key := range keys {
		if _, err := in.Exec(key, "copied\t"+key, i); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.Exec(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(in.Close(), tx.Commit()); err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		var name string
		var n int
		err := s.db.QueryRow("SELECT name, n FROM "+s.table+" WHERE user_id = $1", key).Scan(&name, &n)
		if err != nil || name != "copied\t"+key || n != i {
			t.Errorf("%q = %q %d, %v", key, name, n, err)
		}
	}
}

func (s *pqSuite) errors(t *testing.T) {
	for query, want := range map[string]pqerror.Code{
		"INSERT INTO " + s.table + " (user_id) VALUES ('ann')":        "23505",
		"SELECT nosuch FROM " + s.table + " WHERE user_id = 'ann'":    "42703",
		"SELECT 1 / (n - n) FROM " + s.table + " WHERE user_id='ann'": "22012",
		"SELEC 1": "42601",
	} {
		_, err := s.db.Exec(query)
		var pqErr *pq.Error
		if !errors.As(err, &pqErr) || pqErr.Code != want {
			t.Errorf("%s: %v, want %s", query, err, want)
		}
	}
}

func (s *pqSuite) cancel(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := s.db.ExecContext(ctx, "SELECT pg_sleep(30)"); err == nil || time.Since(begin) > 10*time.Second {
		t.Errorf("a query beyond its deadline: %v after %v", err, time.Since(begin))
	}
	s.exec(t, "SELECT 1")
}
