package mover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/topology"
)

// PreflightOptions of a preflight; the zero value looks at everything.
type PreflightOptions struct {
	// SkipCollisions leaves out the search for ids of the ranges that rows of other ranges have on the target: it reads the
	// ids of all rows that move.
	SkipCollisions bool
	// OldTransaction is from which age on a transaction is named; 0 for a second.
	OldTransaction time.Duration
}

// Report says what a move would meet.
type Report struct {
	Tables   []TableReport
	Blockers []Blocker
	Problems []Problem
	Replica  [2]bool // by Side: session_replication_role may be set, so that neither triggers nor foreign keys act on the mover's rows
	// Room on the source: what is free of max_replication_slots and max_wal_senders; a move needs one of each, and so does its
	// way back on the target.
	FreeSlots, FreeSenders [2]int
	// MaxSlotWALBytes is max_slot_wal_keep_size of the source, -1 for no limit: a copy during which more is written loses its slot.
	MaxSlotWALBytes int64
	// BytesPerSecond is the limit of the copy, 0 for none. The coordinator fills it in.
	BytesPerSecond int64
}

// TableReport is about one table on the source.
type TableReport struct {
	Table       topology.TableName
	Bytes       int64 // of the whole table, with TOAST and indexes
	Rows        int64 // of the whole table, estimated
	MovingRows  int64 // estimated from a sample
	MovingBytes int64 // the same; about what the target needs, and as much again in its log
	Binary      bool  // COPY in the binary format
}

// Blocker is a transaction that would keep Prepare waiting.
type Blocker struct {
	Side      Side
	PID       int32  // 0 for a prepared transaction
	Prepared  string // its name
	User, App string
	State     string
	Age       time.Duration // of the transaction; 0 if our role may not know
	Query     string        // likewise "", and cut to its beginning
}

func (b Blocker) String() string {
	who := fmt.Sprintf("pid %d", b.PID)
	if b.Prepared != "" {
		who = "prepared transaction " + b.Prepared
	}
	return fmt.Sprintf("%s on the %s, user %s, %s, %s old: %s", who, b.Side, b.User, b.State, b.Age.Round(time.Second), b.Query)
}

// Problem keeps the move from being made, unless it is a Warning.
type Problem struct {
	Side    Side
	Table   topology.TableName // none where it is about the side
	Text    string
	Hint    string
	Warning bool
}

func (p Problem) String() string {
	s := p.Side.String()
	if p.Table.Name != "" {
		s += ", table " + p.Table.String()
	}
	s += ": " + p.Text
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}

// Err sums up the problems; nil if there are only warnings.
func (r *Report) Err() error {
	var list []string
	for _, p := range r.Problems {
		if !p.Warning {
			list = append(list, p.String())
		}
	}
	if list == nil {
		return nil
	}
	return fmt.Errorf("the move cannot be made: %s", strings.Join(list, "; "))
}

// preflight is one run of Preflight.
type preflight struct {
	mover   *Mover
	options PreflightOptions
	conn    [2]*pgx.Conn
	shape   [2]shape
	report  *Report
	blind   bool // a right is missing without which the rows cannot be looked at
}

// Preflight looks for all that would make the move fail or stall. It changes nothing. Its error says that it could not
// look; what it found is in the report.
func (m *Mover) Preflight(ctx context.Context, options PreflightOptions) (*Report, error) {
	if options.OldTransaction == 0 {
		options.OldTransaction = time.Second
	}
	p := &preflight{mover: m, options: options, report: &Report{}}
	for _, side := range []Side{Source, Target} {
		conn, replica, err := m.writer(ctx, side)
		if err != nil {
			return nil, err
		}
		defer closeWriter(conn)
		p.conn[side], p.report.Replica[side] = conn, replica
		for _, step := range []func(context.Context, Side) error{p.server, p.rights, p.blockers, p.tables} {
			if err := step(ctx, side); err != nil {
				return nil, fmt.Errorf("looking at the %s: %w", side, ended(ctx, err))
			}
		}
	}
	if p.shape[Source] == nil || p.shape[Target] == nil || p.blind {
		return p.report, nil
	}
	p.compare()
	p.references()
	for _, t := range p.shape[Source] {
		if err := p.size(ctx, t); err != nil {
			return nil, fmt.Errorf("size of table %s: %w", t.TableName, ended(ctx, err))
		}
		other := p.shape[Target].byName(t.TableName)
		if other == nil || len(differentColumns(t, other)) > 0 {
			continue
		}
		if err := p.target(ctx, t, other); err != nil {
			return nil, fmt.Errorf("table %s on the target: %w", t.TableName, ended(ctx, err))
		}
	}
	return p.report, nil
}

