package router

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// paramUse is what one place of a statement says of a parameter's type: that it is, or is an array of,
// one of the types of shard keys. The zero value says nothing.
//
// A parameter whose type the client does not declare gets it from the place that the server reads first.
// Where all places say the same, that is the type; else it is "mixed", and only such values are taken
// for a key as mean the same in any type.
type paramUse struct {
	keyType topology.KeyType
	array   bool
}

// mark notes what the place of n says, if n is a parameter, or a list of constants with parameters in it.
func (a *analysis) mark(n *pg.Node, t topology.KeyType, array bool) {
	switch v := n.GetNode().(type) {
	case *pg.Node_ParamRef:
		if use := a.params[v.ParamRef]; use == (paramUse{}) {
			a.params[v.ParamRef] = paramUse{t, array && t != topology.KeyNone}
		}
	case *pg.Node_List:
		for _, item := range v.List.Items {
			a.mark(item, t, false)
		}
	case *pg.Node_AArrayExpr:
		for _, item := range v.AArrayExpr.Elements {
			a.mark(item, t, false)
		}
	}
}

// compared notes that a parameter is compared with a column.
func (a *analysis) compared(e *pg.A_Expr, sc *scope) {
	switch e.Kind {
	case pg.A_Expr_Kind_AEXPR_OP, pg.A_Expr_Kind_AEXPR_DISTINCT, pg.A_Expr_Kind_AEXPR_NOT_DISTINCT:
	default:
		return
	}
	switch a.operator(e.Name) {
	case "=", "<>", "<", ">", "<=", ">=":
		a.comparedWith(e.Lexpr, e.Rexpr, sc)
		a.comparedWith(e.Rexpr, e.Lexpr, sc)
	}
}

func (a *analysis) comparedWith(param, column *pg.Node, sc *scope) {
	if param.GetParamRef() == nil {
		return
	}
	if ref, ok := sc.resolve(column); ok && ref.node != nil {
		a.mark(param, ref.node.keyType, false)
	}
}

// markMixed marks the keys of the Template that are mixed parameters.
func (a *analysis) markMixed() {
	if len(a.params) == 0 {
		return
	}
	uses, mixed := map[int32]paramUse{}, map[int32]bool{}
	for ref, use := range a.params {
		i := ref.Number - 1
		if other, ok := uses[i]; use == (paramUse{}) || ok && other != use {
			mixed[i] = true
		}
		uses[i] = use
	}
	for _, set := range append(a.t.keys[:len(a.t.keys):len(a.t.keys)], a.t.rows) {
		for j := range set {
			s := &set[j]
			s.mixed = mixed[s.index] && (s.origin == fromParam || s.origin == fromArrayParam)
		}
	}
}
