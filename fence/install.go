package fence

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"shardproxy/topology"
)

// Install makes of the fence of a shard what is missing and mends what differs, all in one transaction, or nothing. A fence whose
// epoch is above st.Epoch keeps its epoch and what it owns. Where it owns what st says, it keeps its epoch too; else it is as
// after [Set]. What is right already is not touched.
//
// A table that the shard does not have is passed over, and one that is not in the list keeps what triggers it has: it may have
// been made a moment ago. [InstallAll] takes them away where they do not belong. The role that runs it must own the tables, and
// the functions if there are some; for the first time it needs CREATE on the database.
//
// ErrBusy is to be asked again.
func Install(ctx context.Context, query topology.Query, st State, tables []Table) error {
	if err := st.check(); err != nil {
		return err
	}
	return change(ctx, query, func(tx *transaction) error {
		_, _, err := tx.install(ctx, &st, tables, false)
		return err
	})
}

// install gives the epoch that the fence has now, and whether anything was done. complete says that no other tables are to be
// fenced.
func (tx *transaction) install(ctx context.Context, st *State, tables []Table, complete bool) (epoch topology.Epoch, changed bool, err error) {
	h, err := read(ctx, tx)
	if err != nil {
		return 0, false, err
	}
	if h.installed() && h.shard != st.Shard {
		return 0, false, &OtherShardError{Shard: st.Shard, Found: h.shard}
	}
	functionSQL, epoch, err := h.functionSQL(st)
	if err != nil {
		return 0, false, err
	}
	base := append(h.schemaSQL(), functionSQL...)
	if err := tx.run(ctx, base...); err != nil {
		if sqlState(err) == uniqueViolation { // of a catalog: a proxy makes its table of commits, and the schema, at this moment
			err = fmt.Errorf("%w: %w", ErrBusy, err)
		}
		return 0, false, err
	}
	gaps := append(h.gaps(tables), h.strays(tables, complete)...)
	var held []topology.TableName
	mend := make([]string, len(gaps))
	for i := range gaps {
		held, mend[i] = append(held, gaps[i].Table), gaps[i].mend
	}
	if len(functionSQL) > 0 && len(h.functions) > 0 { // see set
		held = h.fenced(tables)
	}
	slices.SortFunc(held, compareNames)
	if err := tx.lock(ctx, slices.Compact(held)); err != nil {
		return 0, false, err
	}
	return epoch, len(base)+len(mend) > 0, tx.run(ctx, mend...)
}

// schemaSQL makes the schema and the table, and what everybody may do with them.
func (h *found) schemaSQL() (list []string) {
	if h.schema == absent {
		list = append(list, "CREATE SCHEMA IF NOT EXISTS "+Schema)
	}
	if h.schema != open {
		list = append(list, "GRANT USAGE ON SCHEMA "+Schema+" TO PUBLIC")
	}
	if h.table == absent {
		list = append(list, `CREATE TABLE shardproxy.fence ("only" boolean PRIMARY KEY DEFAULT true CHECK ("only"), epoch bigint NOT NULL, shard text NOT NULL)`)
	}
	if h.table != open {
		list = append(list, "GRANT SELECT ON shardproxy.fence TO PUBLIC")
	}
	return list
}

// functionSQL brings the functions, and the row that goes with them, to st, unless they are for a later map. It also gives
// the epoch that they are at then.
func (h *found) functionSQL(st *State) (list []string, epoch topology.Epoch, err error) {
	target := *st
	owned, known := parseOwns(h.functions[ownsName].body)
	switch {
	case !h.installed():
	case h.epoch > st.Epoch && !known:
		return nil, 0, fmt.Errorf("function %s.%s is missing or was changed, and the map of epoch %d does not say what it was at epoch %d; try again with the later map",
			Schema, ownsName, st.Epoch, h.epoch)
	case h.epoch > st.Epoch:
		target.Epoch, target.Owned = h.epoch, owned
	case known && sameRanges(owned, st.Owned):
		target.Epoch = h.epoch
	}
	wanted := functions(&target)
	for i := range wanted {
		list = append(list, h.mend(&wanted[i])...)
	}
	if !h.installed() || h.epoch != target.Epoch {
		list = append(list, rowSQL(&target))
	}
	return list, target.Epoch, nil
}

// mend makes one function as it is wanted.
func (h *found) mend(f *function) (list []string) {
	have, there := h.functions[f.name]
	if !there || have.body != f.body || have.form != f.form {
		list = append(list, f.create())
	}
	if !there || !have.public {
		list = append(list, fmt.Sprintf("GRANT EXECUTE ON FUNCTION %s.%s(%s) TO PUBLIC", Schema, f.name, f.arguments))
	}
	return list
}

func rowSQL(st *State) string {
	return fmt.Sprintf(`INSERT INTO shardproxy.fence (epoch, shard) VALUES (%d, %s) ON CONFLICT ("only") DO UPDATE SET epoch = excluded.epoch, shard = excluded.shard`,
		st.Epoch, literal(st.Shard))
}

// sameRanges does not look at the shards.
func sameRanges(a, b []topology.KeyRange) bool {
	return slices.EqualFunc(a, b, func(a, b topology.KeyRange) bool {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End)) == 0
	})
}
