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
	got, described, final, err := c.finish(ctx, f, pieces, values, columnNames(columns))
	if text := fmt.Sprint(err); errors.Is(err, errUnfit) || strings.Contains(text, "must appear in the GROUP BY") || strings.Contains(text, "pseudo-type") ||
		strings.Contains(text, "SELECT DISTINCT, ORDER BY") || strings.Contains(text, "could not identify an equality operator") {
		return wantErr != nil // the proxy refuses it when a shard has read its texts
	}
	switch {
	case wantErr != nil || err != nil:
		if code(wantErr) != code(err) {
			t.Errorf("%s\n%s\n%s\nerror %v, want %v", sql, f.pull, final, err, wantErr)
		}
		return true
	case !slices.Equal(finishTypes(described), finishTypes(columns)):
		t.Errorf("%s\n%s\nhas columns %q, want %q", sql, final, described, columns)
	}
	if !strings.Contains(sql, "ORDER BY") {
		slices.Sort(got)
		slices.Sort(want)
		if anyRows.MatchString(sql) && len(got) == len(want) {
			return true
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s\n%s\n%s\ngave %d rows, want %d\n got: %.500q\nwant: %.500q", sql, f.pull, final, len(got), len(want), got, want)
	}
	c.finished++
	return true
}

// anyRows matches statements that leave it to the server which rows they give, if they do not say an order.
var anyRows = regexp.MustCompile(`\b(LIMIT|OFFSET|FETCH)\b`)

func columnNames(columns []string) (names []string) {
	for _, c := range columns {
		fields := strings.Fields(c)
		names = append(names, strings.Join(fields[:len(fields)-3], " "))
	}
	return names
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
func (c *cluster) finish(ctx context.Context, f *Finish, pieces []Piece, values []any, names []string) (rows, described []string, final string, err error) {
	first := c.shards[pieces[0].Shard]
	pull := f.pull
	oids := func() (list []uint32) {
		r, e := first.Query(ctx, "SELECT * FROM ("+pull+") q LIMIT 0", subsetOf(values, f.PullParams)...)
		if e == nil {
			for _, d := range r.FieldDescriptions() {
				list = append(list, d.DataTypeOID)
			}
			r.Close()
			e = r.Err()
		}
		err = e
		return list
	}
	types := oids()
	if fit := f.Fit(types); fit != f && err == nil {
		if fit == nil {
			return nil, nil, "", errUnfit
		}
		f, pull = fit, fit.pull
		types = oids()
	}
	if err != nil {
		return nil, nil, "", err
	}
	columns := make([]FinishColumn, len(types))
	for i, oid := range types {
		columns[i].OID = oid
		var collated bool
		var kind string
		if err := first.QueryRow(ctx, "SELECT 'pg_catalog.' || quote_ident(typname), typcollation <> 0, typtype FROM pg_type WHERE oid = $1", oid).Scan(&columns[i].Type, &collated, &kind); err != nil {
			return nil, nil, "", err
		}
		if kind == "p" {
			return nil, nil, "", errUnfit
		}
		if collated {
			var of *string
			q := f.Collations(pull, len(types), []int{i})
			if err := first.QueryRow(ctx, q, subsetOf(values, f.PullParams)...).Scan(&of); err != nil {
				return nil, nil, "", fmt.Errorf("%s: %w", q, err)
			}
			if of == nil {
				return nil, nil, "", errUnfit
			}
			columns[i].Collation = *of
		}
	}
	arrays := make([][]*string, len(types))
	for _, p := range pieces {
		text, refused := f.Pull(c.snap.Foreign(p.Shard))
		if refused != nil {
			return nil, nil, "", refused
		}
		if text != f.pull {
			c.owned++
		}
		r, e := c.shards[p.Shard].Query(ctx, text, subsetOf(values, f.PullParams)...)
		if e != nil {
			return nil, nil, text, e
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
			return nil, nil, text, r.Err()
		}
	}
	given := subsetOf(values, f.FinalParams)
	for _, a := range arrays {
		given = append(given, a)
	}
	final = f.Final(columns, names)
	described, rows, err = answerOf(ctx, first, final, given[1:])
	return rows, described, final, err
}

// subsetOf gives the numbered values, behind the mode in which they are sent.
func subsetOf(values []any, numbers []int) []any {
	list := []any{pgx.QueryExecModeSimpleProtocol}
	for _, i := range numbers {
		list = append(list, values[i])
	}
	return list
}
