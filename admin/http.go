package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Limits of the HTTP server. It is for monitors inside, so they are small.
const (
	httpReadTimeout  = 5 * time.Second
	httpWriteTimeout = time.Minute // leaves room for a profile of 30 s
	httpIdleTimeout  = 2 * time.Minute
	httpHeaderMax    = 16 << 10 // bytes
	httpScrapesMax   = 4        // at a time; one more gets 503
	httpCloseTimeout = 2 * time.Second
)

// HTTPConfig says what is served over HTTP. It has no login.
type HTTPConfig struct {
	Address string // host:port, for Run
	Pprof   bool   // profiles under /debug/pprof/
	Metrics prometheus.Gatherer
	// NotReady gives the reasons why no new client should be sent here: starting, draining. None means ready.
	NotReady func() []string
	Notes    func() []string // said by /readyz besides; may be nil
	Log      *slog.Logger
}

// HTTP serves /metrics, /healthz and /readyz.
type HTTP struct {
	cfg     HTTPConfig
	handler http.Handler
}

// NewHTTP makes an HTTP that does not listen yet.
func NewHTTP(cfg HTTPConfig) *HTTP {
	h := &HTTP{cfg: cfg}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelError), MaxRequestsInFlight: httpScrapesMax,
		ErrorHandling: promhttp.ContinueOnError, // one bad value does not hide all others
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", h.ready)
	if cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	h.handler = mux
	return h
}

// Run listens on the address of the configuration, and serves until ctx ends.
func (h *HTTP) Run(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", h.cfg.Address)
	if err != nil {
		return fmt.Errorf("metrics and health: %w", err)
	}
	return h.Serve(ctx, listener)
}

// Serve serves on listener until ctx ends, closes it, and returns ctx's error.
func (h *HTTP) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler: h.handler, ReadTimeout: httpReadTimeout, WriteTimeout: httpWriteTimeout, IdleTimeout: httpIdleTimeout,
		MaxHeaderBytes: httpHeaderMax, ErrorLog: slog.NewLogLogger(h.cfg.Log.Handler(), slog.LevelDebug),
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpCloseTimeout)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close() // cuts off what did not end in time
		}
	})
	err := server.Serve(listener)
	if stop() { // it was not ctx
		return fmt.Errorf("metrics and health: %w", errors.Join(err, server.Close()))
	}
	<-closed
	return ctx.Err()
}

func (h *HTTP) ready(w http.ResponseWriter, _ *http.Request) {
	if reasons := h.cfg.NotReady(); len(reasons) > 0 {
		answer(w, http.StatusServiceUnavailable, strings.Join(reasons, "\n"))
		return
	}
	text := "ready"
	if h.cfg.Notes != nil {
		text = strings.Join(append([]string{text}, h.cfg.Notes()...), "\n")
	}
	answer(w, http.StatusOK, text)
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, text)
}
