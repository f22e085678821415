package router

import (
	"fmt"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"shardproxy/topology"
)

// Finish is how a SELECT is run whose rows of several shards are needed together (Template.Finish): each shard gives
// rows for it, and one of them, which is sent the rows of all, does the last step. So nothing is compared, added or put in
// order but by PostgreSQL itself.
//
//	every shard: Pull ──► rows, as text ──► one array for each column ──► Final, on one shard ──► the answer
//
// The rows are the groups with their partial aggregates, where those can be put together exactly; the rows of the result,
// where it has no aggregates; or else the columns that the statement uses of the rows that it reads.
type Finish struct {
	Gives       string // what the shards give, in words
	PullParams  []int  // the number (0-based) that each parameter of Pull has in the statement
	FinalParams []int  // the same of Final, whose arrays come behind them

	sql      string // the statement's text
	pull     string
	owned    string // the same, with ownedMark in the place of a condition on the rows that count
	hash     string // SQL of a row's key hash
	moving   *Error // there is no such place
	final    string // with marks
	hidden   int    // how many columns of Pull, the last, are only there for the order
	averages []int  // the columns that are sums of an avg
	raw      *Finish
}

// FinishColumn is a column of the rows that the shards give, as PostgreSQL names its type and collation in SQL.
type FinishColumn struct {
	OID       uint32
	Type      string
	Collation string // "" of a type that has none
}

// Marks in the texts of a Finish. A statement that has one of them itself is not finished.
const (
	finishMark   = "shardproxy_"
	finishRows   = finishMark + "rows" // the pulled rows, in Final
	sourceMark   = finishMark + "source_"
	targetsMark  = finishMark + "targets_"
	ownedMark    = finishMark + "owned_"
	finishColumn = finishMark + "c%d_"
	hiddenColumn = finishMark + "h%d_"
	typeMark     = finishMark + "t%d_" // the type of a column
	averageMark  = finishMark + "a%d_" // the type by which the sum of that column is divided
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
func (f *Finish) Pull(foreign []topology.KeyRange) (string, *Error) {
	if len(foreign) == 0 {
		return f.pull, nil
	}
	if f.moving != nil {
		return "", f.moving
	}
	before, after, _ := strings.Cut(f.owned, ownedMark)
	text := make([]byte, 0, len(f.owned)+128+42*len(foreign))
	text = append(append(text, before...), '(')
	text = topology.AppendInRanges(text, f.hash, foreign)
	text = append(text, ") IS NOT TRUE"...) // a NULL key belongs to no other shard
	return string(append(text, after...)), nil
}

// Fit is f, or another one if the pulled columns have types with which f is not exact.
func (f *Finish) Fit(columns []uint32) *Finish {
	for _, i := range f.averages {
		if i < len(columns) && averageDivisor[columns[i]] == "" {
			return f.raw
		}
	}
	return f
}

// averageDivisor is the type of the count by which PostgreSQL's avg divides a sum of a type. float4 is missing: its sum
// has less digits than that of avg.
var averageDivisor = map[uint32]string{20: "pg_catalog.numeric", 1700: "pg_catalog.numeric", 701: "pg_catalog.float8", 1186: "pg_catalog.float8"}

// Final is the text of the last step, for pulled rows of these columns, and for a result whose columns have these names.
func (f *Finish) Final(columns []FinishColumn, names []string) string {
	var source, list, from strings.Builder
	shown := len(columns) - f.hidden
	marks := []string{}
	for i, c := range columns {
		name := fmt.Sprintf(finishColumn, i+1)
		if i >= shown {
			name = fmt.Sprintf(hiddenColumn, i-shown+1)
		}
		value := "u.v" + strconv.Itoa(i)
		comma(&source, i).WriteString(value + "::" + c.Type)
		if c.Collation != "" {
			source.WriteString(" COLLATE " + c.Collation)
		}
		source.WriteString(" AS " + name)
		comma(&from, i).WriteString("pg_catalog.unnest($" + strconv.Itoa(len(f.FinalParams)+i+1) + "::pg_catalog.text[])")
		if i < shown && i < len(names) {
			comma(&list, i).WriteString(finishRows + "." + name + " AS " + identifier(names[i]))
		}
		marks = append(marks, fmt.Sprintf(typeMark, i+1), c.Type, fmt.Sprintf(averageMark, i+1), averageDivisor[c.OID])
	}
	var values strings.Builder
	for i := range columns {
		comma(&values, i).WriteString("v" + strconv.Itoa(i))
	}
	marks = append(marks, targetsMark, list.String(), sourceMark,
		"(SELECT "+source.String()+" FROM ROWS FROM ("+from.String()+") AS u("+values.String()+"))")
	return strings.NewReplacer(marks...).Replace(f.final)
}

// Collations is a query for the collations of some columns of pull, a text of Pull whose rows have so many: one row, of what
// FinishColumn.Collation is to be, NULL where it is not known. It has the parameters of pull, and reads no row of it.
func (f *Finish) Collations(pull string, columns int, of []int) string {
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
	return strings.NewReplacer(sourceMark, "pulled", targetsMark, "*").Replace(f.final)
}
