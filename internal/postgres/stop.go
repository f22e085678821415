package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Stop asks for a fast shutdown: sessions are ended, data is written. A server that does not follow
// is stopped at once. Stopping a stopped server does nothing.
func (s *Server) Stop() error { return s.stop(syscall.SIGINT) }

// StopImmediately ends the server without writing its data; it recovers at the next start.
func (s *Server) StopImmediately() error { return s.stop(syscall.SIGQUIT) }

func (s *Server) stop(signal syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return nil
	}
	return s.end(s.run, signal)
}

// end sends the signal and waits; after stopPatience it asks for less and less.
func (s *Server) end(run *running, signal syscall.Signal) error {
	for _, sig := range []syscall.Signal{signal, syscall.SIGQUIT} {
		if run.hasEnded() {
			return nil
		}
		if err := syscall.Kill(run.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stop the server in %s: %w", s.cfg.Dir, err)
		}
		select {
		case <-run.ended:
			return nil
		case <-time.After(stopPatience):
		}
	}
	return s.kill(run)
}

// Kill ends the postmaster and all its children by SIGKILL, as a machine that loses power would.
// It returns when none of them is left.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return nil
	}
	return s.kill(s.run)
}

func (s *Server) kill(run *running) error {
	f, fileErr := readPIDFile(s.cfg.Dir)
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	if err := killAll(ctx, s.cfg.Dir); err != nil {
		return err
	}
	<-run.ended
	if fileErr == nil {
		removeSharedMemory(f)
	}
	return nil
}

// Ended is closed when the present run of the server has ended, for whatever reason. Nil before the first Start.
func (s *Server) Ended() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return nil
	}
	return s.run.ended
}

// Host that the server listens on.
func (s *Server) Host() string { return "127.0.0.1" }

// Port of the last start.
func (s *Server) Port() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.port
}

// PID of the postmaster, 0 before the first Start.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil {
		return 0
	}
	return s.run.pid
}

// Dir is the data folder.
func (s *Server) Dir() string { return s.cfg.Dir }

// DSN of a database for the superuser.
func (s *Server) DSN(database string) string { return s.DSNAs(Superuser, "", database) }

// DSNAs is the DSN of a database for another role; password may be "".
func (s *Server) DSNAs(user, password, database string) string {
	return DSN(user, password, s.Host(), s.Port(), database)
}

// LogTail is the last 4 KB of the server's log.
func (s *Server) LogTail() []byte { return readFrom(s.cfg.Log, 0) }

// Remove deletes the data folder of a stopped server.
func (s *Server) Remove() error { return os.RemoveAll(s.cfg.Dir) }