func (p *preflight) problem(side Side, table topology.TableName, hint, format string, args ...any) {
	p.report.Problems = append(p.report.Problems, Problem{Side: side, Table: table, Text: fmt.Sprintf(format, args...), Hint: hint})
}

func (p *preflight) warn(side Side, table topology.TableName, hint, format string, args ...any) {
	p.problem(side, table, hint, format, args...)
	p.report.Problems[len(p.report.Problems)-1].Warning = true
}

var noTable topology.TableName

// server looks at the settings. The target needs the same as the source, for the way back.
func (p *preflight) server(ctx context.Context, side Side) error {
	const sql = `SELECT current_setting('server_version_num')::int, current_setting('wal_level'), current_setting('server_encoding'), pg_is_in_recovery(),
		current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots),
		current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_get_wal_senders()),
		CASE WHEN current_setting('max_slot_wal_keep_size') = '-1' THEN -1 ELSE pg_size_bytes(current_setting('max_slot_wal_keep_size')) END,
		current_setting('synchronous_standby_names')`
	var version int
	var level, encoding, synchronous string
	var standby bool
	var keep int64
	err := p.conn[side].QueryRow(ctx, sql).Scan(&version, &level, &encoding, &standby, &p.report.FreeSlots[side], &p.report.FreeSenders[side], &keep, &synchronous)
	if err != nil {
		return err
	}
	if side == Source {
		p.report.MaxSlotWALBytes = keep
		if keep >= 0 {
			p.warn(side, noTable, "raise max_slot_wal_keep_size or set it to -1", "a copy during which more than %d MB of log are written loses its replication slot", keep>>20)
		}
	}
	if strings.Contains(synchronous, "*") { // a commit that only the mover has would be acknowledged, and others would wait for the mover
		p.problem(side, noTable, "name the standbys that commits are to wait for", "for synchronous_standby_names = '%s', the stream of the move would count as a standby", synchronous)
	}
	if version < 140000 {
		p.problem(side, noTable, "PostgreSQL 14 or newer", "the server is too old (version %d)", version)
	}
	if standby {
		p.problem(side, noTable, "connect to the primary", "the server is a standby")
	}
	if level != "logical" {
		p.problem(side, noTable, "set wal_level = logical and restart", "wal_level is %s", level)
	}
	if encoding != "UTF8" {
		p.problem(side, noTable, "", "the database's encoding is %s; only UTF8 can be moved", encoding)
	}
	if p.report.FreeSlots[side] < 1 {
		p.problem(side, noTable, "raise max_replication_slots, or drop unused ones", "there is no free replication slot")
	}
	if p.report.FreeSenders[side] < 1 {
		p.problem(side, noTable, "raise max_wal_senders", "there is no free WAL sender")
	}
	return nil
}

func (p *preflight) rights(ctx context.Context, side Side) error {
	const sql = `SELECT rolname, rolsuper, rolreplication, has_database_privilege(current_database(), 'CREATE'),
		to_regnamespace('shardproxy') IS NULL OR has_schema_privilege('shardproxy', 'CREATE'),
		to_regclass('shardproxy.progress') IS NULL OR has_table_privilege('shardproxy.progress', 'SELECT, INSERT, UPDATE, DELETE'),
		has_function_privilege('pg_logical_emit_message(boolean, text, text)', 'EXECUTE')
		FROM pg_roles WHERE rolname = current_user`
	var name string
	var super, replication, database, schema, table, emit bool
	if err := p.conn[side].QueryRow(ctx, sql).Scan(&name, &super, &replication, &database, &schema, &table, &emit); err != nil {
		return err
	}
	if super {
		return nil
	}
	role := quote(name)
	if !replication {
		p.problem(side, noTable, "ALTER ROLE "+role+" REPLICATION", "role %s has not the attribute REPLICATION", name)
	}
	if !database {
		p.problem(side, noTable, "GRANT CREATE ON DATABASE … TO "+role, "role %s may not create publications", name)
	}
	if !schema || !table {
		p.problem(side, noTable, "GRANT CREATE, USAGE ON SCHEMA shardproxy and all on shardproxy.progress TO "+role, "role %s may not store the progress of moves", name)
	}
	if !emit {
		p.problem(side, noTable, "GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) TO "+role, "role %s may not mark its transactions", name)
	}
	return nil
}

