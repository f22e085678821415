package router

import (
	"encoding/binary"
	"reflect"
	"slices"
	"testing"

	"shardproxy/topology"
)

func templateOf(t testing.TB, snap *topology.Snapshot, sql string) (*Template, *Args) {
	t.Helper()
	r, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	var sc Scratch
	tpl, err := r.Template(snap, &Env{ID: 1, SearchPath: []string{"public"}, StdStrings: true}, sql, &sc)
	if err != nil {
		t.Fatal(err)
	}
	return tpl, &Args{SQL: sql, Literals: sc.Literals}
}

// param is one parameter of one declared type.
type param struct {
	value  []byte
	binary bool
	oid    uint32
}

type paramList []param

func (p paramList) Param(i int) (value []byte, binary, null, ok bool) {
	if i >= len(p) {
		return nil, false, false, false
	}
	return p[i].value, p[i].binary, p[i].value == nil, true
}

func (p paramList) ParamType(i int) uint32 { return p[i].oid }

func int8Array(oid uint32, values ...int64) []byte {
	b := binary.BigEndian.AppendUint32(nil, 1)
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, oid)
	b = binary.BigEndian.AppendUint32(b, uint32(len(values)))
	b = binary.BigEndian.AppendUint32(b, 1)
	for _, v := range values {
		b = binary.BigEndian.AppendUint32(b, 8)
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

func TestRouteParameters(t *testing.T) {
	snap := testSnapshot(t)
	owners := func(keys ...int64) []topology.ShardID {
		var list []topology.ShardID
		for _, k := range keys {
			list = addShard(list, 0, snap.Owner(topology.HashInt(k)))
		}
		slices.Sort(list)
		return list
	}
	const single, array = "SELECT * FROM users WHERE id = $1", "SELECT * FROM users WHERE id = ANY ($1)"
	for _, c := range []struct {
		sql  string
		p    param
		want []topology.ShardID // nil: refused
	}{
		{single, param{[]byte("5"), false, 0}, owners(5)},
		{single, param{[]byte{0, 0, 0, 0, 0, 0, 0, 5}, true, 0}, owners(5)},
		{single, param{[]byte{0, 0, 0, 5}, true, oidInt4}, owners(5)},
		{single, param{[]byte("5"), false, oidNumeric}, nil},
		{single, param{[]byte("5"), false, 701}, nil}, // float8
		{single, param{nil, false, 0}, []topology.ShardID{0}},
		{single, param{[]byte("x"), false, 0}, []topology.ShardID{0}},
		{array, param{[]byte("{1,2,3,4}"), false, 0}, owners(1, 2, 3, 4)},
		{array, param{[]byte(` { 1 , "2",null } `), false, 1016}, owners(1, 2)},
		{array, param{[]byte("{}"), false, 0}, []topology.ShardID{0}},
		{array, param{nil, false, 0}, []topology.ShardID{0}},
		{array, param{[]byte("[0:1]={1,2}"), false, 0}, nil},
		{array, param{[]byte("{1,2"), false, 0}, nil},
		{array, param{[]byte("{1,2}"), false, 1231}, nil}, // numeric[]
		{array, param{int8Array(oidInt8, 1, 2, 5), true, 1016}, owners(1, 2, 5)},
		{array, param{int8Array(oidInt8, 1, 2, 5), true, 0}, owners(1, 2, 5)},
		{array, param{int8Array(701, 1), true, 0}, nil},
		{array, param{int8Array(oidInt8, 1, 2)[:30], true, 0}, nil},
		{array, param{[]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20}, true, 0}, []topology.ShardID{0}},
	} {
		tpl, args := templateOf(t, snap, c.sql)
		args.Params = paramList{c.p}
		got, err := tpl.Route(snap, args, nil)
		if c.want == nil && err == nil || c.want != nil && (err != nil || !slices.Equal(got, c.want)) {
			t.Errorf("%s with %q (binary %v, type %d): %v, %v, want %v", c.sql, c.p.value, c.p.binary, c.p.oid, got, err, c.want)
		}
	}
}

