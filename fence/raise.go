package fence

import (
	"context"
	"fmt"

	"shardproxy/topology"
)

// Raise makes the fence refuse maps older than epoch and changes nothing of what the shard owns. When it returns, every write to the
// given tables that such a map had planned has ended. Only these are locked: to write to others by an older map was as right until
// now. It is one transaction, or nothing. A fence of that epoch or a later one is left as it is.
//
// ErrBusy is to be asked again; without a fence it is ErrNotInstalled, and an *IncompleteError where tables lack triggers.
func Raise(ctx context.Context, query topology.Query, epoch topology.Epoch, tables []Table) error {
	return change(ctx, query, func(tx *transaction) error {
		h, err := read(ctx, tx)
		switch {
		case err != nil:
			return err
		case !h.installed():
			return ErrNotInstalled
		}
		if gaps := h.gaps(tables); len(gaps) > 0 {
			return &IncompleteError{Problems: problems(gaps)}
		}
		names := make([]topology.TableName, len(tables))
		for i := range tables {
			names[i] = tables[i].TableName
		}
		if h.epoch >= epoch { // whoever made it so need not have waited: see CommitUnlocked
			return tx.lock(ctx, names)
		}
		owned, known := parseOwns(h.functions[ownsName].body)
		if !known {
			return fmt.Errorf("function %s.%s is missing or was changed; shardctl fence install mends it", Schema, ownsName)
		}
		st := State{Shard: h.shard, Epoch: epoch, Owned: owned}
		statements := []string{rowSQL(&st)}
		wanted := functions(&st)
		for i := range wanted {
			statements = append(statements, h.mend(&wanted[i])...)
		}
		if err := tx.run(ctx, statements...); err != nil {
			return err
		}
		return tx.lock(ctx, names)
	})
}
