package topology

import (
	"context"
	"embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrations make each version of the catalog from the one before. One that was released is never changed.
var migrations = []string{
	"migrations/0001_catalog.sql",
	"migrations/0002_moves.sql",
	"migrations/0003_moving.sql",
	"migrations/0004_joining.sql",
	"migrations/0005_progress.sql",
}

// migrationLock is the advisory lock that keeps two programs from migrating one database.
const migrationLock = 0x73686172647078 // "shardpx"

// Init creates the catalog or brings it to the newest version, and puts s in it if it is empty. It may be repeated: false
// says that the cluster of that name is there already, and its topology was left alone. ErrExists is another cluster.
func (c *Catalog) Init(ctx context.Context, s *Snapshot, who Actor) (created bool, err error) {
	err = c.transact(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := migrate(ctx, tx); err != nil {
			return err
		}
		head, err := readHead(ctx, tx)
		switch {
		case errors.Is(err, ErrNoCatalog):
			created = true
			return insertAll(ctx, tx, s, who)
		case err != nil:
			return err
		case head.cluster != s.Cluster:
			return ErrExists{head.cluster}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("creating the catalog: %w", err)
	}
	return created, nil
}

// Migrate creates the catalog without a cluster, or brings it to the newest version, which it gives, with the one before; 0
// is none.
func (c *Catalog) Migrate(ctx context.Context) (from, to int, err error) {
	err = c.transact(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		var err error
		if from, err = catalogVersion(ctx, tx); err != nil && !errors.Is(err, ErrNoCatalog) {
			return err
		}
		if to = len(migrations); from > to {
			return fmt.Errorf("the catalog is of version %d, this program knows version %d; use a newer shardproxy", from, to)
		}
		return migrate(ctx, tx)
	})
	if err != nil {
		return 0, 0, fmt.Errorf("bringing the catalog up to date: %w", err)
	}
	return from, to, nil
}

func migrate(ctx context.Context, tx pgx.Tx) error { return migrateTo(ctx, tx, len(migrations)) }

// migrateTo stops at a version.
func migrateTo(ctx context.Context, tx pgx.Tx, last int) error {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
		return err
	}
	const setup = `
		CREATE SCHEMA IF NOT EXISTS shardproxy;
		CREATE TABLE IF NOT EXISTS shardproxy.catalog_version (
			version integer PRIMARY KEY, file text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`
	if _, err := tx.Conn().PgConn().Exec(ctx, setup).ReadAll(); err != nil {
		return err
	}
	version, err := catalogVersion(ctx, tx)
	if err != nil {
		return err
	}
	for i := version; i < last; i++ {
		sql, err := migrationFiles.ReadFile(migrations[i])
		if err != nil {
			return err
		}
		if _, err := tx.Conn().PgConn().Exec(ctx, string(sql)).ReadAll(); err != nil {
			return fmt.Errorf("%s: %w", migrations[i], err)
		}
		if _, err := tx.Exec(ctx, "INSERT INTO shardproxy.catalog_version (version, file) VALUES ($1, $2)", i+1, migrations[i]); err != nil {
			return err
		}
	}
	return nil
}

// catalogVersion is the number of migrations applied; ErrNoCatalog where there is not even their table.
func catalogVersion(ctx context.Context, tx pgx.Tx) (version int, err error) {
	var there bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass('shardproxy.catalog_version') IS NOT NULL").Scan(&there); err != nil {
		return 0, err
	}
	if !there {
		return 0, ErrNoCatalog
	}
	err = tx.QueryRow(ctx, "SELECT coalesce(max(version), 0) FROM shardproxy.catalog_version").Scan(&version)
	return version, err
}

