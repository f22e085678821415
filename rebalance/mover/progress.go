package mover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// progress is the row of the move in table shardproxy.progress of the target.
type progress struct {
	lsn     LSN   // all before it is in the target's tables
	started bool  // a copy has begun: rows of the ranges on the target are its own
	copied  bool  // a copy has ended
	shape   shape // of the source when the move was prepared
}

// ensureProgress creates the table where it is missing. (IF NOT EXISTS would ask for the right to create even
// where there is nothing to do.)
func ensureProgress(ctx context.Context, conn *pgx.Conn) error {
	var schema, table bool
	const look = "SELECT to_regnamespace('shardproxy') IS NOT NULL, to_regclass('shardproxy.progress') IS NOT NULL"
	if err := conn.QueryRow(ctx, look).Scan(&schema, &table); err != nil {
		return err
	}
	if table {
		return nil
	}
	sql := ""
	if !schema {
		sql = "CREATE SCHEMA IF NOT EXISTS shardproxy;"
	}
	sql += `CREATE TABLE IF NOT EXISTS shardproxy.progress (
		name text PRIMARY KEY, lsn pg_lsn NOT NULL, started boolean NOT NULL, copied boolean NOT NULL, shape text NOT NULL,
		updated_at timestamptz NOT NULL DEFAULT now());
	CREATE TABLE IF NOT EXISTS shardproxy.progress_doubtful (
		name text REFERENCES shardproxy.progress ON DELETE CASCADE, identity text, PRIMARY KEY (name, identity))`
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil && code(err) != "23505" && code(err) != "42P07" && code(err) != "42P06" {
		return fmt.Errorf("creating shardproxy.progress: %w", err)
	}
	return nil
}

func (m *Mover) readProgress(ctx context.Context, conn *pgx.Conn) (p progress, err error) {
	var there bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('shardproxy.progress') IS NOT NULL").Scan(&there); err != nil {
		return p, err
	}
	if !there {
		return p, ErrNotPrepared
	}
	var lsn, shape string
	const read = "SELECT lsn::text, started, copied, shape FROM shardproxy.progress WHERE name = $1"
	switch err := conn.QueryRow(ctx, read, m.name).Scan(&lsn, &p.started, &p.copied, &shape); {
	case errors.Is(err, pgx.ErrNoRows):
		return p, ErrNotPrepared
	case err != nil:
		return p, err
	}
	if p.lsn, err = ParseLSN(lsn); err != nil {
		return p, err
	}
	return p, json.Unmarshal([]byte(shape), &p.shape)
}

func (m *Mover) writeProgress(ctx context.Context, conn *pgx.Conn, p progress) error {
	shape, err := json.Marshal(p.shape)
	if err != nil {
		return err
	}
	const write = `INSERT INTO shardproxy.progress (name, lsn, started, copied, shape) VALUES ($1, $2::text::pg_lsn, $3, $4, $5)
		ON CONFLICT (name) DO UPDATE SET lsn = EXCLUDED.lsn, started = shardproxy.progress.started OR EXCLUDED.started, copied = EXCLUDED.copied, shape = EXCLUDED.shape, updated_at = now()`
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		// It is written before a stream begins, never after.
		if _, err := tx.Exec(ctx, "DELETE FROM shardproxy.progress_doubtful WHERE name = $1", m.name); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, write, m.name, p.lsn.String(), p.started, p.copied, string(shape))
		return err
	})
}
