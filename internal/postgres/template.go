package postgres

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// tempPrefix of the folders that this package makes for itself.
const tempPrefix = "shardproxy-postgres"

// initArgs are the arguments of initdb but for the folder.
var initArgs = []string{
	"--username=" + Superuser, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions",
}

// Init makes an empty database cluster with the superuser Superuser, UTF-8, and the collation C.UTF-8. That
// of an ephemeral server is a copy of a template kept in the temporary folder: faster, but all of them have
// the same system identifier.
func (s *Server) Init(ctx context.Context) error {
	if err := s.makeDir(); err != nil {
		return err
	}
	if s.cfg.Ephemeral {
		template, err := templateDir(ctx, s.cfg.Binaries)
		if err != nil {
			return err
		}
		return s.copyFrom(ctx, template)
	}
	return s.initdb(ctx)
}

func (s *Server) initdb(ctx context.Context) error {
	args := append([]string{"-D", s.cfg.Dir}, initArgs...)
	return s.cfg.Binaries.run(ctx, s.who, "initdb", args...)
}

func (s *Server) copyFrom(ctx context.Context, template string) error {
	cmd := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", template+"/.", s.cfg.Dir)
	s.who.apply(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy %s: %w\n%s", template, err, bytes.TrimSpace(out))
	}
	return nil
}

var templateMu sync.Mutex // so that this process makes a template once

// templateDir is a data folder fresh from initdb, made once per machine and user.
func templateDir(ctx context.Context, bin Binaries) (string, error) {
	templateMu.Lock()
	defer templateMu.Unlock()
	// The binaries' place and the arguments are part of the name, so that a change of either makes a new one.
	sum := sha256.Sum256([]byte(bin.Dir + strings.Join(initArgs, " ")))
	base := filepath.Join(os.TempDir(), fmt.Sprintf("%s-template-%d-%d-%x", tempPrefix, os.Geteuid(), bin.Major, sum[:4]))
	data := filepath.Join(base, "data")
	if info, err := os.Lstat(base); err == nil {
		if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(st.Uid) != os.Geteuid() {
			return "", fmt.Errorf("%s is not ours: somebody else made it", base)
		}
		if _, err := os.Stat(filepath.Join(data, "PG_VERSION")); err == nil {
			return data, nil
		}
		if err := os.RemoveAll(base); err != nil { // a cleaner of temporary folders was at it
			return "", err
		}
	}
	SweepTemp(tempPrefix)
	// Several processes may do this at once: each makes its own, one rename wins.
	work, err := TempDir(tempPrefix)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	made := filepath.Join(work, "template")
	if err := os.Mkdir(made, 0o755); err != nil { // the servers' account passes through it
		return "", err
	}
	s, err := New(Config{Binaries: bin, Dir: filepath.Join(made, "data"), Log: os.DevNull})
	if err != nil {
		return "", err
	}
	if err := s.Init(ctx); err != nil {
		return "", err
	}
	if err := os.Rename(made, base); err != nil && !os.IsExist(err) {
		return "", err
	}
	return data, nil
}
