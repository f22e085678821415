package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func startShell(t *testing.T, script string) *process {
	t.Helper()
	p, err := startProcess("shell", t.TempDir(), nil, "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return p
}

// The clock agrees with the ticks of /proc/PID/stat, but is finer.
func TestProcessCPU(t *testing.T) {
	p := startShell(t, "while :; do :; done")
	var seen time.Duration
	for seen < 50*time.Millisecond {
		var err error
		if seen, err = p.cpu(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	stopped := func() (fields []string) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid()))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Fields(string(stat))
	}
	fields := stopped()
	for fields[2] != "T" {
		fields = stopped()
	}
	seen, err := p.cpu()
	if err != nil {
		t.Fatal(err)
	}
	utime, _ := strconv.Atoi(fields[13])
	stime, _ := strconv.Atoi(fields[14])
	ticks := time.Duration(utime+stime) * 10 * time.Millisecond
	if difference := (seen - ticks).Abs(); difference > 20*time.Millisecond {
		t.Errorf("the clock says %v, /proc/PID/stat %v", seen, ticks)
	}
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

func TestProcessMemory(t *testing.T) {
	p := startShell(t, "exec sleep 600")
	m, err := p.memory()
	if err != nil {
		t.Fatal(err)
	}
	if m.RSS <= 0 || m.Peak < m.RSS || m.RSS%4096 != 0 {
		t.Errorf("got %+v", m)
	}
}

// A proxy that ends before it answers is reported with what it said.
func TestWaitReadyOfTheDead(t *testing.T) {
	p := startShell(t, "echo no such option >&2; exit 3")
	port, err := freePort(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	err = p.waitReady(context.Background(), endpoint{Host: "127.0.0.1", Port: port})
	if err == nil || !strings.Contains(err.Error(), "no such option") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
}
