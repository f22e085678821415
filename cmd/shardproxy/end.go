package main

import (
	"context"

	"shardproxy/admin"
)

// awaitEnd waits until the process is to end: by a signal, which ends ctx, by a command, or because a part of it has failed.
func (s *service) awaitEnd(ctx, running context.Context) admin.Shutdown {
	select {
	case <-ctx.Done():
	case <-running.Done():
	case how := <-s.process.ending:
		return how
	}
	return admin.ShutdownWaitForServers
}

// end ends the clients' sessions. stop is called when there is no more time, and ends what still waits for something.
func (s *service) end(ctx context.Context, how admin.Shutdown, stop func()) {
	for _, l := range s.listeners {
		_ = l.Close()
	}
	for how == admin.ShutdownWaitForClients {
		how = s.awaitClients(ctx)
	}
	patience := s.process.config.Load().Listen.DrainTimeout.Duration
	if how == admin.ShutdownNow {
		patience = 0
	}
	draining, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	go s.hurry(draining, cancel)
	defer context.AfterFunc(draining, stop)()
	if err := s.server.Shutdown(draining); err != nil {
		s.log.Warn("drain", "error", err)
	}
}

// awaitClients waits until all clients have left by themselves, and says what to do then. A later command or a signal may
// want it sooner.
func (s *service) awaitClients(ctx context.Context) admin.Shutdown {
	s.log.Info("waiting for the clients to leave")
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	left := make(chan struct{})
	go func() {
		s.server.AwaitClients(waiting)
		close(left)
	}()
	select {
	case <-left:
		return admin.ShutdownWaitForServers
	case how := <-s.process.ending:
		cancel()
		<-left
		return how
	}
}

// hurry calls cancel when a command wants the end of the process at once.
func (s *service) hurry(draining context.Context, cancel func()) {
	for {
		select {
		case how := <-s.process.ending:
			if how == admin.ShutdownNow {
				cancel()
			}
		case <-draining.Done():
			return
		}
	}
}
