package mover

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
)

// copyBuffer gathers rows between the two connections; PostgreSQL sends each row by itself.
const copyBuffer = 128 << 10

// errNeedsReplica names what the role lacks.
var errNeedsReplica = errors.New("the mover's role may not set session_replication_role (GRANT SET ON PARAMETER session_replication_role TO it, on both sides)")

// work copies chunks over a pair of connections of its own.
func (c *copier) work(ctx context.Context, next func() (chunk, bool)) error {
	source, err := c.mover.connect(ctx, Source)
	if err != nil {
		return err
	}
	defer closeWriter(source)
	open := "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT " + literal(c.snapshot.name)
	if _, err := source.PgConn().Exec(ctx, open).ReadAll(); err != nil {
		return fmt.Errorf("taking the snapshot: %w", ended(ctx, err))
	}
	target, _, err := c.mover.writer(ctx, Target)
	if err != nil {
		return err
	}
	defer closeWriter(target)
	if err := c.mover.join(ctx, target); err != nil {
		return err
	}
	for {
		one, ok := next()
		if !ok {
			return nil
		}
		if c.options.Wait != nil {
			if err := c.options.Wait(ctx); err != nil {
				return err
			}
		}
		if err := c.copyChunk(ctx, source, target, one); err != nil {
			return fmt.Errorf("copying table %s: %w", one.table.TableName, ended(ctx, err))
		}
		c.chunks.Add(1)
		if c.options.Progress != nil {
			c.options.Progress(CopyProgress{Rows: c.rows.Load(), Bytes: c.bytes.Load(), Chunks: c.chunks.Load(), ChunksTotal: c.total.Load()})
		}
	}
}

// copyChunk runs COPY TO on the source into COPY FROM on the target, in one transaction there.
func (c *copier) copyChunk(ctx context.Context, source, target *pgx.Conn, one chunk) error {
	begin := "BEGIN; " + c.mover.markSQL()
	if !c.replica {
		begin += "; SET CONSTRAINTS ALL DEFERRED"
	}
	if _, err := target.PgConn().Exec(ctx, begin).ReadAll(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out, in := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		w := bufio.NewWriterSize(&meter{ctx: ctx, w: in, c: c}, copyBuffer)
		_, err := source.PgConn().CopyTo(ctx, w, one.selectSQL(c.mover.ranges))
		if err == nil {
			err = w.Flush()
		}
		if err != nil {
			err = fmt.Errorf("source: %w", err)
		}
		_ = in.CloseWithError(err) // nil is the end of the data
		sent <- err
	}()
	tag, err := target.PgConn().CopyFrom(ctx, out, one.insertSQL())
	if err != nil {
		cancel(err) // the target's reason, if it was not the source's
	}
	_ = out.CloseWithError(err)
	if sentErr := <-sent; sentErr != nil && (err == nil || code(err) == "57014") {
		err = sentErr
	}
	if err != nil {
		return err
	}
	if _, err := target.Exec(ctx, "COMMIT"); err != nil {
		return err
	}
	c.rows.Add(tag.RowsAffected())
	return nil
}

func (one chunk) columns() string {
	var names []string
	for _, col := range one.table.stored() {
		names = append(names, quote(col.Name))
	}
	return strings.Join(names, ", ")
}

func (one chunk) format() string {
	if one.table.binary() {
		return "(FORMAT binary)"
	}
	return "(FORMAT text)"
}

func (one chunk) selectSQL(moving ranges) string {
	from, where := one.table.from(), "true"
	if !one.whole {
		from = one.leaf.only()
		where = fmt.Sprintf("ctid >= '(%d,0)'", one.from)
		if one.to != 0 {
			where += fmt.Sprintf(" AND ctid < '(%d,0)'", one.to)
		}
	}
	if !moving.all() {
		where += " AND " + moving.predicate(one.table.hashSQL(""))
	}
	return fmt.Sprintf("COPY (SELECT %s FROM %s WHERE %s) TO STDOUT %s", one.columns(), from, where, one.format())
}

// insertSQL goes to the table, which finds the partition itself. COPY writes identity columns as they come.
func (one chunk) insertSQL() string {
	return fmt.Sprintf("COPY %s (%s) FROM STDIN %s", quoteName(one.table.TableName), one.columns(), one.format())
}

// meter counts and slows what passes.
type meter struct {
	ctx context.Context
	w   io.Writer
	c   *copier
}

func (m *meter) Write(b []byte) (int, error) {
	if err := m.c.throttle.wait(m.ctx, len(b)); err != nil {
		return 0, err
	}
	n, err := m.w.Write(b)
	m.c.bytes.Add(int64(n))
	return n, err
}
