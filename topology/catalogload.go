package topology

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Load reads the whole topology from one state of the catalog. It trusts nothing: a catalog with a gap, an overlap, an
// unknown shard, or a checksum that is not that of its content is refused with ErrDamaged and the reason.
func (c *Catalog) Load(ctx context.Context) (s *Snapshot, err error) {
	err = c.transact(ctx, readOnly, func(tx pgx.Tx) (err error) {
		s, err = loadSnapshot(ctx, tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading the topology from the catalog: %w", err)
	}
	return s, nil
}

func loadSnapshot(ctx context.Context, tx pgx.Tx) (*Snapshot, error) {
	head, err := readHead(ctx, tx)
	if err != nil {
		return nil, err
	}
	l := catalogLoader{tx: tx, content: Content{Cluster: head.cluster, Epoch: head.epoch}}
	for _, step := range []func(context.Context) error{l.readShards, l.readNodes, l.readRanges, l.readRules, l.readMoving} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	s, err := newSnapshot(l.content)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if s.sum != head.checksum {
		return nil, fmt.Errorf("%w: at epoch %d its content has the checksum %016x, its head says %016x; a row was changed by hand, which only `shardctl` may",
			ErrDamaged, head.epoch, s.sum, head.checksum)
	}
	return s, nil
}

// catalogLoader fills a Content table by table.
type catalogLoader struct {
	tx      pgx.Tx
	content Content
	ids     []int64 // of content.Shards, ascending
}

// each runs a query and calls row for each of its rows, whose values dest then holds.
func (l *catalogLoader) each(ctx context.Context, sql string, dest []any, row func() error) error {
	rows, err := l.tx.Query(ctx, sql)
	if err != nil {
		return err
	}
	_, err = pgx.ForEachRow(rows, dest, row)
	return err
}

// shard finds a shard by its id in the catalog.
func (l *catalogLoader) shard(id int64) (ShardID, bool) {
	i, found := slices.BinarySearch(l.ids, id)
	return ShardID(i), found
}

func (l *catalogLoader) readShards(ctx context.Context) error {
	var id int64
	var name, state string
	return l.each(ctx, "SELECT id, name, state FROM shardproxy.shards ORDER BY id", []any{&id, &name, &state}, func() error {
		s := Shard{Name: name}
		var known bool
		if s.State, known = parseShardState(state); !known {
			return fmt.Errorf("%w: shard %q has the unknown state %q", ErrDamaged, name, state)
		}
		l.content.Shards, l.ids = append(l.content.Shards, s), append(l.ids, id)
		return nil
	})
}

func (l *catalogLoader) readNodes(ctx context.Context) error {
	var count int
	if err := l.tx.QueryRow(ctx, "SELECT count(*) FROM shardproxy.nodes").Scan(&count); err != nil {
		return err
	}
	all := make([]Node, 0, count) // one piece of memory; the shards get parts of it
	databases := map[string]string{}
	var id int64
	var port int32
	var host, database, role string
	const query = "SELECT shard_id, host, port, database, role FROM shardproxy.nodes ORDER BY shard_id, role, host COLLATE \"C\", port, database COLLATE \"C\""
	return l.each(ctx, query, []any{&id, &host, &port, &database, &role}, func() error {
		shard, found := l.shard(id)
		if !found {
			return fmt.Errorf("%w: node %s:%d is of shard id %d, which is not there", ErrDamaged, host, port, id)
		}
		if known, ok := databases[database]; ok {
			database = known
		} else {
			databases[database] = database
		}
		n := Node{Host: host, Port: int(port), Database: database}
		if role == Replica.String() {
			n.Role = Replica
		} else if role != Primary.String() {
			return fmt.Errorf("%w: node %v has the unknown role %q", ErrDamaged, n, role)
		}
		all = append(all, n)
		s := &l.content.Shards[shard]
		from := len(all) - 1 - len(s.Nodes) // the nodes of a shard come one after the other
		s.Nodes = all[from:len(all):len(all)]
		return nil
	})
}

func (l *catalogLoader) readRanges(ctx context.Context) error {
	var first, last, id int64
	const query = "SELECT first, last, shard_id FROM shardproxy.ranges ORDER BY first"
	return l.each(ctx, query, []any{&first, &last, &id}, func() error {
		r := KeyRange{Start: fromSigned(first), End: fromSigned(last) + 1}
		shard, found := l.shard(id)
		if !found {
			return fmt.Errorf("%w: range %v is of shard id %d, which is not there", ErrDamaged, r, id)
		}
		r.Shard = shard
		l.content.Ranges = append(l.content.Ranges, r)
		return nil
	})
}

func (l *catalogLoader) readMoving(ctx context.Context) error {
	var m Moving
	var hold int64
	var starts, lasts []int64
	const query = "SELECT id, source, target, hold_epoch, firsts, lasts FROM shardproxy.moving ORDER BY id"
	return l.each(ctx, query, []any{&m.ID, &m.Source, &m.Target, &hold, &starts, &lasts}, func() error {
		if len(starts) != len(lasts) {
			return fmt.Errorf("%w: move %d has %d starts of ranges and %d ends", ErrDamaged, m.ID, len(starts), len(lasts))
		}
		next := m
		next.Hold, next.Ranges = Epoch(hold), make([]KeyRange, len(starts))
		for i := range starts {
			next.Ranges[i] = KeyRange{Start: fromSigned(starts[i]), End: fromSigned(lasts[i]) + 1}
		}
		l.content.Moving = append(l.content.Moving, next)
		return nil
	})
}

// fromSigned is the inverse of KeyHash.Signed.
func fromSigned(h int64) KeyHash { return KeyHash(uint64(h) ^ 1<<63) }

func (l *catalogLoader) readRules(ctx context.Context) error {
	rules := KeyRules{Explicit: map[TableName]string{}, Reference: map[TableName]bool{}, Named: map[TableName]string{}}
	const meta = "SELECT key_columns, refuse_unlisted FROM shardproxy.meta"
	if err := l.tx.QueryRow(ctx, meta).Scan(&rules.Columns, &rules.RefuseUnlisted); err != nil {
		return err
	}
	var table TableName
	var kind, column string
	const query = "SELECT schema_name, table_name, kind, coalesce(key_column, '') FROM shardproxy.tables"
	err := l.each(ctx, query, []any{&table.Schema, &table.Name, &kind, &column}, func() error {
		switch kind {
		case "sharded":
			rules.Explicit[table] = column
		case "reference":
			rules.Reference[table] = true
		case "by_name":
			rules.Named[table] = column
		default:
			return fmt.Errorf("%w: the rule of table %v is of the unknown kind %q", ErrDamaged, table, kind)
		}
		return nil
	})
	l.content.Rules = rules
	return err
}

// deltasMax is how many deltas are given at once: beyond, the whole map is less work.
const deltasMax = 1000

// ChangesSince gives the deltas from an epoch to the newest. The error is ErrOutOfStep where the log does not lead
// on from that epoch, or only in more than a thousand steps: Load then.
func (c *Catalog) ChangesSince(ctx context.Context, since Epoch) (deltas []Delta, err error) {
	err = c.transact(ctx, readOnly, func(tx pgx.Tx) error {
		head, err := readHead(ctx, tx)
		if err != nil {
			return err
		}
		if since > head.epoch || head.epoch-since > deltasMax {
			return fmt.Errorf("%w: of epoch %d; the catalog is at epoch %d", ErrOutOfStep, since, head.epoch)
		}
		deltas, err = readDeltas(ctx, tx, since)
		if err == nil && len(deltas) != int(head.epoch-since) {
			return fmt.Errorf("%w: the log has %d changes since epoch %d, not %d", ErrOutOfStep, len(deltas), since, head.epoch-since)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the changes since epoch %d from the catalog: %w", since, err)
	}
	return deltas, nil
}

func readDeltas(ctx context.Context, tx pgx.Tx, since Epoch) (deltas []Delta, err error) {
	rows, err := tx.Query(ctx, "SELECT epoch, delta FROM shardproxy.changes WHERE epoch > $1 ORDER BY epoch", int64(since))
	if err != nil {
		return nil, err
	}
	var epoch int64
	var data []byte
	_, err = pgx.ForEachRow(rows, []any{&epoch, &data}, func() error {
		if data == nil {
			return fmt.Errorf("%w: the log begins with epoch %d", ErrOutOfStep, epoch)
		}
		d, err := DecodeDelta(data)
		if err != nil {
			return err
		}
		if d.Epoch != Epoch(epoch) {
			return fmt.Errorf("%w: the change of epoch %d says it is of epoch %d", ErrDamaged, epoch, d.Epoch)
		}
		deltas = append(deltas, d)
		return nil
	})
	return deltas, err
}

// LogEntry is one line of the catalog's log.
type LogEntry struct {
	Epoch Epoch
	At    time.Time
	Who   Actor
	What  string
}

// Log gives the last n changes, the newest first.
func (c *Catalog) Log(ctx context.Context, n int) (entries []LogEntry, err error) {
	if n <= 0 {
		return nil, errors.New("reading the log of the catalog: no entries were asked for")
	}
	err = c.transact(ctx, readOnly, func(tx pgx.Tx) error {
		if _, err := readHead(ctx, tx); err != nil {
			return err
		}
		const query = "SELECT epoch, at, actor, origin, what FROM shardproxy.changes ORDER BY epoch DESC LIMIT $1"
		rows, err := tx.Query(ctx, query, n)
		if err != nil {
			return err
		}
		var e LogEntry
		var epoch int64
		_, err = pgx.ForEachRow(rows, []any{&epoch, &e.At, &e.Who.User, &e.Who.From, &e.What}, func() error {
			e.Epoch = Epoch(epoch)
			entries = append(entries, e)
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the log of the catalog: %w", err)
	}
	return entries, nil
}
