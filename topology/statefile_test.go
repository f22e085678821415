package topology

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestStateFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if _, err := ReadStateFile(path, "prod"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	s := mustNew(t, richContent())
	next, err := s.Apply(SplitRange{99})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []*Snapshot{s, next} {
		if err := WriteStateFile(path, want); err != nil {
			t.Fatal(err)
		}
		got, err := ReadStateFile(path, "prod")
		if err != nil {
			t.Fatal(err)
		}
		sameContent(t, want, got)
	}
	if _, err := ReadStateFile(path, "staging"); !errors.Is(err, ErrForeign) {
		t.Errorf("another cluster's: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("beside the file there is something left: %v, %v", entries, err)
	}

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{"empty": {}, "half": data[:len(data)/2], "text": []byte("[cluster]\nname = \"prod\"\n")} {
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadStateFile(path, "prod"); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStateFileFailureKeepsTheOld holds that a write that fails leaves neither a broken file nor rubbish.
func TestStateFileFailureKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if err := os.MkdirAll(filepath.Join(path, "in the way"), 0o700); err != nil { // a folder cannot be replaced by a file
		t.Fatal(err)
	}
	s := mustNew(t, modelContent())
	if err := WriteStateFile(path, s); err == nil {
		t.Error("a folder was overwritten")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("rubbish was left: %v, %v", entries, err)
	}
	if err := WriteStateFile(filepath.Join(dir, "nowhere", "state"), s); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}
