package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"shardproxy/internal/postgres"
)

// target is something that pgbench can be pointed at, while it runs.
type target struct {
	kind
	at    endpoint
	proxy *process // nil for plain PostgreSQL
}

func (t *target) cpu() (time.Duration, error) {
	if t.proxy == nil {
		return 0, nil
	}
	return t.proxy.cpu()
}

func (t *target) stop() {
	if t.proxy != nil {
		t.proxy.stop()
	}
}

// kind is a target that can be started, any number of times.
type kind struct {
	name   string
	shards int  // databases it spreads the accounts over
	pools  bool // many clients share few backends, so thousands of idle clients make sense
	// command writes the configuration to dir and gives the command that listens on port; nil for
	// plain PostgreSQL.
	command      func(e *environment, dir string, port int) ([]string, error)
	asServerUser bool // it refuses to run as root
}

// kinds are all targets in the order of the report.
var kinds = []kind{
	{name: "plain", shards: 1},
	{name: "pgbouncer", shards: 1, pools: true, command: pgbouncerCommand, asServerUser: true},
	{name: "relay", shards: 1, command: relayCommand},
	{name: "shardproxy1", shards: 1, pools: true, command: shardproxyCommand(1)},
	{name: "shardproxy4", shards: 4, pools: true, command: shardproxyCommand(4)},
}

// environment is what all targets share.
type environment struct {
	server     *postgres.Server
	serverUser *syscall.Credential // nil where the servers run as ourselves
	dir        string
	poolSize   int // backends of a pool, equal for all that pool
	clientsMax int
	pgbouncer  string // programs
	relay      string
	shardproxy string

	pgbouncerPrepares bool // it keeps prepared statements in transaction pooling
	starts            int
}

// canRun tells whether a target can take a load in the mode at all.
func (e *environment) canRun(k kind, mode string) bool {
	return mode != "prepared" || k.name != "pgbouncer" || e.pgbouncerPrepares
}

// start starts a target in a process of its own and returns once it answers.
func (e *environment) start(ctx context.Context, k kind) (*target, error) {
	at := endpoint{Host: e.server.Host(), Port: e.server.Port(), User: postgres.Superuser, Database: wholeDatabase}
	if k.command == nil {
		return &target{kind: k, at: at}, nil
	}
	var err error
	if at.Port, err = freePort(ctx); err != nil {
		return nil, err
	}
	e.starts++
	dir := filepath.Join(e.dir, fmt.Sprintf("%s-%d", k.name, e.starts))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	argv, err := k.command(e, dir, at.Port)
	if err != nil {
		return nil, err
	}
	var user *syscall.Credential
	if k.asServerUser {
		user = e.serverUser
	}
	proxy, err := startProcess(k.name, dir, user, argv...)
	if err != nil {
		return nil, err
	}
	if err := proxy.waitReady(ctx, at); err != nil {
		proxy.stop()
		return nil, err
	}
	return &target{kind: k, at: at, proxy: proxy}, nil
}

// writeConfig writes a configuration for a program that runs as another user.
func writeConfig(dir, name, content string) (string, error) {
	path := filepath.Join(dir, name)
	return path, os.WriteFile(path, []byte(content), 0o644)
}

var pgbouncerVersion = regexp.MustCompile(`PgBouncer (\d+)\.(\d+)`)

// pgbouncerPrepares tells from the output of pgbouncer --version whether it keeps prepared
// statements in transaction pooling: it does from 1.21 on.
func pgbouncerPrepares(version []byte) bool {
	m := pgbouncerVersion.FindSubmatch(version)
	if m == nil {
		return false
	}
	major, _ := strconv.Atoi(string(m[1])) // digits, by the pattern
	minor, _ := strconv.Atoi(string(m[2]))
	return major > 1 || minor >= 21
}

func pgbouncerCommand(e *environment, dir string, port int) ([]string, error) {
	users, err := writeConfig(dir, "users.txt", fmt.Sprintf("%q \"\"\n", postgres.Superuser))
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`[databases]
%s = host=%s port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = %d
max_client_conn = %d
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
stats_period = 3600
`, wholeDatabase, e.server.Host(), e.server.Port(), port, users, e.poolSize, e.clientsMax)
	if e.pgbouncerPrepares {
		config += "max_prepared_statements = 200\n"
	}
	path, err := writeConfig(dir, "pgbouncer.ini", config)
	return []string{e.pgbouncer, path}, err
}

func relayCommand(e *environment, _ string, port int) ([]string, error) {
	return []string{
		e.relay,
		"-listen", fmt.Sprintf("127.0.0.1:%d", port),
		"-backend", fmt.Sprintf("%s:%d", e.server.Host(), e.server.Port()),
	}, nil
}
