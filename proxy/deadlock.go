package proxy

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"shardproxy/backend"
	"shardproxy/topology"
	"shardproxy/wire"
)

// PostgreSQL ends deadlocks within one server. Of one that goes over several, each server sees a piece which is none:
//
//	session 1 ─waits on shard a─► session 2 ─waits on shard b─► session 1
//
// So a session that works with several shards and has had no answer for a while is looked at: who keeps it waiting there, what
// else do those work with, and who keeps them waiting? If that leads back to the session, twice, one of the circle must give
// way: the one with the highest number, which all proxies find by themselves.

const (
	// deadlockEvery is how long a session has waited, at least, before it is looked at; a deadlock ends after twice to thrice that.
	deadlockEvery = 400 * time.Millisecond
	// Bounds of one look.
	deadlockSessions = 16
	deadlockHops     = 16
	deadlockTime     = 2 * time.Second
)

// breakDeadlocks looks for sessions of this proxy that are in deadlocks, again and again.
func (s *Server) breakDeadlocks(ctx context.Context) {
	tick := time.NewTicker(deadlockEvery)
	defer tick.Stop()
	waiting := map[*Session]uint64{} // the round in which it was at the last tick
	found := map[*Session]uint64{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		was := waiting
		waiting = s.atSeveral()
		suspects := slices.DeleteFunc(slices.Collect(maps.Keys(waiting)), func(c *Session) bool {
			round, there := was[c]
			return !there || round != waiting[c]
		})
		if len(suspects) == 0 {
			continue
		}
		rand.Shuffle(len(suspects), func(i, j int) { suspects[i], suspects[j] = suspects[j], suspects[i] })
		limited, cancel := context.WithTimeout(ctx, deadlockTime)
		g := s.waits()
		before := found
		found = map[*Session]uint64{}
		for _, c := range suspects[:min(len(suspects), deadlockSessions)] {
			round := waiting[c]
			if !g.isLast(limited, c) {
				continue
			}
			found[c] = round
			if last, twice := before[c]; twice && last == round && c.round.Load() == round {
				c.victim.Store(round + 1)
				c.Cancel(limited)
			}
		}
		cancel()
		g.log(ctx)
	}
}

