package rebalance

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/fence"
	"shardproxy/rebalance/mover"
	"shardproxy/topology"
)

// side is one shard of a move, with a connection for its fence. It is opened before clients wait.
type side struct {
	name   string
	config *pgx.ConnConfig
	conn   *pgx.Conn
}

// newSide leads to a node, as the role that may move rows.
func (r *runner) newSide(shard string, node topology.Node) (*side, error) {
	config, err := pgx.ParseConfig(r.c.cfg.DSN(node))
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", shard, err)
	}
	config.RuntimeParams["application_name"] = "shardproxy move"
	return &side{name: shard, config: config}, nil
}

func (s *side) open(ctx context.Context) error {
	if s.conn != nil && !s.conn.IsClosed() {
		return nil
	}
	conn, err := pgx.ConnectConfig(ctx, s.config)
	if err != nil {
		return fmt.Errorf("shard %s: %w", s.name, err)
	}
	s.conn = conn
	return nil
}

func (s *side) close() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.conn.Close(ctx)
	s.conn = nil
}

// query is a topology.Query by simple protocol, so that it may have several statements. A connection on which something
// went wrong is not used again.
func (s *side) query(ctx context.Context, sql string) (rows [][]string, err error) {
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	results, err := s.conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return nil, err
	}
	for _, row := range results[len(results)-1].Rows {
		values := make([]string, len(row))
		for i, v := range row {
			values[i] = string(v)
		}
		rows = append(rows, values)
	}
	return rows, nil
}

// lsn is a query that gives a position in the log.
func (s *side) lsn(ctx context.Context, sql string) (LSN, error) {
	rows, err := s.query(ctx, sql)
	if err != nil {
		return 0, fmt.Errorf("the log of shard %s: %w", s.name, err)
	}
	lsn, err := mover.ParseLSN(rows[0][0])
	return LSN(lsn), err
}

// on gives the shard of a side.
func (r *runner) on(at Side) *side { return r.sides[at] }

// owned is what the map says of a side.
func (r *runner) owned(at Side) (fence.State, error) {
	snap := r.c.cfg.Keeper.Snapshot()
	id, ok := snap.ShardByName(r.of.Shard(at))
	if !ok {
		return fence.State{}, fmt.Errorf("there is no shard %q any more: %w", r.of.Shard(at), errFinal)
	}
	return fence.StateOf(snap, id), nil
}

// mapped is what the map says of both sides at a moment when no other move is cut over: the shards of one that is taken back do not own
// yet what the map says. Nothing later may be taken for a fence, so nothing that comes late can undo what a cutover has done.
func (r *runner) mapped(ctx context.Context) (states [2]fence.State, err error) {
	for again := true; again; again = !r.c.free(r.of.ID, 0) {
		if err := r.c.quiet(ctx, r.of.ID); err != nil {
			return states, err
		}
		for at := range states {
			if states[at], err = r.owned(Side(at)); err != nil {
				return states, err
			}
		}
	}
	return states, r.c.cfg.Catalog.RenewLease(ctx, r.lease, leaseTime, nil) // nor is it cut over by another coordinator
}

func (r *runner) tables() []fence.Table {
	schema := r.c.cfg.Schema()
	if schema == nil { // it is not loaded yet
		return nil
	}
	return fence.Tables(schema)
}

// without cuts ranges out of owned; both are in order.
func without(owned []topology.KeyRange, ranges []Range) []topology.KeyRange {
	for _, cut := range ranges {
		var left []topology.KeyRange
		for _, o := range owned {
			if !cut.overlaps(Range{o.Start, o.End}) {
				left = append(left, o)
				continue
			}
			if o.Start < cut.Start {
				left = append(left, topology.KeyRange{Start: o.Start, End: cut.Start})
			}
			if cut.last() < o.End-1 {
				left = append(left, topology.KeyRange{Start: cut.End, End: o.End})
			}
		}
		owned = left
	}
	return owned
}

// with adds ranges, of which owned has none, and joins what then meets.
func with(owned []topology.KeyRange, ranges []Range) []topology.KeyRange {
	var all []topology.KeyRange
	i, j := 0, 0
	for i < len(owned) || j < len(ranges) {
		var next topology.KeyRange
		if j == len(ranges) || i < len(owned) && owned[i].Start < ranges[j].Start {
			next = topology.KeyRange{Start: owned[i].Start, End: owned[i].End}
			i++
		} else {
			next = topology.KeyRange{Start: ranges[j].Start, End: ranges[j].End}
			j++
		}
		if n := len(all); n > 0 && all[n-1].End == next.Start && next.Start != 0 {
			all[n-1].End = next.End
			continue
		}
		all = append(all, next)
	}
	return all
}
