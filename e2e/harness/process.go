package harness

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
	"syscall"
	"time"

	"shardproxy/internal/postgres"
)

const (
	startPatience = 90 * time.Second // several initdb and CREATE DATABASE on a busy machine
	stopPatience  = 20 * time.Second
	poll          = 10 * time.Millisecond // of files and ports, which tell nobody of a change
	logShown      = 16 << 10              // bytes of a log's end in an error
)

// process is one running shardproxy with a folder of its own.
type process struct {
	dir   string
	log   string
	pid   int
	ended chan struct{} // closed when it has ended
	err   error         // how it ended; valid after ended
}

// launch starts binary in a new process group. It ends with this process: the kernel sends Pdeathsig when
// the thread ends that made it, so a goroutine keeps that thread.
func launch(dir, binary string, args ...string) (*process, error) {
	p := &process{dir: dir, log: filepath.Join(dir, "shardproxy.log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, <-started
}

// await polls ready until it holds.
func (p *process) await(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for !ready() {
		select {
		case <-p.ended:
			return fmt.Errorf("shardproxy ended: %w\n%s", p.err, p.Log())
		case <-ctx.Done():
			return fmt.Errorf("start of shardproxy: %w\n%s", ctx.Err(), p.Log())
		case <-time.After(poll):
		}
	}
	return nil
}

// PID of the process.
func (p *process) PID() int { return p.pid }

// Alive says whether the process still runs.
func (p *process) Alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// LogFile is where all goes that the process prints.
func (p *process) LogFile() string { return p.log }

// Log is the end of what the process has printed.
func (p *process) Log() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(data[max(0, len(data)-logShown):]))
}

// Stop ends the process as Ctrl-C does, and removes its folder. It reports one that had ended before, that
// ended with an error or that had to be killed.
func (p *process) Stop() error {
	defer os.RemoveAll(p.dir)
	if !p.Alive() {
		return fmt.Errorf("shardproxy has ended by itself: %w\n%s", p.err, p.Log())
	}
	if err := syscall.Kill(p.pid, syscall.SIGINT); err != nil {
		return err
	}
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("shardproxy ended after Ctrl-C with: %w\n%s", p.err, p.Log())
		}
		return nil
	case <-time.After(stopPatience):
		return errors.Join(fmt.Errorf("shardproxy did not end within %v of Ctrl-C\n%s", stopPatience, p.Log()),
			syscall.Kill(-p.pid, syscall.SIGKILL))
	}
}

// Kill ends the process by SIGKILL, and removes its folder.
func (p *process) Kill() error {
	defer os.RemoveAll(p.dir)
	if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
		return err
	}
	<-p.ended
	return nil
}

func listens(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close() // it was only to see that somebody answers
	return true
}

// freePorts gives two addresses on which nobody listens.
func freePorts() (first, second string, err error) {
	a, err := postgres.ListenQuiet("127.0.0.1")
	if err != nil {
		return "", "", err
	}
	defer a.Close()
	b, err := postgres.ListenQuiet("127.0.0.1")
	if err != nil {
		return "", "", err
	}
	defer b.Close()
	return a.Addr().String(), b.Addr().String(), nil
}
