package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/postgres"
	"shardproxy/topology"
)

// wholeDatabase holds all accounts; every target but one of several shards reads it.
const wholeDatabase = "bench"

// shardDatabase holds the accounts that shard i of n owns. The shards are databases of the one
// server, so that splitting the data does not add to the server's work.
func shardDatabase(i, n int) string { return fmt.Sprintf("bench_%dof%d", i+1, n) }

// serverSettings keep the disk and the background out of the measurement: all data fits in memory
// and nothing is written while it is read.
var serverSettings = map[string]string{
	"shared_buffers":                   "512MB",
	"max_connections":                  "400",
	"max_wal_size":                     "8GB",
	"checkpoint_timeout":               "1h",
	"autovacuum":                       "off",
	"jit":                              "off",
	"wal_level":                        "minimal",
	"max_wal_senders":                  "0",
	"track_commit_timestamp":           "off",
	"client_connection_check_interval": "0",
}

// startServer makes an empty server under dir and starts it.
func startServer(ctx context.Context, dir string) (*postgres.Server, error) {
	binaries, err := postgres.Find()
	if err != nil {
		return nil, err
	}
	server, err := postgres.New(postgres.Config{
		Binaries:  binaries,
		Dir:       filepath.Join(dir, "data"),
		Log:       filepath.Join(dir, "postgres.log"),
		Settings:  serverSettings,
		Ephemeral: true,
	})
	if err != nil {
		return nil, err
	}
	if err := server.Init(ctx); err != nil {
		return nil, err
	}
	return server, server.Start(ctx)
}

// ownerOf is the account that the servers run as: the one that owns their data folder. Nil where
// that is our own.
func ownerOf(server *postgres.Server) (*syscall.Credential, error) {
	info, err := os.Stat(server.Dir())
	if err != nil {
		return nil, err
	}
	owner := info.Sys().(*syscall.Stat_t)
	if int(owner.Uid) == os.Geteuid() {
		return nil, nil
	}
	return &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}, nil
}

// loader fills databases with pgbench's tables.
type loader struct {
	pgbench string // the program
	server  *postgres.Server
	scale   int
}

// whole makes the database with all accounts.
func (l *loader) whole(ctx context.Context) error {
	if _, err := l.exec(ctx, "postgres", "CREATE DATABASE "+wholeDatabase); err != nil {
		return err
	}
	return l.init(ctx, wholeDatabase, "dtgvp")
}

// sharded makes one database for each of n shards with equal ranges of the ring, filled by SQL
// alone: no proxy has to work for the data to be where the hash says.
func (l *loader) sharded(ctx context.Context, n int) error {
	accounts, rows := int64(l.scale*accountsPerScale), int64(0)
	for _, r := range topology.EqualRanges(n) {
		name := shardDatabase(int(r.Shard), n)
		if _, err := l.exec(ctx, "postgres", "CREATE DATABASE "+name); err != nil {
			return err
		}
		if err := l.init(ctx, name, "dt"); err != nil {
			return err
		}
		last := (r.End - 1).Signed() // End is 0 for the last range, which ends with the ring
		fill := fmt.Sprintf(`INSERT INTO pgbench_accounts
			SELECT aid, (aid - 1) / %d + 1, 0, '' FROM generate_series(1, %d) aid
			WHERE hashint8extended(aid, %d) BETWEEN %d AND %d`,
			accountsPerScale, accounts, hashSeed, r.Start.Signed(), last)
		n, err := l.exec(ctx, name, fill)
		if err != nil {
			return err
		}
		rows += n
		if err := l.init(ctx, name, "vp"); err != nil {
			return err
		}
	}
	if rows != accounts {
		return fmt.Errorf("%d shards hold %d accounts of %d", n, rows, accounts)
	}
	return nil
}

// hashSeed is PostgreSQL's HASH_PARTITION_SEED, with which shardproxy hashes keys.
const hashSeed = 8816678312871386365

// init runs steps of pgbench's own initialization.
func (l *loader) init(ctx context.Context, database, steps string) error {
	cmd := exec.CommandContext(ctx, l.pgbench, "-i", "-q", "-I", steps, "-s", strconv.Itoa(l.scale),
		"-h", l.server.Host(), "-p", strconv.Itoa(l.server.Port()), "-U", postgres.Superuser, database)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w\n%s", err, out)
	}
	return nil
}

// settle writes the loaded data out, so that no checkpoint falls into a run.
func (l *loader) settle(ctx context.Context) error {
	_, err := l.exec(ctx, "postgres", "CHECKPOINT")
	return err
}

// exec runs one statement and returns the rows that it wrote.
func (l *loader) exec(ctx context.Context, database, sql string) (rows int64, err error) {
	conn, err := pgx.Connect(ctx, l.server.DSN(database))
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	tag, err := conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	return tag.RowsAffected(), err
}
