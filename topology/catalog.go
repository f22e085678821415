package topology

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Catalog is the durable truth: the topology in the schema shardproxy of a PostgreSQL database. It holds no connection:
// each call opens one, so that it has nothing to repair after the database was away, and costs nothing in between. But for
// the cutover of a move, see Warm. Data traffic never waits for it.
//
//	proxy ──Load, ChangesSince──►┌─────────┐◄──Init, Commit(base, change)── DBA
//	      ◄───Watch (NOTIFY)─────│ Catalog │    compare-and-set on the epoch
//	                             └─────────┘
type Catalog struct {
	cfg  *pgx.ConnConfig
	warm chan *pgx.Conn // has the connection of Warm, if there is one and nobody uses it
}

// Actor is who makes a change, for the log.
type Actor struct {
	User string // on the admin console, or of the operating system
	From string // address or program
}

// How long the catalog is given where neither the DSN nor the caller's context says so.
const (
	catalogConnectTimeout = 5 * time.Second
	catalogLockTimeout    = 10 * time.Second // another change is one short transaction
)

// ErrNoCatalog is a database in which Init has not been run.
var ErrNoCatalog = errors.New("the database has no shardproxy catalog; `shardctl init` creates it")

// ErrConflict says that somebody else changed the topology first. Nothing was done.
type ErrConflict struct {
	Have Epoch // of the catalog
	Want Epoch // that the change was made for
}

func (e ErrConflict) Error() string {
	return fmt.Sprintf("the topology was changed meanwhile: the catalog is at epoch %d, this change was made for epoch %d; look at the topology again and repeat it", e.Have, e.Want)
}

// ErrExists says that the catalog holds another cluster.
type ErrExists struct{ Cluster string }

func (e ErrExists) Error() string {
	return fmt.Sprintf("the catalog holds the cluster %q already; each cluster needs a database of its own", e.Cluster)
}

// OpenCatalog reads the DSN and connects to nothing. Several hosts may be given, with target_session_attrs=read-write,
// for a catalog that fails over.
func OpenCatalog(dsn string) (*Catalog, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("the DSN of the catalog: %w", err)
	}
	if cfg.ConnectTimeout == 0 || cfg.ConnectTimeout > time.Minute { // pgx: two minutes
		cfg.ConnectTimeout = catalogConnectTimeout
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "shardproxy catalog"
	}
	return &Catalog{cfg: cfg, warm: make(chan *pgx.Conn, 1)}, nil
}

// Warm opens a connection for the changes of a cutover (CommitForMove, FlipMove), for which clients wait. It is kept until Cool.
func (c *Catalog) Warm(ctx context.Context) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	c.Cool()
	c.release(ctx, conn)
	return nil
}

// Cool closes the connection of Warm.
func (c *Catalog) Cool() {
	select {
	case conn := <-c.warm:
		closeConn(context.Background(), conn)
	default:
	}
}

// release keeps a connection for the next cutover, unless there is one or this one is of no use any more.
func (c *Catalog) release(ctx context.Context, conn *pgx.Conn) {
	if !conn.IsClosed() {
		select {
		case c.warm <- conn:
			return
		default:
		}
	}
	closeConn(ctx, conn)
}

// connect opens a connection that the caller closes.
func (c *Catalog) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.ConnectConfig(ctx, c.cfg)
}

// closeConn says good-bye even if the caller's context has ended, but not for long.
func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// transact runs f in a transaction on a connection of its own.
func (c *Catalog) transact(ctx context.Context, options pgx.TxOptions, f func(tx pgx.Tx) error) error {
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer closeConn(ctx, conn)
	return transactOn(ctx, conn, options, f)
}

// transactWarm is transact on the connection of Warm, where there is one. That it has broken meanwhile is an error: who asks again
// gets another.
func (c *Catalog) transactWarm(ctx context.Context, f func(tx pgx.Tx) error) error {
	select {
	case conn := <-c.warm:
		defer c.release(ctx, conn)
		return transactOn(ctx, conn, pgx.TxOptions{}, f)
	default:
		return c.transact(ctx, pgx.TxOptions{}, f)
	}
}

func transactOn(ctx context.Context, conn *pgx.Conn, options pgx.TxOptions, f func(tx pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, conn, options, func(tx pgx.Tx) error {
		// No name is meant to be found by the search path, and nothing is to wait for ever.
		setup := fmt.Sprintf("SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL lock_timeout = %d; SET LOCAL jit = off; ", catalogLockTimeout.Milliseconds())
		if _, err := tx.Exec(ctx, setup+durable); err != nil {
			return err
		}
		return f(tx)
	})
}

// durable keeps a server that loses its last commits in a crash from giving an epoch to two changes. What it has been told to
// wait for beyond its own disk is left alone.
const durable = "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"

// readOnly sees one state of the whole catalog.
var readOnly = pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}

// catalogHead is what Load and Commit must agree on.
type catalogHead struct {
	cluster  string
	epoch    Epoch
	checksum uint64
}

// readHead also checks that this program knows the version of the catalog.
func readHead(ctx context.Context, tx pgx.Tx) (h catalogHead, err error) {
	version, err := catalogVersion(ctx, tx)
	if err != nil {
		return h, err
	}
	switch known := len(migrations); {
	case version < known:
		return h, fmt.Errorf("the catalog is of version %d, this program needs version %d; `shardctl init` brings it up to date", version, known)
	case version > known:
		return h, fmt.Errorf("the catalog is of version %d, this program knows version %d; use a newer shardproxy", version, known)
	}
	var epoch, checksum int64
	err = tx.QueryRow(ctx, "SELECT cluster, epoch, checksum FROM shardproxy.meta").Scan(&h.cluster, &epoch, &checksum)
	if errors.Is(err, pgx.ErrNoRows) {
		return h, ErrNoCatalog
	}
	h.epoch, h.checksum = Epoch(epoch), uint64(checksum)
	return h, err
}

// refusedByServer tells an error of the server, after which nothing of the transaction holds, from a connection that broke.
func refusedByServer(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused)
}
