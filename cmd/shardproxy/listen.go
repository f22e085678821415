package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"shardproxy/internal/config"
)

// defaultPort names the Unix socket of a proxy that has no TCP address.
const defaultPort = 6432

// listenClients opens the addresses for clients: all, or none.
func listenClients(ctx context.Context, c *config.Listen) (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range listeners {
				_ = l.Close()
			}
			listeners = nil
		}
	}()
	var lc net.ListenConfig
	port := defaultPort
	for i, address := range c.Addresses {
		l, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			return listeners, err
		}
		listeners = append(listeners, l)
		if i == 0 {
			port = l.Addr().(*net.TCPAddr).Port // the file may leave it to the system by saying 0
		}
	}
	if c.UnixSocketDir == "" {
		return listeners, nil
	}
	l, err := listenUnix(ctx, filepath.Join(c.UnixSocketDir, ".s.PGSQL."+strconv.Itoa(port)))
	if err != nil {
		return listeners, err
	}
	return append(listeners, l), nil
}

func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o777); err != nil { //nolint:gosec // as PostgreSQL's: authentication decides
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes the socket of a process that has gone. Whatever else is in its place stays.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("listen unix %s: there is a file that is no socket", path)
	}
	var d net.Dialer
	if conn, err := d.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return fmt.Errorf("listen unix %s: another process listens on it", path)
	}
	return os.Remove(path)
}
