package pgtest_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"shardproxy/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func TestStartIsFastAndLeavesNothing(t *testing.T) {
	pgtest.Shared(t) // makes the template, which is not what is measured
	var dir string
	var pid int
	t.Run("server", func(t *testing.T) {
		from := time.Now()
		s := pgtest.Start(t)
		t.Logf("started in %v", time.Since(from))
		dir, pid = s.Dir, s.PID()
		var one int
		if err := s.Connect(t, "postgres").QueryRow(t.Context(), "SELECT 1").Scan(&one); err != nil || one != 1 {
			t.Fatalf("SELECT 1: %d, %v", one, err)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("data folder %s is still there: %v", dir, err)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); !os.IsNotExist(err) {
		t.Errorf("postmaster %d is still there: %v", pid, err)
	}
}

func TestKillAndRestart(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"synchronous_commit": "on"}})
	s.Exec(t, "postgres", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)")
	old := s.PID()
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if s.PID() == old {
		t.Error("the postmaster is the same after a kill")
	}
	var n int
	if err := s.Connect(t, "postgres").QueryRow(t.Context(), "SELECT count(*) FROM t").Scan(&n); err != nil || n != 1 {
		t.Errorf("rows after the crash: %d, %v", n, err)
	}
}

func TestReplicaStreams(t *testing.T) {
	s := pgtest.Start(t)
	r := s.Replica(t)
	s.Exec(t, "postgres", "CREATE TABLE t AS SELECT 7 AS a")
	conn := r.Connect(t, "postgres")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var lsn string
	if err := s.Connect(t, "postgres").QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()").Scan(&lsn); err != nil {
		t.Fatal(err)
	}
	for replayed := false; !replayed; {
		if err := conn.QueryRow(ctx, "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", lsn).Scan(&replayed); err != nil {
			t.Fatal(err)
		}
	}
	var a int
	if err := conn.QueryRow(ctx, "SELECT a FROM t").Scan(&a); err != nil || a != 7 {
		t.Errorf("the replica reads %d, %v", a, err)
	}
}

func TestDatabasesDoNotMeet(t *testing.T) {
	s := pgtest.Shared(t)
	a, b := s.CreateDatabase(t), s.CreateDatabase(t)
	s.Exec(t, a, "CREATE TABLE t (a int)")
	s.Exec(t, b, "CREATE TABLE t (a int)")
}
