package main

import (
	"testing"

	"shardproxy/internal/config"
	"shardproxy/internal/postgres"
)

func TestPgBouncerPrepares(t *testing.T) {
	for version, want := range map[string]bool{
		"PgBouncer 1.18.0\nlibevent 2.1.12-stable\n": false,
		"PgBouncer 1.21.0\n":                         true,
		"PgBouncer 2.0.0\n":                          true,
		"something else":                             false,
	} {
		if got := pgbouncerPrepares([]byte(version)); got != want {
			t.Errorf("%q: got %v", version, got)
		}
	}
}

// The generated configuration is one that serve takes, and its shards own what the loader put there.
func TestShardproxyConfig(t *testing.T) {
	server, err := postgres.New(postgres.Config{Dir: t.TempDir(), Log: "unused", Port: 5432})
	if err != nil {
		t.Fatal(err)
	}
	e := &environment{server: server, poolSize: 20, clientsMax: 10_100}
	for _, n := range []int{1, 4} {
		path, err := writeConfig(t.TempDir(), "shardproxy.toml", shardproxyConfig(e, n, 6432))
		if err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		shards, ranges, err := c.Topology()
		if err != nil {
			t.Fatal(err)
		}
		if len(shards) != n || len(ranges) != n {
			t.Fatalf("%d shards: got %v, %v", n, shards, ranges)
		}
		for i, r := range ranges {
			want := wholeDatabase
			if n > 1 {
				want = shardDatabase(i, n)
			}
			if got := shards[r.Shard].Nodes[0].Database; got != want {
				t.Errorf("range %d of %d is in database %s, want %s", i, n, got, want)
			}
		}
	}
}
