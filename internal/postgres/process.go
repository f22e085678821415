package postgres

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poll is how often the state of another process is looked at; nothing tells us of processes
// that are not our children, nor of a server that has become ready.
const poll = 5 * time.Millisecond

// pidFile is postmaster.pid: what a running server says of itself.
type pidFile struct {
	pid    int
	port   int
	shmID  int    // System V shared memory, 0 where there is none yet
	status string // "starting", "stopping", "ready", "standby"
}

// readPIDFile reads the lines that PostgreSQL's miscadmin.h lists (LOCK_FILE_LINE_…); a file that is
// being written has fewer of them.
func readPIDFile(dir string) (pidFile, error) {
	data, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return pidFile{}, err
	}
	lines := strings.Split(string(data), "\n")
	line := func(n int) string {
		if n > len(lines) {
			return ""
		}
		return strings.TrimSpace(lines[n-1])
	}
	var f pidFile
	f.pid, err = strconv.Atoi(line(1))
	if err != nil {
		return pidFile{}, fmt.Errorf("%s/postmaster.pid: %w", dir, err)
	}
	f.port, _ = strconv.Atoi(line(4)) // 0 while it is not yet written
	if words := strings.Fields(line(7)); len(words) == 2 {
		f.shmID, _ = strconv.Atoi(words[1])
	}
	f.status = line(8)
	return f, nil
}

// processesOf lists the living PostgreSQL processes whose working folder is the data folder dir:
// the postmaster and all its children change into it, and nobody else's server does.
func processesOf(dir string) []int {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, proc := range procs {
		if cwd, err := os.Readlink(proc + "/cwd"); err != nil || cwd != dir { // a zombie has no cwd
			continue
		}
		comm, err := os.ReadFile(proc + "/comm")
		if err != nil || !bytes.HasPrefix(comm, []byte("postgres")) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(proc)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killAll ends all processes of the data folder at once, without any of them having a say, and
// returns when none is left.
func killAll(ctx context.Context, dir string) error {
	for {
		pids := processesOf(dir)
		if len(pids) == 0 {
			return nil
		}
		if f, err := readPIDFile(dir); err == nil {
			for _, pid := range pids {
				if pid == f.pid {
					_ = syscall.Kill(pid, syscall.SIGSTOP) // so that it forks no more
				}
			}
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended already
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("kill the processes of %s: %w", dir, err)
		}
	}
}

// EndStale ends a server of the data folder that is not ours: one that an earlier run left behind, or that
// somebody started by hand.
func (s *Server) EndStale(ctx context.Context) error { return endStale(ctx, s.cfg.Dir) }

// endStale ends a server that an earlier run of ours left on the data folder (killed before it could
// stop it), and removes a postmaster.pid that belongs to nobody.
func endStale(ctx context.Context, dir string) error {
	f, err := readPIDFile(dir)
	if os.IsNotExist(err) {
		return killAll(ctx, dir) // children that outlived their postmaster
	}
	for _, pid := range processesOf(dir) {
		if err == nil && pid == f.pid {
			_ = syscall.Kill(pid, syscall.SIGINT)
			gentle, cancel := context.WithTimeout(ctx, stopPatience)
			waitGone(gentle, dir)
			cancel()
		}
	}
	if err := killAll(ctx, dir); err != nil {
		return err
	}
	removeSharedMemory(f)
	if err := os.Remove(filepath.Join(dir, "postmaster.pid")); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove the stale postmaster.pid: %w", err)
	}
	return nil
}

func waitGone(ctx context.Context, dir string) {
	for len(processesOf(dir)) > 0 && pause(ctx) == nil {
	}
}

// removeSharedMemory frees the System V segment of a server that was killed; the kernel keeps it otherwise.
// A segment that somebody is attached to is not that one any more.
func removeSharedMemory(f pidFile) {
	if f.shmID <= 0 {
		return
	}
	var desc unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(f.shmID, unix.IPC_STAT, &desc); err == nil && desc.Nattch == 0 {
		_, _ = unix.SysvShmCtl(f.shmID, unix.IPC_RMID, nil) // at worst a few bytes stay until reboot
	}
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(poll):
		return nil
	}
}
