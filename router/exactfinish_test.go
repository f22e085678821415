package router

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// checkFinish runs a statement by its Finish, and compares the columns, the rows and, with ORDER BY, their order with those of
// the database with all rows.
func (c *cluster) checkFinish(t *testing.T, tpl *Template, sql string, pieces []Piece, values []any) bool {
	t.Helper()
	ctx := context.Background()
	f, refused := c.router.Finish(c.snap, &Env{ID: 1, SearchPath: []string{"public"}, StdStrings: true}, tpl, sql)
	if refused != nil {
		t.Errorf("%s: %v", sql, refused)
		return false
	}
	columns, want, wantErr := answerOf(ctx, c.whole, sql, values)
	if _, err := c.shards[pieces[0].Shard].Prepare(ctx, "", sql); err != nil { // a shard reads it first
		if code(err) != code(wantErr) {
			t.Errorf("%s: error %v, want %v", sql, err, wantErr)
		}
		return true
	}
	got, described, final, err := c.finish(ctx, f, sql, pieces, values)
	if text := fmt.Sprint(err); errors.Is(err, errUnfit) || strings.Contains(text, "must appear in the GROUP BY") || strings.Contains(text, "pseudo-type") ||
		strings.Contains(text, "SELECT DISTINCT, ORDER BY") || strings.Contains(text, "could not identify an equality operator") {
		return wantErr != nil // the proxy refuses it when a shard has read its texts
	}
	switch {
	case wantErr != nil || err != nil:
		if code(wantErr) != code(err) {
			t.Errorf("%s\n%s\n%s\nerror %v, want %v", sql, pullsOf(f), final, err, wantErr)
		}
		return true
	case !slices.Equal(finishTypes(described), finishTypes(columns)):
		t.Errorf("%s\n%s\nhas columns %q, want %q", sql, final, described, columns)
	}
	if top := outside(sql); !strings.Contains(top, "ORDER BY") {
		slices.Sort(got)
		slices.Sort(want)
		if anyRows.MatchString(top) && len(got) == len(want) {
			return true
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\n%s\n%s\ngave %d rows, want %d\n got: %.500q\nwant: %.500q", sql, pullsOf(f), final, len(got), len(want), got, want)
	}
	c.finished++
	return true
}

// outside is sql without what stands in parentheses.
func outside(sql string) string {
	depth := 0
	return strings.Map(func(r rune) rune {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		}
		if depth > 0 {
			return -1
		}
		return r
	}, sql)
}

// anyRows matches statements that leave it to the server which rows they give, if they do not say an order.
var anyRows = regexp.MustCompile(`\b(LIMIT|OFFSET|FETCH)\b`)

func pullsOf(f *Finish) string {
	var list []string
	for _, in := range f.Inputs {
		list = append(list, in.pull)
	}
	return strings.Join(list, "\n")
}

// finishTypes are the types of columns: a client is told all else as a shard describes the statement itself.
func finishTypes(columns []string) (types []string) {
	for _, c := range columns {
		fields := strings.Fields(c)
		types = append(types, fields[len(fields)-3])
	}
	return types
}

var errUnfit = errors.New("no Finish fits")

// finish does what the proxy does.
func (c *cluster) finish(ctx context.Context, f *Finish, sql string, pieces []Piece, values []any) (rows, described []string, final string, err error) {
	first := c.shards[pieces[0].Shard]
	oids, err := inputTypes(ctx, first, f, values)
	if err != nil {
		return nil, nil, "", err
	}
	if fit := f.Fit(oids); fit != f {
		if f = fit; f == nil {
			return nil, nil, "", errUnfit
		}
	}
	columns := make([][]FinishColumn, len(f.Inputs))
	given := subsetOf(values, f.FinalParams)
	for i, in := range f.Inputs {
		if columns[i], err = inputColumns(ctx, first, in, values); err != nil {
			return nil, nil, in.pull, err
		}
		arrays, text, err := c.pulled(ctx, in, sql, pieces, values)
		if err != nil {
			return nil, nil, text, err
		}
		for k := range columns[i] {
			given = append(given, arrays[k])
		}
	}
	final = f.Final(columns)
	described, rows, err = answerOf(ctx, first, final, given[1:])
	return rows, described, final, err
}

