package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/rebalance/mover"
	"shardproxy/topology"
)

// copies of the same rows, by the mover and by two psql with a pipe between them. The shortest of each kind counts.
type copies struct {
	Rows  int64   `json:"rows"`
	Bytes int64   `json:"bytes"` // on the target, without indexes
	Mover float64 `json:"mover_seconds"`
	Psql  float64 `json:"psql_seconds"`
}

// copyWorkers is as the coordinator has it.
const copyWorkers = 2

// copied are most rows of the large range.
var copied = topology.KeyRange{Start: large.first, End: 0x7800000000000000}

// bench is a pair of databases with a table that no proxy knows: without fences, and empty again before each copy.
type bench struct {
	dsn  [2]string
	conn [2]*pgx.Conn
}

func measureCopy(ctx context.Context, c *cluster, o options) (*copies, error) {
	b := &bench{dsn: [2]string{c.Shards[1].Primary().DSN, c.Shards[2].Primary().DSN}}
	for side, dsn := range b.dsn {
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return nil, err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		b.conn[side] = conn
		const table = `CREATE SCHEMA copied; CREATE TABLE copied.entries (LIKE public.entries INCLUDING ALL)`
		if _, err := conn.Exec(ctx, table, pgx.QueryExecModeSimpleProtocol); err != nil {
			return nil, err
		}
		defer func() { _, _ = conn.Exec(context.WithoutCancel(ctx), "DROP SCHEMA copied CASCADE") }()
	}
	if _, err := b.conn[mover.Source].Exec(ctx, "INSERT INTO copied.entries SELECT * FROM public.entries"); err != nil {
		return nil, err
	}
	if _, err := b.conn[mover.Source].Exec(ctx, "VACUUM ANALYZE copied.entries"); err != nil {
		return nil, err
	}
	r := &copies{}
	for round := range o.rounds {
		for _, one := range []struct {
			seconds *float64
			copy    func(context.Context) (time.Duration, error)
		}{{&r.Psql, b.psql}, {&r.Mover, b.mover}} {
			if _, err := b.conn[mover.Target].Exec(ctx, "TRUNCATE copied.entries"); err != nil {
				return nil, err
			}
			took, err := one.copy(ctx)
			if err != nil {
				return nil, err
			}
			rows := r.Rows
			const size = "SELECT count(*), pg_table_size('copied.entries') FROM copied.entries"
			if err := b.conn[mover.Target].QueryRow(ctx, size).Scan(&r.Rows, &r.Bytes); err != nil {
				return nil, err
			}
			if r.Rows == 0 || rows != 0 && rows != r.Rows {
				return nil, fmt.Errorf("%d rows were copied, and %d before", r.Rows, rows)
			}
			if s := took.Seconds(); round == 0 || s < *one.seconds {
				*one.seconds = s
			}
		}
	}
	return r, nil
}

// psql is what a DBA would write.
func (b *bench) psql(ctx context.Context) (time.Duration, error) {
	sql := fmt.Sprintf("COPY (SELECT * FROM copied.entries WHERE %s BETWEEN %d AND %d) TO STDOUT",
		topology.KeyInt.HashSQL("user_id"), copied.Start.Signed(), (copied.End - 1).Signed())
	from := exec.CommandContext(ctx, "psql", "-X", "-q", "-d", b.dsn[mover.Source], "-c", sql)
	to := exec.CommandContext(ctx, "psql", "-X", "-q", "-d", b.dsn[mover.Target], "-c", "COPY copied.entries FROM STDIN")
	pipe, err := from.StdoutPipe() // which both have without us
	if err != nil {
		return 0, err
	}
	var errs bytes.Buffer
	to.Stdin, from.Stderr, to.Stderr = pipe, &errs, &errs
	began := time.Now()
	if err := from.Start(); err != nil {
		return 0, err
	}
	err = to.Run()
	if e := from.Wait(); err == nil {
		err = e
	}
	if err != nil {
		return 0, fmt.Errorf("psql: %w: %s", err, errs.String())
	}
	return time.Since(began), nil
}

// mover copies as a move does, with ANALYZE at the end.
func (b *bench) mover(ctx context.Context) (time.Duration, error) {
	spec := mover.Spec{
		Cluster: "bench", ID: 1, Ranges: []topology.KeyRange{copied},
		Tables: []mover.Table{{TableName: topology.TableName{Schema: "copied", Name: "entries"}, Key: "user_id", KeyType: topology.KeyInt}},
		Source: b.conn[mover.Source].Config(), Target: b.conn[mover.Target].Config(),
	}
	m, err := mover.New(spec)
	if err != nil {
		return 0, err
	}
	snapshot, err := m.Prepare(ctx)
	if err != nil {
		return 0, err
	}
	defer snapshot.Close()
	began := time.Now()
	if err := m.Copy(ctx, snapshot, mover.CopyOptions{Workers: copyWorkers}); err != nil {
		return 0, err
	}
	took := time.Since(began)
	return took, m.Drop(ctx)
}
