package router

import (
	"sort"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// keyOrigin says where the value of a shard key is found when a statement runs.
type keyOrigin uint8

const (
	fromLiteral      keyOrigin = iota + 1 // literal index of the statement
	fromParam                             // parameter index (0-based)
	fromNull                              // NULL: equal to no key
	fromArrayLiteral                      // every element of the array that literal index spells
	fromArrayParam                        // every element of the array parameter index
	fromHash                              // hash itself: known when the statement was analysed
)

// keySource is one value, or one array of values, that a shard key is compared with or set to.
type keySource struct {
	origin   keyOrigin
	keyType  topology.KeyType
	negative bool // a minus sign stands before the literal
	mixed    bool // of a parameter: other places of the statement may give it another type
	wide     bool // of a hash: its key is a text beyond ASCII
	null     nullRule
	index    int32
	length   int // assigned to a varchar(length), else 0
	hash     topology.KeyHash
}

// nullRule says what becomes of a NULL.
type nullRule uint8

const (
	nullEqualsNone nullRule = iota // it is compared with
	nullFails                      // it is stored, which the server is certain to refuse
	nullRefused                    // it is stored, which the server may do
)

// nullRuleOf is for a row of table whose shard key is NULL.
func nullRuleOf(table *topology.Table) nullRule {
	if table.Columns[table.Key].NotNull && !table.Triggers {
		return nullFails
	}
	return nullRefused
}

// failsByDefault says that a row of table without a value for its shard key is certain to be refused.
func failsByDefault(table *topology.Table) bool {
	c := &table.Columns[table.Key]
	return nullRuleOf(table) == nullFails && c.Default == 0 && !c.Sequence
}

func nullKeyError(table *topology.Table) *Error {
	if table.Triggers {
		return &Error{
			Code: codeNotSupported, Message: "a row of " + quoteName(table.Name) + " has no shard key, and the table's triggers might give it one",
			Hint: "Give each row its key " + quoteName(table.KeyColumn()) + ".",
		}
	}
	return &Error{
		Code: codeNotNull, Message: "null value in column " + quoteName(table.KeyColumn()) + " of relation " + quoteName(table.Name) + " violates not-null constraint",
		Detail: "The column is the table's shard key.", Hint: "Give each row its key.",
	}
}

// stored is s as the shard key of a new row.
func (a *analysis) stored(table *topology.Table, s keySource) keySource {
	s.null, s.length = nullRuleOf(table), table.Columns[table.Key].Length
	if s.null == nullRefused && a.nullKey == nil {
		a.nullKey = nullKeyError(table)
	}
	if s.null == nullRefused && s.origin == fromNull {
		a.refuse(nullKeyError(table))
	}
	return s
}

// storedFrom takes the fact that key, of a new row of table, is what n has. It returns false where the
// row may then belong to another shard.
func (a *analysis) storedFrom(table *topology.Table, key, n *node) bool {
	length := table.Columns[table.Key].Length
	switch {
	case n == nil || n.keyType != table.KeyType:
		return false
	case n.relation == nil: // constants
		for _, set := range n.among {
			own := make(keySet, len(set))
			for i := range set {
				own[i] = a.stored(table, set[i])
			}
			key.among = append(key.among, own)
		}
	case length > 0 && (n.length == 0 || n.length > length):
		return false // blanks at its end may be cut
	default:
		key.follows = append(key.follows, n)
	}
	return true
}

// keySet are the values that the shard keys of some rows are among.
type keySet []keySource

// many tells whether s can stand for keys on several shards.
func (s keySet) many() bool {
	return len(s) > 1 || s[0].origin == fromArrayLiteral || s[0].origin == fromArrayParam
}

// literalAt is the index of the literal of which the grammar says that it is at location, and
// whether the minus signs before it, which the grammar makes part of it, change its sign. ok is
// false where no such literal is known, or where its sign cannot be told from the text.
func (a *analysis) literalAt(location int32) (index int32, negative, ok bool) {
	if a.foreign > 0 || location < 0 || int(location) >= len(a.sql) {
		return 0, false, false
	}
	loc := int(location)
	i := sort.Search(len(a.lits), func(i int) bool { return a.lits[i].Start >= loc })
	if i == len(a.lits) {
		return 0, false, false
	}
	for _, c := range stringBytes(a.sql[loc:a.lits[i].Start]) {
		switch {
		case c == '-':
			negative = !negative
		case c != '(' && class[c] != isBlank:
			return 0, false, false
		}
	}
	return int32(i), negative, true
}

// constant reads n as one constant that is equal to a key of type t just when PostgreSQL says
// so: a literal or parameter, as it stands or cast to a type of the same equality.
func (a *analysis) constant(n *pg.Node, t topology.KeyType) (keySource, bool) {
	switch v := n.GetNode().(type) {
	case *pg.Node_AConst:
		return a.literal(v.AConst, t)
	case *pg.Node_ParamRef:
		return keySource{origin: fromParam, keyType: t, index: v.ParamRef.Number - 1}, v.ParamRef.Number > 0
	case *pg.Node_TypeCast:
		name, array := typeName(v.TypeCast.TypeName)
		if array || keyTypeNamed(name) != t {
			return keySource{}, false
		}
		switch v.TypeCast.Arg.GetNode().(type) {
		case *pg.Node_AConst, *pg.Node_ParamRef:
			return a.constant(v.TypeCast.Arg, t)
		}
	case *pg.Node_AExpr:
		return a.signed(v.AExpr, t)
	}
	return keySource{}, false
}

// signed reads -(5::bigint), as -5::bigint binds, and +5. (+'5' is a float8.)
func (a *analysis) signed(e *pg.A_Expr, t topology.KeyType) (keySource, bool) {
	if e.Kind != pg.A_Expr_Kind_AEXPR_OP || e.Lexpr != nil || t != topology.KeyInt {
		return keySource{}, false
	}
	s, ok := a.constant(e.Rexpr, t)
	integer := ok && s.origin == fromLiteral && a.lits[s.index].Kind == Integer
	switch sign := a.operator(e.Name); {
	case sign == "-" && integer:
		s.negative = !s.negative
		return s, true
	case sign == "+" && (integer || ok && e.Rexpr.GetTypeCast() != nil):
		return s, true
	}
	return keySource{}, false
}

func (a *analysis) literal(c *pg.A_Const, t topology.KeyType) (keySource, bool) {
	if c.Isnull {
		return keySource{origin: fromNull, keyType: t}, true
	}
	index, negative, ok := a.literalAt(c.Location)
	if !ok {
		return keySource{}, false
	}
	s := keySource{origin: fromLiteral, keyType: t, negative: negative, index: index}
	switch a.lits[index].Kind {
	case Integer:
		return s, t == topology.KeyInt
	case String, Escape, Dollar, Unicode:
		return s, !negative
	}
	return keySource{}, false
}

// constants reads n as an array of constants: ARRAY[…], '{…}' or a parameter, as it stands or
// cast to an array type of the same equality.
func (a *analysis) constants(n *pg.Node, t topology.KeyType) (keySet, bool) {
	switch v := n.GetNode().(type) {
	case *pg.Node_ParamRef:
		return keySet{{origin: fromArrayParam, keyType: t, index: v.ParamRef.Number - 1}}, v.ParamRef.Number > 0
	case *pg.Node_AConst:
		s, ok := a.literal(v.AConst, t)
		if !ok || s.origin == fromNull {
			return keySet{s}, ok
		}
		if a.lits[s.index].Kind == Integer {
			return nil, false
		}
		s.origin = fromArrayLiteral
		return keySet{s}, true
	case *pg.Node_AArrayExpr:
		return a.constantList(v.AArrayExpr.Elements, t)
	case *pg.Node_TypeCast:
		name, array := typeName(v.TypeCast.TypeName)
		if !array || keyTypeNamed(name) != t {
			return nil, false
		}
		switch v.TypeCast.Arg.GetNode().(type) {
		case *pg.Node_AConst, *pg.Node_ParamRef, *pg.Node_AArrayExpr:
			return a.constants(v.TypeCast.Arg, t)
		}
	}
	return nil, false
}

// constantList reads all nodes as constants. An empty list is none.
func (a *analysis) constantList(nodes []*pg.Node, t topology.KeyType) (keySet, bool) {
	set := make(keySet, len(nodes))
	for i, n := range nodes {
		var ok bool
		if set[i], ok = a.constant(n, t); !ok {
			return nil, false
		}
	}
	return set, len(set) > 0
}

// typeName is the bare name of a built-in type without modifier, and whether it is an array of
// it; "" for any other.
func typeName(t *pg.TypeName) (name string, array bool) {
	if t == nil || t.Setof || t.PctType || len(t.Typmods) > 0 {
		return "", false
	}
	parts := names(t.Names)
	switch {
	case len(parts) == 1, len(parts) == 2 && parts[0] == "pg_catalog":
		return parts[len(parts)-1], len(t.ArrayBounds) > 0
	}
	return "", false
}

// keyTypeNamed says which shard keys a type has the same equality as.
func keyTypeNamed(name string) topology.KeyType {
	switch name {
	case "int2", "int4", "int8":
		return topology.KeyInt
	case "text", "varchar":
		return topology.KeyText
	case "uuid":
		return topology.KeyUUID
	}
	return topology.KeyNone
}

// builtinOperator is the name of a built-in operator, "" where another schema is named.
func builtinOperator(nodes []*pg.Node) string {
	parts := names(nodes)
	switch {
	case len(parts) == 1, len(parts) == 2 && parts[0] == "pg_catalog":
		return parts[len(parts)-1]
	}
	return ""
}

// operator is the name of a built-in operator, "" where it may be another one.
func (a *analysis) operator(nodes []*pg.Node) string {
	name := builtinOperator(nodes)
	if len(nodes) == 1 && a.ownOperator(name) {
		return ""
	}
	return name
}

// ownOperator says that users have an operator of this name for types of shard keys.
func (a *analysis) ownOperator(name string) bool { return a.schema.Operators[name].Keys }

// unseenOperator refuses an operator that may read or change rows.
func (a *analysis) unseenOperator(nodes []*pg.Node) {
	name := last(names(nodes))
	if o, ok := a.schema.Operators[name]; ok && o.Volatility != topology.Immutable && (len(nodes) == 1 || builtinOperator(nodes) == "") {
		a.t.Write = a.t.Write || o.Volatility == topology.Volatile
		a.refuse(&Error{
			Code: codeNotSupported, Message: "operator " + name + " may read or change rows that the proxy cannot see",
			Hint: "Declare its function IMMUTABLE if it reads no table, or name the shard: " + hintComment,
		})
	}
}

// names reads a list of String nodes.
func names(nodes []*pg.Node) []string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = n.GetString_().GetSval()
	}
	return out
}
