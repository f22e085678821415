package doctor

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"shardproxy/topology"
)

// When something that should have ended by itself is told of.
const (
	preparedAfter  = "1 minute"   // recovery ends a transaction that lost its proxy within some 15 seconds
	recordAfter    = "10 minutes" // a decision is forgotten a minute after it was made, once all participants have committed
	tombstoneAfter = "1 day"      // a proxy that hangs for so long will not come back to commit
)

// prepared is a group of prepared transactions of a cluster, which is in their names.
type prepared struct {
	cluster string
	count   int
	oldest  string // as an interval
}

// records counts the rows of shardproxy.commits that are old.
type records struct {
	decisions, tombstones int
}

// slot is a replication slot or a publication with our prefix.
type slot struct {
	kind string
	name string
	size string // of the WAL that a slot keeps
}

func readPrepared(ctx context.Context, query topology.Query, v *visit) error {
	rows, err := query(ctx, `SELECT pg_catalog.split_part(gid, ':', 2), pg_catalog.count(*),
			pg_catalog.date_trunc('second', pg_catalog.max(pg_catalog.clock_timestamp() - prepared))
		FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() AND pg_catalog.starts_with(gid, 'shardproxy:')
		AND prepared < pg_catalog.clock_timestamp() - '`+preparedAfter+`'::pg_catalog.interval GROUP BY 1 ORDER BY 1`)
	for _, row := range rows {
		n, _ := strconv.Atoi(row[1]) // a count of the server's
		v.prepared = append(v.prepared, prepared{row[0], n, row[2]})
	}
	return err
}

func readRecords(ctx context.Context, query topology.Query, v *visit) error {
	rows, err := query(ctx, "SELECT pg_catalog.to_regclass('shardproxy.commits') IS NOT NULL")
	if err != nil || len(rows) != 1 || rows[0][0] != "t" {
		return err
	}
	rows, err = query(ctx, `SELECT pg_catalog.count(*) FILTER (WHERE NOT aborted AND at < pg_catalog.now() - '`+recordAfter+`'::pg_catalog.interval),
			pg_catalog.count(*) FILTER (WHERE aborted AND at < pg_catalog.now() - '`+tombstoneAfter+`'::pg_catalog.interval) FROM shardproxy.commits`)
	if err == nil && len(rows) == 1 {
		v.records.decisions, _ = strconv.Atoi(rows[0][0])
		v.records.tombstones, _ = strconv.Atoi(rows[0][1])
	}
	return err
}

func readSlots(ctx context.Context, query topology.Query, v *visit) error {
	rows, err := query(ctx, `SELECT 'replication slot', slot_name, coalesce(pg_catalog.pg_size_pretty(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)), '')
		FROM pg_catalog.pg_replication_slots WHERE database = pg_catalog.current_database() AND pg_catalog.starts_with(slot_name::pg_catalog.text, 'shardproxy_')
		UNION ALL SELECT 'publication', pubname, '' FROM pg_catalog.pg_publication WHERE pg_catalog.starts_with(pubname::pg_catalog.text, 'shardproxy_')
		ORDER BY 1, 2`)
	for _, row := range rows {
		v.slots = append(v.slots, slot{row[0], row[1], row[2]})
	}
	return err
}

// judgeCommits tells of commits over several shards that came to no end.
func (x *examination) judgeCommits(shards []shardVisit) {
	for i := range shards {
		v := &shards[i]
		is := func(status Status, detail, hint string) { x.notes.add(checkCommits, status, v.Name, detail, hint) }
		for _, p := range v.primary.prepared {
			if p.cluster != x.Cluster {
				is(Warning, fmt.Sprintf("%s of another cluster, %s, the oldest for %s", plural(p.count, "prepared transaction"), p.cluster, p.oldest),
					"The database belonged to that cluster: end them as its first shards have decided, then COMMIT PREPARED or ROLLBACK PREPARED.")
				continue
			}
			is(Error, fmt.Sprintf("%s waiting for the end of a commit, the oldest for %s: they hold locks, and VACUUM back", agree(p.count, "prepared transaction", "is", "are"), p.oldest),
				"A proxy ends them once it reaches the shard that is named in each, after the cluster (SELECT gid FROM pg_prepared_xacts). Look at the logs of the proxies for what keeps it.")
		}
		if n := v.primary.records.decisions; n > 0 {
			is(Warning, fmt.Sprintf("%s in shardproxy.commits older than %s", agree(n, "decision", "is", "are"), recordAfter),
				"A shard that took part was away, or has left the map. They go by themselves once all can be asked.")
		}
		if n := v.primary.records.tombstones; n > 0 {
			is(Warning, fmt.Sprintf("%s in shardproxy.commits older than %s", agree(n, "tombstone", "is", "are"), tombstoneAfter),
				"Nobody needs them any more: DELETE FROM shardproxy.commits WHERE aborted AND at < now() - interval '"+tombstoneAfter+"'.")
		}
	}
	x.notes.ok(checkCommits, "nothing is left of commits over several shards")
}

// judgeMoves tells of what moves have left behind.
func (x *examination) judgeMoves(shards []shardVisit) {
	owned := 0
	for i := range shards {
		for _, s := range shards[i].primary.slots {
			if _, ok := x.moves.owner(s.name); ok {
				owned++
				continue
			}
			if !x.moves.known {
				x.notes.add(checkMoves, Warning, shards[i].Name, fmt.Sprintf("%s %s: the catalog cannot be asked whether a move needs it", s.kind, s.name), "Repeat this when the catalog is back.")
				continue
			}
			drop := "DROP PUBLICATION " + s.name
			detail := fmt.Sprintf("%s %s belongs to no move that is under way", s.kind, s.name)
			if s.kind != "publication" {
				drop = "SELECT pg_drop_replication_slot('" + strings.ReplaceAll(s.name, "'", "''") + "')"
				if s.size != "" {
					detail += ", and keeps " + s.size + " of WAL"
				}
			}
			x.notes.add(checkMoves, Warning, shards[i].Name, detail, "On the shard: "+drop+".")
		}
	}
	x.notes.ok(checkMoves, "%s under way; nothing is left of others", agree(len(x.moves.open), "move", "is", "are"))
}
