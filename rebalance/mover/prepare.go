package mover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/topology"
)

// slotPatience is how long Drop waits for the sender of a slot, whose receiver is gone, to let it go.
const slotPatience = 10 * time.Second

// Snapshot is the state of the source at which the slot's stream begins. It lives as long as its connection: Close it
// when the copy is done.
type Snapshot struct {
	LSN  LSN
	name string
	conn *pgconn.PgConn
}

// Close lets the snapshot go.
func (s *Snapshot) Close() { closeReplication(s.conn) }

// closeReplication must not wait for a sender that does not read.
func closeReplication(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// Prepare makes the publication and the replication slot on the source and the progress row on the target, after taking
// away what an earlier attempt left of them. Creating the slot waits for every transaction that is writing anywhere on
// the source server; Preflight names those that are old.
func (m *Mover) Prepare(ctx context.Context) (*Snapshot, error) {
	return m.prepare(ctx, false)
}

// PrepareStream is Prepare without a copy: the stream begins at the position that it returns. The way back of a move is
// prepared so, some time before the cutover.
func (m *Mover) PrepareStream(ctx context.Context) (LSN, error) {
	s, err := m.prepare(ctx, true)
	if err != nil {
		return 0, err
	}
	s.Close()
	return s.LSN, nil
}

func (m *Mover) prepare(ctx context.Context, copied bool) (*Snapshot, error) {
	target, err := m.connect(ctx, Target)
	if err != nil {
		return nil, err
	}
	defer target.Close(context.WithoutCancel(ctx))
	if err := m.claim(ctx, target); err != nil {
		return nil, err
	}
	source, err := m.connect(ctx, Source)
	if err != nil {
		return nil, err
	}
	defer source.Close(context.WithoutCancel(ctx))
	sourceShape, err := m.bothShapes(ctx, source, target)
	if err != nil {
		return nil, err
	}
	if err := m.dropSource(ctx, source); err != nil {
		return nil, err
	}
	if err := m.publish(ctx, source, sourceShape); err != nil {
		return nil, fmt.Errorf("creating publication %s: %w", m.name, err)
	}
	snapshot, err := m.createSlot(ctx)
	if err != nil {
		return nil, err
	}
	if err = ensureProgress(ctx, target); err == nil {
		err = m.writeProgress(ctx, target, progress{lsn: snapshot.LSN, copied: copied, shape: sourceShape})
	}
	if err != nil {
		snapshot.Close()
		return nil, fmt.Errorf("storing the progress: %w", err)
	}
	return snapshot, nil
}

// bothShapes reads the tables of both sides and refuses what cannot be moved.
func (m *Mover) bothShapes(ctx context.Context, source, target *pgx.Conn) (shape, error) {
	s, err := m.readShape(ctx, source)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	t, err := m.readShape(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("target: %w", err)
	}
	for _, one := range s {
		if one.Problem != "" {
			return nil, fmt.Errorf("table %s: %s", one.TableName, one.Problem)
		}
	}
	for name, what := range s.compare(t) {
		return nil, fmt.Errorf("table %s on the target is another: %s", name, what)
	}
	return s, nil
}

// publish names the tables themselves. Changes of partitions come under the partition's name: with
// publish_via_partition_root, PostgreSQL 15 leaves TRUNCATE of a partition out.
func (m *Mover) publish(ctx context.Context, source *pgx.Conn, s shape) error {
	var tables []string
	for _, t := range s {
		tables = append(tables, t.from())
	}
	_, err := source.Exec(ctx, fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s", quote(m.name), strings.Join(tables, ", ")))
	return err
}

func (m *Mover) createSlot(ctx context.Context) (*Snapshot, error) {
	conn, err := m.replicate(ctx)
	if err != nil {
		return nil, err
	}
	// The spelling that every version from 10 on understands.
	results, err := conn.Exec(ctx, fmt.Sprintf("CREATE_REPLICATION_SLOT %s LOGICAL pgoutput EXPORT_SNAPSHOT", m.name)).ReadAll()
	if err == nil && (len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < 3) {
		err = errors.New("the answer is not that of CREATE_REPLICATION_SLOT")
	}
	var lsn LSN
	if err == nil {
		lsn, err = ParseLSN(string(results[0].Rows[0][1]))
	}
	if err != nil {
		closeReplication(conn)
		return nil, fmt.Errorf("creating replication slot %s: %w", m.name, err)
	}
	return &Snapshot{LSN: lsn, name: string(results[0].Rows[0][2]), conn: conn}, nil
}

// StartAt makes the stream leave out the transactions before lsn, a position of its source. The way back of a
// move uses it: before the target was opened, only the mover wrote there.
func (m *Mover) StartAt(ctx context.Context, lsn LSN) error {
	target, err := m.connect(ctx, Target)
	if err != nil {
		return err
	}
	defer target.Close(context.WithoutCancel(ctx))
	if err := m.claim(ctx, target); err != nil {
		return err
	}
	const set = "UPDATE shardproxy.progress SET lsn = greatest(lsn, $2::text::pg_lsn), updated_at = now() WHERE name = $1"
	tag, err := target.Exec(ctx, set, m.name, lsn.String())
	if err == nil && tag.RowsAffected() == 0 || code(err) == "42P01" {
		return ErrNotPrepared
	}
	return err
}

// Drop takes slot, publication and progress row away, whatever of them is there. It ends the stream of an earlier mover.
func (m *Mover) Drop(ctx context.Context) error {
	if err := m.DropSide(ctx, Source); err != nil {
		return err
	}
	return m.DropSide(ctx, Target)
}

// DropSide is Drop on one side, for a move whose other side is gone for good.
func (m *Mover) DropSide(ctx context.Context, side Side) error {
	conn, err := m.connect(ctx, side)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if side == Source {
		return m.dropSource(ctx, conn)
	}
	if err := m.claim(ctx, conn); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "DELETE FROM shardproxy.progress WHERE name = $1", m.name); err != nil && code(err) != "42P01" {
		return fmt.Errorf("removing the progress: %w", err)
	}
	return nil
}

func (m *Mover) dropSource(ctx context.Context, source *pgx.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, slotPatience, fmt.Errorf("replication slot %s stays active", m.name))
	defer cancel()
	for {
		if err := m.endSender(ctx, source); err != nil {
			return fmt.Errorf("ending the stream of %s: %w", m.name, ended(ctx, err))
		}
		_, err := source.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1", m.name)
		if err == nil || code(err) == "42704" { // another has just dropped it
			break
		}
		if code(err) != "55006" {
			return fmt.Errorf("dropping replication slot %s: %w", m.name, ended(ctx, err))
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	if _, err := source.Exec(ctx, "DROP PUBLICATION IF EXISTS "+quote(m.name)); err != nil {
		return fmt.Errorf("dropping publication %s: %w", m.name, ended(ctx, err))
	}
	return nil
}

// endSender ends who holds the slot: the sender for a mover that is gone or has lost its lease.
func (m *Mover) endSender(ctx context.Context, source *pgx.Conn) error {
	_, err := source.Exec(ctx, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active_pid IS NOT NULL", m.name)
	return err
}

// checkShape says how the source's tables differ from when the move was prepared.
func (m *Mover) checkShape(ctx context.Context, source *pgx.Conn, prepared shape) (shape, error) {
	now, err := m.readShape(ctx, source)
	var missing tableError
	if errors.Is(err, errNoTable) && errors.As(err, &missing) {
		return nil, ErrSchemaChanged{missing.table, "it is gone"}
	}
	if err != nil {
		return nil, err
	}
	for _, t := range prepared {
		if what := t.differs(now.byName(t.TableName)); what != "" {
			return nil, ErrSchemaChanged{t.TableName, what}
		}
	}
	return now, nil
}

// Tables gives the names of what moves, without partitions: for locks and messages. It reads the source.
func (m *Mover) Tables(ctx context.Context) (names []topology.TableName, err error) {
	conn, err := m.connect(ctx, Source)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	s, err := m.readShape(ctx, conn)
	for _, t := range s {
		names = append(names, t.TableName)
	}
	return names, err
}
