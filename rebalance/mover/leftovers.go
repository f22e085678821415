package mover

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Leftover is something on a database that a mover made.
type Leftover struct {
	Kind string // "replication slot", "publication" or "progress"
	Name string // Mover.Name of the move
	// RetainedBytes of log are kept by a replication slot.
	RetainedBytes int64
	Active        bool // somebody streams from it
}

// Leftovers lists what movers of any cluster made on a database: that of moves that are under way, and that of moves
// whose cluster has vanished. Who knows the moves can tell the two apart.
func Leftovers(ctx context.Context, conn *pgx.Conn) ([]Leftover, error) {
	var table bool
	if err := conn.QueryRow(ctx, "SELECT to_regclass('shardproxy.progress') IS NOT NULL").Scan(&table); err != nil {
		return nil, err
	}
	sql := `SELECT 'replication slot', slot_name::text, coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn), 0)::int8, active
		FROM pg_replication_slots WHERE database = current_database() AND starts_with(slot_name::text, $1)
		UNION ALL SELECT 'publication', pubname::text, 0, false FROM pg_publication WHERE starts_with(pubname::text, $1)`
	if table {
		sql += " UNION ALL SELECT 'progress', name, 0, false FROM shardproxy.progress WHERE starts_with(name, $1)"
	}
	rows, err := conn.Query(ctx, sql+" ORDER BY 2, 1", NamePrefix)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[Leftover])
}

// Remove takes a leftover away. It refuses a replication slot that is in use.
func (l Leftover) Remove(ctx context.Context, conn *pgx.Conn) (err error) {
	switch l.Kind {
	case "replication slot":
		_, err = conn.Exec(ctx, "SELECT pg_drop_replication_slot($1)", l.Name)
	case "publication":
		_, err = conn.Exec(ctx, "DROP PUBLICATION IF EXISTS "+quote(l.Name))
	case "progress":
		_, err = conn.Exec(ctx, "DELETE FROM shardproxy.progress WHERE name = $1", l.Name)
	default:
		err = errors.New("it is of no known kind")
	}
	if err != nil {
		return fmt.Errorf("removing %s %s: %w", l.Kind, l.Name, err)
	}
	return nil
}
