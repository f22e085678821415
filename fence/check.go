package fence

import (
	"context"
	"fmt"

	"shardproxy/topology"
)

// Check compares the fence of a shard with what it should be by st and the tables, and changes nothing.
func Check(ctx context.Context, query topology.Query, st State, tables []Table) (list []Problem, err error) {
	err = look(ctx, query, func(tx *transaction) error {
		h, err := read(ctx, tx)
		if err == nil {
			list = h.problems(&st, tables)
		}
		return err
	})
	return list, err
}

// Read gives the state that a shard is held to; false where it has no fence.
func Read(ctx context.Context, query topology.Query) (st State, installed bool, err error) {
	err = look(ctx, query, func(tx *transaction) error {
		h := &found{}
		if err := h.readState(ctx, tx); err != nil || !h.installed() {
			return err
		}
		if err := h.readFunctions(ctx, tx); err != nil {
			return err
		}
		owned, known := parseOwns(h.functions[ownsName].body)
		if !known {
			return fmt.Errorf("function %s.%s of shard %s is missing or was changed", Schema, ownsName, h.shard)
		}
		st, installed = State{Shard: h.shard, Epoch: h.epoch, Owned: owned}, true
		return nil
	})
	return st, installed, err
}

// problems is what Check finds.
func (h *found) problems(st *State, tables []Table) (list []Problem) {
	add := func(hint, format string, args ...any) {
		list = append(list, Problem{What: fmt.Sprintf(format, args...), Hint: hint})
	}
	if !h.installed() {
		add("shardctl fence install makes it.", "the shard has no fence")
		return list
	}
	if h.shard != st.Shard {
		add("Look whether the map leads to the right node, or whether the database is a copy.", "the database has the fence of shard %s", h.shard)
		return list
	}
	if h.schema != open || h.table != open {
		add(installHint, "not everybody may read %s.fence", Schema)
	}
	if h.epoch > st.Epoch {
		list = append(list, laterProblem(h.epoch, st.Epoch))
	}
	list = append(list, h.functionProblems(st)...)
	list = append(list, problems(append(h.gaps(tables), h.strays(tables, true)...))...)
	for i := range tables {
		if !h.present[tables[i].TableName] {
			list = append(list, Problem{tables[i].TableName, "the shard does not have the table", "Create it through a proxy, or as it is on the other shards."})
		}
	}
	return list
}

func (h *found) functionProblems(st *State) (list []Problem) {
	target := State{Shard: h.shard, Epoch: h.epoch, Owned: st.Owned}
	if owned, known := parseOwns(h.functions[ownsName].body); known {
		target.Owned = owned
		if h.epoch <= st.Epoch && !sameRanges(owned, st.Owned) {
			list = append(list, Problem{
				What: fmt.Sprintf("by its fence of epoch %d the shard owns other keys than the map says", h.epoch), Hint: installHint,
			})
		}
	}
	wanted := functions(&target)
	for i := range wanted {
		f := &wanted[i]
		have, there := h.functions[f.name]
		var what string
		switch {
		case !there:
			what = "is missing"
		case have.body != f.body, have.form != f.form:
			what = "was changed"
		case !have.public:
			what = "may not be called by everybody"
		}
		if what == "" {
			continue
		}
		list = append(list, Problem{What: "function " + Schema + "." + f.name + " " + what, Hint: installHint})
	}
	return list
}

func laterProblem(fence, ours topology.Epoch) Problem {
	return Problem{
		What: fmt.Sprintf("the fence is at epoch %d, above the map's %d", fence, ours),
		Hint: "This proxy has not got the later map, or a move is under way.",
	}
}
