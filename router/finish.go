package router

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// Finish is how a SELECT is run whose rows of several shards are needed together (Template.Finish): the shards give rows
// for it, and one of them, which is sent the rows of all, does the last step. So nothing is compared, added or put in
// order but by PostgreSQL itself.
//
//	every shard: Inputs ──► rows, as text ──► one array for each column ──► Final, on one shard ──► the answer
//
// It has one Input where the rows come from tables that are joined by their shard keys, and else one for each part of the
// statement that a shard can answer by itself (gather).
type Finish struct {
	Inputs      []*Input
	FinalParams []int // the number (0-based) that each parameter of Final has in the statement; the arrays come behind them

	sql     string         // the statement's text
	tree    *pg.SelectStmt // of Final
	final   string         // with marks
	sources []int          // which of Inputs each source of Final is
	raw     *Finish        // the same without averages of parts

	described atomic.Pointer[Described]
}

// Described is what a shard has said of a Finish that then fitted: it is kept with the plan, and lost with it when the schema changes.
type Described struct {
	Declared []byte  // the types of the parameters that the client declared, 4 bytes each
	Params   []byte  // those that they have
	Answer   []byte  // RowDescription of the statement, the whole message
	Finish   *Finish // what fits the types (Fit)
	Columns  [][]FinishColumn
}

// Described is what was kept for parameters that are declared so, nil if nothing was.
func (f *Finish) Described(declared []byte) *Described {
	if d := f.described.Load(); d != nil && bytes.Equal(d.Declared, declared) {
		return d
	}
	return nil
}

// Keep keeps a description, and no other. nil forgets it.
func (f *Finish) Keep(d *Described) { f.described.Store(d) }

// Input is what shards give to the last step of a Finish: the groups with their partial aggregates, where those can be put
// together exactly; the rows of a result, where it has no aggregates; or else the columns that are used of the rows.
type Input struct {
	Gives  string // in words
	Params []int  // the number (0-based) that each parameter of Pull has in the statement

	pull     string
	owned    string // the same, with ownedMark in the place of a condition on the rows that count
	hash     string // SQL of a row's key hash
	moving   *Error // there is no such place
	hidden   int    // how many columns of Pull, the last, are only there for the order
	averages []int  // the columns that are sums of an avg

	// Of an input of a gather: a statement by itself.
	t        *Template
	sql      string
	literals []Literal
}

// FinishColumn is a column of an Input, as PostgreSQL names its type and collation in SQL.
type FinishColumn struct {
	Name      string
	OID       uint32
	Type      string
	Collation string // "" of a type that has none
}

// Marks in the texts of a Finish. A statement that has one of them itself is not finished. Those of Final have the number of a
// source, and that of a column from 1.
const (
	finishMark   = "shardproxy_"
	finishRows   = finishMark + "rows" // the pulled rows, in Final
	sourceMark   = finishMark + "source%d_"
	targetsMark  = finishMark + "targets%d_"
	ownedMark    = finishMark + "owned_"
	finishColumn = finishMark + "c%d_"
	hiddenColumn = finishMark + "h%d_"
	typeMark     = finishMark + "s%d_t%d_" // the type of a column
	averageMark  = finishMark + "s%d_a%d_" // the type by which the sum of that column is divided
)

// Finishes says that the statement, where it runs on several shards, is run by a Finish.
func (t *Template) Finishes() bool { return t.finish != nil }

// Finish gives the texts for a statement of a Template that Finishes. They hold its literals, so they are made
// anew where another text of the Template has others.
func (r *Router) Finish(snap *topology.Snapshot, env *Env, t *Template, sql string) (*Finish, *Error) {
	if t.finish.sql == sql {
		return t.finish, nil
	}
	var sc Scratch
	normalise(&sc, sql, env, schemaVersion(snap))
	tree, err := pg.Parse(sql)
	if err != nil || len(tree.Stmts) != 1 {
		return nil, &Error{Code: "XX000", Message: "the statement could not be read again"}
	}
	a := newAnalysis(snap, env, strings.Clone(sql), sc.Literals)
	a.statement(tree.Stmts[0].Stmt)
	switch {
	case a.t.finish != nil:
		return a.t.finish, nil
	case a.t.Reason != nil:
		return nil, a.t.Reason
	}
	return nil, &Error{Code: "XX000", Message: "the statement has another plan than before"}
}

// Pull is the text for a shard that may hold rows of foreign, which count elsewhere.
func (in *Input) Pull(foreign []topology.KeyRange) (string, *Error) {
	if len(foreign) == 0 || in.hash == "" && in.moving == nil {
		return in.pull, nil
	}
	if in.moving != nil {
		return "", in.moving
	}
	before, after, _ := strings.Cut(in.owned, ownedMark)
	text := make([]byte, 0, len(in.owned)+128+42*len(foreign))
	text = append(append(text, before...), '(')
	text = topology.AppendInRanges(text, in.hash, foreign)
	text = append(text, ") IS NOT TRUE"...) // a NULL key belongs to no other shard
	return string(append(text, after...)), nil
}

