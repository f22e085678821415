package pgtest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"shardproxy/internal/postgres"
)

var shared struct {
	mu   sync.Mutex
	main bool // Main runs: somebody will stop the server
	dir  string
	s    *Server
	err  error
}

// Main runs the tests of a package and then stops the server that Shared gave them. TestMain exits with its result.
func Main(m *testing.M) int {
	shared.mu.Lock()
	shared.main = true
	shared.mu.Unlock()
	code := m.Run()

	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.s != nil {
		if err := shared.s.pg.StopImmediately(); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest:", err)
			code = max(code, 1)
		}
		if code != 0 {
			fmt.Fprintf(os.Stderr, "log of the shared server:\n%s\n", shared.s.pg.LogTail())
		}
		shared.s = nil
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir) // what stays is swept by the next test process
	}
	return code
}

// Shared is one server for all tests of the package, whose TestMain must call Main. Tests must neither stop
// it nor change its settings, and keep to databases of their own (CreateDatabase).
func Shared(t testing.TB) *Server {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.main {
		t.Fatal("pgtest: Shared needs a TestMain that calls pgtest.Main")
	}
	if shared.s == nil && shared.err == nil {
		sweep()
		shared.dir, shared.err = postgres.TempDir(tempPrefix)
		if shared.err == nil {
			shared.s, shared.err = start(context.WithoutCancel(t.Context()), shared.dir, Options{})
		}
	}
	if shared.err != nil {
		t.Fatalf("pgtest: %v", shared.err)
	}
	return shared.s
}