// TestRouteAppends: what dst held before stays, and does not count as a shard of the statement.
func TestRouteAppends(t *testing.T) {
	snap := testSnapshot(t)
	tpl, args := templateOf(t, snap, "SELECT count(*) FROM users WHERE id = 5")
	got, err := tpl.Route(snap, args, []topology.ShardID{3, 0})
	if err != nil || !slices.Equal(got, []topology.ShardID{3, 0, 1}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestRouteDoesNotAllocate(t *testing.T) {
	snap := testSnapshot(t)
	literal, args := templateOf(t, snap, "SELECT * FROM notes WHERE user_id = 'bob'")
	parameter, pargs := templateOf(t, snap, "UPDATE users SET email = $2 WHERE id = $1")
	pargs.Params = paramList{{[]byte("5"), false, 0}, {[]byte("x"), false, 0}}
	insert, iargs := templateOf(t, snap, "INSERT INTO users (id) VALUES (5)")
	dst := make([]topology.ShardID, 0, 4)
	for name, run := range map[string]func(){
		"literal":   func() { dst, _ = literal.Route(snap, args, dst[:0]) },
		"parameter": func() { dst, _ = parameter.Route(snap, pargs, dst[:0]) },
		"insert":    func() { dst, _ = insert.Route(snap, iargs, dst[:0]) },
	} {
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkRoute(b *testing.B) {
	snap := testSnapshot(b)
	tpl, args := templateOf(b, snap, "SELECT * FROM users WHERE id = $1")
	args.Params = paramList{{[]byte("123456"), false, 0}}
	dst := make([]topology.ShardID, 0, 4)
	b.ReportAllocs()
	for b.Loop() {
		dst, _ = tpl.Route(snap, args, dst[:0])
	}
}

func BenchmarkAnalyse(b *testing.B) {
	snap := testSnapshot(b)
	sql := "SELECT u.id, p.title FROM users u JOIN projects p ON p.creator_user_id = u.id WHERE u.id = 5 AND p.title LIKE 'a%' ORDER BY 2 LIMIT 10"
	var sc Scratch
	env := &Env{SearchPath: []string{"public"}, StdStrings: true}
	normalise(&sc, sql, env, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := analyse(snap, env, sql, sc.Literals); err != nil {
			b.Fatal(err)
		}
	}
}

// TestPieces: the keys 1, 2 and 5 are on the shards 3, 0 and 1.
func TestPieces(t *testing.T) {
	snap := testSnapshot(t)
	for _, c := range []struct {
		sql    string
		params paramList
		want   []Piece
	}{
		{"INSERT INTO users (id, email) VALUES (1, 'a, (b)'), (2, 'c'),(1, ')')", nil, []Piece{
			{0, "INSERT INTO users (id, email) VALUES (2, 'c')", nil, []int{1}},
			{3, "INSERT INTO users (id, email) VALUES (1, 'a, (b)'), (1, ')')", nil, []int{0, 2}},
		}},
		{"/* VALUES (0) */ WITH values AS (SELECT 1), x(a) AS (VALUES (7)) INSERT INTO users AS values (id, email) VALUES (2, (SELECT max('x'))), (1, 'y') ON CONFLICT (id) DO UPDATE SET email = (VALUES ('q')) ;", nil, []Piece{
			{0, "/* VALUES (0) */ WITH values AS (SELECT 1), x(a) AS (VALUES (7)) INSERT INTO users AS values (id, email) VALUES (2, (SELECT max('x'))) ON CONFLICT (id) DO UPDATE SET email = (VALUES ('q')) ;", nil, []int{0}},
			{3, "/* VALUES (0) */ WITH values AS (SELECT 1), x(a) AS (VALUES (7)) INSERT INTO users AS values (id, email) VALUES (1, 'y') ON CONFLICT (id) DO UPDATE SET email = (VALUES ('q')) ;", nil, []int{1}},
		}},
		{
			"INSERT INTO users (id, email) VALUES ($1, $2), ($3, $4), ($5, $2) RETURNING id = $6",
			paramList{{[]byte("1"), false, 0}, {[]byte("a"), false, 0}, {[]byte("2"), false, 0}, {[]byte("b"), false, 0}, {[]byte("5"), false, 0}, {[]byte("9"), false, 0}},
			[]Piece{
				{0, "INSERT INTO users (id, email) VALUES ($1, $2) RETURNING id = $3", []int{2, 3, 5}, []int{1}},
				{1, "INSERT INTO users (id, email) VALUES ($1, $2) RETURNING id = $3", []int{4, 1, 5}, []int{2}},
				{3, "INSERT INTO users (id, email) VALUES ($1, $2) RETURNING id = $3", []int{0, 1, 5}, []int{0}},
			},
		},
	} {
		tpl, args := templateOf(t, snap, c.sql)
		if c.params != nil {
			args.Params = c.params
		}
		got, err := tpl.Split(snap, args)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s\n got: %+v %v\nwant: %+v", c.sql, got, err, c.want)
		}
	}
}

func TestPiecesRefused(t *testing.T) {
	snap := testSnapshot(t)
	tpl, args := templateOf(t, snap, "INSERT INTO users (id) VALUES (1), (2) ON CONFLICT DO NOTHING RETURNING id")
	if pieces, err := tpl.Split(snap, args); err == nil || err.Code != "0A000" {
		t.Errorf("got %v, %v", pieces, err)
	}
	tpl, args = templateOf(t, snap, "INSERT INTO users (id) VALUES ($1), (2)")
	args.Params = paramList{{nil, false, 0}}
	if pieces, err := tpl.Split(snap, args); err == nil || err.Code != "23502" {
		t.Errorf("got %v, %v", pieces, err)
	}
}

// TestPiecesWithEscapes: the rows are found again in a text whose '…' literals have escapes.
func TestPiecesWithEscapes(t *testing.T) {
	snap := testSnapshot(t)
	sql := `INSERT INTO users (id, email) VALUES (1, '\'), (2'), (2, 'b')`
	r, _ := New(DefaultConfig())
	var sc Scratch
	tpl, err := r.Template(snap, &Env{ID: 9, SearchPath: []string{"public"}}, sql, &sc)
	if err != nil {
		t.Fatal(err)
	}
	got, refused := tpl.Split(snap, &Args{SQL: sql, Literals: sc.Literals})
	want := []Piece{
		{0, `INSERT INTO users (id, email) VALUES (2, 'b')`, nil, []int{1}},
		{3, `INSERT INTO users (id, email) VALUES (1, '\'), (2')`, nil, []int{0}},
	}
	if refused != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, refused)
	}
}