// insertAll fills an empty catalog.
func insertAll(ctx context.Context, tx pgx.Tx, s *Snapshot, who Actor) error {
	if s.Epoch == 0 || s.Cluster == "" {
		return errors.New("a snapshot without cluster or epoch cannot be stored")
	}
	nodes := 0
	for i := range s.Shards {
		nodes += len(s.Shards[i].Nodes)
	}
	i := -1
	if err := copyRows(ctx, tx, "shards", []string{"id", "name", "state"}, len(s.Shards), func() []any {
		i++
		return []any{int64(i + 1), s.Shards[i].Name, s.Shards[i].State.String()}
	}); err != nil {
		return err
	}
	shard, j := 0, -1
	if err := copyRows(ctx, tx, "nodes", []string{"shard_id", "host", "port", "database", "role"}, nodes, func() []any {
		for j++; j == len(s.Shards[shard].Nodes); j = 0 {
			shard++
		}
		n := &s.Shards[shard].Nodes[j]
		return []any{int64(shard + 1), n.Host, int32(n.Port), n.Database, n.Role.String()}
	}); err != nil {
		return err
	}
	k := -1
	if err := copyRows(ctx, tx, "ranges", []string{"first", "last", "shard_id"}, len(s.ranges), func() []any {
		k++
		r := s.ranges[k]
		return []any{r.Start.Signed(), (r.End - 1).Signed(), int64(r.Shard + 1)}
	}); err != nil {
		return err
	}
	const sequence = "SELECT setval(pg_get_serial_sequence('shardproxy.shards', 'id'), $1)"
	if _, err := tx.Exec(ctx, sequence, len(s.Shards)); err != nil {
		return err
	}
	if err := insertRules(ctx, tx, &s.Rules); err != nil {
		return err
	}
	for i := range s.moving {
		step := movingStep(&s.moving[i])
		if _, err := tx.Exec(ctx, step.sql, step.args...); err != nil {
			return err
		}
	}
	const meta = "INSERT INTO shardproxy.meta (cluster, epoch, checksum, key_columns, refuse_unlisted) VALUES ($1, $2, $3, $4, $5)"
	if _, err := tx.Exec(ctx, meta, s.Cluster, int64(s.Epoch), int64(s.sum), notNil(s.Rules.Columns), s.Rules.RefuseUnlisted); err != nil {
		return err
	}
	what := fmt.Sprintf("create cluster %s with %d shards and %d ranges", s.Cluster, len(s.Shards), len(s.ranges))
	batch := &pgx.Batch{}
	queueChange(batch, s, nil, what, who)
	return tx.SendBatch(ctx, batch).Close()
}

// copyRows fills a table with n rows by COPY; next gives them one by one.
func copyRows(ctx context.Context, tx pgx.Tx, table string, columns []string, n int, next func() []any) error {
	rows := pgx.CopyFromSlice(n, func(int) ([]any, error) { return next(), nil })
	if _, err := tx.CopyFrom(ctx, pgx.Identifier{"shardproxy", table}, columns, rows); err != nil {
		return fmt.Errorf("filling %s: %w", table, err)
	}
	return nil
}

// insertRules writes the rules of single tables; those for all are in meta.
func insertRules(ctx context.Context, tx pgx.Tx, r *KeyRules) error {
	var rows [][]any
	for t, column := range r.Explicit {
		rows = append(rows, []any{t.Schema, t.Name, "sharded", column})
	}
	for t := range r.Reference {
		rows = append(rows, []any{t.Schema, t.Name, "reference", nil})
	}
	for t, column := range r.Named {
		rows = append(rows, []any{t.Schema, t.Name, "by_name", column})
	}
	i := -1
	return copyRows(ctx, tx, "tables", []string{"schema_name", "table_name", "kind", "key_column"}, len(rows), func() []any {
		i++
		return rows[i]
	})
}

// queueChange writes the line of the log for the epoch of s, and tells those who watch. A nil delta begins the log.
func queueChange(batch *pgx.Batch, s *Snapshot, delta []byte, what string, who Actor) {
	const log = "INSERT INTO shardproxy.changes (epoch, actor, origin, what, delta, checksum) VALUES ($1, $2, $3, $4, $5, $6)"
	batch.Queue(log, int64(s.Epoch), who.User, who.From, what, delta, int64(s.sum))
	batch.Queue("SELECT pg_notify($1, $2)", epochChannel, fmt.Sprint(s.Epoch))
}

// notNil gives an empty list for none, which PostgreSQL would take for NULL.
func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
