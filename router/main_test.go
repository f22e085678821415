package router

import (
	"os"
	"testing"

	"shardproxy/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
