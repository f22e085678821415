package topology

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrForeign is a snapshot of another cluster.
var ErrForeign = errors.New("it belongs to another cluster")

// stateBytesMax is the longest file that is read: three times what the limits of a snapshot make of ordinary names.
const stateBytesMax = 256 << 20

// WriteStateFile keeps s, without its schema, for a start without the catalog. Whatever happens meanwhile, path
// holds either the file before or the whole new one.
func WriteStateFile(path string, s *Snapshot) error {
	if err := writeAtomically(path, s.Encode()); err != nil {
		return fmt.Errorf("keeping the topology on disk: %w", err)
	}
	return nil
}

// writeAtomically writes a file beside path, moves it there once it is on the disk, and makes the move lasting.
func writeAtomically(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// ReadStateFile gives the snapshot that WriteStateFile kept. It refuses a file that is damaged (ErrDamaged) or of
// another cluster (ErrForeign); a file that is not there is fs.ErrNotExist.
func ReadStateFile(path, cluster string) (*Snapshot, error) {
	s, err := readStateFile(path, cluster)
	if err != nil {
		return nil, fmt.Errorf("reading the topology kept in %s: %w", path, err)
	}
	return s, nil
}

func readStateFile(path, cluster string) (*Snapshot, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, stateBytesMax+1))
	if err != nil {
		return nil, err
	}
	if len(data) > stateBytesMax {
		return nil, fmt.Errorf("%w: it is longer than %d bytes", ErrDamaged, stateBytesMax)
	}
	s, err := decodeSnapshot(data)
	if err != nil {
		return nil, err
	}
	if s.Cluster != cluster {
		return nil, fmt.Errorf("%w: %q, not %q", ErrForeign, s.Cluster, cluster)
	}
	return s, nil
}
