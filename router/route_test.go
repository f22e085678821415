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

// TestMixedParameters: a parameter whose type the server may take from another place than the key's.
func TestMixedParameters(t *testing.T) {
	snap := testSnapshot(t)
	five, binary5 := param{[]byte("5"), false, 0}, param{[]byte{0, 0, 0, 0, 0, 0, 0, 5}, true, 0}
	declared := param{binary5.value, true, oidInt8}
	const once, twice, mixed = "SELECT * FROM users WHERE id = $1", "SELECT * FROM users u JOIN tasks t ON t.user_id = u.id WHERE u.id = $1 AND t.id = $1::int",
		"SELECT * FROM projects WHERE budget = $1 AND creator_user_id = $1"
	for _, c := range []struct {
		sql string
		p   param
		ok  bool
	}{
		{once, five, true},
		{once, binary5, true},
		{once, param{[]byte("5.0"), false, 0}, true}, // bigint is certain, which refuses it
		{twice, binary5, true},
		{mixed, five, true},
		{mixed, binary5, false},
		{mixed, declared, true},
		{mixed, param{[]byte("5.0"), false, 0}, false},
		{mixed, param{[]byte("16777217"), false, 0}, false}, // not as a real
		{mixed, param{[]byte("16777217"), false, oidInt8}, true},
		{"SELECT * FROM projects WHERE creator_user_id IN ($1, 2.5) AND creator_user_id = $1", binary5, false},
		{"SELECT * FROM projects WHERE (creator_user_id, id) IN (($1, 2), ($1, $1))", binary5, true},
		{"SELECT * FROM tasks WHERE user_id = $1 AND id = ANY (ARRAY[1, $1])", binary5, true},
		{"SELECT * FROM users u JOIN tasks t ON t.user_id = u.id WHERE u.id = $1 AND ($1 < t.id OR t.id <> $1)", binary5, true},
		{"SELECT * FROM users WHERE id = $1 AND $1 + 1 > 0", binary5, false},
		{"INSERT INTO projects (id, creator_user_id) VALUES ($1, $1)", binary5, true},
		{"INSERT INTO projects (budget, creator_user_id) VALUES ($1, $1)", binary5, false},
		{"UPDATE projects SET id = $1 WHERE creator_user_id = $1", binary5, true},
		{"UPDATE projects SET budget = $1 WHERE creator_user_id = $1", binary5, false},
		{"SELECT * FROM users WHERE id = ANY ($1) ORDER BY array_position($1, id)", param{int8Array(oidInt8, 5), true, 0}, true},
		{"SELECT * FROM notes WHERE body = $1 AND user_id = $1", param{[]byte("x "), false, 0}, true},
		{"SELECT * FROM notes WHERE to_tsvector($1) IS NULL AND user_id = $1", param{[]byte("x"), false, 0}, true},
		{"SELECT * FROM notes WHERE to_tsvector($1) IS NULL AND user_id = $1", param{[]byte("x "), false, 0}, false},
		{"SELECT * FROM notes WHERE to_tsvector($1) IS NULL AND user_id = $1", param{[]byte("x "), false, oidText}, true},
	} {
		tpl, args := templateOf(t, snap, c.sql)
		args.Params = paramList{c.p}
		if tpl.Kind != Keyed && tpl.Kind != Insert {
			t.Errorf("%s: %v, %v", c.sql, tpl.Kind, tpl.Reason)
			continue
		}
		if _, err := tpl.Route(snap, args, nil); (err == nil) != c.ok {
			t.Errorf("%s with %q (binary %v, type %d): %v", c.sql, c.p.value, c.p.binary, c.p.oid, err)
		}
	}
}

// TestForeignEncoding: bytes beyond ASCII are not those that the server hashes.
func TestForeignEncoding(t *testing.T) {
	snap := testSnapshot(t)
	for _, c := range []struct {
		sql string
		p   string
		ok  bool
	}{
		{"SELECT * FROM notes WHERE user_id = 'ann' AND body = 'ü'", "", true},
		{"SELECT * FROM notes WHERE user_id = E'\\u00fc'", "", true}, // the server decodes it in its own encoding
		{"SELECT * FROM notes WHERE user_id = 'ü'", "", false},
		{"SELECT * FROM notes WHERE user_id = ANY ('{a,ü}')", "", false},
		{"SELECT * FROM notes WHERE user_id = ANY ('{a,b}')", "", true},
		{"SELECT * FROM notes WHERE user_id IN ('a', 'ü')", "", false},
		{"SELECT * FROM notes WHERE user_id = $1", "ann", true},
		{"SELECT * FROM notes WHERE user_id = $1", "ü", false},
		{"SELECT * FROM notes WHERE user_id = ANY ($1)", "{a,ü}", false},
		{"INSERT INTO notes (id, user_id) VALUES (1, 'ü')", "", false},
		{"SELECT * FROM users WHERE id = '5' AND name = 'ü'", "", true},
		{"/* shardproxy: key='ü' */ SELECT 1", "", false},
		{"/* shardproxy: key=ann */ SELECT 'ü'", "", true},
	} {
		tpl, args := templateOf(t, snap, c.sql)
		args.Params, args.Foreign = testParams{c.p}, true
		_, err := tpl.Route(snap, args, nil)
		if (err == nil) != c.ok || err != nil && err.Code != "0A000" {
			t.Errorf("%s with %q: %v", c.sql, c.p, err)
		}
		args.Foreign = false
		if _, err := tpl.Route(snap, args, nil); err != nil {
			t.Errorf("%s with %q in the server's encoding: %v", c.sql, c.p, err)
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
	tpl, args = templateOf(t, snap, "INSERT INTO loose (user_id) VALUES ($1), (2)")
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