// atSeveral gives the sessions that wait for more than one shard's backend, with their rounds.
func (s *Server) atSeveral() map[*Session]uint64 {
	list := map[*Session]uint64{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sessions {
		round := c.round.Load()
		if sessionState(c.state.Load()) != active {
			continue
		}
		c.laneMu.Lock()
		if len(c.lanes) > 1 {
			list[c] = round
		}
		c.laneMu.Unlock()
	}
	return list
}

// Ties gives the sessions of this proxy that use some of these processes, with all that they use.
func (s *Server) Ties(of []topology.Process) (ties []topology.Tie) {
	asked := make(map[topology.Process]bool, len(of))
	for _, p := range of {
		asked[p] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sessions {
		if t := c.tie(); slices.ContainsFunc(t.Processes, func(p topology.Process) bool { return asked[p] }) {
			ties = append(ties, t)
		}
	}
	return ties
}

// tie is called from another goroutine.
func (s *Session) tie() topology.Tie {
	t := topology.Tie{Session: s.key.PID}
	s.laneMu.Lock()
	defer s.laneMu.Unlock()
	for _, l := range s.lanes {
		t.Processes = append(t.Processes, topology.Process{Address: l.be.Pool().Key().Address, PID: l.be.Key.PID})
	}
	return t
}

// waits is who waits for whom, as far as it has been asked for.
type waits struct {
	srv  *Server
	snap *topology.Snapshot
	on   map[string]map[uint32][]uint32 // by server: who keeps a process waiting
	ties map[topology.Process]topology.Tie
	errs map[string]error
}

func (s *Server) waits() *waits {
	return &waits{srv: s, snap: s.snapshot.Load(), on: map[string]map[uint32][]uint32{}, ties: map[topology.Process]topology.Tie{}, errs: map[string]error{}}
}

// isLast says whether a session is in a deadlock over several servers, and the one with the highest number of those in it that
// work with several.
func (w *waits) isLast(ctx context.Context, c *Session) bool {
	start := c.tie()
	from := map[topology.Process]uint32{} // the highest number on the way
	level := start.Processes
	for _, p := range level {
		from[p] = start.Session
	}
	for range deadlockHops {
		var next []topology.Process
		for _, p := range level {
			for _, pid := range w.blockers(ctx, p) {
				by := topology.Process{Address: p.Address, PID: pid}
				if slices.Contains(start.Processes, by) {
					if from[p] == start.Session {
						return true
					}
					continue
				}
				if _, seen := from[by]; !seen {
					from[by] = from[p]
					next = append(next, by)
				}
			}
		}
		level = w.tied(ctx, next, from)
		if len(level) == 0 {
			return false
		}
	}
	return false
}

// tied adds to processes what is tied to them.
func (w *waits) tied(ctx context.Context, list []topology.Process, from map[topology.Process]uint32) []topology.Process {
	var unknown []topology.Process
	for _, p := range list {
		if _, known := w.ties[p]; !known {
			unknown = append(unknown, p)
		}
	}
	if len(unknown) > 0 {
		ties := w.srv.Ties(unknown)
		if ask := w.srv.cfg.Peers.Ties; ask != nil {
			ties = append(ties, ask(ctx, unknown)...)
		}
		for _, p := range unknown {
			w.ties[p] = topology.Tie{Processes: []topology.Process{p}} // not of a proxy
		}
		for _, t := range ties {
			for _, p := range t.Processes {
				w.ties[p] = t
			}
		}
	}
	all := list
	for _, p := range list {
		t := w.ties[p]
		if len(t.Processes) > 1 {
			from[p] = max(from[p], t.Session)
		}
		for _, other := range t.Processes {
			if _, seen := from[other]; !seen {
				from[other] = from[p]
				all = append(all, other)
			}
		}
	}
	return all
}

// blockers gives the processes that keep one waiting.
func (w *waits) blockers(ctx context.Context, p topology.Process) []uint32 {
	on, asked := w.on[p.Address]
	if !asked {
		on = map[uint32][]uint32{}
		w.on[p.Address] = on
		if err := w.read(ctx, p.Address, on); err != nil {
			w.errs[p.Address] = err
		}
	}
	return on[p.PID]
}

// read asks the server that is the primary of some shard.
func (w *waits) read(ctx context.Context, address string, on map[uint32][]uint32) error {
	shard := slices.IndexFunc(w.snap.Shards, func(sh topology.Shard) bool { return sh.Nodes[0].Address() == address })
	if shard < 0 {
		return fmt.Errorf("no shard has its primary at %s", address)
	}
	return w.srv.withService(ctx, w.snap, topology.ShardID(shard), func(c *backend.Conn) error {
		rows, err := c.Rows(ctx, "SELECT DISTINCT l.pid, b FROM pg_catalog.pg_locks l, pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) b WHERE NOT l.granted AND b <> 0")
		for _, row := range rows {
			pid, by := parseUint(row[0]), parseUint(row[1])
			on[uint32(pid)] = append(on[uint32(pid)], uint32(by))
		}
		return err
	})
}

func (w *waits) log(ctx context.Context) {
	for address, err := range w.errs {
		if ctx.Err() == nil {
			w.srv.cfg.Log.Debug("a server was not asked for deadlocks", "server", address, "error", err)
		}
	}
}

// breaksDeadlock says that the session was cancelled to break a deadlock. Where the cancel came late, it has met the statement behind.
func (s *Session) breaksDeadlock() bool {
	v := s.victim.Load()
	return v != 0 && s.round.Load()+1-v <= 1
}

// becomeDeadlock makes the error of a cancelled statement what PostgreSQL says of a deadlock.
func (s *Session) becomeDeadlock(e *wire.Error) {
	e.Code, e.Message = wire.CodeDeadlock, "deadlock detected"
	e.Detail = "The transaction works with " + strconv.Itoa(len(s.lanes)) + " shards, and waits for others that wait for it."
	e.Hint = "Run the transaction again."
}
