package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	const shard = "[[users]]\nname = \"u\"\n[[shards]]\nname = \"a\"\nnodes = [{host = \"h\"}]\n"
	tests := []struct{ name, text, out, err string }{
		{"good", shard, "ok: 1 shard, 1 node, 1 user\n", ""},
		{"unknown keys", "[pool]\nsize = 1\n" + shard + "colour = 1", "FILE:2:1: unknown key pool.size\nFILE:8:1: unknown key shards[0].colour\n", "FILE cannot be used"},
		{"problems", "[pool]\nmode = \"x\"\nsize_max = 0\n" + shard, "FILE:2: pool.mode: \"x\" is not one of transaction, session\nFILE:3: pool.size_max: 0 is not between 1 and 1000\n", "FILE has 2 problems"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "f.toml")
			if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			cmd := newCheckCommand()
			cmd.SetOut(&out)
			cmd.SetErr(&bytes.Buffer{})
			cmd.SetArgs([]string{"--config", file})
			err := cmd.Execute()
			if want := strings.ReplaceAll(test.out, "FILE", file); out.String() != want {
				t.Errorf("printed %swant %s", out.String(), want)
			}
			if want := strings.ReplaceAll(test.err, "FILE", file); (err == nil) != (want == "") || err != nil && err.Error() != want {
				t.Errorf("error %v, want %q", err, want)
			}
		})
	}
}

func TestCheckWithoutFile(t *testing.T) {
	if err := check(&bytes.Buffer{}, filepath.Join(t.TempDir(), "none.toml")); err == nil {
		t.Error("a missing file passed")
	}
}
