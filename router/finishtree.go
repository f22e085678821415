package router

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// transform puts what f gives in the place of the nodes inside m. Where f says false, it goes into the node instead.
func transform(m protoreflect.Message, f func(*pg.Node) (*pg.Node, bool)) {
	inside := func(m protoreflect.Message) (protoreflect.Value, bool) {
		if n, ok := m.Interface().(*pg.Node); ok {
			if other, done := f(n); done {
				return protoreflect.ValueOfMessage(other.ProtoReflect()), true
			}
		}
		transform(m, f)
		return protoreflect.Value{}, false
	}
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range v.List().Len() {
				if other, ok := inside(v.List().Get(i).Message()); ok {
					v.List().Set(i, other)
				}
			}
		default:
			if other, ok := inside(v.Message()); ok {
				m.Set(field, other)
			}
		}
		return true
	})
}

// transformed is a copy of n after transform.
func transformed(n *pg.Node, f func(*pg.Node) (*pg.Node, bool)) *pg.Node {
	if n == nil {
		return nil
	}
	if other, done := f(n); done {
		return other
	}
	n = proto.Clone(n).(*pg.Node)
	transform(n.ProtoReflect(), f)
	return n
}

// unlocated takes all places in the text out of m.
func unlocated[M proto.Message](m M) M {
	m = proto.Clone(m).(M)
	unlocate(m.ProtoReflect())
	return m
}

func unlocate(m protoreflect.Message) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Name() == "location":
			m.Clear(field)
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range v.List().Len() {
				unlocate(v.List().Get(i).Message())
			}
		default:
			unlocate(v.Message())
		}
		return true
	})
}

// exprOf is an expression as a tree.
func exprOf(format string, args ...any) *pg.Node {
	return selectOf("SELECT " + fmt.Sprintf(format, args...)).TargetList[0].GetResTarget().Val
}

// selectOf is a query of our own as a tree.
func selectOf(sql string) *pg.SelectStmt {
	tree, err := pg.Parse(sql)
	if err != nil {
		panic(sql + ": " + err.Error())
	}
	return tree.Stmts[0].Stmt.GetSelectStmt()
}

// deparse writes a query. ok is false where the text would not be read as the same query again.
func deparse(s *pg.SelectStmt) (sql string, ok bool) {
	n := &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: s}}
	tree, err := pg.Parse("SELECT") // has the version of the grammar
	if err != nil {
		return "", false
	}
	tree.Stmts[0].Stmt = n
	sql, err = pg.Deparse(tree)
	if err != nil {
		return "", false
	}
	tree, err = pg.Parse(sql)
	if err != nil || len(tree.Stmts) != 1 {
		return "", false
	}
	return sql, proto.Equal(unlocated(tree.Stmts[0].Stmt), unlocated(n))
}

// renumber numbers the parameters of a query from 1 without a gap, and gives the numbers (0-based) that they had.
func renumber(s *pg.SelectStmt) []int {
	var used []int
	each := func(visit func(*pg.ParamRef)) {
		transform(s.ProtoReflect(), func(n *pg.Node) (*pg.Node, bool) {
			if p := n.GetParamRef(); p != nil {
				visit(p)
			}
			return n, false
		})
	}
	each(func(p *pg.ParamRef) { used = append(used, int(p.Number)-1) })
	slices.Sort(used)
	used = slices.Compact(used)
	seen := map[*pg.ParamRef]bool{} // one may stand at two places
	each(func(p *pg.ParamRef) {
		if !seen[p] {
			seen[p] = true
			at, _ := slices.BinarySearch(used, int(p.Number)-1)
			p.Number = int32(at) + 1
		}
	})
	return used
}

// contains says whether a node for which is holds stands in n.
func contains(n *pg.Node, is func(*pg.Node) bool) bool {
	found := false
	walk(n, func(n *pg.Node) { found = found || is(n) })
	return found
}

func isSubLink(n *pg.Node) bool { return n.GetSubLink() != nil }

// bareName is the name of a column reference that is nothing else, "" for all others.
func bareName(n *pg.Node) string {
	if c := n.GetColumnRef(); c != nil && len(c.Fields) == 1 {
		return c.Fields[0].GetString_().GetSval()
	}
	return ""
}

// ordinal is the number of a target that stands for it in GROUP BY, ORDER BY or DISTINCT ON, 0 for all else.
func ordinal(n *pg.Node) int {
	if v, ok := n.GetAConst().GetVal().(*pg.A_Const_Ival); ok {
		return int(v.Ival.Ival)
	}
	return 0
}

// isStar says that a target is * or relation.*.
func isStar(n *pg.Node) bool {
	v := n.GetResTarget().GetVal()
	if i := v.GetAIndirection(); i != nil {
		return i.Indirection[len(i.Indirection)-1].GetAStar() != nil
	}
	c := v.GetColumnRef()
	return c != nil && c.Fields[len(c.Fields)-1].GetAStar() != nil
}
