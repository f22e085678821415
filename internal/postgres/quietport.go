package postgres

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports below those that the kernel hands out by itself (32,768 and up on Linux): what is found free here is not taken a moment
// later by a connection that somebody dials, or by a server that asks for any port.
const (
	quietFirst = 15_000
	quietPorts = 17_000
	quietTries = 100
)

// ListenQuiet listens on a port of host that stays free for a while after the listener is closed.
func ListenQuiet(host string) (net.Listener, error) {
	var errs error
	for range quietTries {
		port := quietFirst + rand.IntN(quietPorts) //nolint:gosec // not a secret
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err == nil {
			return l, nil
		}
		errs = err
	}
	return nil, fmt.Errorf("no free port on %s: %w", host, errors.Join(errs))
}
