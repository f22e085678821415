package pgtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/postgres"
)

// Options of a server; the zero value is a good one.
type Options struct {
	Dir      string            // data folder; default: a temporary one that is removed after the test
	Port     int               // wish; default: a free one
	Settings map[string]string // over those of internal/postgres
	HBA      string            // pg_hba.conf; default: trust on 127.0.0.1
}

// Server is a running PostgreSQL server.
type Server struct {
	Host string
	Port int
	Dir  string

	pg *postgres.Server
}

// Binaries is the folder of the PostgreSQL programs.
func Binaries() (dir string, err error) {
	bin, err := postgres.Find()
	return bin.Dir, err
}

const tempPrefix = "shardproxy-pgtest"

// workDir is a temporary folder, removed after the test. (testing's TempDir may not be entered by the account
// that a root's servers run as.)
func workDir(t testing.TB) string {
	t.Helper()
	sweep()
	dir, err := postgres.TempDir(tempPrefix)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return dir
}

// sweep removes what test processes left that ended before they could.
var sweep = sync.OnceFunc(func() { postgres.SweepTemp(tempPrefix) })

// Start makes a server and waits until it answers. At most one Options may be given.
func Start(t testing.TB, opts ...Options) *Server {
	t.Helper()
	var o Options
	if len(opts) > 0 {
		o = opts[0]
	}
	s, err := start(t.Context(), workDir(t), o)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	s.stopAfter(t)
	return s
}

func start(ctx context.Context, base string, o Options) (*Server, error) {
	pg, err := open(base, o, postgres.Config{})
	if err != nil {
		return nil, err
	}
	if err := pg.Init(ctx); err != nil {
		return nil, err
	}
	return run(ctx, pg)
}

// open lays out a server whose files are in base unless o says otherwise.
func open(base string, o Options, cfg postgres.Config) (*postgres.Server, error) {
	bin, err := postgres.Find()
	if err != nil {
		return nil, err
	}
	cfg.Binaries, cfg.Dir, cfg.Port = bin, o.Dir, o.Port
	cfg.Settings, cfg.HBA, cfg.Ephemeral = o.Settings, o.HBA, true
	cfg.Log = filepath.Join(base, "server.log")
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(base, "data")
	}
	return postgres.New(cfg)
}

func run(ctx context.Context, pg *postgres.Server) (*Server, error) {
	if err := pg.Start(ctx); err != nil {
		return nil, err
	}
	return &Server{Host: pg.Host(), Port: pg.Port(), Dir: pg.Dir(), pg: pg}, nil
}

// stopAfter stops the server when the test ends, and shows its log if the test failed.
func (s *Server) stopAfter(t testing.TB) {
	t.Cleanup(func() {
		if err := s.pg.StopImmediately(); err != nil {
			t.Errorf("pgtest: %v", err)
		}
		if t.Failed() {
			t.Logf("log of the server on port %d:\n%s", s.Port, s.pg.LogTail())
		}
	})
}

// Replica is a streaming replica of s with a replication slot of its own.
func (s *Server) Replica(t testing.TB, opts ...Options) *Server {
	t.Helper()
	o := Options{}
	if len(opts) > 0 {
		o = opts[0]
	}
	name := fmt.Sprintf("replica%d", replicas.Add(1))
	pg, err := open(workDir(t), o, postgres.Config{Name: name, Primary: s.pg, Slot: name})
	if err == nil {
		err = pg.Clone(t.Context())
	}
	var r *Server
	if err == nil {
		r, err = run(t.Context(), pg)
	}
	if err != nil {
		t.Fatalf("pgtest: replica: %v", err)
	}
	r.stopAfter(t)
	return r
}

// replicas numbers the replicas of this process, so that their slots have names of their own.
var replicas atomic.Int32

// DSN of a database for the superuser.
func (s *Server) DSN(db string) string { return s.pg.DSN(db) }

// DSNAs is the DSN of a database for another role; password may be "".
func (s *Server) DSNAs(user, password, db string) string { return s.pg.DSNAs(user, password, db) }

// PID of the postmaster.
func (s *Server) PID() int { return s.pg.PID() }

// Kill ends the postmaster and its children by SIGKILL.
func (s *Server) Kill() error { return s.pg.Kill() }

// Stop ends the server in good order; its data stays for Restart.
func (s *Server) Stop() error { return s.pg.Stop() }

// Restart stops the server, if it runs, and starts it on the same port.
func (s *Server) Restart() error {
	if err := s.pg.Stop(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.pg.Start(ctx); err != nil {
		return err
	}
	if got := s.pg.Port(); got != s.Port {
		return fmt.Errorf("pgtest: port %d was taken by another process during the restart", s.Port)
	}
	return nil
}

// Connect opens a superuser's connection that is closed after the test.
func (s *Server) Connect(t testing.TB, db string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.DSN(db))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// Exec runs statements (the simple protocol: several may be given at once) as the superuser.
func (s *Server) Exec(t testing.TB, db, sql string) {
	t.Helper()
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, s.DSN(db))
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		t.Fatalf("pgtest: %s: %v", sql, err)
	}
}

// CreateDatabase makes an empty database with a name of its own, dropped after the test.
func (s *Server) CreateDatabase(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	s.Exec(t, "postgres", "CREATE DATABASE "+name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		conn, err := pgx.Connect(ctx, s.DSN("postgres"))
		if err != nil {
			return // the test ended the server
		}
		defer conn.Close(ctx)
		if _, err := conn.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	return name
}

var databases atomic.Int32
