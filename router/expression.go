package router

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// expressions reads each node for what is nested in it.
func (a *analysis) expressions(nodes []*pg.Node, sc *scope) {
	for _, n := range nodes {
		a.expression(n, sc)
	}
}

// expression reads an expression for what is nested in it: sub-queries, functions, parameters.
// Each part of a statement is read exactly once, as each sub-query adds its tables.
func (a *analysis) expression(n *pg.Node, sc *scope) {
	switch v := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		a.systemColumn(v.ColumnRef)
		if a.part != nil {
			a.part.column(v.ColumnRef, sc)
		}
	case nil, *pg.Node_AConst, *pg.Node_String_, *pg.Node_SetToDefault:
	case *pg.Node_ParamRef:
		a.t.Params = max(a.t.Params, int(v.ParamRef.Number))
		a.mark(n, topology.KeyNone, false)
	case *pg.Node_List:
		a.expressions(v.List.Items, sc)
	case *pg.Node_AExpr:
		a.unseenOperator(v.AExpr.Name)
		a.compared(v.AExpr, sc)
		a.expression(v.AExpr.Lexpr, sc)
		a.expression(v.AExpr.Rexpr, sc)
	case *pg.Node_BoolExpr:
		a.expressions(v.BoolExpr.Args, sc)
	case *pg.Node_TypeCast:
		a.expression(v.TypeCast.Arg, sc)
		a.cast(v.TypeCast)
	case *pg.Node_ResTarget:
		a.expressions(v.ResTarget.Indirection, sc)
		a.expression(v.ResTarget.Val, sc)
	case *pg.Node_SubLink:
		a.subquery(v.SubLink, sc)
	case *pg.Node_SelectStmt:
		a.query(n, sc, sc.ctes, &level{})
	case *pg.Node_SqlvalueFunction:
		a.valueFunction(v.SqlvalueFunction)
	case *pg.Node_CurrentOfExpr:
		a.cursor = v.CurrentOfExpr.CursorName
	case *pg.Node_FuncCall:
		a.function(v.FuncCall, sc)
		a.children(v.FuncCall, sc)
	case *pg.Node_CaseExpr:
		a.expression(v.CaseExpr.Arg, sc)
		a.expressions(v.CaseExpr.Args, sc)
		a.expression(v.CaseExpr.Defresult, sc)
	case *pg.Node_CaseWhen:
		a.expression(v.CaseWhen.Expr, sc)
		a.expression(v.CaseWhen.Result, sc)
	case *pg.Node_NullTest:
		a.expression(v.NullTest.Arg, sc)
	case *pg.Node_SortBy:
		a.expression(v.SortBy.Node, sc)
	default:
		a.children(n, sc)
	}
}

// systemColumn notes ctid and its like: what they hold, a row has on its own server only.
func (a *analysis) systemColumn(c *pg.ColumnRef) {
	name := c.Fields[len(c.Fields)-1].GetString_().GetSval()
	if systemColumns[name] {
		a.alone("column " + name + " means something else on each shard")
		a.diverge("column " + name + " means something else on each shard")
	}
}

// children reads all nodes inside a message of any type, so that nothing nested in a kind of
// expression that we do not know by name is overlooked.
func (a *analysis) children(m proto.Message, sc *scope) {
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				a.child(v.List().Get(i).Message(), sc)
			}
		default:
			a.child(v.Message(), sc)
		}
		return true
	})
}

func (a *analysis) child(m protoreflect.Message, sc *scope) {
	switch v := m.Interface().(type) {
	case *pg.Node:
		a.expression(v, sc)
	case *pg.SelectStmt:
		a.selectStmt(v, sc, sc.ctes, &level{})
	default:
		a.children(v, sc)
	}
}

// subquery reads a sub-query inside an expression.
func (a *analysis) subquery(s *pg.SubLink, sc *scope) rowset {
	a.unseenOperator(s.OperName)
	a.expression(s.Testexpr, sc)
	return a.query(s.Subselect, sc, sc.ctes, &level{})
}

// walk calls visit for n and all nodes inside it.
func walk(n *pg.Node, visit func(*pg.Node)) {
	if n == nil {
		return
	}
	visit(n)
	walkMessage(n.ProtoReflect(), visit)
}

func walkMessage(m protoreflect.Message, visit func(*pg.Node)) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		inside := func(m protoreflect.Message) {
			if n, ok := m.Interface().(*pg.Node); ok {
				walk(n, visit)
			} else {
				walkMessage(m, visit)
			}
		}
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				inside(v.List().Get(i).Message())
			}
		default:
			inside(v.Message())
		}
		return true
	})
}
