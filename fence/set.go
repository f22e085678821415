package fence

import (
	"context"
	"time"

	"shardproxy/topology"
)

// Set makes a fence hold its shard to st: when it returns, every write that an older map had planned has ended, and none can
// come. It is one transaction, or nothing. Writers of the tables that run delay it, and it delays those that come, for
// 0.3 s at most; then it gives ErrBusy, to be asked again until a deadline.
//
// The epoch never falls: that is an *EpochError. At the same epoch the shard may own other ranges than before: a move narrows one
// shard and widens another at the epoch of the map that will be. All tables must have their triggers, else an
// *IncompleteError tells which do not; the lock is on all that have some, in the list or not. Without a fence it is ErrNotInstalled.
func Set(ctx context.Context, query topology.Query, st State, tables []Table) error {
	p, err := Prepare(ctx, query, st, tables)
	if err != nil {
		return err
	}
	return p.Commit(ctx)
}

// Prepared is a Set of which only the lock and the commit are left. It holds a transaction open on its connection, which is for nothing
// else that writes until Commit or Undo: other changes of the fence get ErrBusy meanwhile. The server ends it where nothing is heard of it for
// IdleMax, so that nobody waits for one who has vanished.
type Prepared struct {
	tx     *transaction
	tables []topology.TableName // to lock
}

// IdleMax is how long a prepared change may wait for its Commit.
const IdleMax = 5 * time.Second

// Prepare does what a Set has to do before it gets in the way of writers.
func Prepare(ctx context.Context, query topology.Query, st State, tables []Table) (*Prepared, error) {
	if err := st.check(); err != nil {
		return nil, err
	}
	p := &Prepared{tx: &transaction{query: query}}
	err := p.tx.run(ctx, beginChange...)
	if err == nil {
		p.tables, err = p.tx.set(ctx, &st, tables)
	}
	if err != nil {
		p.Undo(ctx)
		return nil, err
	}
	return p, nil
}

// Commit waits for the writers of before, as Set says. After an error the change is given up, or nobody heard of its success.
func (p *Prepared) Commit(ctx context.Context) error {
	err := p.tx.lockAndCommit(ctx, p.tables)
	if err != nil {
		p.Undo(ctx)
	}
	return err
}

// CommitUnlocked does not wait for the writers of before. That is right where the shard only gains: all that they were planned to write
// there was the shard's, and stays it.
func (p *Prepared) CommitUnlocked(ctx context.Context) error {
	p.tables = nil
	return p.Commit(ctx)
}

// Undo gives the change up.
func (p *Prepared) Undo(ctx context.Context) { p.tx.rollback(ctx) }

// set gives the tables to lock before the commit.
func (tx *transaction) set(ctx context.Context, st *State, tables []Table) ([]topology.TableName, error) {
	h, err := read(ctx, tx)
	switch {
	case err != nil:
		return nil, err
	case !h.installed():
		return nil, ErrNotInstalled
	case h.shard != st.Shard:
		return nil, &OtherShardError{Shard: st.Shard, Found: h.shard}
	case h.epoch > st.Epoch:
		return nil, &EpochError{Shard: st.Shard, Fence: h.epoch, Wanted: st.Epoch}
	}
	if gaps := h.gaps(tables); len(gaps) > 0 {
		return nil, &IncompleteError{Problems: problems(gaps)}
	}
	var statements []string
	wanted := functions(st)
	for i := range wanted {
		statements = append(statements, h.mend(&wanted[i])...)
	}
	if h.epoch != st.Epoch {
		statements = append(statements, rowSQL(st))
	}
	// Nobody sees the new bodies before the transaction commits, so they may be made while others still write: what must be
	// locked out is a writer with an old body at the moment of the commit. With 16,384 ranges that spares writers 60 ms.
	return h.fenced(tables), tx.run(ctx, statements...)
}
