package fence

import (
	"fmt"
	"slices"

	"shardproxy/topology"
)

// Problem is something that keeps a fence from holding, or that should not be there.
type Problem struct {
	Table topology.TableName // the zero value: it concerns the whole shard
	What  string
	Hint  string
}

func (p Problem) String() string {
	if p.Table == (topology.TableName{}) {
		return p.What
	}
	return p.Table.String() + ": " + p.What
}

const installHint = "shardctl fence install mends it."

// gap is a problem of one trigger with the SQL that mends it.
type gap struct {
	Problem
	mend string
}

// gaps tells which triggers the tables lack. A table that the shard does not have is passed over.
func (h *found) gaps(tables []Table) (list []gap) {
	for i := range tables {
		t := &tables[i]
		if !h.present[t.TableName] {
			continue
		}
		add := func(mend, format string, args ...any) {
			list = append(list, gap{Problem{t.TableName, fmt.Sprintf(format, args...), installHint}, mend})
		}
		for _, want := range triggersOf(t) {
			switch have := h.trigger(t.TableName, want.name); {
			case have == nil:
				add(want.create(), "trigger %s is missing", want.name)
			case !sameDefinition(have.definition, want.definition()):
				add(want.create(), "trigger %s is another one: it was made for another key, or changed", want.name)
			case !have.enabled:
				add(enable(t.TableName, want.name), "trigger %s is disabled, or enabled otherwise than by default", want.name)
			}
		}
		for _, have := range h.triggers[t.TableName] {
			if have.clone && !have.enabled {
				add(enable(t.TableName, have.name), "trigger %s is disabled, or enabled otherwise than by default", have.name)
			}
		}
	}
	return list
}

// strays tells which triggers of ours there are too many: on the tables, and if these are complete, on others. They refuse what
// should pass, or cost time.
func (h *found) strays(tables []Table, complete bool) (list []gap) {
	wanted := make(map[topology.TableName][]trigger, len(tables))
	for i := range tables {
		wanted[tables[i].TableName] = triggersOf(&tables[i])
	}
	for _, name := range h.fenced(nil) {
		if wanted[name] == nil && !complete {
			continue
		}
		for _, have := range h.triggers[name] {
			if have.clone || !have.ours || slices.ContainsFunc(wanted[name], func(t trigger) bool { return t.name == have.name }) {
				continue
			}
			list = append(list, gap{Problem{name, "trigger " + have.name + " does not belong there", installHint}, drop(name, have.name)})
		}
	}
	return list
}

// trigger finds one by its name; nil if it is not there.
func (h *found) trigger(table topology.TableName, name string) *foundTrigger {
	for i := range h.triggers[table] {
		if t := &h.triggers[table][i]; t.name == name {
			return t
		}
	}
	return nil
}

func drop(table topology.TableName, trigger string) string {
	return "DROP TRIGGER " + identifier(trigger) + " ON " + qualified(table)
}

func enable(table topology.TableName, trigger string) string {
	return "ALTER TABLE " + qualified(table) + " ENABLE TRIGGER " + identifier(trigger)
}

func problems(gaps []gap) []Problem {
	list := make([]Problem, len(gaps))
	for i := range gaps {
		list[i] = gaps[i].Problem
	}
	return list
}
