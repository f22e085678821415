package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Superuser is the database role that Init makes.
const Superuser = "postgres"

const (
	stopPatience  = 10 * time.Second // a server that is asked to stop gets that long before it is forced
	startPatience = 60 * time.Second // includes crash recovery
	portAttempts  = 10               // another process may take a free port before the server does
)

// Config of one server.
type Config struct {
	Binaries Binaries
	Name     string            // application_name of a replica; letters, digits and _
	Dir      string            // the data folder; its parent must exist
	Log      string            // file that the server's log is appended to
	Port     int               // wish; another free port is taken where it is in use or 0
	Settings map[string]string // over the defaults
	HBA      string            // pg_hba.conf; the default trusts 127.0.0.1
	// Ephemeral servers skip fsync and end with this process, even if it is killed.
	Ephemeral bool
	// Primary and Slot (may be "") say whom a replica follows.
	Primary *Server
	Slot    string
}

// Server is one PostgreSQL server on 127.0.0.1. Safe for concurrent use; Start, Stop and Kill follow one another.
type Server struct {
	cfg Config
	who account

	mu   sync.Mutex
	port int
	run  *running // nil until the first Start
}

// running is one life of the postmaster.
type running struct {
	pid   int
	ended chan struct{} // closed when it has ended and was reaped
	err   error         // how it ended; valid after ended
}

// New checks cfg. It starts nothing.
func New(cfg Config) (*Server, error) {
	who, err := serverAccount()
	if err != nil {
		return nil, err
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, err
	}
	if cfg.Log == "" {
		return nil, errors.New("postgres: no log file given")
	}
	return &Server{cfg: cfg, who: who, port: cfg.Port}, nil
}

// Initialized says whether the data folder holds a database cluster.
func (s *Server) Initialized() bool {
	_, err := os.Stat(filepath.Join(s.cfg.Dir, "PG_VERSION"))
	return err == nil
}

// Clone makes the data folder a streaming replica of cfg.Primary, which must be running. The replication
// slot cfg.Slot, where given, is created on the primary.
func (s *Server) Clone(ctx context.Context) error {
	p := s.cfg.Primary
	if p == nil {
		return errors.New("postgres: Clone needs a primary")
	}
	if err := s.makeDir(); err != nil {
		return err
	}
	args := []string{
		"-D", s.cfg.Dir, "-h", p.Host(), "-p", strconv.Itoa(p.Port()), "-U", Superuser,
		"--wal-method=stream", "--checkpoint=fast", "--no-sync",
	}
	if s.cfg.Slot != "" {
		args = append(args, "--create-slot", "--slot="+s.cfg.Slot)
	}
	if err := s.cfg.Binaries.run(ctx, s.who, "pg_basebackup", args...); err != nil {
		return err
	}
	return s.write("standby.signal", "")
}

func (s *Server) makeDir() error {
	if err := CanEnter(filepath.Dir(s.cfg.Dir)); err != nil {
		return err
	}
	if err := os.Mkdir(s.cfg.Dir, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	return s.who.own(s.cfg.Dir)
}

// Start runs the server and returns once it accepts connections (a replica: once it answers reads).
// A server that an earlier, killed process left on the folder is ended first.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil && !s.run.hasEnded() {
		return fmt.Errorf("postgres: %s is running", s.cfg.Dir)
	}
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	if err := endStale(ctx, s.cfg.Dir); err != nil {
		return err
	}
	wish := s.port
	for range portAttempts {
		port, release, err := reservePort(wish)
		if err != nil {
			return err
		}
		err = s.startOn(ctx, port, release)
		if err == nil {
			s.port = port
			return nil
		}
		if !errors.Is(err, errPortTaken) {
			return err
		}
		wish = 0
	}
	return fmt.Errorf("postgres: no free port for %s after %d attempts", s.cfg.Dir, portAttempts)
}

// reservePort listens on the wished port, or on a free one, until release is called.
func reservePort(wish int) (port int, release func(), err error) {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(wish)))
	if err != nil && wish != 0 {
		l, err = net.Listen("tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return 0, nil, fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, func() { _ = l.Close() }, nil
}

var errPortTaken = errors.New("another process has taken the port")

func (s *Server) startOn(ctx context.Context, port int, release func()) error {
	defer release()
	if err := s.writeConf(port); err != nil {
		return err
	}
	log, err := os.OpenFile(s.cfg.Log, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Stat()
	if err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(s.cfg.Binaries.Dir, "postgres"), "-D", s.cfg.Dir)
	s.who.apply(cmd)
	cmd.Stdout, cmd.Stderr = log, log
	release()
	run, err := launch(cmd, s.cfg.Ephemeral)
	if err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	s.run = run
	if err := s.waitReady(ctx, run); err != nil {
		_ = s.end(run, syscall.SIGQUIT) // the reason why it did not start counts
		tail := readFrom(s.cfg.Log, from.Size())
		if bytes.Contains(tail, []byte("Address already in use")) {
			return errPortTaken
		}
		return fmt.Errorf("start of the server in %s: %w\n%s", s.cfg.Dir, err, tail)
	}
	return nil
}

// launch starts the postmaster and a goroutine that reaps it. For an ephemeral server the kernel sends
// SIGQUIT (immediate shutdown) when the *thread* that started it ends, so that goroutine keeps its thread.
func launch(cmd *exec.Cmd, ephemeral bool) (*running, error) {
	run := &running{ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		if ephemeral {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
		}
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		run.pid = cmd.Process.Pid
		started <- nil
		run.err = cmd.Wait()
		close(run.ended)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return run, nil
}

func (r *running) hasEnded() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// waitReady follows postmaster.pid, as pg_ctl does.
func (s *Server) waitReady(ctx context.Context, run *running) error {
	for {
		f, err := readPIDFile(s.cfg.Dir)
		if err == nil && f.pid == run.pid && (f.status == "ready" || f.status == "standby") {
			return nil
		}
		select {
		case <-run.ended:
			return fmt.Errorf("it ended: %w", run.err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
}

// readFrom is what was written to the file since it had size bytes, at most the last 4 KB.
func readFrom(path string, size int64) []byte {
	data, err := os.ReadFile(path)
	if err != nil || int64(len(data)) < size {
		return nil
	}
	data = data[size:]
	return bytes.TrimSpace(data[max(0, len(data)-4096):])
}
