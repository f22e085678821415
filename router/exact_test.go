package router

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/pgtest"
	"shardproxy/topology"
)

// cluster is one database with all rows and four with those of a shard each, as testSchema has them.
type cluster struct {
	snap   *topology.Snapshot
	router *Router
	whole  *pgx.Conn
	shards []*pgx.Conn

	owned    int                          // texts that Owned has changed
	finished int                          // statements that were run by a Finish
	foreign  map[*topology.Table][]string // rows that count elsewhere: nothing may change them
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	return newClusterOf(t, testSnapshot(t))
}

// newClusterOf makes a cluster by a map. A shard has the rows too that the map calls foreign to it.
func newClusterOf(t *testing.T, snap *topology.Snapshot) *cluster {
	t.Helper()
	server := pgtest.Shared(t)
	c := &cluster{snap: snap}
	r, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	c.router = r
	c.whole = server.Connect(t, server.CreateDatabase(t))
	for range c.snap.Shards {
		c.shards = append(c.shards, server.Connect(t, server.CreateDatabase(t)))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, conn := range append([]*pgx.Conn{c.whole}, c.shards...) {
		mustExec(t, conn, "CREATE SCHEMA app; CREATE FUNCTION slug(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1'")
	}
	for _, table := range c.sorted() {
		if !placed(table) || table.Problem != "" {
			continue
		}
		c.create(t, table)
		for i := range 40 {
			c.fill(t, table, i, rng)
		}
	}
	for _, table := range c.sorted() {
		if table.Kind == topology.View && !table.Stored {
			for _, conn := range append([]*pgx.Conn{c.whole}, c.shards...) {
				mustExec(t, conn, "CREATE VIEW public."+table.Name+" AS "+table.Definition)
			}
		}
	}
	return c
}

func (c *cluster) sorted() []*topology.Table {
	var list []*topology.Table
	for _, t := range c.snap.Schema.Tables {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b *topology.Table) int { return strings.Compare(a.Name, b.Name) })
	return list
}

var testTypes = map[uint32]string{oidInt8: "bigint", oidInt4: "integer", oidText: "text", oidUUID: "uuid", oidNumeric: "numeric", oidTimestamp: "timestamptz", 1042: "char(4)", oidVarchar: "varchar"}

func tableSQL(t *topology.Table) string {
	return pgx.Identifier{t.Schema, t.Name}.Sanitize()
}

func (c *cluster) create(t *testing.T, table *topology.Table) {
	t.Helper()
	var columns []string
	for _, col := range table.Columns {
		def := pgx.Identifier{col.Name}.Sanitize() + " " + testTypes[col.Type]
		if col.Length > 0 {
			def += fmt.Sprintf("(%d)", col.Length)
		}
		if col.NotNull {
			def += " NOT NULL"
		}
		columns = append(columns, def)
	}
	sql := "CREATE TABLE " + tableSQL(table) + " (" + strings.Join(columns, ", ") + ")"
	switch table.Name {
	case "facts":
		sql = factsTable
	case "users":
		sql += "; ALTER TABLE users ADD PRIMARY KEY (id)"
	case "countries":
		sql += "; ALTER TABLE countries ADD PRIMARY KEY (code)"
	}
	for _, conn := range append([]*pgx.Conn{c.whole}, c.shards...) {
		mustExec(t, conn, sql)
	}
}

// fill inserts row i, everywhere it belongs.
func (c *cluster) fill(t *testing.T, table *topology.Table, i int, rng *rand.Rand) {
	t.Helper()
	values := make([]any, len(table.Columns))
	var hash topology.KeyHash
	for j, col := range table.Columns {
		small := rng.IntN(8)
		unique := table.Name == "users" && (j == 0 || j == 1) || table.Name == "countries" && j == 0
		if unique {
			small = i
		} else if !col.NotNull && rng.IntN(6) == 0 {
			continue // NULL
		}
		switch col.Type {
		case oidInt8, oidInt4, oidNumeric:
			values[j] = int64(small)
		case oidUUID:
			values[j] = fmt.Sprintf("11111111-2222-3333-4444-%012d", small)
		case oidTimestamp:
			values[j] = fmt.Sprintf("2020-01-%02d", small+1)
		case oidFact:
			values[j] = fact(col.Name, i, rng)
		default:
			values[j] = string(rune('a' + small%26))
			if small >= 26 {
				values[j] = fmt.Sprintf("z%d", small)
			}
		}
		if table.Kind == topology.Sharded && j == table.Key {
			var state keyState
			if hash, state = hashInput(table.KeyType, []byte(fmt.Sprint(values[j])), 0); state != keyOK {
				t.Fatalf("key %v of %v", values[j], table)
			}
		}
	}
	marks := make([]string, len(values))
	for j := range marks {
		marks[j] = fmt.Sprintf("$%d::text::%s", j+1, testTypes[table.Columns[j].Type])
		if table.Name == "facts" && j > 0 {
			marks[j] = fmt.Sprintf("$%d", j+1)
		}
		if values[j] != nil {
			values[j] = fmt.Sprint(values[j])
		}
	}
	sql := "INSERT INTO " + tableSQL(table) + " VALUES (" + strings.Join(marks, ", ") + ")"
	mustExec(t, c.whole, sql, values...)
	for i, conn := range c.shards {
		twice := table.Kind == topology.Sharded && values[table.Key] != nil && isForeign(c.snap, topology.ShardID(i), hash)
		if table.Kind == topology.Reference || c.snap.Owner(hash) == topology.ShardID(i) || twice {
			mustExec(t, conn, sql, values...)
		}
	}
}

