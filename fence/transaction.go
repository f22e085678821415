package fence

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"shardproxy/topology"
)

// A lock that is waited for keeps all writers of its table waiting too, so the wait is short: who gets ErrBusy asks
// again when they have gone on.
const (
	lockTime     = 150 * time.Millisecond // for one table
	locksTime    = 300 * time.Millisecond // for all tables together
	rollbackTime = 5 * time.Second        // for an answer to ROLLBACK
)

// transaction runs statements on a shard, between BEGIN and COMMIT.
type transaction struct {
	query topology.Query
}

// change runs f in a transaction, alone among those that change the fence. What f leaves undone by an error is rolled back.
func change(ctx context.Context, query topology.Query, f func(tx *transaction) error) error {
	return inTransaction(ctx, query, beginChange, f)
}

var beginChange = []string{
	"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
	searchPath,
	// A fence that a crash of the shard could undo would be none. The validator would read long bodies twice.
	"SELECT set_config('lock_timeout', '" + milliseconds(lockTime) + "', true), set_config('check_function_bodies', 'off', true)," +
		" set_config('idle_in_transaction_session_timeout', '" + milliseconds(IdleMax) + "', true)," +
		" CASE WHEN current_setting('synchronous_commit') IN ('off', 'local') THEN set_config('synchronous_commit', 'on', true) END",
	"SELECT pg_advisory_xact_lock(" + strconv.FormatInt(changesLock, 10) + ")",
}

// look runs f in a transaction that only reads, from one snapshot.
func look(ctx context.Context, query topology.Query, f func(tx *transaction) error) error {
	return inTransaction(ctx, query, []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", searchPath}, f)
}

// searchPath lets the rest of a transaction call functions without their schema, and is the one that definitions are read
// and schemas are loaded with.
const searchPath = "SET LOCAL search_path = pg_catalog, pg_temp"

func inTransaction(ctx context.Context, query topology.Query, begin []string, f func(tx *transaction) error) (err error) {
	tx := &transaction{query: query}
	defer func() {
		if err != nil {
			tx.rollback(ctx)
		}
	}()
	if err = tx.run(ctx, begin...); err != nil {
		return err
	}
	if err = f(tx); err != nil {
		return err
	}
	return tx.run(ctx, "COMMIT")
}

// rollback needs no answer: on a broken connection the server does it.
func (tx *transaction) rollback(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	_, _ = tx.query(ctx, "ROLLBACK")
}

// run executes statements that give nothing of interest, in one round trip: clients may wait.
func (tx *transaction) run(ctx context.Context, statements ...string) error {
	if len(statements) == 0 {
		return nil
	}
	_, err := tx.query(ctx, strings.Join(statements, "; "))
	return busy(ctx, err, false)
}

// rows gives rows of so many values.
func (tx *transaction) rows(ctx context.Context, columns int, sql string) ([][]string, error) {
	rows, err := tx.query(ctx, sql)
	if err != nil {
		return nil, busy(ctx, err, false)
	}
	for _, row := range rows {
		if len(row) != columns {
			return nil, fmt.Errorf("a row has %d values instead of %d", len(row), columns)
		}
	}
	return rows, nil
}

// lock waits until nobody writes to the tables, nor to their partitions and children, and keeps all others from it. Who has
// locked rows (FOR UPDATE) counts as a writer: the lock would mean nothing on the shard that owns them next.
func (tx *transaction) lock(ctx context.Context, tables []topology.TableName) error {
	if len(tables) == 0 {
		return nil
	}
	_, err := tx.query(ctx, lockSQL(tables))
	return busy(ctx, err, true)
}

// lockAndCommit is lock and then COMMIT in one round trip, for as long as the lock is held writers wait. SAVEPOINT is refused where the
// transaction has gone, so that nothing else is taken for it.
func (tx *transaction) lockAndCommit(ctx context.Context, tables []topology.TableName) error {
	sql := "SAVEPOINT there; "
	if len(tables) > 0 {
		sql += lockSQL(tables) + "; "
	}
	_, err := tx.query(ctx, sql+"COMMIT")
	return busy(ctx, err, true)
}

// lockSQL has the time for each statement, as PostgreSQL has it since version 13.
func lockSQL(tables []topology.TableName) string {
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = qualified(t)
	}
	return "SET LOCAL statement_timeout = " + milliseconds(locksTime) +
		"; LOCK TABLE " + strings.Join(names, ", ") + " IN EXCLUSIVE MODE; SET LOCAL statement_timeout = 0"
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
