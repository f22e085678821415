package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"shardproxy/topology"
)

// testCancelByAnother sends CancelRequests to a proxy that does not have the session, as a load balancer would.
func testCancelByAnother(t *testing.T, c *faultCluster) {
	h := c.harnessShards()
	config, err := pgconn.ParseConfig(c.proxies[1].DSN)
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"3.0", "3.2"} {
		t.Run(version, func(t *testing.T) {
			own := config.Copy()
			own.MaxProtocolVersion = version
			conn, err := pgconn.ConnectConfig(t.Context(), own)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.WithoutCancel(t.Context()))
			if got := len(conn.SecretKey()); (version == "3.2") != (got > 4) {
				t.Fatalf("a secret of %d bytes", got)
			}
			mark := "cancel_other_" + version
			done := make(chan error, 1)
			go func() {
				_, err := conn.Exec(context.WithoutCancel(t.Context()), "SELECT pg_sleep(60), '"+mark+"'").ReadAll()
				done <- err
			}()
			waitFor(t, "the statement runs", func() bool { return sleepers(t, h, mark) == 1 })
			wrong := bytes.Clone(conn.SecretKey())
			wrong[0] ^= 1
			for _, p := range []int{0, 2} {
				cancelAt(t, c.proxies[p].at.Listen, conn.PID(), wrong)
				cancelAt(t, c.proxies[p].at.Listen, conn.PID()^1, conn.SecretKey())
			}
			select {
			case err := <-done:
				t.Fatalf("cancelled by a request that was not its own: %v", err)
			default:
			}
			if n := sleepers(t, h, mark); n != 1 {
				t.Errorf("%d backends run the statement", n)
			}
			cancelAt(t, c.proxies[0].at.Listen, conn.PID(), conn.SecretKey())
			var refused *pgconn.PgError
			if err := <-done; !errors.As(err, &refused) || refused.Code != "57014" {
				t.Errorf("a statement that was cancelled by another proxy ends with %v", err)
			}
			if _, err := conn.Exec(t.Context(), "SELECT 1").ReadAll(); err != nil {
				t.Errorf("the next statement: %v", err)
			}
		})
	}
	if text := get(t, c.proxies[0].HTTP+"/metrics"); !regexp.MustCompile(`(?m)^shardproxy_gossip_cancels_total\{way="sent"\} [1-9]`).MatchString(text) {
		t.Error("the metrics of the proxy that was asked do not count it")
	}
}

// cancelAt sends a CancelRequest and waits until the proxy has closed the connection: it has been seen to then.
func cancelAt(t *testing.T, address string, pid uint32, secret []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(answerPatience))
	packet := binary.BigEndian.AppendUint32(nil, uint32(12+len(secret)))
	packet = binary.BigEndian.AppendUint32(packet, 80877102) // CancelRequest
	packet = append(binary.BigEndian.AppendUint32(packet, pid), secret...)
	if _, err := conn.Write(packet); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
}

// testKeyRotation puts another key in the place of the cluster's while all work, and restarts a proxy with it.
func testKeyRotation(t *testing.T, c *faultCluster) {
	console := c.proxies[1].console(t)
	rings := func(tr *transcript) (in []string) {
		for _, line := range tr.lines {
			if row, ok := strings.CutPrefix(line, "row "); ok {
				in = append(in, strings.ReplaceAll(row, `"`, ""))
			}
		}
		slices.Sort(in)
		return in
	}
	all := func(used, other string) (want []string) {
		for _, p := range []string{"a", "b", "c"} {
			want = append(want, p+" | "+used+" | yes | NULL")
			if other != "" {
				want = append(want, p+" | "+other+" | no | NULL")
			}
		}
		slices.Sort(want)
		return want
	}
	fingerprint := func(key string) string {
		secret, err := base64.StdEncoding.DecodeString(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(topology.FingerprintKey(secret))
	}
	old, fresh := fingerprint(faultKey), fingerprint(faultOther)
	if line, failed := console.simple(&entry{sql: "GOSSIP KEY USE " + fresh}).failed(); !failed || !strings.HasPrefix(line, "error ERROR 55000 ") {
		t.Errorf("use of a key that nobody has: %q", line)
	}
	for _, step := range []struct {
		sql  string
		want []string
	}{
		{"SHOW GOSSIP KEYS", all(old, "")},
		{"GOSSIP KEY ADD '" + faultOther + "'", all(old, fresh)},
		{"GOSSIP KEY USE " + fresh, all(fresh, old)},
		{"GOSSIP KEY REMOVE " + old, all(fresh, "")},
		{"SHOW GOSSIP KEYS", all(fresh, "")},
	} {
		if got := rings(console.must(t, step.sql)); !slices.Equal(got, step.want) {
			t.Fatalf("%s\n got %v\nwant %v", step.sql, got, step.want)
		}
		for i := range c.proxies {
			if n := c.alivePeers(t, i); n != 2 {
				t.Errorf("after %s, %d peers of %s are alive", step.sql, n, c.proxies[i].name)
			}
		}
	}
	epoch := c.change(t, 0, "ADD REFERENCE fault_rotated")
	waitFor(t, "a change is known by all", func() bool { return c.epochs(t, 0, 1, 2) == strings.Repeat(epoch+" ", 2)+epoch })
	for _, p := range c.proxies {
		if log := p.Log(); strings.Contains(log, faultOther) || strings.Contains(log, faultKey) {
			t.Errorf("the log of %s shows a key", p.name)
		}
	}
	c.proxies[2].config = strings.Replace(c.proxies[2].config, faultKey, faultOther, 1)
	c.proxies[2].kill(t)
	c.proxies[2].start(t)
	waitFor(t, "a proxy that starts with the new key is let in", func() bool { return c.alivePeers(t, 2) == 2 && c.alivePeers(t, 0) == 2 })
}
