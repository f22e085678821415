package main

import (
	"slices"
	"testing"
)

func TestNodesOf(t *testing.T) {
	for dsn, want := range map[string][]string{
		"postgres://me:secret@10.0.0.5/app":                     {"10.0.0.5:5432/app"},
		"postgres://h1:5433,h2,[::1]:5434/app?sslmode=disable":  {"h1:5433/app", "h2:5432/app", "[::1]:5434/app"},
		"host=/var/run/postgresql port=5440 dbname=app user=me": {"/var/run/postgresql:5440/app"},
		"host=h1,h2 port=5440 dbname='a b'":                     {"h1:5440/a b", "h2:5440/a b"},
	} {
		if got, err := nodesOf(dsn); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", dsn, got, err, want)
		}
	}
	for _, dsn := range []string{"", "postgres://h:port/app"} {
		if got, err := nodesOf(dsn); err == nil {
			t.Errorf("%s: %q", dsn, got)
		}
	}
}
