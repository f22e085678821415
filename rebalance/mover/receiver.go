package mover

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"shardproxy/topology"
)

// receiver turns the source's messages into changes for the applier. What lies outside the ranges ends here.
type receiver struct {
	mover     *Mover
	tables    []*tracked
	shape     shape
	relations map[uint32]*relation
	resolve   func(ctx context.Context, oid uint32) (*table, error) // which table a new partition belongs to
	out       *queue
	skipped   *atomic.Int64

	// The transaction that is being received:
	open    bool
	at      LSN // its commit record
	xid     uint32
	own     bool
	changes int

	// A transaction that commits there or later is not handed on; 0 for no such limit.
	stopAt LSN
}

// errStopped says that the stream has reached where it was to stop.
var errStopped = errors.New("the stream has reached its end")

func (r *receiver) message(ctx context.Context, data []byte) error {
	m, err := decode(data)
	if err != nil {
		return err
	}
	switch m := m.(type) {
	case beginMessage:
		if r.stopAt != 0 && m.commitLSN >= r.stopAt {
			return errStopped
		}
		r.open, r.at, r.xid, r.own, r.changes = true, m.commitLSN, m.xid, false, 0
	case commitMessage:
		return r.commit(ctx, m)
	case logicalMessage:
		r.own = r.own || string(m.prefix) == markPrefix && string(m.content) == r.mover.mark()
	case relationMessage:
		return r.relation(ctx, m)
	case rowMessage:
		return r.row(ctx, m)
	case truncateMessage:
		return r.truncate(ctx, m)
	}
	return nil
}

func (r *receiver) commit(ctx context.Context, m commitMessage) error {
	r.open = false
	c := change{kind: commitAt, lsn: m.endLSN, size: changeOverhead}
	if r.changes == 0 {
		c.kind = position
	}
	return r.out.push(ctx, c)
}

// idle is a position up to which there is nothing that was not sent. One amid a large transaction lies before it, and must
// not become a border between two transactions on the target.
func (r *receiver) idle(ctx context.Context, lsn LSN) error {
	if r.open {
		return nil
	}
	if r.stopAt != 0 && lsn >= r.stopAt {
		return errStopped
	}
	return r.out.push(ctx, change{kind: position, lsn: lsn, size: changeOverhead})
}

func (r *receiver) row(ctx context.Context, m rowMessage) error {
	if r.own {
		return nil
	}
	rel := r.relations[m.relation]
	if rel == nil {
		return fmt.Errorf("pgoutput: a row of relation %d, which was not described", m.relation)
	}
	list, err := rel.changes(m, r.mover.ranges, r.at)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		r.skipped.Add(1)
	}
	for _, c := range list {
		c.xid = r.xid
		r.changes++
		if err := r.out.push(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (r *receiver) relation(ctx context.Context, m relationMessage) error {
	k, err := r.track(ctx, m.relation)
	if err != nil {
		return err
	}
	if k == nil {
		name := topology.TableName{Schema: m.schema, Name: m.name}
		return ErrSchemaChanged{name, "it is part of the publication, but not of the move"}
	}
	rel, err := k.relate(m)
	if err != nil {
		return err
	}
	r.relations[m.relation] = rel
	return nil
}

func (r *receiver) track(ctx context.Context, oid uint32) (*tracked, error) {
	t := r.shape.byOID(oid)
	if t == nil {
		var err error
		if t, err = r.resolve(ctx, oid); err != nil || t == nil {
			return nil, err
		}
	}
	for _, k := range r.tables {
		if k.OID == t.OID {
			return k, nil
		}
	}
	return nil, nil
}

// truncate is of a whole table. The target holds rows of other ranges too, and the source's other ranges may matter to
// nobody: whoever truncates while rows move must do it again.
func (r *receiver) truncate(ctx context.Context, m truncateMessage) error {
	if r.own {
		return nil
	}
	for _, oid := range m.relations {
		k, err := r.track(ctx, oid)
		if err != nil {
			return err
		}
		if k != nil {
			return ErrTruncated{k.TableName}
		}
	}
	return nil
}

// resolver asks the source for the root of a partition that was made after the stream began.
func (m *Mover) resolver(s shape) func(context.Context, uint32) (*table, error) {
	return func(ctx context.Context, oid uint32) (*table, error) {
		conn, err := m.connect(ctx, Source)
		if err != nil {
			return nil, err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		var root *uint32
		err = conn.QueryRow(ctx, "SELECT pg_partition_root($1::oid::regclass)::oid", oid).Scan(&root)
		switch {
		case errors.Is(err, pgx.ErrNoRows), err == nil && root == nil:
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("finding the table of partition %d: %w", oid, err)
		}
		return s.byRoot(*root), nil
	}
}
