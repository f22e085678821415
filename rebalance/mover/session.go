package mover

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// MoveSetting is set in every session of a mover, to the name of its move. The triggers of the fence let such a
// session pass where they fire at all.
const MoveSetting = "shardproxy.move"

// takeover is how long a mover waits for the sessions of an earlier one, which it has ended, to be gone.
const takeover = 10 * time.Second

// sessionSettings make both sides write and read values alike, and nothing of a role's or a database's settings
// count. search_path is empty as in PostgreSQL's own apply workers: nobody's function can be slipped in.
var sessionSettings = map[string]string{
	"search_path":                         "",
	"client_encoding":                     "UTF8",
	"datestyle":                           "ISO",
	"intervalstyle":                       "postgres",
	"timezone":                            "UTC",
	"extra_float_digits":                  "3",
	"bytea_output":                        "hex",
	"lc_monetary":                         "C",
	"xmloption":                           "content",
	"standard_conforming_strings":         "on",
	"row_security":                        "off", // an error instead of rows left out
	"synchronous_commit":                  "on",  // what is confirmed to the slot must be durable
	"default_transaction_isolation":       "read committed",
	"default_transaction_read_only":       "off",
	"statement_timeout":                   "0",
	"lock_timeout":                        "0",
	"idle_in_transaction_session_timeout": "0", // it also counts for a session that exports a snapshot
	"idle_session_timeout":                "0",
	"jit":                                 "off",
}

// connect opens a session on a side. Close it.
func (m *Mover) connect(ctx context.Context, side Side) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, m.sessionConfig(side))
	if err != nil {
		return nil, fmt.Errorf("connecting to the %s: %w", side, err)
	}
	return conn, nil
}

func (m *Mover) sessionConfig(side Side) *pgx.ConnConfig {
	cfg := m.config(side).Copy()
	for name, value := range sessionSettings {
		cfg.RuntimeParams[name] = value
	}
	cfg.RuntimeParams[MoveSetting] = m.mark()
	cfg.RuntimeParams["application_name"] = m.name
	delete(cfg.RuntimeParams, "options")
	return cfg
}

// replicate opens a session that speaks the replication protocol.
func (m *Mover) replicate(ctx context.Context) (*pgconn.PgConn, error) {
	cfg := m.sessionConfig(Source)
	cfg.RuntimeParams["replication"] = "database"
	cfg.RuntimeParams["wal_sender_timeout"] = fmt.Sprint(walSenderTimeout.Milliseconds())
	conn, err := pgconn.ConnectConfig(ctx, &cfg.Config)
	if err != nil {
		return nil, fmt.Errorf("connecting to the source for replication: %w", err)
	}
	return conn, nil
}

// asReplica switches user triggers, rules and foreign key checks off for the session, as is right for rows that had all
// that done to them on the source. False says that the role may not: a superuser may, and from PostgreSQL 15
// whoever was granted SET ON PARAMETER session_replication_role.
func asReplica(ctx context.Context, conn *pgx.Conn) (bool, error) {
	_, err := conn.Exec(ctx, "SET session_replication_role = replica")
	if code(err) == "42501" {
		return false, nil
	}
	return err == nil, err
}

// writer opens a session that may write rows of the move on a side.
func (m *Mover) writer(ctx context.Context, side Side) (conn *pgx.Conn, replica bool, err error) {
	if conn, err = m.connect(ctx, side); err != nil {
		return nil, false, err
	}
	if replica, err = asReplica(ctx, conn); err != nil {
		conn.Close(ctx)
		return nil, false, fmt.Errorf("preparing a session on the %s: %w", side, err)
	}
	return conn, replica, nil
}

// lockKey is an advisory lock that every writing session of a move holds on the target, shared.
func (m *Mover) lockKey() int64 {
	h := fnv.New64a()
	h.Write([]byte(m.name))
	return int64(h.Sum64())
}

// claim makes conn a writing session of the move, and the only one: it ends all others, which are of a mover that was
// killed or that lost its lease without knowing, and waits until they are gone. Nothing of theirs can commit later.
func (m *Mover) claim(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, takeover, errors.New("the sessions of an earlier mover do not end"))
	defer cancel()
	key := m.lockKey()
	const end = `SELECT pg_terminate_backend(pid) FROM pg_locks
		WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND classid = ($1::int8 >> 32 & 4294967295)::oid AND objid = ($1::int8 & 4294967295)::oid AND objsubid = 1
		AND pid <> pg_backend_pid()`
	for {
		var free bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", key).Scan(&free); err != nil {
			return ended(ctx, err)
		}
		if free {
			break
		}
		if _, err := conn.Exec(ctx, end, key); err != nil {
			return fmt.Errorf("ending an earlier mover of %s: %w", m.name, ended(ctx, err))
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	const share = "SELECT pg_advisory_lock_shared($1), pg_advisory_unlock($1)"
	_, err := conn.Exec(ctx, share, key)
	return ended(ctx, err)
}

// join makes conn one more writing session beside one that has claimed the move.
func (m *Mover) join(ctx context.Context, conn *pgx.Conn) error {
	var ok bool
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock_shared($1)", m.lockKey()).Scan(&ok); err != nil {
		return err
	}
	if !ok {
		return ErrTakenOver
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// markSQL tells the streams of this move that what follows in the transaction was written by its mover. It is
// the first statement of every writing transaction.
func (m *Mover) markSQL() string {
	return "SELECT pg_logical_emit_message(true, " + literal(markPrefix) + ", " + literal(m.mark()) + ")"
}

// markPrefix of the logical messages of the mover.
const markPrefix = "shardproxy"

// SourceLSN gives a position that every transaction lies before whose commit was reported, or seen by anybody, before
// the call, and sees to it that the stream gets there at once even where commits are asynchronous.
func (m *Mover) SourceLSN(ctx context.Context) (lsn LSN, err error) {
	conn, err := m.connect(ctx, Source)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	return m.currentLSN(ctx, conn)
}

func (m *Mover) currentLSN(ctx context.Context, conn *pgx.Conn) (LSN, error) {
	results, err := conn.PgConn().Exec(ctx, m.PositionSQL()).ReadAll()
	if err != nil {
		return 0, fmt.Errorf("reading the position of the log: %w", err)
	}
	return ParseLSN(string(results[len(results)-1].Rows[0][0]))
}

// PositionSQL gives what SourceLSN does, for a connection of the caller's: one message of the simple protocol, whose only row is the position.
func (m *Mover) PositionSQL() string {
	// Flushed here is enough: a standby that is away must not keep a cutover waiting.
	return "SET LOCAL synchronous_commit = local; " + m.markSQL() + "::text"
}