func inputTypes(ctx context.Context, conn *pgx.Conn, f *Finish, values []any) ([][]uint32, error) {
	oids := make([][]uint32, len(f.Inputs))
	for i, in := range f.Inputs {
		fields, err := describedAs(ctx, conn, in, values)
		if err != nil {
			return nil, err
		}
		for _, d := range fields {
			oids[i] = append(oids[i], d.DataTypeOID)
		}
	}
	return oids, nil
}

func describedAs(ctx context.Context, conn *pgx.Conn, in *Input, values []any) ([]pgconn.FieldDescription, error) {
	r, err := conn.Query(ctx, "SELECT * FROM ("+in.pull+") q LIMIT 0", subsetOf(values, in.Params)...)
	if err != nil {
		return nil, err
	}
	fields := slices.Clone(r.FieldDescriptions())
	r.Close()
	return fields, r.Err()
}

// inputColumns finds what FinishColumn says.
func inputColumns(ctx context.Context, conn *pgx.Conn, in *Input, values []any) ([]FinishColumn, error) {
	fields, err := describedAs(ctx, conn, in, values)
	if err != nil {
		return nil, err
	}
	columns := make([]FinishColumn, len(fields))
	for i, d := range fields {
		columns[i].OID, columns[i].Name = d.DataTypeOID, d.Name
		var collated bool
		var kind string
		if err := conn.QueryRow(ctx, "SELECT 'pg_catalog.' || quote_ident(typname), typcollation <> 0, typtype FROM pg_type WHERE oid = $1", d.DataTypeOID).Scan(&columns[i].Type, &collated, &kind); err != nil {
			return nil, err
		}
		if kind == "p" {
			return nil, errUnfit
		}
		if !collated {
			continue
		}
		var of *string
		q := Collations(in.pull, len(fields), []int{i})
		if err := conn.QueryRow(ctx, q, subsetOf(values, in.Params)...).Scan(&of); err != nil {
			return nil, fmt.Errorf("%s: %w", q, err)
		}
		if of == nil {
			return nil, errUnfit
		}
		columns[i].Collation = *of
	}
	return columns, nil
}

// pulled gives the rows of an input, column by column.
func (c *cluster) pulled(ctx context.Context, in *Input, sql string, pieces []Piece, values []any) (arrays [64][]*string, text string, err error) {
	var params testParams
	for _, v := range values {
		if v == nil {
			v = "NULL"
		}
		params = append(params, fmt.Sprint(v))
	}
	shards, refused := in.Shards(c.snap, &Args{SQL: sql, Params: params}, shardsOf(pieces))
	if refused != nil {
		return arrays, "", refused
	}
	for _, shard := range shards {
		foreign := c.snap.Foreign(shard)
		if text, refused = in.Pull(foreign); refused != nil {
			return arrays, "", refused
		}
		if text != in.pull {
			c.owned++
		}
		r, err := c.shards[shard].Query(ctx, text, subsetOf(values, in.Params)...)
		if err != nil {
			return arrays, text, err
		}
		for r.Next() {
			for i, v := range r.RawValues() {
				var cell *string
				if v != nil {
					s := string(v)
					cell = &s
				}
				arrays[i] = append(arrays[i], cell)
			}
		}
		if r.Close(); r.Err() != nil {
			return arrays, text, r.Err()
		}
	}
	return arrays, text, nil
}

// subsetOf gives the numbered values, behind the mode in which they are sent.
func subsetOf(values []any, numbers []int) []any {
	list := []any{pgx.QueryExecModeSimpleProtocol}
	for _, i := range numbers {
		list = append(list, values[i])
	}
	return list
}
