package admin

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// httpServer is an HTTP that listens; stop ends it and gives what Serve returned.
func httpServer(t *testing.T, cfg HTTPConfig) (url string, stop func() error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log = slog.New(slog.DiscardHandler)
	if cfg.Metrics == nil {
		cfg.Metrics = NewRegistry(newFixed(t))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- NewHTTP(cfg).Serve(ctx, listener) }()
	stop = func() error {
		cancel()
		err := <-done
		done <- err
		return err
	}
	t.Cleanup(func() { _ = stop(); http.DefaultClient.CloseIdleConnections() })
	return "http://" + listener.Addr().String(), stop
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	request, err := http.NewRequestWithContext(testContext(t), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// TestMetrics compares the metrics of shardproxy as a scrape gets them with testdata/metrics.txt. The pedantic
// registry checks that each was described, and that none is twice there.
func TestMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(NewCollector(newFixed(t)))
	url, _ := httpServer(t, HTTPConfig{Metrics: registry})
	status, got := get(t, url+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, got)
	}
	const file = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

func TestHistogram(t *testing.T) {
	count, buckets := histogram([]int64{1, 0, 5, 7}) // below 1, 2 and 4 µs, and all above
	if want := map[float64]uint64{1e-6: 1, 2e-6: 1, 4e-6: 6}; count != 13 || !cmp.Equal(buckets, want) {
		t.Errorf("%d, %v", count, buckets)
	}
}

func TestRegistryOfProcess(t *testing.T) {
	url, _ := httpServer(t, HTTPConfig{})
	_, body := get(t, url+"/metrics")
	for _, name := range []string{"shardproxy_epoch 7", "go_goroutines ", "process_resident_memory_bytes "} {
		if !strings.Contains(body, "\n"+name) {
			t.Errorf("no %s", name)
		}
	}
}

// TestOddLabels holds that a name in another encoding does not take the metrics away.
func TestOddLabels(t *testing.T) {
	src := newFixed(t)
	src.pools[0].Key.User = "caf\xe9"
	url, _ := httpServer(t, HTTPConfig{Metrics: NewRegistry(src)})
	if status, body := get(t, url+"/metrics"); status != http.StatusOK || !strings.Contains(body, "user=\"caf\uFFFD\"") {
		t.Errorf("status %d: %.500s", status, body)
	}
}

func TestHealth(t *testing.T) {
	var reasons atomic.Pointer[[]string]
	reasons.Store(&[]string{"no shard answers yet", "draining"})
	url, stop := httpServer(t, HTTPConfig{NotReady: func() []string { return *reasons.Load() }})
	check := func(path string, wantStatus int, want string) {
		t.Helper()
		if status, body := get(t, url+path); status != wantStatus || body != want {
			t.Errorf("%s: %d %q", path, status, body)
		}
	}
	check("/healthz", 200, "ok\n")
	check("/readyz", 503, "no shard answers yet\ndraining\n")
	reasons.Store(&[]string{})
	check("/readyz", 200, "ready\n")
	check("/debug/pprof/", 404, "404 page not found\n")
	if err := stop(); err != context.Canceled {
		t.Errorf("Serve gave %v", err)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
		conn.Close()
		t.Error("it still listens")
	}
}

func TestPprof(t *testing.T) {
	url, _ := httpServer(t, HTTPConfig{Pprof: true})
	if status, body := get(t, url+"/debug/pprof/goroutine?debug=1"); status != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("%d %.100s", status, body)
	}
}

func TestRunNeedsItsAddress(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	h := NewHTTP(HTTPConfig{Address: listener.Addr().String(), Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err := h.Run(testContext(t)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Run gave %v", err)
	}
}

// TestServeEndsWithListener holds that Serve does not hang when something else closes the listener.
func TestServeEndsWithListener(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	h := NewHTTP(HTTPConfig{Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err := h.Serve(testContext(t), listener); err == nil || err == context.Canceled {
		t.Errorf("Serve gave %v", err)
	}
}
