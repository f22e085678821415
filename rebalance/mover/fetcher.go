package mover

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// fetcher reads single values from the source that the stream left out. It connects when it is first needed.
type fetcher struct {
	mover *Mover
	conn  *pgx.Conn
}

func (f *fetcher) close() {
	if f.conn != nil {
		closeWriter(f.conn)
		f.conn = nil
	}
}

// complete gives the new row of a change with all its values, nil if the source has no such row any more. It is exact if
// the row was not written since; one written in a savepoint is not known to be.
func (f *fetcher) complete(ctx context.Context, c *change) (row []datum, exact bool, err error) {
	if f.conn == nil {
		if f.conn, err = f.mover.connect(ctx, Source); err != nil {
			return nil, false, err
		}
	}
	row = append(row, c.values...)
	missing, at := c.table.missing(row)
	b := builder{k: c.table}
	sql := "SELECT " + strings.Join(append(missing, "xmin"), ", ") + " FROM " + c.table.from() + " WHERE " + b.identified()
	result := f.conn.PgConn().ExecParams(ctx, sql, c.table.identityOf(row), b.types, nil, nil).Read()
	if result.Err != nil {
		return nil, false, fmt.Errorf("reading a row of %s from the source: %w", c.table.TableName, result.Err)
	}
	if len(result.Rows) == 0 {
		return nil, false, nil
	}
	found := result.Rows[0]
	for n, i := range at {
		row[i] = datum{value: found[n]}
	}
	return row, string(found[len(at)]) == strconv.FormatUint(uint64(c.xid), 10), nil
}
