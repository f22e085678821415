package mover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A row whose key changes so that it comes into the ranges must be inserted on the target, but the stream leaves TOAST
// values out that the update did not touch. They are then read from the source, as they are there now. If the
// row was written again since, or another row has got its primary key, they are not what they were; a row whose
// present version was not written by the very transaction is therefore doubtful. The next change of a doubtful row
// reads the values again. The last change of a row finds the version that it made itself, so in the end
// every value is right. Doubtful rows are stored with the progress.

// applyCarefully updates a row and, if the update finds none, replaces it.
func (a *applier) applyCarefully(ctx context.Context, c *change) error {
	found, err := a.update(c)
	if err == nil && !found && c.rekeyed {
		// A foreign key of the target may have done the same already.
		again := *c
		again.identity, again.rekeyed = c.table.identityOf(c.values), false
		c = &again
		found, err = a.update(c)
	}
	if err != nil || found {
		return err
	}
	row := append([]datum(nil), c.values...)
	there, err := a.deleteReturning(c, row)
	if err != nil {
		return err
	}
	if !there && hasUnchanged(row) {
		return a.insertFetched(ctx, c)
	}
	a.execute(&change{kind: insertRow, table: c.table, values: row, size: c.size}, expectation{})
	return a.advance()
}

// update waits for the result. It leaves the pipeline drained.
func (a *applier) update(c *change) (found bool, err error) {
	if err := a.drain(0); err != nil { // an earlier update's miss is another matter
		return false, err
	}
	a.execute(c, expectation{missing: errMissed{c.table.index, c.lsn}})
	err = a.drain(0)
	var missed errMissed
	if errors.As(err, &missed) {
		return false, nil
	}
	return true, err
}

// deleteReturning takes the row away, if it is there (it has a column that changed and cannot be SET), and fills in what
// the change leaves out. The pipeline is drained.
func (a *applier) deleteReturning(c *change, row []datum) (there bool, err error) {
	k := a.tables[c.table.index]
	b := builder{k: k}
	sql := "DELETE FROM " + k.from() + " WHERE " + b.identified() + b.guard(a.mover.ranges)
	missing, at := k.missing(row)
	sql += " RETURNING " + strings.Join(append(missing, "1"), ", ")
	a.pipe.SendQueryParams(sql, c.identity, b.types, nil, nil)
	a.pipe.SendFlushRequest()
	if err := a.pipe.Flush(); err != nil {
		return false, err
	}
	got, err := a.pipe.GetResults()
	if err != nil {
		return false, err
	}
	reader, ok := got.(*pgconn.ResultReader)
	if !ok {
		return false, fmt.Errorf("the target answers %T to a DELETE", got)
	}
	result := reader.Read()
	if result.Err != nil || len(result.Rows) == 0 {
		return false, result.Err
	}
	for n, i := range at {
		row[i] = datum{value: result.Rows[0][n]}
	}
	return true, nil
}

// insertFetched inserts a row with what the source has of the values that were left out. A row that is not there any
// more is left out: the stream will tell what became of it.
func (a *applier) insertFetched(ctx context.Context, c *change) error {
	row, exact, err := a.fetch.complete(ctx, c)
	if err != nil || row == nil {
		return err
	}
	identity := c.table.identityOf(row)
	a.execute(&change{kind: deleteRow, table: c.table, identity: identity}, expectation{})
	a.execute(&change{kind: insertRow, table: c.table, values: row, size: c.size}, expectation{})
	if !exact {
		a.doubt(c.table, identity)
	}
	return a.advance()
}

// settle does what a change of a doubtful row needs; done says that nothing is left to do.
func (a *applier) settle(ctx context.Context, c *change) (done bool, err error) {
	if len(a.doubtful) == 0 {
		return false, nil
	}
	identity := c.identity
	if identity == nil {
		identity = c.table.identityOf(c.values)
	}
	if !a.doubtful[doubtKey(c.table, identity)] {
		return false, nil
	}
	a.trust(c.table, identity)
	if c.kind != updateRow && c.kind != updateIfThere || !hasUnchanged(c.values) {
		return false, nil
	}
	if err := a.drain(0); err != nil {
		return false, err
	}
	a.execute(&change{kind: deleteRow, table: c.table, identity: identity}, expectation{})
	return true, a.insertFetched(ctx, c)
}

func doubtKey(k *tracked, identity [][]byte) string {
	text := []string{quoteName(k.TableName)}
	for _, v := range identity {
		text = append(text, string(v))
	}
	key, _ := json.Marshal(text) // strings can always be written
	return string(key)
}

func (a *applier) doubt(k *tracked, identity [][]byte) {
	key := doubtKey(k, identity)
	a.doubtful[key] = true
	a.send("INSERT INTO shardproxy.progress_doubtful VALUES ($1, $2) ON CONFLICT DO NOTHING", expectation{}, []byte(a.mover.name), []byte(key))
}

func (a *applier) trust(k *tracked, identity [][]byte) {
	key := doubtKey(k, identity)
	delete(a.doubtful, key)
	a.send("DELETE FROM shardproxy.progress_doubtful WHERE name = $1 AND identity = $2", expectation{}, []byte(a.mover.name), []byte(key))
}

// loadDoubtful reads the doubtful rows of earlier runs. The pipeline is not open yet.
func (a *applier) loadDoubtful(ctx context.Context) error {
	rows, err := a.conn.Query(ctx, "SELECT identity FROM shardproxy.progress_doubtful WHERE name = $1", a.mover.name)
	if err != nil {
		return err
	}
	keys, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("reading the doubtful rows: %w", err)
	}
	a.doubtful = map[string]bool{}
	for _, key := range keys {
		a.doubtful[key] = true
	}
	return nil
}

// missing gives the columns that a row leaves out, as SQL and as indexes.
func (k *tracked) missing(row []datum) (names []string, at []int) {
	for i := range row {
		if row[i].unchanged {
			names, at = append(names, quote(k.stored[i].Name)), append(at, i)
		}
	}
	return names, at
}
