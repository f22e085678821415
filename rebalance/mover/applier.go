package mover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// batchChanges and batchBytes end a transaction on the target at the next end of a source transaction: many small ones
	// share a commit, while locks on the target stay short. A large one is never cut.
	batchChanges = 2000
	batchBytes   = 4 << 20
	// window is how many statements are sent before the results of earlier ones are read.
	window      = 128
	windowBytes = 256 << 10
	// statementsMax is how many prepared statements a session keeps. There is one per table and kind, and one per set of
	// TOAST columns that updates leave unchanged.
	statementsMax = 500
)

// applier writes changes to the target. It keeps one pipeline open: statements are sent without waiting, in the order
// of the stream, and their results are read later.
type applier struct {
	mover   *Mover
	conn    *pgx.Conn
	replica bool
	tables  []*tracked // as the target has them
	fetch   *fetcher
	careful func(c *change) bool // whether to wait for the result of an update

	pipe       *pgconn.Pipeline
	statements map[string]*statement // by table and statementKey
	expected   []expectation         // of statements sent, in order
	unsent     int                   // statements since the last flush
	unsentSize int
	parameters [][]byte

	// doubtful rows have values that may be another row's (replace.go), by doubtKey.
	doubtful map[string]bool

	inTransaction bool
	changes       int
	bytes         int
	durable       LSN // as stored in the progress row
}

// expectation says what the result of a statement must be.
type expectation struct {
	missing error // if not nil: it must have found a row, otherwise this
	sync    bool
}

// errMissed says that an update found no row.
type errMissed struct {
	table int
	lsn   LSN
}

func (errMissed) Error() string { return "an update has found no row on the target" }

func (a *applier) start(ctx context.Context) {
	a.pipe = a.conn.PgConn().StartPipeline(ctx)
	a.statements = map[string]*statement{}
}

func (a *applier) send(sql string, expect expectation, parameters ...[]byte) {
	a.pipe.SendQueryParams(sql, parameters, nil, nil, nil)
	a.sent(expect, len(sql))
}

func (a *applier) sent(expect expectation, size int) {
	a.expected = append(a.expected, expect)
	a.unsent++
	a.unsentSize += size
}

func (a *applier) begin() {
	if a.inTransaction {
		return
	}
	a.inTransaction = true
	a.send("BEGIN", expectation{})
	a.send(a.mover.markSQL(), expectation{})
	if !a.replica {
		a.send("SET CONSTRAINTS ALL DEFERRED", expectation{})
	}
	if len(a.statements) >= statementsMax {
		a.send("DEALLOCATE ALL", expectation{})
		clear(a.statements)
	}
}

// apply sends one change.
func (a *applier) apply(ctx context.Context, c *change) error {
	a.begin()
	a.changes++
	a.bytes += c.size
	if done, err := a.settle(ctx, c); done || err != nil {
		return err
	}
	expect := expectation{}
	if c.kind == updateRow {
		if a.careful(c) {
			return a.applyCarefully(ctx, c)
		}
		expect.missing = errMissed{c.table.index, c.lsn}
	}
	a.execute(c, expect)
	return a.advance()
}

func (a *applier) execute(c *change, expect expectation) {
	k := a.tables[c.table.index]
	key := strconv.Itoa(k.index) + statementKey(c)
	s := a.statements[key]
	if s == nil {
		built := k.build(c, a.mover.ranges)
		s = &built
		s.name = "m" + strconv.Itoa(len(a.statements))
		a.statements[key] = s
		a.pipe.SendPrepare(s.name, s.sql, s.types)
		a.sent(expectation{}, len(s.sql))
	}
	a.parameters = s.values(c, a.parameters)
	a.pipe.SendQueryPrepared(s.name, a.parameters, nil, nil)
	a.sent(expect, c.size)
}

// advance flushes a full window and reads the results of the one before.
func (a *applier) advance() error {
	if a.unsent < window && a.unsentSize < windowBytes {
		return nil
	}
	return a.drain(window)
}

// drain flushes and reads results until at most keep are open.
func (a *applier) drain(keep int) error {
	if a.unsent > 0 {
		a.pipe.SendFlushRequest()
		if err := a.pipe.Flush(); err != nil {
			return err
		}
		a.unsent, a.unsentSize = 0, 0
	}
	for len(a.expected) > keep {
		expect := a.expected[0]
		a.expected = slices.Delete(a.expected, 0, 1)
		if err := a.result(expect); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) result(expect expectation) error {
	got, err := a.pipe.GetResults()
	if err != nil {
		return err
	}
	switch got := got.(type) {
	case *pgconn.ResultReader:
		tag, err := got.Close()
		if err != nil {
			return err
		}
		if expect.missing != nil && tag.RowsAffected() == 0 {
			return expect.missing
		}
	case *pgconn.StatementDescription:
	case *pgconn.PipelineSync:
		if !expect.sync {
			return errors.New("the target's answers are out of step")
		}
	default:
		return fmt.Errorf("the target answers nothing where a result was expected (%T)", got)
	}
	return nil
}

// commit ends the transaction with the position that it brings the target to, and waits until that is durable.
func (a *applier) commit(lsn LSN) error {
	a.begin()
	const set = "UPDATE shardproxy.progress SET lsn = $1::pg_lsn, updated_at = now() WHERE name = $2 AND lsn = $3::pg_lsn"
	a.send(set, expectation{missing: ErrTakenOver}, []byte(lsn.String()), []byte(a.mover.name), []byte(a.durable.String()))
	// Before the commit is sent: an update that missed is no error for the server.
	if err := a.drain(0); err != nil {
		return err
	}
	a.send("COMMIT", expectation{})
	a.pipe.SendPipelineSync()
	a.sent(expectation{sync: true}, 0)
	if err := a.drain(0); err != nil {
		return err
	}
	a.inTransaction, a.changes, a.bytes = false, 0, 0
	a.durable = lsn
	return nil
}
