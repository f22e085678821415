package mover

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// CatchUp waits until all that committed on the source before lsn (see SourceLSN) is on the target, and then makes
// sure that the moving tables are still what they were: DDL such as a dropped partition is not in the stream. It
// waits for Run to be called, and returns at once with the stream's error if that has ended.
func (s *Stream) CatchUp(ctx context.Context, lsn LSN) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := s.watch.check(ctx)
		if !errors.Is(err, errNotRunning) {
			return err
		}
		if err := s.await(ctx, lsn); err != nil { // it is about to run
			return err
		}
		return s.watch.check(ctx)
	})
	g.Go(func() error { return s.await(ctx, lsn) })
	return g.Wait()
}

var errNotRunning = errors.New("the stream does not run")

func (s *Stream) await(ctx context.Context, lsn LSN) error {
	for {
		s.mu.Lock()
		next, ended := s.progress, s.ended
		s.mu.Unlock()
		switch {
		case s.Applied() >= lsn:
			return nil
		case ended != nil:
			return fmt.Errorf("the stream does not come to %s: %w", lsn, ended)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-next:
		}
	}
}

// watch looks whether the source's tables change while a stream runs. In the usual case that is one query on an open
// connection, because clients are held meanwhile.
type watch struct {
	mover    *Mover
	prepared shape

	mu    sync.Mutex // also held over the query: two may not use the connection
	conn  *pgx.Conn
	print string
}

// open checks the tables against those of when the move was prepared, and gives them as they are.
func (w *watch) open(ctx context.Context, m *Mover, conn *pgx.Conn, prepared shape) (shape, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// First the print: what changes after it is seen by the next check.
	text, err := fingerprint(ctx, conn, prepared)
	if err != nil {
		return nil, err
	}
	now, err := m.checkShape(ctx, conn, prepared)
	if err == nil {
		w.mover, w.prepared, w.conn, w.print = m, prepared, conn, text
	}
	return now, err
}

func (w *watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conn = nil
}

func (w *watch) check(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn == nil {
		return errNotRunning
	}
	text, err := fingerprint(ctx, w.conn, w.prepared)
	if err != nil || text == w.print {
		return err
	}
	if _, err := w.mover.checkShape(ctx, w.conn, w.prepared); err != nil {
		return err
	}
	w.print = text
	return nil
}

// fingerprint is another text after every DDL that could matter, and after some that do not.
func fingerprint(ctx context.Context, conn *pgx.Conn, s shape) (text string, err error) {
	const sql = `WITH r AS (SELECT oid FROM unnest($1::oid[]) u(oid) UNION SELECT p.relid FROM unnest($1::oid[]) u(oid), pg_partition_tree(u.oid) p)
		SELECT md5(coalesce(string_agg(x, ',' ORDER BY x), '')) FROM (
			SELECT concat_ws(' ', c.oid, c.relnamespace, c.relname, c.relreplident, c.relkind) FROM pg_class c WHERE c.oid IN (SELECT oid FROM r)
			UNION ALL SELECT concat_ws(' ', a.attrelid, a.attnum, a.xmin) FROM pg_attribute a WHERE a.attrelid IN (SELECT oid FROM r) AND a.attnum > 0
			UNION ALL SELECT concat_ws(' ', 'i', i.indexrelid, i.indisprimary, i.indisreplident) FROM pg_index i WHERE i.indrelid IN (SELECT oid FROM r)) f(x)`
	var oids []uint32
	for _, t := range s {
		oids = append(oids, t.OID)
	}
	if err := conn.QueryRow(ctx, sql, oids).Scan(&text); err != nil {
		return "", fmt.Errorf("looking for changes of the tables: %w", ended(ctx, err))
	}
	return text, nil
}
