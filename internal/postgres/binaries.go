package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// ErrNoBinaries is returned by Find where no PostgreSQL server is installed.
var ErrNoBinaries = errors.New("no PostgreSQL server found in PATH, by pg_config, or in the distribution's folders: install one (scripts/setup.sh does)")

// Binaries is a folder that holds initdb, postgres and pg_basebackup of one version.
type Binaries struct {
	Dir   string
	Major int // 15 of "PostgreSQL 15.18"
}

// distributionFolders are where packagers put the server binaries, outside PATH.
var distributionFolders = []string{
	"/usr/lib/postgresql/*/bin", // Debian, Ubuntu
	"/usr/pgsql-*/bin",          // PGDG on RPM systems
	"/usr/local/pgsql/bin",      // built from source
	"/opt/homebrew/opt/postgresql*/bin",
}

// Find looks in PATH, asks pg_config, and then takes the newest version in the distribution's folders.
func Find() (Binaries, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		if b, err := inspect(filepath.Dir(path)); err == nil {
			return b, nil
		}
	}
	var found []string
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		if b, err := inspect(strings.TrimSpace(string(out))); err == nil {
			return b, nil
		}
	}
	for _, pattern := range distributionFolders {
		dirs, _ := filepath.Glob(pattern) // fails only for a malformed pattern
		found = append(found, dirs...)
	}
	var newest Binaries
	for _, dir := range found {
		if b, err := inspect(dir); err == nil && b.Major > newest.Major {
			newest = b
		}
	}
	if newest.Dir == "" {
		return Binaries{}, ErrNoBinaries
	}
	return newest, nil
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// inspect checks that dir holds what this package runs, and asks the version.
func inspect(dir string) (Binaries, error) {
	if target, err := filepath.EvalSymlinks(filepath.Join(dir, "postgres")); err == nil {
		dir = filepath.Dir(target) // a link in PATH leads to the folder with initdb
	}
	for _, name := range []string{"initdb", "postgres", "pg_basebackup"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode()&0o111 == 0 {
			return Binaries{}, fmt.Errorf("%s holds no program %s", dir, name)
		}
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("ask the version of %s/postgres: %w", dir, err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return Binaries{}, fmt.Errorf("%s/postgres is no PostgreSQL: %q", dir, out)
	}
	major, err := strconv.Atoi(string(m[1]))
	return Binaries{Dir: dir, Major: major}, err
}

// run executes one of the programs as the servers' account and returns its output in the error.
func (b Binaries) run(ctx context.Context, who account, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(b.Dir, program), args...)
	who.apply(cmd)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, bytes.TrimSpace(out.Bytes()))
	}
	return nil
}

// ClientPrograms is a folder that holds pg_dump and psql of this major version, or of the next later one that is installed: an
// earlier pg_dump refuses the server.
func ClientPrograms(major int) (dir string, err error) {
	var folders []string
	if path, err := exec.LookPath("pg_dump"); err == nil {
		folders = append(folders, filepath.Dir(path))
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		folders = append(folders, strings.TrimSpace(string(out)))
	}
	for _, pattern := range distributionFolders {
		dirs, _ := filepath.Glob(pattern) // fails only for a malformed pattern
		folders = append(folders, dirs...)
	}
	best := 0
	for _, folder := range folders {
		if version := clientVersion(folder); version >= major && (best == 0 || version < best) {
			dir, best = folder, version
		}
	}
	if best == 0 {
		return "", fmt.Errorf("found no pg_dump and psql of PostgreSQL %d or newer in PATH, by pg_config, or in the distribution's folders", major)
	}
	return dir, nil
}

// clientVersion is the major version of pg_dump in a folder that holds psql too, 0 for none.
func clientVersion(dir string) int {
	if _, err := os.Stat(filepath.Join(dir, "psql")); err != nil {
		return 0
	}
	out, err := exec.Command(filepath.Join(dir, "pg_dump"), "--version").Output()
	if err != nil {
		return 0
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return 0
	}
	major, _ := strconv.Atoi(string(m[1])) // the pattern has digits there
	return major
}
