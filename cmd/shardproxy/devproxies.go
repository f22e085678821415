package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"shardproxy/internal/devcluster"
)

const (
	proxyStartPatience = 30 * time.Second
	proxyStopPatience  = 10 * time.Second      // more than the drain of its configuration
	proxyPoll          = 10 * time.Millisecond // nothing tells us when another process listens
)

// startProxies runs the first proxy in this process and the others as processes of their own, all in g, and
// returns once all of them listen.
func startProxies(ctx context.Context, g *errgroup.Group, serve serveFunc, addresses []address, configs []string) ([]devcluster.ProxyInfo, error) {
	ready := make(chan struct{})
	g.Go(func() error { return serve(ctx, configs[0], func() { close(ready) }) })
	select {
	case <-ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx) // the proxy's own error, where that is why
	}
	a := addresses[0]
	proxies := []devcluster.ProxyInfo{devcluster.NewProxyInfo(a.host, a.port, a.http, os.Getpid())}
	for i, a := range addresses[1:] {
		pid, err := startProxy(ctx, g, a, configs[i+1])
		if err != nil {
			return nil, err
		}
		proxies = append(proxies, devcluster.NewProxyInfo(a.host, a.port, a.http, pid))
	}
	return proxies, nil
}

// startProxy runs `serve` of this same program and waits until it listens.
func startProxy(ctx context.Context, g *errgroup.Group, a address, config string) (pid int, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, "serve", "--config", config)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = proxyStopPatience
	// In a process group of its own, so that a Ctrl-C reaches it through us; ended by the kernel if we are killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	ended := make(chan struct{})
	g.Go(func() error {
		defer close(ended)
		runtime.LockOSThread() // Pdeathsig is sent when the thread ends that started the process
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return err
		}
		err = cmd.Wait()
		if ctx.Err() != nil {
			return nil // it was told to end
		}
		// The others go on without it: who kills one wants to see just that.
		slog.Warn("a proxy has ended", "address", net.JoinHostPort(a.host, strconv.Itoa(a.port)), "error", err)
		return nil
	})
	if err := <-started; err != nil {
		return 0, err
	}
	return cmd.Process.Pid, waitListening(ctx, net.JoinHostPort(a.host, strconv.Itoa(a.port)), ended)
}

// waitListening dials until it succeeds.
func waitListening(ctx context.Context, hostport string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, proxyStartPatience)
	defer cancel()
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, "tcp", hostport)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ended:
			return fmt.Errorf("the proxy for %s ended at once", hostport)
		case <-ctx.Done():
			return fmt.Errorf("the proxy for %s does not listen: %w", hostport, err)
		case <-time.After(proxyPoll):
		}
	}
}
