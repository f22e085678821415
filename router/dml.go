package router

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// target reads the table that a statement writes. ok is false where it is none that the proxy
// places: then nothing more is to be proven for it.
func (a *analysis) target(v *pg.RangeVar) (it *item, table *topology.Table, ok bool) {
	a.t.Write = true
	a.count()
	table, known := a.table(v)
	switch {
	case table == nil:
		if !known {
			a.unknown(v)
			a.parseOnly = true
		}
		return named(rowset{open: true}, v.Alias, v.Relname), nil, false
	case table.Kind == topology.View:
		a.mention(table)
		a.refuse(&Error{
			Code: codeNotSupported, Message: "writing through view " + quoteName(table.Name) + " is not supported",
			Hint: "Write the table below it.",
		})
		return named(rowset{open: true}, v.Alias, v.Relname), nil, false
	case table.Kind == topology.Other:
		a.elsewhere(table)
		return named(rowset{open: true}, v.Alias, v.Relname), nil, false
	}
	if it, ok = a.base(table, v.Alias); !ok {
		return it, nil, false
	}
	if table.Kind == topology.Reference {
		a.copies = append(a.copies, table)
	}
	a.spotted(it, v)
	for _, r := range it.drives {
		if r.spot != nil {
			r.spot.target = true
		}
	}
	return it, table, true
}

func (a *analysis) updateStmt(s *pg.UpdateStmt, outer *scope, env *cteEnv, lv *level) rowset {
	env = a.with(s.WithClause, outer, env)
	sc := &scope{parent: outer, level: lv, ctes: env}
	it, table, ok := a.target(s.Relation)
	sc.items = []*item{it}
	rows := rowset{drives: it.drives}
	a.fromList(s.FromClause, sc, &rows)
	if len(s.FromClause) > 0 {
		a.diverge("UPDATE … FROM may take another of several matching rows on each shard")
	}
	a.condition(s.WhereClause, sc, all)
	a.assignments(s.TargetList, sc, ok, table, it)
	a.returning(s.ReturningList, sc, &rows)
	return rows
}

func (a *analysis) deleteStmt(s *pg.DeleteStmt, outer *scope, env *cteEnv, lv *level) rowset {
	env = a.with(s.WithClause, outer, env)
	sc := &scope{parent: outer, level: lv, ctes: env}
	it, _, _ := a.target(s.Relation)
	sc.items = []*item{it}
	rows := rowset{drives: it.drives}
	a.fromList(s.UsingClause, sc, &rows)
	a.condition(s.WhereClause, sc, all)
	a.returning(s.ReturningList, sc, &rows)
	return rows
}

// returning reads RETURNING. Its rows are those written: a condition on them does not change which.
func (a *analysis) returning(list []*pg.Node, sc *scope, rows *rowset) {
	if sc.level.top {
		a.t.Returns = len(list) > 0
	}
	a.targets(list, sc, rows)
	for i := range rows.columns {
		rows.columns[i].filters = false
	}
}

// assignments reads the SET list of UPDATE. The shard key may only be set to what it is.
func (a *analysis) assignments(list []*pg.Node, sc *scope, placed bool, table *topology.Table, target *item) {
	for _, n := range list {
		t := n.GetResTarget()
		a.expression(n, sc)
		if !placed {
			continue
		}
		i := columnIndex(table, t.Name)
		if i >= 0 && len(t.Indirection) == 0 {
			a.mark(t.Val, topology.KeyTypeOf(table.Columns[i].Type), false)
		}
		if t.Val.GetSetToDefault() != nil && i >= 0 {
			a.defaulted(table, i)
		}
		if table.Kind == topology.Sharded && i == table.Key && i >= 0 && !a.sameKey(t.Val, sc, target.relations[0].key()) {
			a.refuse(changedKey(table))
		}
	}
}

func changedKey(table *topology.Table) *Error {
	return &Error{
		Code:    codeNotSupported,
		Message: "the shard key " + quoteName(table.Name) + "." + quoteName(table.KeyColumn()) + " cannot be updated",
		Hint:    "Delete the row and insert it with its new key.",
	}
}

// sameKey says that v is sure to be the value that key has already: the key itself, or the
// constant that the condition compares it with.
func (a *analysis) sameKey(v *pg.Node, sc *scope, key *node) bool {
	if ref, ok := sc.resolve(v); ok {
		return ref.node == key
	}
	s, ok := a.constant(v, key.keyType)
	if !ok || s.origin == fromNull {
		return false
	}
	for _, set := range key.among {
		if len(set) != 1 || set[0].origin != s.origin || set[0].negative != s.negative {
			continue
		}
		switch s.origin {
		case fromParam:
			if set[0].index == s.index {
				return true
			}
		case fromLiteral:
			a.cacheable = false // it depends on the values
			if a.literalText(s.index) == a.literalText(set[0].index) {
				return true
			}
		}
	}
	return false
}

