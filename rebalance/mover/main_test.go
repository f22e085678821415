package mover

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"shardproxy/internal/pgtest"
)

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}