func mustExec(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(context.Background(), sql, append([]any{pgx.QueryExecModeSimpleProtocol}, args...)...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// check runs a statement as its plan says, and on the database with all rows, and compares what both
// give and leave behind. It reports whether the plan ran at all.
func (c *cluster) check(t *testing.T, sql string, params testParams) bool {
	t.Helper()
	var sc Scratch
	tpl, err := c.router.Template(c.snap, &Env{ID: 1, SearchPath: []string{"public"}, StdStrings: true}, sql, &sc)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	args := &Args{SQL: sql, Literals: sc.Literals}
	var values []any
	if params != nil {
		args.Params = params
		for _, p := range params {
			if v := strings.TrimSpace(p); v == "NULL" {
				values = append(values, nil)
			} else {
				values = append(values, v)
			}
		}
	}
	pieces, ok := c.pieces(t, tpl, args)
	if !ok || len(tpl.Unknown) > 0 {
		return false
	}
	ctx := context.Background()
	begin := func(conn *pgx.Conn) { mustExec(t, conn, "BEGIN") }
	begin(c.whole)
	for _, conn := range c.shards {
		begin(conn)
	}
	defer func() {
		for _, conn := range append([]*pgx.Conn{c.whole}, c.shards...) {
			mustExec(t, conn, "ROLLBACK")
		}
	}()
	if len(pieces) > 1 && tpl.Kind != Insert && !tpl.Finishes() {
		for i := range pieces {
			o, refused := tpl.Owned(pieces[i].SQL, c.snap.Foreign(pieces[i].Shard))
			if refused != nil {
				return false
			}
			if o.SQL != sql {
				pieces[i].SQL = o.SQL
				c.owned++
			}
		}
	}
	if len(pieces) > 1 && tpl.Finishes() {
		return c.checkFinish(t, tpl, sql, pieces, values)
	}
	columns, want, wantErr := answerOf(ctx, c.whole, sql, values)
	var got []string
	var gotErr error
	for i, p := range pieces {
		described, rows, err := answerOf(ctx, c.shards[p.Shard], p.SQL, values)
		if err == nil && wantErr == nil && !slices.Equal(described, columns) {
			t.Errorf("%s\n%s\nhas columns %q, want %q", sql, p.SQL, described, columns)
		}
		if gotErr = errors.Join(gotErr, err); tpl.Kind != All || i == 0 {
			got = append(got, rows...)
		}
	}
	if wantErr != nil || gotErr != nil {
		if code(wantErr) != code(gotErr) {
			t.Errorf("%s\n%s %v: error %v, want %v", sql, tpl.Kind, pieces, gotErr, wantErr)
		}
		return true
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s\n%s on %v gave %d rows, want %d\n got: %.300q\nwant: %.300q", sql, tpl.Kind, shardsOf(pieces), len(got), len(want), got, want)
	}
	if tpl.Write {
		c.compareTables(t, sql, tpl)
	}
	for _, table := range tpl.Tables {
		if tpl.Write && !slices.Equal(c.foreignRows(t, table), c.foreign[table]) {
			t.Errorf("%s\n%s on %v changed rows of %v that count elsewhere", sql, tpl.Kind, shardsOf(pieces), table)
		}
	}
	return true
}

func (c *cluster) pieces(t *testing.T, tpl *Template, args *Args) (pieces []Piece, ok bool) {
	switch tpl.Kind {
	case Any, Keyed, Insert:
		shards, err := tpl.Route(c.snap, args, nil)
		if err != nil {
			return nil, false
		}
		if len(shards) > 1 && tpl.Kind == Insert {
			if pieces, err = tpl.Split(c.snap, args); err != nil {
				t.Errorf("%s: %v", args.SQL, err)
			}
			return pieces, true
		}
		for _, s := range shards {
			pieces = append(pieces, Piece{Shard: s, SQL: args.SQL})
		}
	case Scatter, All:
		for i := range c.shards {
			pieces = append(pieces, Piece{Shard: topology.ShardID(i), SQL: args.SQL})
		}
	default:
		return nil, false
	}
	return pieces, true
}

func shardsOf(pieces []Piece) (shards []topology.ShardID) {
	for _, p := range pieces {
		shards = append(shards, p.Shard)
	}
	return shards
}

func rowsOf(ctx context.Context, conn *pgx.Conn, sql string, values []any) ([]string, error) {
	_, rows, err := answerOf(ctx, conn, sql, values)
	return rows, err
}

// answerOf gives the columns and the rows of an answer.
func answerOf(ctx context.Context, conn *pgx.Conn, sql string, values []any) (columns, list []string, err error) {
	mode := pgx.QueryExecModeSimpleProtocol
	rows, err := conn.Query(ctx, sql, append([]any{mode}, values...)...)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	list = []string{}
	for _, f := range rows.FieldDescriptions() {
		const firstOwn = 16384 // of the types that a database made itself, differently from others
		columns = append(columns, fmt.Sprintf("%s %d %d %d", f.Name, min(f.DataTypeOID, firstOwn), f.TypeModifier, f.TableAttributeNumber))
	}
	for rows.Next() {
		var line strings.Builder
		for _, v := range rows.RawValues() {
			fmt.Fprintf(&line, "%v|", v)
			if v != nil {
				line.Write(v)
			}
		}
		list = append(list, line.String())
	}
	return columns, list, rows.Err()
}

// code is the SQLSTATE of the first error of PostgreSQL in err.
func code(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

// compareTables compares what a write left behind.
func (c *cluster) compareTables(t *testing.T, sql string, tpl *Template) {
	t.Helper()
	ctx := context.Background()
	for _, table := range tpl.Tables {
		if !placed(table) {
			continue
		}
		query := "SELECT x FROM " + tableSQL(table) + " x"
		want, err := rowsOf(ctx, c.whole, query, nil)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(want)
		var got []string
		for i, conn := range c.shards {
			rows, err := rowsOf(ctx, conn, query+c.ownedSQL(table, topology.ShardID(i)), nil)
			if err != nil {
				t.Fatal(err)
			}
			if table.Kind == topology.Reference {
				if slices.Sort(rows); !slices.Equal(rows, want) {
					t.Errorf("%s\nshard %d has other rows of %v", sql, i, table.TableName)
				}
				continue
			}
			got = append(got, rows...)
		}
		if slices.Sort(got); table.Kind == topology.Sharded && !slices.Equal(got, want) {
			t.Errorf("%s\nleft %d rows of %v, want %d", sql, len(got), table.TableName, len(want))
		}
	}
}

// TestPlansAreExact runs the statements of testdata/plans.txt whose answer is determined.
func TestPlansAreExact(t *testing.T) {
	c := newCluster(t)
	text, err := os.ReadFile("testdata/plans.txt")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, block := range strings.Split(string(text), "\n\n") {
		sql, _, _ := strings.Cut(block, "\n----")
		var params testParams
		if line, rest, ok := strings.Cut(sql, "\n"); ok && strings.HasPrefix(line, "# params:") {
			params, sql = strings.Split(strings.TrimPrefix(line, "# params:"), ";"), rest
		}
		if undetermined(sql) {
			continue
		}
		if c.check(t, sql, params) {
			ran++
		}
	}
	if ran < 200 {
		t.Errorf("only %d statements of testdata/plans.txt ran", ran)
	}
}

// undetermined says that two runs of a statement may give different answers, or that it is not one
// that a database of testSchema can run by itself.
func undetermined(sql string) bool {
	first, _, _ := strings.Cut(sql, " ")
	switch first {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES":
	default:
		return true
	}
	for _, word := range []string{
		"random", "now()", "clock_", "set_config", "TABLESAMPLE", "pg_", "version()", "txid", "uuid_generate", "user_cache", "country_cache",
		"information_schema", "shardproxy", "setseed", "INTO t", "currencies", "user_email", "do_things", "OF c", "audited", "NOT MATCHED BY SOURCE", "ON CONFLICT (email)", "projects LIMIT 5",
		"JOIN t ON p.creator_user_id = t.id", // never ends
	} {
		if strings.Contains(sql, word) {
			return true
		}
	}
	return false
}
