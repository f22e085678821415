package postgres

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// TempDir makes a temporary folder that the servers' account may enter. Its name is prefix-PID-…, with the
// number of this process, so that SweepTemp can tell which ones were left behind.
func TempDir(prefix string) (string, error) {
	dir, err := os.MkdirTemp("", fmt.Sprintf("%s-%d-*", prefix, os.Getpid()))
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// SweepTemp removes the folders that TempDir made in processes that no longer live.
func SweepTemp(prefix string) {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"-[0-9]*-*"))
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix+"-"), "-")
		pid, err := strconv.Atoi(owner)
		if err != nil || syscall.Kill(pid, 0) != syscall.ESRCH {
			continue
		}
		_ = os.RemoveAll(dir) // another process may be at it, or it is another user's
	}
}