func (a *analysis) literalText(i int32) string { return a.sql[a.lits[i].Start:a.lits[i].End] }

// defaulted notes that column i of a new or updated row gets its default.
func (a *analysis) defaulted(table *topology.Table, i int) {
	c := &table.Columns[i]
	switch {
	case table.Kind != topology.View && c.Sequence:
		a.refuseDraw(&Error{
			Code:    codeNotSupported,
			Message: "column " + quoteName(table.Name) + "." + quoteName(c.Name) + " draws from a sequence, which is only supported for INSERT … VALUES by itself",
			Hint:    "Give the value in the statement, or use a uuid column with gen_random_uuid().",
		})
	case table.Kind == topology.Reference && (c.Default == topology.Volatile || c.Default == topology.Stable):
		a.diverge("the default of column " + quoteName(c.Name) + " may give something else on each shard")
	}
}

// mergeStmt reads MERGE: the source joined to the target by an outer join that keeps the source.
func (a *analysis) mergeStmt(s *pg.MergeStmt, outer *scope, env *cteEnv, lv *level) rowset {
	env = a.with(s.WithClause, outer, env)
	sc := &scope{parent: outer, level: lv, ctes: env}
	it, table, ok := a.target(s.Relation)
	a.alone("MERGE over several shards is not supported")
	source := a.from(s.SourceRelation, sc)
	sc.items = []*item{it, source}
	filtered := left
	for _, n := range s.MergeWhenClauses {
		if n.GetMergeWhenClause().MatchKind == pg.MergeMatchKind_MERGE_WHEN_NOT_MATCHED_BY_SOURCE {
			filtered = neither // it keeps the target's rows too
		}
	}
	a.condition(s.JoinCondition, sc, filtered)
	for _, n := range s.MergeWhenClauses {
		w := n.GetMergeWhenClause()
		a.expression(w.Condition, sc)
		switch w.CommandType {
		case pg.CmdType_CMD_UPDATE:
			a.assignments(w.TargetList, sc, ok, table, it)
		case pg.CmdType_CMD_INSERT:
			a.expressions(w.Values, sc)
			if ok {
				a.mergeInsert(w, sc, table)
			}
		}
	}
	var rows rowset
	a.returning(s.ReturningList, sc, &rows)
	return rows
}

// mergeInsert proves that a row inserted by MERGE belongs where the statement runs.
func (a *analysis) mergeInsert(w *pg.MergeWhenClause, sc *scope, table *topology.Table) {
	columns := a.insertColumns(table, w.TargetList, len(w.Values), w.Override)
	for i := range min(len(w.Values), len(columns)) {
		switch c := columns[i]; {
		case c < 0:
		case w.Values[i].GetSetToDefault() != nil:
			a.defaulted(table, c)
		default:
			a.mark(w.Values[i], topology.KeyTypeOf(table.Columns[c].Type), false)
		}
	}
	if table.Kind != topology.Sharded {
		return
	}
	for i, c := range columns {
		if c != table.Key || i >= len(w.Values) {
			continue
		}
		if s, ok := a.constant(w.Values[i], table.KeyType); ok {
			a.written = append(a.written, keySet{a.stored(table, s)})
			return
		}
		written := &relation{name: table.Name, table: table, columns: make([]output, len(table.Columns))}
		key := &node{relation: written, keyType: table.KeyType}
		written.columns[table.Key].node = key
		if ref, ok := sc.resolve(w.Values[i]); ok && a.storedFrom(table, key, ref.node) {
			a.sharded = append(a.sharded, written)
			return
		}
	}
	a.refuse(noKey(table, columns))
}

// locking reads FOR UPDATE and its like.
func (a *analysis) locking(list []*pg.Node, sc *scope) {
	for _, n := range list {
		l := n.GetLockingClause()
		a.t.Write = true
		a.diverge("row locks may wait for other rows on each shard")
		exclusive := l.Strength == pg.LockClauseStrength_LCS_FORUPDATE || l.Strength == pg.LockClauseStrength_LCS_FORNOKEYUPDATE
		if !exclusive {
			continue
		}
		of := map[string]bool{}
		for _, r := range l.LockedRels {
			of[r.GetRangeVar().GetRelname()] = true
		}
		for _, it := range sc.items {
			for _, r := range it.relations {
				if len(of) > 0 && !of[r.name] {
					continue
				}
				a.lockedQuery = a.lockedQuery || r.table == nil
				a.lockedCopies = a.lockedCopies || r.table != nil && r.table.Kind == topology.Reference
			}
		}
	}
}
