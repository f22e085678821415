package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"shardproxy/admin"
	"shardproxy/internal/config"
	"shardproxy/proxy"
	"shardproxy/wire"
)

// process is the configuration that is in force, and what changes it while the proxy runs. It implements admin.Process.
//
//	RELOAD, SIGHUP ── Load, Check ──┐
//	                                ├──► apply: all live keys, or nothing
//	SET ── With (one key) ──────────┘
type process struct {
	file  string
	log   *slog.Logger
	level *slog.LevelVar

	server  *proxy.Server  // set before anything runs
	console *admin.Console // the same

	mu       sync.Mutex // one change at a time
	config   atomic.Pointer[config.Config]
	tls      atomic.Pointer[wire.ServerTLS] // nil: clients get none
	replaced atomic.Pointer[func()]         // is told that tls is another
	ending   chan admin.Shutdown
	told     context.Context // ends at the first command to shut down
	tell     context.CancelFunc
}

// endingsMax is how many commands to shut down may come at a time; those beyond say nothing new.
const endingsMax = 8

// newProcess begins with a configuration that has been checked.
func newProcess(file string, c *config.Config) (*process, error) {
	p := &process{file: file, level: new(slog.LevelVar), ending: make(chan admin.Shutdown, endingsMax)}
	p.told, p.tell = context.WithCancel(context.Background())
	p.setLevel(c)
	p.log = newLogger(c.Log, p.level)
	p.config.Store(c)
	t, err := clientTLS(&c.Listen)
	p.tls.Store(t)
	return p, err
}

func (p *process) setLevel(c *config.Config) {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Log.Level)) // it has been checked
	p.level.Set(level)
}

// Reload reads the file again and puts in force what can be. After an error all is as before.
func (p *process) Reload() (changed, restart []string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next, err := config.Load(p.file)
	if err == nil {
		err = next.Validate()
	}
	if err == nil {
		next, changed, restart = config.Merge(p.config.Load(), next)
		err = p.apply(next, changed)
	}
	if err != nil {
		p.log.Error("the configuration cannot be read again, the former stays in force", "error", err)
		return nil, nil, err
	}
	p.log.Info("configuration read again", "changed", strings.Join(changed, " "))
	if len(restart) > 0 {
		p.log.Warn("changes of the configuration need a restart", "keys", strings.Join(restart, " "))
	}
	return changed, restart, nil
}

// Set changes one key until the next Reload.
func (p *process) Set(key, value string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next, err := p.config.Load().With(key, value)
	switch {
	case errors.Is(err, config.ErrUnknownKey):
		return admin.ErrUnknownKey
	case errors.Is(err, config.ErrFixedKey):
		return admin.ErrFixedKey
	case errors.Is(err, config.ErrListKey):
		return admin.ErrListKey
	case err != nil:
		return err
	}
	return p.apply(next, []string{key})
}

// Settings lists the configuration that is in force.
func (p *process) Settings() []admin.Setting {
	var list []admin.Setting
	for _, s := range p.config.Load().Settings() {
		list = append(list, admin.Setting(s))
	}
	return list
}

// apply puts a configuration in force whose keys in changed are not as before. The caller holds mu.
func (p *process) apply(next *config.Config, changed []string) error {
	toClients, err := clientTLS(&next.Listen) // also where it has the same name: it may be renewed
	if err != nil {
		return err
	}
	live, err := liveConfig(next, toClients)
	if err != nil {
		return err
	}
	p.config.Store(next)
	p.setLevel(next)
	p.tls.Store(toClients)
	if tell := p.replaced.Load(); tell != nil {
		(*tell)()
	}
	p.server.Reload(live)
	p.console.SetRoles(next.Admin.Users, next.Admin.StatsUsers)
	if slices.ContainsFunc(changed, func(key string) bool { return strings.HasPrefix(key, "server_tls.") }) {
		return p.server.Reconnect("")
	}
	return nil
}

// watchCertificates reads the certificates of clients' TLS again when they change, until ctx ends.
func (p *process) watchCertificates(ctx context.Context) error {
	for ctx.Err() == nil {
		current, stop := context.WithCancel(ctx)
		tell := func() { stop() }
		p.replaced.Store(&tell)
		if t := p.tls.Load(); t != nil {
			_ = t.Run(current, certificatesEvery, p.reportCertificates) // ends with current
		} else {
			<-current.Done()
		}
		stop()
	}
	return ctx.Err()
}

func (p *process) reportCertificates(err error) {
	if err != nil {
		p.log.Error("TLS certificate could not be read again, the former stays in use", "error", err)
		return
	}
	p.log.Info("TLS certificate read again")
}

// Shutdown begins to end the process.
func (p *process) Shutdown(how admin.Shutdown) {
	select {
	case p.ending <- how:
	default: // there are enough
	}
	p.tell()
}

var _ admin.Process = (*process)(nil)
