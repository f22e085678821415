package router

import (
	"shardproxy/topology"
)

// place decides where the analysed statement runs. rows are its own.
//
// Each reference to a sharded table is proven to need no other rows than those of its shard: its
// key is among constants, or follows, over any number of columns that are equal, one that is. If
// no constant is found, everything has to follow one table, and each shard does its part.
func (a *analysis) place(rows rowset) {
	switch {
	case len(a.copies) > 0:
		a.placeCopies()
	case len(a.sharded) == 0:
		a.t.Kind = Any
	default:
		a.placeSharded(rows)
	}
	if a.t.First && a.t.Kind != Any {
		a.refuse(&Error{
			Code:    codeNotSupported,
			Message: "function " + a.firstBy + " runs on the first shard, the rest of the statement does not",
			Hint:    "Call it in a statement of its own.",
		})
	}
	for _, t := range a.t.Tables {
		a.lockedCopies = a.lockedCopies || a.lockedQuery && t.Kind == topology.Reference
	}
	switch {
	case !a.lockedCopies || a.t.Kind == All:
	case a.t.Kind == Any:
		a.t.First = true // so that two who lock one row meet
	default:
		a.refuse(&Error{
			Code:    codeNotSupported,
			Message: "FOR UPDATE would lock the row of a reference table on one shard only",
			Hint:    "Name the sharded tables: FOR UPDATE OF …",
		})
	}
}

// placeCopies is for statements that write reference tables: every shard must come to the same rows.
func (a *analysis) placeCopies() {
	a.t.Kind = All
	table := quoteName(a.copies[0].Name)
	if len(a.sharded) > 0 {
		a.refuse(&Error{
			Code:    codeNotSupported,
			Message: "a statement cannot write reference table " + table + " and use sharded table " + quoteName(a.sharded[0].table.Name),
			Hint:    "Read the rows first, then write the reference table with constants.",
		})
		return
	}
	a.movingTimes()
	for _, t := range a.copies {
		if t.Triggers {
			a.diverge("table " + quoteName(t.Name) + " has triggers, which may do something else on each shard")
		}
	}
	if a.diverges != "" {
		a.refuse(&Error{
			Code:    codeNotSupported,
			Message: "the copies of reference table " + table + " would come to differ",
			Detail:  upper(a.diverges) + ".",
			Hint:    "Give the values in the statement.",
		})
	}
}

// movingTimes looks for texts such as 'now', where something can read them as a time.
func (a *analysis) movingTimes() {
	timed := a.timed
	for _, t := range a.t.Tables {
		for _, c := range t.Columns {
			switch c.Type {
			case 1082, 1083, 1266, 1114, 1184: // date, time, timetz, timestamp, timestamptz
				timed = true
			}
		}
	}
	for _, l := range a.lits {
		if !timed || l.Kind == Integer || l.Kind == Decimal {
			continue
		}
		a.cacheable = false // it depends on the value
		if s, ok := l.text(a.sql, nil); !ok || movingTime(string(s)) {
			a.diverge("a text may stand for the current time, which differs between shards")
		}
	}
}

func (a *analysis) placeSharded(rows rowset) {
	reach := make([]map[*node]bool, len(a.sharded))
	for i, r := range a.sharded {
		reach[i] = map[*node]bool{}
		r.key().reach(reach[i])
	}
	free := a.groups(reach)
	if free != nil || len(a.t.keys) == 1 && a.t.keys[0].many() {
		rows = a.finishable(rows, reach)
	}
	root := driver(rows.drives, reach)
	if a.part != nil && a.last != nil {
		a.guardable(reach)
	}
	several := free != nil || len(a.t.keys) != 1 || a.t.keys[0].many()
	switch {
	case several && (root == nil || a.single != "" || len(a.t.keys) > 1) && a.gather():
		a.t.Combine = true
		if free != nil {
			a.t.keys = nil
		}
	case root == nil || a.single != "":
		why := a.single
		if why == "" {
			why = rows.why
		}
		if why == "" {
			why = "its tables are not all joined by their shard keys"
		}
		a.t.Reason = &Error{
			Code: codeNotSupported, Message: "this statement would need rows of several shards: " + why,
			Hint: a.advice(),
		}
	case len(a.t.keys) > 1:
		a.t.Reason = differentShards()
	default:
		a.t.Combine = true
		if a.t.finish == nil {
			a.t.anchor = a.anchor(rows.drives, reach)
		}
	}
	switch {
	case free == nil:
		a.t.Kind = Keyed
	case len(a.t.keys) == 0 && a.t.Combine:
		a.t.Kind = Scatter
	case len(a.t.keys) == 0 && driver(a.sharded, reach) != nil:
		a.refuse(a.t.Reason)
	default:
		a.t.keys = nil
		a.refuse(&Error{
			Code:    codeNotSupported,
			Message: "the statement does not tell on which shard the rows of " + quoteName(free.name) + " are",
			Detail:  "Table " + quoteName(free.table.Name) + " is sharded by " + quoteName(free.table.KeyColumn()) + ".",
			Hint:    a.advice(),
		})
	}
}

