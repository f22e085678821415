package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/internal/postgres"
)

// Plain is one PostgreSQL server with the user and the database that the dev cluster has: app.
type Plain struct {
	dir    string
	server *postgres.Server
}

// StartPlain makes and starts a server that ends with this process.
func StartPlain(ctx context.Context) (*Plain, error) {
	binaries, err := postgres.Find()
	if err != nil {
		return nil, err
	}
	dir, err := TempDir()
	if err != nil {
		return nil, err
	}
	server, err := postgres.New(postgres.Config{
		Binaries: binaries, Name: "plain",
		Dir: filepath.Join(dir, "plain"), Log: filepath.Join(dir, "plain.log"), Ephemeral: true,
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	p := &Plain{dir: dir, server: server}
	if err := p.init(ctx); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

func (p *Plain) init(ctx context.Context) error {
	if err := p.server.Init(ctx); err != nil {
		return err
	}
	if err := p.server.Start(ctx); err != nil {
		return err
	}
	conn, err := pgconn.Connect(ctx, postgres.DSN(postgres.Superuser, "", p.server.Host(), p.server.Port(), "postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range []string{"CREATE ROLE app LOGIN PASSWORD 'app'", "CREATE DATABASE app OWNER app"} {
		if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// DSN of the user and database app.
func (p *Plain) DSN() string {
	return postgres.DSN("app", "app", p.server.Host(), p.server.Port(), "app")
}

// Stop ends the server and removes its data.
func (p *Plain) Stop() error {
	return errors.Join(p.server.StopImmediately(), os.RemoveAll(p.dir))
}
