package main

import (
	"errors"
	"strings"
	"testing"

	"shardproxy/admin/admintest"
)

func TestReloadOfBrokenFile(t *testing.T) {
	c := admintest.Start(t, testSnapshot(t), true)
	t.Setenv("SHARDCTL_DSN", c.DSN("admin"))
	c.Break(errors.Join(errors.New("f.toml:3: pool.mode: no"), errors.New("f.toml:4: pool.size_max: no")))
	out, errOut, status := ctl(t, "", "reload")
	const want = "shardctl: the configuration file cannot be used: f.toml:3: pool.mode: no (SQLSTATE F0000)"
	if status != exitError || out != "" || !strings.HasPrefix(errOut, want) || strings.Count(errOut, "\n") != 1 {
		t.Errorf("status %d\n%s%s", status, out, errOut)
	}
}
