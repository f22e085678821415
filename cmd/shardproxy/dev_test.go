package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"shardproxy/internal/config"
	"shardproxy/internal/devcluster"
	"shardproxy/internal/postgres"
)

// TestMain also is the further proxies of TestDev: the dev command runs its own program with "serve --config FILE".
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "serve" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		if err := listenOnly(ctx, os.Args[3], func() {}); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// listenOnly stands for a proxy: it takes the address of its configuration.
func listenOnly(ctx context.Context, file string, ready func()) error {
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen.Addresses[0])
	if err != nil {
		return err
	}
	ready()
	<-ctx.Done()
	return l.Close()
}

func devTestOptions(t *testing.T) *devOptions {
	t.Helper()
	dir, err := postgres.TempDir("shardproxy-devtest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &devOptions{
		cluster: devcluster.Options{Dir: filepath.Join(dir, "dev"), Shards: 2, Servers: 1, Replicas: 0, Ephemeral: true},
		listen:  "127.0.0.1:0", http: "127.0.0.1:0", proxies: 1,
		tables: []string{"pgbench_accounts.aid"},
	}
}

// greeted ends the dev command once it has said that all is there.
type greeted struct {
	bytes.Buffer
	then func()
}

func (g *greeted) Write(p []byte) (int, error) {
	n, err := g.Buffer.Write(p)
	if strings.Contains(g.String(), "Ctrl-C stops everything") {
		g.then()
	}
	return n, err
}

func TestDev(t *testing.T) {
	o := devTestOptions(t)
	o.proxies = 2
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var dev struct {
		Proxies []devcluster.ProxyInfo
		Shards  []struct{ Name string }
	}
	out := &greeted{}
	out.then = func() {
		defer interrupt()
		data, err := os.ReadFile(filepath.Join(o.cluster.Dir, "dev.json"))
		if err == nil {
			err = json.Unmarshal(data, &dev)
		}
		if err != nil {
			t.Error(err)
		}
	}
	if err := runDev(ctx, out, listenOnly, o); err != nil {
		t.Fatal(err)
	}
	if len(dev.Proxies) != 2 || len(dev.Shards) != 2 {
		t.Fatalf("dev.json has %+v", dev)
	}
	first, second := dev.Proxies[0], dev.Proxies[1]
	if first.PID != os.Getpid() || second.PID == first.PID || second.DSN == first.DSN {
		t.Errorf("proxies %+v", dev.Proxies)
	}
	if !strings.Contains(out.String(), strings.TrimSuffix(first.DSN, "?sslmode=disable")+"\n") {
		t.Errorf("the DSN %s is not shown in\n%s", first.DSN, out)
	}
	if _, err := os.Readlink("/proc/" + strconv.Itoa(second.PID) + "/cwd"); err == nil {
		t.Errorf("proxy %d still runs", second.PID)
	}
	if _, err := os.Stat(o.cluster.Dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v", o.cluster.Dir, err)
	}
}

func TestDevEndsWithTheProxy(t *testing.T) {
	o := devTestOptions(t)
	broken := errors.New("broken")
	err := runDev(t.Context(), &bytes.Buffer{}, func(context.Context, string, func()) error { return broken }, o)
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(o.cluster.Dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v", o.cluster.Dir, err)
	}
}

func TestDevRefusesATakenAddressFirst(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := devTestOptions(t)
	o.http = l.Addr().String()
	err = runDev(t.Context(), &bytes.Buffer{}, listenOnly, o)
	if err == nil || !strings.Contains(err.Error(), "--http "+o.http) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(o.cluster.Dir); !os.IsNotExist(err) {
		t.Errorf("servers were made in %s: %v", o.cluster.Dir, err)
	}
}
