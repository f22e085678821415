package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readyTimeout = 20 * time.Second
	stopTimeout  = 5 * time.Second
)

// process is one child: a proxy under test. It ends by stop, or with the harness.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    string        // file with its output
	exited chan struct{} // closed when it has ended and err is set
	err    error
}

// startProcess starts argv with its output in a file of dir, as user when that is not nil.
func startProcess(name, dir string, user *syscall.Credential, argv ...string) (*process, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &process{name: name, cmd: exec.Command(argv[0], argv[1:]...), log: log.Name(), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := start(p.cmd, user, func(err error) {
		p.err = err
		close(p.exited)
	}); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// start starts cmd in a process group of its own, so that Ctrl-C reaches the harness alone, which
// then stops each child; ended is called when it has been reaped. The kernel kills the child should
// the harness be killed: it does so when the thread that started it ends, so that thread waits.
func start(cmd *exec.Cmd, user *syscall.Credential, ended func(error)) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: user}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended(cmd.Wait())
		}
	}()
	return <-started
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process and returns when it is gone.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only if it has ended
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// failure says that the process ended by itself, with the last it wrote.
func (p *process) failure() error {
	out, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("%s ended: %w\n%s", p.name, cmp.Or(p.err, errors.New("exit status 0")), strings.Join(lines[max(0, len(lines)-10):], "\n"))
}

// waitReady returns once a query through address is answered.
func (p *process) waitReady(ctx context.Context, at endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for {
		err := at.try(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return p.failure()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.name, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// cpu is the processor time, user and system, that the process has used so far: the sum of the
// kernel's schedstat over all its threads, those that have ended included, in nanoseconds
// (utime and stime of /proc/PID/stat only tick every 10 ms). See clock_getcpuclockid(3).
func (p *process) cpu() (time.Duration, error) {
	const cpuClockSched = 2
	var ts unix.Timespec
	err := unix.ClockGettime(int32(^p.pid()<<3|cpuClockSched), &ts)
	return time.Duration(ts.Nano()), err
}

// memory is what a process holds, in bytes.
type memory struct {
	RSS  int64 `json:"rss"`
	Peak int64 `json:"peak"` // the largest RSS of its life
}

func (p *process) memory() (memory, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
	if err != nil {
		return memory{}, err
	}
	rss, err1 := statusBytes(string(status), "VmRSS:")
	peak, err2 := statusBytes(string(status), "VmHWM:")
	return memory{RSS: rss, Peak: peak}, errors.Join(err1, err2)
}

// statusBytes reads a line like "VmRSS:	    1234 kB" of /proc/PID/status.
func statusBytes(status, key string) (int64, error) {
	_, after, ok := strings.Cut(status, key)
	if !ok {
		return 0, fmt.Errorf("no %s in /proc/PID/status", key)
	}
	line, _, _ := strings.Cut(after, "\n")
	kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(line, "kB")), 10, 64)
	return kb << 10, err
}

// freePort finds a port of 127.0.0.1 that nobody listens on.
func freePort(ctx context.Context) (int, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// raiseFileLimit lets the harness and its children hold n sockets and more.
func raiseFileLimit(n int) error {
	want := uint64(n + 2000)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Max = max(limit.Max, want) // above the hard limit only root may go
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("%d idle clients need a higher limit of open files (ulimit -n %d): %w", n, want, err)
	}
	return nil
}
