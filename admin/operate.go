package admin

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"shardproxy/backend"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// Control steers the work of a proxy: a *proxy.Server. A shard of "" is all of them.
type Control interface {
	Pause(ctx context.Context, shard string) error
	Resume(shard string) error
	Reconnect(shard string) error
	Kill(ctx context.Context) (clients int)
	KillClient(ctx context.Context, id uint32) bool
}

// Shutdown says what a process that is told to end waits for.
type Shutdown uint8

const (
	ShutdownNow            Shutdown = iota // for nothing: clients are cut off
	ShutdownWaitForServers                 // for transactions to end, as SIGTERM does
	ShutdownWaitForClients                 // for clients to leave by themselves
)

func (s Shutdown) String() string {
	return [...]string{"SHUTDOWN", "SHUTDOWN WAIT_FOR_SERVERS", "SHUTDOWN WAIT_FOR_CLIENTS"}[s]
}

// operations are the verbs that steer the proxy, with PgBouncer's names.
func operations() []verb {
	return []verb{
		operation("PAUSE", "[database | SHARD name]", "hold back new work, and return when no connection is in use and all are closed", readPause),
		operation("RESUME", "[database | SHARD name]", "end what PAUSE or KILL has begun", readResume),
		operation("RECONNECT", "[database | SHARD name]", "close each connection to the nodes when it is released, idle ones at once", readReconnect),
		operation("KILL", "[database]", "cut off all clients and close all connections; new work waits for RESUME", readKill),
		operation("KILL_CLIENT", "id", "cut off one client, by its id in SHOW CLIENTS, and close its connections", readKillClient),
		operation("SHUTDOWN", "[WAIT_FOR_CLIENTS | WAIT_FOR_SERVERS]", "end the process: at once, or when clients have left, or when transactions have ended", readShutdown),
	}
}

// operation is a verb that takes effect at once and answers with its name.
func operation(name, args, help string, read func(a *arguments) (action, *wire.Error)) verb {
	return verb{name: name, args: args, help: help, role: RoleAdmin, alone: true, act: func(a *arguments) (action, *wire.Error) {
		act, err := read(a)
		if err == nil {
			err = a.done()
		}
		return act, err
	}}
}

// scope reads what a verb is for: a shard, or with "" all. The one database of the clients may be named for all.
func (a *arguments) scope() (shard string, err *wire.Error) {
	switch {
	case len(a.list) == 0:
		return "", nil
	case a.word("shard"):
		return a.shard(), a.err
	}
	if name := a.text("the name of the database"); name != a.database && a.err == nil {
		return "", wire.Errorf(wire.CodeInvalidCatalogName, "database \"%s\" does not exist", name).
			WithHint("The database is %s. A shard is named as in %s SHARD s1.", a.database, a.verb.name)
	}
	return "", a.err
}

// over is a verb and the shard that it is for, as people write it.
func over(verb, shard string) string {
	if shard == "" {
		return verb
	}
	return verb + " SHARD " + shard
}

func readPause(a *arguments) (action, *wire.Error) {
	shard, err := a.scope()
	return func(ctx context.Context, s *session) outcome {
		what := over("PAUSE", shard)
		s.done(what+" begins", nil)
		paused := s.patiently(ctx, func(ctx context.Context) error { return s.console.cfg.Control.Pause(ctx, shard) })
		return s.done(what, controlError(paused, shard))
	}, err
}

func readResume(a *arguments) (action, *wire.Error) {
	shard, err := a.scope()
	return func(_ context.Context, s *session) outcome {
		return s.done(over("RESUME", shard), controlError(s.console.cfg.Control.Resume(shard), shard))
	}, err
}

func readReconnect(a *arguments) (action, *wire.Error) {
	shard, err := a.scope()
	return func(_ context.Context, s *session) outcome {
		return s.done(over("RECONNECT", shard), controlError(s.console.cfg.Control.Reconnect(shard), shard))
	}, err
}

func readKill(a *arguments) (action, *wire.Error) {
	shard, err := a.scope()
	if shard != "" {
		a.fail(a.from, "clients are not those of one shard")
	}
	return func(ctx context.Context, s *session) outcome {
		n := s.console.cfg.Control.Kill(ctx)
		return s.done(fmt.Sprintf("KILL (%d clients)", n), nil)
	}, err
}

func readKillClient(a *arguments) (action, *wire.Error) {
	at := a.end
	text := a.text("the id of the client")
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		a.fail(at, "%s is not the id of a client", text)
	}
	return func(ctx context.Context, s *session) outcome {
		var failed *wire.Error
		if !s.console.kill(uint32(id)) && !s.console.cfg.Control.KillClient(ctx, uint32(id)) {
			failed = wire.Errorf(wire.CodeUndefinedObject, "client %d does not exist", id).WithHint("SHOW CLIENTS lists them.")
		}
		return s.done(fmt.Sprintf("KILL_CLIENT %d", id), failed)
	}, nil
}

func readShutdown(a *arguments) (action, *wire.Error) {
	how := ShutdownNow
	switch {
	case a.word("wait_for_servers"):
		how = ShutdownWaitForServers
	case a.word("wait_for_clients"):
		how = ShutdownWaitForClients
	}
	return func(_ context.Context, s *session) outcome {
		o := s.done(how.String(), nil)
		s.console.cfg.Process.Shutdown(how)
		return o
	}, nil
}

// done logs a command and gives its outcome.
func (s *session) done(command string, failed *wire.Error) outcome {
	s.log("console command", "command", command, s.console.src.Snapshot().Epoch, failed)
	return outcome{err: failed}
}

// controlError tells a client why its command was not done.
func controlError(err error, shard string) *wire.Error {
	whom := "the proxy"
	if shard != "" {
		whom = fmt.Sprintf("shard \"%s\"", shard)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, proxy.ErrNoShard):
		return wire.Errorf(wire.CodeUndefinedObject, "shard \"%s\" does not exist", shard).WithHint("SHOW SHARDS lists them.")
	case errors.Is(err, backend.ErrPaused):
		return wire.Errorf(wire.CodeObjectNotInPrerequisite, "%s is paused already", whom)
	case errors.Is(err, backend.ErrNotPaused):
		return wire.Errorf(wire.CodeObjectNotInPrerequisite, "%s is not paused", whom)
	case errors.Is(err, backend.ErrResumed):
		return wire.Errorf(wire.CodeQueryCanceled, "canceling PAUSE due to RESUME")
	case errors.Is(err, errCanceled), errors.Is(err, errClientGone):
		return wire.Errorf(wire.CodeQueryCanceled, "%v", err)
	case errors.Is(err, context.Canceled):
		return wire.Errorf(wire.CodeAdminShutdown, "canceling PAUSE: the console closes")
	}
	return wire.Errorf(wire.CodeInternalError, "%v", err)
}
