package router

import (
	"strings"
	"testing"

	pg_query "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// nesting is how deep the messages of a parse tree hold each other.
func nesting(m protoreflect.Message) int {
	deepest := 0
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case field.Message() == nil:
		case field.IsList():
			for i := range v.List().Len() {
				deepest = max(deepest, nesting(v.List().Get(i).Message()))
			}
		default:
			deepest = max(deepest, nesting(v.Message()))
		}
		return true
	})
	return deepest + 1
}

// guardedDepth is the least limit under which sql passes the guard.
func guardedDepth(sql string) int {
	low, high := 0, len(sql)+1
	for low < high {
		mid := (low + high) / 2
		if guard(sql, true, mid) == nil {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low
}

// FuzzGuard holds what the guard counts against the tree that the parser builds: a token of the
// count may stand for two levels of messages, a bracket with a sub-select in it for six, and a
// statement has some of its own. A statement whose tree is deeper slips through the guard.
func FuzzGuard(f *testing.F) {
	const frame, perToken = 24, 6
	for _, shape := range deepShapes {
		f.Add(shape.build(40))
	}
	for _, sql := range whole {
		f.Add(sql)
	}
	for i, a := range deepShapes { // one within the other
		b := deepShapes[(i*7+3)%len(deepShapes)]
		f.Add(strings.Replace(a.build(12), "1", "("+b.build(12)+")", 1))
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if len(sql) > 20_000 || strings.Contains(sql, "\x00") || guard(sql, true, 300) != nil {
			return
		}
		tree, err := pg_query.Parse(sql)
		if err != nil {
			return
		}
		if deep, counted := nesting(tree.ProtoReflect()), guardedDepth(sql); deep > frame+perToken*counted {
			t.Fatalf("the guard counts %d, the tree is %d deep: %q", counted, deep, sql)
		}
	})
}