// reach adds n and all nodes that it follows.
func (n *node) reach(seen map[*node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	for _, other := range n.follows {
		other.reach(seen)
	}
}

// groups fills Template.keys with the constants that place the tables: one set that places all,
// or else one for each table. It returns a table that no constant places, nil if there is none.
func (a *analysis) groups(reach []map[*node]bool) (free *relation) {
	var best keySet
	for n := range reach[0] {
		if inAll(n, reach) {
			best = better(best, n.smallest())
		}
	}
	if best != nil && len(a.written) == 0 {
		a.t.keys = []keySet{best}
		return nil
	}
	for i, r := range a.sharded {
		var best keySet
		for n := range reach[i] {
			best = better(best, n.smallest())
		}
		if best == nil {
			free = r
			continue
		}
		a.t.addKeys(best)
	}
	for _, set := range a.written {
		a.t.addKeys(set)
	}
	return free
}

func inAll(n *node, reach []map[*node]bool) bool {
	for _, seen := range reach {
		if !seen[n] {
			return false
		}
	}
	return true
}

// smallest is the set that limits n most, nil if none does.
func (n *node) smallest() (best keySet) {
	for _, set := range n.among {
		best = better(best, set)
	}
	return best
}

// better prefers a single value to several, and else the one that stands first in the
// statement, so that the choice does not depend on the order of a map.
func better(x, y keySet) keySet {
	switch {
	case x == nil:
		return y
	case y == nil:
		return x
	case x.many() != y.many():
		if y.many() {
			return x
		}
		return y
	case len(x) != len(y):
		if len(y) < len(x) {
			return y
		}
		return x
	case y[0].before(x[0]):
		return y
	}
	return x
}

func (s keySource) before(o keySource) bool {
	if s.origin != o.origin {
		return s.origin < o.origin
	}
	return s.index < o.index
}

// addKeys adds a set of keys, unless it is there.
func (t *Template) addKeys(set keySet) {
	for _, other := range t.keys {
		if len(other) == len(set) && &other[0] == &set[0] || len(set) == 1 && len(other) == 1 && set[0] == other[0] {
			return
		}
	}
	t.keys = append(t.keys, set)
}

// driver finds a table whose rows each give their own rows of the result, and that all others follow.
func driver(drives []*relation, reach []map[*node]bool) *relation {
	for _, r := range drives {
		if drivesAll(r, reach) {
			return r
		}
	}
	return nil
}

// drivesAll says that all others follow r.
func drivesAll(r *relation, reach []map[*node]bool) bool {
	return r.table != nil && r.table.Kind == topology.Sharded && inAll(r.key(), reach)
}

// advice is a hint that names a condition which would make the statement run.
func (a *analysis) advice() string {
	r := a.sharded[0]
	return "Add a condition on the shard key, such as " + quoteName(r.name) + "." + quoteName(r.table.KeyColumn()) + " = …"
}

func differentShards() *Error {
	return &Error{
		Code: codeNotSupported, Message: "the keys of this statement are on different shards",
		Hint: "Run it once for each key, or join the tables by their shard keys.",
	}
}