func (p *preflight) blockers(ctx context.Context, side Side) error {
	found, err := blockers(ctx, p.conn[side], side, p.options.OldTransaction)
	p.report.Blockers = append(p.report.Blockers, found...)
	return err
}

// Blockers names the transactions on a side that Prepare or PrepareStream waits for, if it has been at it for that long.
func (m *Mover) Blockers(ctx context.Context, side Side, older time.Duration) ([]Blocker, error) {
	conn, err := m.connect(ctx, side)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return blockers(ctx, conn, side, older)
}

// blockers are transactions that have written, in any database of the server: a new slot waits for all of them.
func blockers(ctx context.Context, conn *pgx.Conn, side Side, older time.Duration) (found []Blocker, err error) {
	const sql = `SELECT coalesce(l.pid, 0), coalesce(x.gid, ''), coalesce(r.rolname, x.owner::text, ''), coalesce(a.application_name, ''), coalesce(a.state, CASE WHEN l.pid IS NULL THEN 'prepared' ELSE 'unknown' END),
		extract(epoch FROM coalesce(clock_timestamp() - coalesce(a.xact_start, x.prepared), '0'))::float8, left(coalesce(a.query, ''), 200)
		FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid LEFT JOIN pg_roles r ON r.oid = a.usesysid
		LEFT JOIN pg_prepared_xacts x ON l.pid IS NULL AND x.transaction = l.transactionid
		WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
		AND (a.xact_start IS NULL OR a.xact_start < clock_timestamp() - $1 * interval '1 second')
		ORDER BY 6 DESC`
	rows, err := conn.Query(ctx, sql, older.Seconds())
	if err != nil {
		return nil, err
	}
	b := Blocker{Side: side}
	var age float64
	_, err = pgx.ForEachRow(rows, []any{&b.PID, &b.Prepared, &b.User, &b.App, &b.State, &age, &b.Query}, func() error {
		b.Age = time.Duration(age * float64(time.Second))
		found = append(found, b)
		return nil
	})
	return found, err
}

// tables reads the shape, and looks at what concerns one side alone.
func (p *preflight) tables(ctx context.Context, side Side) error {
	s, err := p.mover.readShape(ctx, p.conn[side])
	var te tableError
	var unfit shapeError
	if errors.As(err, &unfit) && errors.As(err, &te) {
		p.problem(side, te.table, "", "%v", unfit)
		return nil
	}
	if err != nil {
		return err
	}
	p.shape[side] = s
	for _, t := range s {
		if t.Problem != "" {
			p.problem(side, t.TableName, "", "%s", t.Problem)
		} else if t.Whole {
			p.warn(side, t.TableName, "", "it has no primary key: each UPDATE and DELETE of a row searches for an equal one, by an index that begins with the shard key or in all of the table")
		}
		if len(t.Triggers) > 0 && !p.report.Replica[side] {
			p.problem(side, t.TableName, "GRANT SET ON PARAMETER session_replication_role TO the mover's role",
				"%s would act on the rows that the mover writes", strings.Join(t.Triggers, ", "))
		}
		key, _ := t.column(t.Key)
		if !key.NotNull {
			p.warn(side, t.TableName, "ALTER TABLE … SET NOT NULL", "the shard key %q may be NULL; such rows stay where they are", t.Key)
		}
		if err := p.owned(ctx, side, t); err != nil {
			return err
		}
	}
	return nil
}

// owned: only the owner of a table may publish, VACUUM and ANALYZE it.
func (p *preflight) owned(ctx context.Context, side Side, t *table) error {
	const sql = `SELECT pg_has_role(relowner, 'USAGE'), pg_get_userbyid(relowner), relrowsecurity AND (relforcerowsecurity OR NOT pg_has_role(relowner, 'USAGE'))
		FROM pg_class WHERE oid = $1`
	var owned, security bool
	var owner string
	if err := p.conn[side].QueryRow(ctx, sql, t.OID).Scan(&owned, &owner, &security); err != nil {
		return err
	}
	p.blind = p.blind || security || !owned
	if !owned {
		p.problem(side, t.TableName, "GRANT "+quote(owner)+" TO the mover's role", "the mover's role is not a member of its owner %s", owner)
	}
	if security {
		p.problem(side, t.TableName, "ALTER ROLE … BYPASSRLS", "row security hides rows from the mover's role")
	}
	return nil
}
