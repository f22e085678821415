package devcluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"shardproxy/internal/postgres"
	"shardproxy/topology"
)

// member is one PostgreSQL server of the cluster.
type member struct {
	name      string // its folder below DIR, "server1/primary"
	role      topology.Role
	pg        *postgres.Server
	primary   *member // of a replica
	slot      string  // of a replica
	databases []login // of a primary: what it must hold
}

// login is a database with its owner.
type login struct{ user, password, database string }

// accessRules let the superuser in without a password, and everybody else with one.
const accessRules = `host all postgres 127.0.0.1/32 trust
host replication postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
`

// connectionsMax of a server. Each database of each node has a pool of its own in each proxy.
func connectionsMax(databases int) int { return min(200+30*databases, 1200) }

// start makes the member's data if it is not there, and runs the server.
func (m *member) start(ctx context.Context) error {
	if err := m.prepare(ctx); err != nil {
		return fmt.Errorf("server %s: %w", m.name, err)
	}
	if m.pg.PID() != 0 {
		return nil // a new primary runs already
	}
	if err := m.pg.Start(ctx); err != nil {
		return fmt.Errorf("server %s: %w", m.name, err)
	}
	return nil
}

// prepare makes the data. A mark beside the data folder says that it is complete; without it, an earlier
// start was killed half-way, and all is made again.
func (m *member) prepare(ctx context.Context) error {
	mark := m.pg.Dir() + ".complete"
	if _, err := os.Stat(mark); err == nil {
		return nil
	}
	if err := m.pg.EndStale(ctx); err != nil {
		return err
	}
	if err := m.pg.Remove(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.pg.Dir()), 0o755); err != nil { // the servers' account passes through it
		return err
	}
	var err error
	if m.role == topology.Replica {
		err = m.clone(ctx)
	} else {
		err = m.create(ctx)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(mark, nil, 0o644)
}

// create makes an empty cluster with the databases, and leaves it running.
func (m *member) create(ctx context.Context) error {
	if err := m.pg.Init(ctx); err != nil {
		return err
	}
	if err := m.pg.Start(ctx); err != nil {
		return err
	}
	var roles, grants, statements []string
	seen := map[string]bool{}
	for _, l := range m.databases {
		if !seen[l.user] {
			seen[l.user] = true
			grants = append(grants, fmt.Sprintf(movesRows, l.user))
			roles = append(roles, fmt.Sprintf("CREATE ROLE %s LOGIN REPLICATION PASSWORD '%s'", l.user, strings.ReplaceAll(l.password, "'", "''")))
		}
		// The owner of a database owns its schema public too.
		statements = append(statements, fmt.Sprintf("CREATE DATABASE %s OWNER %s", l.database, l.user))
	}
	return m.exec(ctx, slices.Concat(roles, grants, statements)...)
}

// movesRows lets a role move rows from shard to shard, past the triggers that hold others off. Before PostgreSQL 15 only superusers may.
const movesRows = `DO $$ BEGIN
	IF pg_catalog.current_setting('server_version_num')::int >= 150000 THEN
		EXECUTE 'GRANT SET ON PARAMETER session_replication_role TO %s';
	END IF;
END $$`

// clone makes a replica, after dropping the slot of an attempt that was killed.
func (m *member) clone(ctx context.Context) error {
	drop := fmt.Sprintf("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '%s'", m.slot)
	if err := m.primary.exec(ctx, drop); err != nil {
		return err
	}
	return m.pg.Clone(ctx)
}

// exec runs statements as the superuser, each in a transaction of its own.
func (m *member) exec(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, m.pg.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// layout makes the members of a cluster: primaries in the order of their shards, their replicas, spare primaries, the catalog.
type layout struct {
	bin       postgres.Binaries
	folder    *folder
	ports     map[string]int
	ephemeral bool
}

func (l layout) members(s shape) (primaries, replicas, spares []*member, catalog *member, err error) {
	for i := range s.Servers {
		p := &member{name: fmt.Sprintf("server%d/primary", i+1)}
		for shard := range s.Shards {
			if s.serverOf(shard) == i {
				p.databases = append(p.databases, login{User, Password, s.database(shard)})
			}
		}
		if err := l.attach(p, len(p.databases)); err != nil {
			return nil, nil, nil, nil, err
		}
		primaries = append(primaries, p)
		for j := range s.Replicas {
			r := &member{
				name: fmt.Sprintf("server%d/replica%d", i+1, j+1), role: topology.Replica,
				primary: p, slot: fmt.Sprintf("replica%d", j+1),
			}
			if err := l.attach(r, len(p.databases)); err != nil {
				return nil, nil, nil, nil, err
			}
			replicas = append(replicas, r)
		}
	}
	for i := range s.Spares {
		p := &member{name: fmt.Sprintf("spare%d/primary", i+1), databases: []login{{User, Password, Database}}}
		if err := l.attach(p, 1); err != nil {
			return nil, nil, nil, nil, err
		}
		spares = append(spares, p)
	}
	catalog = &member{name: "catalog/primary", databases: []login{{catalogUser, catalogPassword, catalogDatabase}}}
	return primaries, replicas, spares, catalog, l.attach(catalog, 1)
}

// attach gives the member its (not yet running) server.
func (l layout) attach(m *member, databases int) error {
	cfg := postgres.Config{
		Binaries:  l.bin,
		Name:      strings.ReplaceAll(m.name, "/", "_"),
		Dir:       l.folder.path(filepath.FromSlash(m.name)),
		Log:       l.folder.path("log", strings.ReplaceAll(m.name, "/", "-")+".log"),
		Port:      l.ports[m.name],
		Settings:  map[string]string{"max_connections": strconv.Itoa(connectionsMax(databases))},
		HBA:       accessRules,
		Ephemeral: l.ephemeral,
		Slot:      m.slot,
	}
	if m.primary != nil {
		cfg.Primary = m.primary.pg
	}
	var err error
	m.pg, err = postgres.New(cfg)
	return err
}
