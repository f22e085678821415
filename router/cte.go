package router

import (
	pg "github.com/pganalyze/pg_query_go/v6"
)

// cteEnv are the common table expressions that can be seen at one place.
type cteEnv struct {
	parent *cteEnv
	cte    *cte
}

// cte is one common table expression. A SELECT is analysed anew at each reference to it, as if
// it stood there; a data-modifying statement once, where it is defined.
type cte struct {
	expr      *pg.CommonTableExpr
	env       *cteEnv // what its query sees
	scope     *scope  // around its query
	done      *rowset // of a data-modifying statement
	active    bool    // its query is being analysed
	recursive bool    // its query refers to itself
}

// find is the CTE that an unqualified name stands for, nil if none.
func (e *cteEnv) find(name string) *cte {
	for ; e != nil; e = e.parent {
		if e.cte.expr.Ctename == name {
			return e.cte
		}
	}
	return nil
}

// with makes the CTEs of w known on top of env. outer is the scope around the statement that has w.
func (a *analysis) with(w *pg.WithClause, outer *scope, env *cteEnv) *cteEnv {
	if w == nil {
		return env
	}
	var list []*cte
	for _, n := range w.Ctes {
		c := &cte{expr: n.GetCommonTableExpr(), env: env, scope: outer}
		env = &cteEnv{parent: env, cte: c}
		list = append(list, c)
	}
	if w.Recursive {
		for _, c := range list {
			c.env = env
		}
	}
	for _, c := range list {
		if _, ok := c.expr.Ctequery.GetNode().(*pg.Node_SelectStmt); ok {
			continue
		}
		a.alone("a data-modifying WITH runs once")
		rows := a.query(c.expr.Ctequery, c.scope, c.env, &level{})
		rows.rename(c.expr.Aliascolnames)
		for i := range rows.columns {
			rows.columns[i].filters = false
		}
		rows.drives, rows.why = nil, "a data-modifying WITH runs once"
		c.done = &rows
	}
	return env
}

// cte is what a reference to c gives.
func (a *analysis) cte(c *cte) rowset {
	switch {
	case c.done != nil:
		rows := *c.done
		rows.columns = append([]output(nil), rows.columns...)
		return rows
	case c.active:
		c.recursive = true
		return rowset{open: true}
	}
	c.active = true
	rows := a.query(c.expr.Ctequery, c.scope, c.env, &level{})
	c.active = false
	rows.rename(c.expr.Aliascolnames)
	if c.expr.SearchClause != nil || c.expr.CycleClause != nil {
		rows.open = true
	}
	if c.recursive {
		rows = rows.blind()
		rows.why = "a recursive query sees the rows of one shard only"
	}
	return rows
}
