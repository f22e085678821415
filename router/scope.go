package router

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// node is one column of one table reference, as far as shard keys can be compared with it.
// Several references to one table have nodes of their own.
type node struct {
	relation *relation // nil: a constant that the statement uses like a table
	keyType  topology.KeyType
	length   int // of a varchar(n): n, else 0
	// follows: the rows of this relation that matter have here the value that the other node has
	// in a row that matters.
	follows []*node
	// among: the rows of this relation that matter have here one of these values. One set for
	// each condition that says so.
	among []keySet
}

// output is one column of a FROM item or of a query's result.
type output struct {
	name string // "" where PostgreSQL chooses a name that we do not work out
	node *node  // nil: nothing is known of its values. Else its value is NULL or one that node has in a row that matters
	// filters: a condition on this column, in the query that sees it, makes rows of node's
	// relation that do not meet it irrelevant.
	filters bool
}

// relation is one reference to a table, or what a sub-query, function or CTE stands for in FROM.
type relation struct {
	name    string          // by which columns are qualified
	table   *topology.Table // nil unless it is a table of the shards
	aliased bool            // name is an alias, so schema.table does not name it
	columns []output
	open    bool  // it may have columns that are not listed
	spot    *spot // where the statement can say which of its rows count, nil if it cannot
}

// key is the node of the relation's shard key.
func (r *relation) key() *node { return r.columns[r.table.Key].node }

// rowset is what a query or FROM item gives.
type rowset struct {
	columns []output
	open    bool // there may be columns that are not listed, at any place
	// drives: each row comes from exactly one row of each of these relations, and from every such
	// row that meets the conditions, whatever the other rows are. Running on several shards and
	// putting the rows one after another is then exact, if all else follows one of them.
	drives []*relation
	why    string // why nothing drives, to be told to the user
}

// item is one member of a FROM list: a rowset and the names that it can be qualified with.
type item struct {
	rowset
	relations []*relation
}

// scope is what column names mean at one place of a statement.
type scope struct {
	items  []*item
	parent *scope // of the enclosing query
	level  *level
	ctes   *cteEnv
}

// level is one SELECT (or INSERT, UPDATE …) of the statement.
type level struct {
	top       bool // its rows are the statement's own
	aggregate bool
	window    bool
}

// within is a scope of the same query level that sees only items.
func (s *scope) within(items ...*item) *scope {
	return &scope{items: items, parent: s.parent, level: s.level, ctes: s.ctes}
}

// reference is a column that a name was resolved to.
type reference struct {
	output
	local bool // of this scope, not of an enclosing query
	item  int  // local: which item of the scope
}

// resolve finds the column that n names, if n is a plain column reference and it is certain
// which one PostgreSQL takes, or that PostgreSQL reports an error.
func (s *scope) resolve(n *pg.Node) (reference, bool) {
	c, ok := n.GetNode().(*pg.Node_ColumnRef)
	if !ok {
		return reference{}, false
	}
	fields := c.ColumnRef.Fields
	parts := make([]string, len(fields))
	for i, f := range fields {
		str, ok := f.GetNode().(*pg.Node_String_)
		if !ok {
			return reference{}, false
		}
		parts[i] = str.String_.Sval
	}
	local := true
	for ; s != nil; s, local = s.parent, false {
		var out output
		var at int
		var found verdict
		switch len(parts) {
		case 1:
			out, at, found = s.unqualified(parts[0])
		case 2:
			out, at, found = s.qualified("", parts[0], parts[1])
		case 3:
			out, at, found = s.qualified(parts[0], parts[1], parts[2])
		default:
			return reference{}, false
		}
		switch found {
		case one:
			return reference{output: out, local: local, item: at}, true
		case unclear:
			return reference{}, false
		}
	}
	return reference{}, false
}

// verdict is how a search for a name ended.
type verdict uint8

const (
	absent  verdict = iota // certainly not here: look in the enclosing query
	one                    // certainly this one, unless PostgreSQL reports an error
	unclear                // it may be here
)

func (s *scope) unqualified(name string) (out output, at int, found verdict) {
	if systemColumns[name] {
		return output{}, 0, unclear
	}
	open := false
	for i, it := range s.items {
		o, v := find(it.columns, name)
		switch {
		case v == unclear || v == one && found == one:
			return output{}, 0, unclear
		case v == one:
			out, at, found = o, i, one
		}
		open = open || it.open
	}
	if found == absent && open {
		return output{}, 0, unclear
	}
	return out, at, found
}

func (s *scope) qualified(schema, name, column string) (out output, at int, found verdict) {
	for i, it := range s.items {
		for _, r := range it.relations {
			if r.name != name || schema != "" && (r.aliased || r.table == nil || r.table.Schema != schema) {
				continue
			}
			if found != absent {
				return output{}, 0, unclear
			}
			if out, found = find(r.columns, column); found == absent {
				found = unclear
			}
			at = i
		}
	}
	return out, at, found
}

// find looks for name among columns.
func find(columns []output, name string) (out output, found verdict) {
	nameless := false
	for _, c := range columns {
		switch {
		case c.name == name && found == one:
			return output{}, unclear
		case c.name == name:
			out, found = c, one
		case c.name == "":
			nameless = true
		}
	}
	if found == absent && nameless {
		return output{}, unclear
	}
	return out, found
}

var systemColumns = map[string]bool{"ctid": true, "xmin": true, "xmax": true, "cmin": true, "cmax": true, "tableoid": true}

// rename gives the first columns of r the names of an alias's column list.
func (r *rowset) rename(list []*pg.Node) {
	if len(list) == 0 {
		return
	}
	if r.open {
		r.columns = nil
	}
	columns := append([]output(nil), r.columns...)
	for i, name := range names(list) {
		if i == len(columns) {
			columns = append(columns, output{})
		}
		columns[i].name = name
	}
	r.columns = columns
}

// blind is r with nothing known of its values.
func (r rowset) blind() rowset {
	columns := make([]output, len(r.columns))
	for i, c := range r.columns {
		columns[i].name = c.name
	}
	return rowset{columns: columns, open: r.open, why: r.why}
}
