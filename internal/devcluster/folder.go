package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"shardproxy/internal/postgres"
)

const tempPrefix = "shardproxy-dev"

// folder is the cluster's folder while we hold its lock.
type folder struct {
	dir  string
	made bool // by us, so that an ephemeral cluster removes it
	lock *os.File
}

// openFolder makes and locks the folder. Without a name it is a temporary one.
func openFolder(dir string) (*folder, error) {
	f := &folder{dir: dir}
	if dir == "" {
		postgres.SweepTemp(tempPrefix)
		var err error
		if f.dir, err = postgres.TempDir(tempPrefix); err != nil {
			return nil, err
		}
		f.made = true
	}
	var err error
	if f.dir, err = filepath.Abs(f.dir); err != nil {
		return nil, err
	}
	if _, err := os.Stat(f.dir); os.IsNotExist(err) {
		f.made = true
	}
	if err := postgres.CanEnter(f.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil { // the servers' account passes through it
		return nil, err
	}
	if err := f.takeLock(); err != nil {
		return nil, err
	}
	return f, nil
}

// takeLock locks DIR/lock until this process ends or close is called. The servers do not inherit it.
func (f *folder) takeLock() error {
	lock, err := os.OpenFile(f.path("lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		holder, _ := os.ReadFile(lock.Name())
		_ = lock.Close()
		return fmt.Errorf("a dev cluster runs in %s already (process %s)", f.dir, strings.TrimSpace(string(holder)))
	}
	if err == nil {
		err = lock.Truncate(0)
	}
	if err == nil {
		_, err = fmt.Fprintln(lock, os.Getpid())
	}
	if err != nil {
		_ = lock.Close()
		return fmt.Errorf("lock %s: %w", f.dir, err)
	}
	f.lock = lock
	return nil
}

func (f *folder) close() { _ = f.lock.Close() } // a closed file is unlocked

// remove deletes the content, and the folder itself if it was made by us. The lock stays until the end.
func (f *folder) remove() error {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != "lock" {
			errs = append(errs, os.RemoveAll(f.path(e.Name())))
		}
	}
	if f.made {
		errs = append(errs, os.RemoveAll(f.dir))
	}
	return errors.Join(errs...)
}

func (f *folder) path(elem ...string) string {
	return filepath.Join(append([]string{f.dir}, elem...)...)
}

// state is cluster.json.
type state struct {
	shape
	Ports map[string]int `json:"ports"` // by member, of the last start
}

// readState returns nil for a folder without a cluster, which must then be empty: it may be somebody's home.
func (f *folder) readState() (*state, error) {
	data, err := os.ReadFile(f.path("cluster.json"))
	if os.IsNotExist(err) {
		entries, err := os.ReadDir(f.dir)
		if err == nil && len(entries) > 1 {
			err = fmt.Errorf("%s is not empty and holds no dev cluster: use another folder", f.dir)
		}
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", f.path("cluster.json"), err)
	}
	return &s, nil
}

// writeFile replaces DIR/name at once, so that no reader sees half of it.
func (f *folder) writeFile(name string, data []byte, perm os.FileMode) error {
	tmp := f.path(name + ".new")
	if err := os.WriteFile(tmp, data, perm); err != nil {
		return err
	}
	return os.Rename(tmp, f.path(name))
}

func (f *folder) writeJSON(name string, v any, perm os.FileMode) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return f.writeFile(name, append(data, '\n'), perm)
}

// discard ends what is left of an ephemeral cluster whose process was killed, and removes it.
func (f *folder) discard(ctx context.Context, members []*member) error {
	for _, m := range members {
		if err := m.pg.EndStale(ctx); err != nil {
			return err
		}
	}
	made := f.made
	f.made = false // the folder itself is used again
	defer func() { f.made = made }()
	return f.remove()
}
