package topology

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// LoadSchemaConn is LoadSchema over conn, which must not be in a transaction: it reads in one of its
// own, from one snapshot of the catalogs.
func LoadSchemaConn(ctx context.Context, conn *pgx.Conn, rules KeyRules) (s *Schema, err error) {
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) (err error) {
		if _, err = tx.Exec(ctx, "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL jit = off"); err != nil {
			return err
		}
		s, err = loadSchema(ctx, connQuery(conn.PgConn()), rules)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading the schema: %w", err)
	}
	return s, nil
}

// connQuery is a Query in the simple protocol, which gives text.
func connQuery(conn *pgconn.PgConn) Query {
	return func(ctx context.Context, sql string) ([][]string, error) {
		results := conn.Exec(ctx, sql)
		var rows [][]string
		for results.NextResult() {
			for r := results.ResultReader(); r.NextRow(); {
				rows = append(rows, textRow(r.Values()))
			}
		}
		return rows, results.Close()
	}
}

// textRow copies values, which are valid until the next row only, in two allocations.
func textRow(values [][]byte) []string {
	var buffer [256]byte // longer rows, of view definitions, spill to the heap
	all := buffer[:0]
	for _, value := range values {
		all = append(all, value...)
	}
	text, row := string(all), make([]string, len(values))
	for i, value := range values {
		row[i], text = text[:len(value)], text[len(value):]
	}
	return row
}
