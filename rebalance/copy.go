package rebalance

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"shardproxy/rebalance/mover"
)

func (r *runner) copy(ctx context.Context) error {
	if r.copying == nil {
		return errors.New("the snapshot of the copy has gone")
	}
	defer r.closeCopy()
	r.copyBegan.Store(time.Now().UnixNano())
	defer r.copyBegan.Store(0)
	defer r.lagging.Store(nil)
	var asking sync.Mutex // one worker at a time asks for the replicas
	return r.there.Copy(ctx, r.copying, mover.CopyOptions{
		Workers:        copyWorkers,
		BytesPerSecond: func() int64 { return r.c.cfg.Limits().BytesPerSecond },
		Wait: func(ctx context.Context) error {
			asking.Lock()
			defer asking.Unlock()
			if err := r.whileLagging(ctx); err != nil {
				return err
			}
			return r.mayWork(ctx)
		},
		Progress: func(p mover.CopyProgress) {
			r.chunks.Store(p.Chunks)
			r.chunksTotal.Store(p.ChunksTotal)
			select { // only for people: it need not come
			case r.events <- taken{event: Progress{p.Rows, p.Bytes}}:
			default:
			}
		},
	})
}

// copyWorkers of one copy: more than two seldom help, as the target's log is the limit.
const copyWorkers = 2

// mayWork waits while the copy is suspended, and while another move is in its cutover: a piece of a copy holds a lock that the fence needs.
func (r *runner) mayWork(ctx context.Context) error {
	for r.suspended.Load() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookAgain):
		}
	}
	return r.c.quiet(ctx, r.of.ID)
}

// whileLagging waits while a replica of the target is too far behind. It is looked at before each part of the copy, of 64 MB at most.
func (r *runner) whileLagging(ctx context.Context) error {
	for {
		most := r.c.cfg.Limits().ReplicaLagBytes
		if most <= 0 {
			r.lagging.Store(nil)
			return nil
		}
		name, behind, err := r.replicaLag(ctx)
		switch {
		case err != nil: // if the shard has gone, the copy will say so
			r.log.Debug("the lag of replicas is not known", "error", err)
			return ctx.Err()
		case behind <= most:
			r.lagging.Store(nil)
			return nil
		}
		text := fmt.Sprintf("replica %s of shard %s is %.1f MB behind", name, r.of.Target, float64(behind)/1e6)
		r.lagging.Store(&text)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lagAgain):
		}
	}
}

// lagAgain is how often a replica is looked at that a copy waits for.
const lagAgain = 500 * time.Millisecond

// lagSQL names the physical replica that is furthest behind. Whoever may not read the positions (pg_read_all_stats) finds none.
const lagSQL = `
SELECT coalesce(nullif(s.application_name, ''), host(s.client_addr), 'pid ' || s.pid),
       pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.replay_lsn)::bigint
FROM pg_catalog.pg_stat_replication s LEFT JOIN pg_catalog.pg_replication_slots l ON l.active_pid = s.pid
WHERE s.replay_lsn IS NOT NULL AND l.slot_type IS DISTINCT FROM 'logical' ORDER BY 2 DESC LIMIT 1`

// replicaLag gives the replica of the target that is furthest behind, and how many bytes of log.
func (r *runner) replicaLag(ctx context.Context) (name string, bytes int64, err error) {
	rows, err := r.on(Target).query(ctx, lagSQL)
	if err != nil || len(rows) == 0 {
		return "", 0, err
	}
	bytes, err = strconv.ParseInt(rows[0][1], 10, 64)
	return rows[0][0], bytes, err
}