// Shards are those that give rows, ascending: of, which are those of the statement, or, of an input by itself, those of its keys.
func (in *Input) Shards(snap *topology.Snapshot, args *Args, of []topology.ShardID) ([]topology.ShardID, *Error) {
	switch {
	case in.t == nil:
		return of, nil
	case in.t.Kind == Keyed:
		own := *args
		own.SQL, own.Literals = in.sql, in.literals
		return in.t.Route(snap, &own, nil)
	}
	all := make([]topology.ShardID, len(snap.Shards))
	for i := range all {
		all[i] = topology.ShardID(i)
	}
	return all, nil
}

// Gathers says that each input is a part of the statement by itself, with shards of its own.
func (f *Finish) Gathers() bool { return f.Inputs[0].t != nil }

// Fit is f, or another one, or nil, if the columns of the inputs have types with which f is not exact.
func (f *Finish) Fit(columns [][]uint32) *Finish {
	for i, in := range f.Inputs {
		for _, k := range in.averages {
			if k < len(columns[i]) && averageDivisor[columns[i][k]] == "" {
				return f.raw
			}
		}
	}
	return f
}

// averageDivisor is the type of the count by which PostgreSQL's avg divides a sum of a type. float4 is missing: its sum
// has less digits than that of avg.
var averageDivisor = map[uint32]string{20: "pg_catalog.numeric", 1700: "pg_catalog.numeric", 701: "pg_catalog.float8", 1186: "pg_catalog.float8"}

// Final is the text of the last step, for inputs of these columns. Its arrays are those of all columns of the first input, then
// those of the second, and so on.
func (f *Finish) Final(columns [][]FinishColumn) string {
	first := make([]int, len(columns)+1) // the number of each input's first array
	first[0] = len(f.FinalParams) + 1
	for i := range columns {
		first[i+1] = first[i] + len(columns[i])
	}
	var marks []string
	for source, i := range f.sources {
		marks = append(marks, sourceMarks(source, columns[i], f.Inputs[i].hidden, first[i])...)
	}
	return strings.NewReplacer(marks...).Replace(f.final)
}

// sourceMarks gives the marks of a source, each with what stands in its place.
func sourceMarks(number int, columns []FinishColumn, hidden, first int) (marks []string) {
	var source, list, from, values strings.Builder
	shown := len(columns) - hidden
	for i, c := range columns {
		name := fmt.Sprintf(finishColumn, i+1)
		if i >= shown {
			name = fmt.Sprintf(hiddenColumn, i-shown+1)
		} else {
			comma(&list, i).WriteString(finishRows + "." + name + " AS " + identifier(c.Name))
		}
		value := "v" + strconv.Itoa(i)
		comma(&source, i).WriteString("u." + value + "::" + c.Type)
		if c.Collation != "" {
			source.WriteString(" COLLATE " + c.Collation)
		}
		source.WriteString(" AS " + name)
		comma(&from, i).WriteString("pg_catalog.unnest($" + strconv.Itoa(first+i) + "::pg_catalog.text[])")
		comma(&values, i).WriteString(value)
		marks = append(marks, fmt.Sprintf(typeMark, number, i+1), c.Type, fmt.Sprintf(averageMark, number, i+1), averageDivisor[c.OID])
	}
	return append(marks, fmt.Sprintf(targetsMark, number), list.String(), fmt.Sprintf(sourceMark, number),
		"(SELECT "+source.String()+" FROM ROWS FROM ("+from.String()+") AS u("+values.String()+"))")
}

// Collations is a query for the collations of some columns of pull, a text of Pull whose rows have so many: one row, of what
// FinishColumn.Collation is to be, NULL where it is not known. It has the parameters of pull, and reads no row of it.
func Collations(pull string, columns int, of []int) string {
	var list, all strings.Builder
	for i := range columns {
		comma(&all, i).WriteString("v" + strconv.Itoa(i))
	}
	for i, c := range of {
		comma(&list, i).WriteString("pg_catalog.pg_collation_for(q.v" + strconv.Itoa(c) + ")")
	}
	return "SELECT " + list.String() + " FROM (SELECT) AS one LEFT JOIN (" + pull + ") AS q(" + all.String() + ") ON false"
}

// comma begins the i-th member of a list.
func comma(b *strings.Builder, i int) *strings.Builder {
	if i > 0 {
		b.WriteString(", ")
	}
	return b
}

// FinalText is Final as EXPLAIN shows it, before the types are known.
func (f *Finish) FinalText() string {
	var marks []string
	for source, i := range f.sources {
		name := "pulled"
		if len(f.Inputs) > 1 {
			name += strconv.Itoa(i + 1)
		}
		marks = append(marks, fmt.Sprintf(sourceMark, source), name, fmt.Sprintf(targetsMark, source), "*")
	}
	return strings.NewReplacer(marks...).Replace(f.final)
}
