package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// stopsSQL lets the journal of moves wait, or tell, when a move of a shard comes to a state. A stop before it keeps the transaction
// open that writes the state, until the test takes the stop away; one after it is told of by the commit of that transaction.
// All stops of a moment are reached by one transaction, but those that are made meanwhile.
const stopsSQL = `
CREATE TABLE public.stops (id int PRIMARY KEY, shard text, phase text, back boolean, before boolean, hit boolean NOT NULL DEFAULT false);
CREATE FUNCTION public.stop() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    stop int;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.phase = OLD.phase THEN
            RETURN NEW;
        END IF;
    END IF;
    FOR stop IN SELECT s.id FROM public.stops s WHERE s.shard IN (NEW.source, NEW.target) AND s.phase = NEW.phase
        AND s.back = coalesce((NEW.state->>'reverse')::boolean, false) AND s.before = (TG_WHEN = 'BEFORE') AND NOT s.hit LOOP
        IF TG_WHEN = 'AFTER' THEN
            UPDATE public.stops SET hit = true WHERE id = stop;
            PERFORM pg_notify('stops', '');
            CONTINUE;
        END IF;
        PERFORM pg_advisory_xact_lock(4711, stop); -- the test sees it
        FOR i IN 1..4000 LOOP
            EXIT WHEN NOT EXISTS (SELECT FROM public.stops WHERE id = stop);
            PERFORM pg_sleep(0.005);
        END LOOP;
    END LOOP;
    RETURN NEW;
END $$;
CREATE TRIGGER stop_before BEFORE INSERT OR UPDATE ON shardproxy.moves FOR EACH ROW EXECUTE FUNCTION public.stop();
CREATE TRIGGER stop_after AFTER INSERT OR UPDATE ON shardproxy.moves FOR EACH ROW EXECUTE FUNCTION public.stop()`

const (
	crashPoll     = 20 * time.Millisecond // for moves that wait at a stop: nothing announces that
	crashPatience = 4 * time.Second       // of what asks the catalog, which may be down
)

func (l *ledgerTest) putStops(t *testing.T) {
	t.Helper()
	l.catalog.Exec(t, "app", stopsSQL)
}

// stops are those of one lane.
type stops struct {
	*ledgerTest
	conn *pgx.Conn // that listens; nil where the catalog was down
}

// run runs SQL in the catalog, which is another lane's victim at times.
func (s *stops) run(ctx context.Context, sql string, args ...any) (ids []int, err error) {
	ctx, cancel := context.WithTimeout(ctx, crashPatience)
	defer cancel()
	if s.conn == nil || s.conn.IsClosed() {
		if s.conn, err = pgx.Connect(ctx, s.catalog.DSN("app")); err != nil {
			return nil, err
		}
		if _, err := s.conn.Exec(ctx, "LISTEN stops"); err != nil {
			return nil, err
		}
	}
	rows, err := s.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[int])
}

// put makes a stop.
func (s *stops) put(ctx context.Context, id int, shard string, c crashCell) error {
	state, back := strings.CutSuffix(c.state, "-back")
	_, err := s.run(ctx, "INSERT INTO public.stops VALUES ($1, $2, $3, $4, $5)", id, shard, state, back, c.before)
	return err
}

// next waits a moment for a stop to be reached, and gives its id, or 0.
func (s *stops) next(ctx context.Context, shard string) (int, error) {
	const reached = `SELECT id FROM public.stops s WHERE shard = $1 AND (hit OR EXISTS (
		SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 4711 AND objid = s.id::oid AND granted)) ORDER BY id LIMIT 1`
	ids, err := s.run(ctx, reached, shard)
	if err != nil || len(ids) > 0 {
		return append(ids, 0)[0], err
	}
	waiting, cancel := context.WithTimeout(ctx, crashPoll)
	defer cancel()
	_, _ = s.conn.WaitForNotification(waiting)
	ids, err = s.run(ctx, reached, shard)
	return append(ids, 0)[0], err
}

// release lets the move go on that has reached a stop.
func (s *stops) release(ctx context.Context, id int) error {
	_, err := s.run(ctx, "DELETE FROM public.stops WHERE id = $1", id)
	return err
}

// clear takes away those that were not reached.
func (s *stops) clear(ctx context.Context, shard string) error {
	_, err := s.run(ctx, "DELETE FROM public.stops WHERE shard = $1", shard)
	return err
}
