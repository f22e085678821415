package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/e2e/harness"
)

// sleepers counts the backends that run a statement with the mark.
func sleepers(t *testing.T, c *harness.Cluster, mark string) int {
	t.Helper()
	return onShards(t, c, fmt.Sprintf(
		"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%%%s%%'", mark))
}

// TestCancelRequestReachesTheShard cancels statements that run on one shard and on all of them.
func TestCancelRequestReachesTheShard(t *testing.T) {
	c := needCluster(t)
	s := connect(t, proxyDSN)
	s.must(t, "DROP TABLE IF EXISTS cancel_t")
	s.must(t, "CREATE TABLE cancel_t (user_id bigint PRIMARY KEY)")
	values := ""
	for shard := range c.Shards {
		values += fmt.Sprintf(", (%d)", keyOn(t, c, shard, 0))
	}
	s.must(t, "INSERT INTO cancel_t VALUES "+values[2:])
	for _, step := range []struct {
		mark, sql string
		backends  int
	}{
		{"cancel_one", fmt.Sprintf("SELECT pg_sleep(60), 'cancel_one' FROM cancel_t WHERE user_id = %d", keyOn(t, c, 2, 0)), 1},
		{"cancel_all", "DELETE FROM cancel_t WHERE 'cancel_all' || pg_sleep(60)::text = ''", shardCount},
		{"cancel_none", "SELECT pg_sleep(60), 'cancel_none'", 1},
	} {
		t.Run(step.mark, func(t *testing.T) {
			conn, err := pgconn.Connect(t.Context(), proxyDSN)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.WithoutCancel(t.Context()))
			done := make(chan error, 1)
			go func() {
				_, err := conn.Exec(context.WithoutCancel(t.Context()), step.sql).ReadAll()
				done <- err
			}()
			waitFor(t, "the statement runs", func() bool { return sleepers(t, c, step.mark) == step.backends })
			if err := conn.CancelRequest(t.Context()); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				var pgErr *pgconn.PgError
				if !errors.As(err, &pgErr) || pgErr.Code != "57014" {
					t.Errorf("a cancelled statement ends with %v, want 57014", err)
				}
			case <-time.After(answerPatience):
				t.Fatal("the statement was not cancelled")
			}
			waitFor(t, "no shard runs it any more", func() bool { return sleepers(t, c, step.mark) == 0 })
			if _, err := conn.Exec(t.Context(), "SELECT 1").ReadAll(); err != nil {
				t.Errorf("the next statement: %v", err)
			}
		})
	}
	s.must(t, "DROP TABLE cancel_t")
}

// TestCancelRequestHitsNobodyElse sends requests with a wrong secret, and to idle clients.
func TestCancelRequestHitsNobodyElse(t *testing.T) {
	c := needCluster(t)
	running, err := pgconn.Connect(t.Context(), proxyDSN)
	if err != nil {
		t.Fatal(err)
	}
	defer running.Close(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() {
		_, err := running.Exec(context.WithoutCancel(t.Context()), "SELECT pg_sleep(1.5), 'cancel_nobody'").ReadAll()
		done <- err
	}()
	waitFor(t, "the statement runs", func() bool { return sleepers(t, c, "cancel_nobody") == 1 })

	idle, err := pgconn.Connect(t.Context(), proxyDSN)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close(context.WithoutCancel(t.Context()))
	for range 5 {
		if err := idle.CancelRequest(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	secret := bytes.Clone(running.SecretKey())
	secret[0] ^= 1
	sendCancel(t, running.PID(), secret)
	sendCancel(t, running.PID()+1, running.SecretKey())

	if err := <-done; err != nil {
		t.Errorf("a statement that nobody cancelled: %v", err)
	}
	for range 5 {
		if _, err := idle.Exec(t.Context(), "SELECT 1").ReadAll(); err != nil {
			t.Errorf("a client that was idle when it cancelled: %v", err)
		}
	}
}

// TestPsqlCtrlC interrupts psql as a terminal would.
func TestPsqlCtrlC(t *testing.T) {
	c := needCluster(t)
	if _, err := exec.LookPath("psql"); err != nil {
		t.Skip("psql is not installed")
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "psql", "-X", "-c", "SELECT pg_sleep(60), 'cancel_psql'", proxyDSN)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the statement runs", func() bool { return sleepers(t, c, "cancel_psql") == 1 })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "canceling statement due to user request") {
		t.Errorf("psql ends with %v and says\n%s", err, &out)
	}
	waitFor(t, "no shard runs it any more", func() bool { return sleepers(t, c, "cancel_psql") == 0 })
}
