package harness

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"shardproxy/internal/postgres"
)

// Build compiles cmd/shardproxy into dir and gives the path of the binary.
func Build(ctx context.Context, dir string) (string, error) {
	if bin := os.Getenv("SHARDPROXY_E2E_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	bin := filepath.Join(dir, "shardproxy")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/shardproxy")
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(out)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build shardproxy: %w\n%s", err, bytes.TrimSpace(out))
	}
	return bin, nil
}

const tempPrefix = "shardproxy-e2e"

// TempDir makes a folder that PostgreSQL's ordinary user can enter too. Those of test processes that were
// killed are removed.
func TempDir() (string, error) {
	postgres.SweepTemp(tempPrefix)
	return postgres.TempDir(tempPrefix)
}
