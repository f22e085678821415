package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

const (
	connecting = 500 * time.Millisecond // at least this much of a run is there for clients to connect
	rampUp     = 300 * time.Millisecond // then, before the window opens, pools fill and caches warm
)

// accountsPerScale is the number of rows of pgbench_accounts for each unit of pgbench's scale.
const accountsPerScale = 100_000

const pointRead = `\set aid random(1, :accounts)
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
`

// load is one cell of the matrix: how pgbench drives a target.
type load struct {
	Mode    string // simple, extended, prepared
	Clients int
}

// sample is what one run gave.
type sample struct {
	TPS    float64 `json:"tps"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
	CPU    float64 `json:"cpu_us_per_transaction"` // of the proxy process; 0 without a proxy
	RSS    int64   `json:"rss"`                    // bytes, at the end of the run
	Failed int     `json:"failed"`                 // failed transactions and aborted clients
	Noisy  bool    `json:"noisy"`                  // other processes used the machine
}

// pgbench runs point reads against targets.
type pgbench struct {
	binary   string
	dir      string // for the script and the logs
	accounts int
	window   time.Duration
}

// run drives a target for the window and measures what happens inside it: transactions are counted
// from pgbench's log, whose times are those of this machine's clock, so the costs of connecting
// and of the end of the run are left out.
func (b *pgbench) run(ctx context.Context, t *target, l load) (s sample, err error) {
	dir, err := os.MkdirTemp(b.dir, "run")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	script := filepath.Join(dir, "script.sql")
	if err := os.WriteFile(script, []byte(pointRead), 0o644); err != nil {
		return s, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.binary, "-n", "-f", script, "-M", l.Mode,
		"-c", strconv.Itoa(l.Clients), "-j", strconv.Itoa(min(l.Clients, 2)),
		"-T", strconv.Itoa(int((b.window+rampUp+connecting+time.Second-1)/time.Second)),
		"-D", fmt.Sprintf("accounts=%d", b.accounts),
		"-l", "--log-prefix", filepath.Join(dir, "log"),
		"-h", t.at.Host, "-p", strconv.Itoa(t.at.Port), "-U", t.at.User, t.at.Database)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	exited := make(chan struct{})
	var ended error // of pgbench; set once exited is closed
	if err := start(cmd, nil, func(err error) {
		ended = err
		close(exited)
	}); err != nil {
		return s, err
	}
	window, cpu, err := b.observe(ctx, t, dir, exited)
	if err != nil {
		cancel()
	}
	<-exited
	if err != nil {
		return s, fmt.Errorf("%w\n%s", err, out.Bytes())
	}
	if s.Failed = failures(out.Bytes()); ended != nil && s.Failed == 0 {
		return s, fmt.Errorf("pgbench: %w\n%s", errors.Join(ctx.Err(), ended), out.Bytes())
	}
	latencies, err := readLogs(dir, window)
	if err != nil {
		return s, err
	}
	if len(latencies) == 0 {
		return s, fmt.Errorf("pgbench finished no transaction:\n%s", out.Bytes())
	}
	slices.Sort(latencies)
	s.TPS = float64(len(latencies)) / window.length().Seconds()
	s.P50 = float64(latencies[len(latencies)/2]) / 1000
	s.P99 = float64(latencies[len(latencies)*99/100]) / 1000
	s.CPU = float64(cpu) / 1000 / float64(len(latencies))
	if t.proxy != nil {
		m, err := t.proxy.memory()
		if err != nil {
			return s, err
		}
		s.RSS = m.RSS
	}
	return s, nil
}

// interval is a stretch of wall time.
type interval struct{ from, to time.Time }

func (i interval) length() time.Duration { return i.to.Sub(i.from) }

// observe opens the window once transactions are flowing and takes the proxy's clock at both ends.
func (b *pgbench) observe(ctx context.Context, t *target, dir string, exited <-chan struct{}) (w interval, cpu time.Duration, err error) {
	wait := func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-exited:
			return errors.New("pgbench ended before its window did")
		}
	}
	for !logged(dir) {
		if err := wait(10 * time.Millisecond); err != nil {
			return w, 0, err
		}
	}
	if err := wait(rampUp); err != nil {
		return w, 0, err
	}
	before, err := t.cpu()
	if err != nil {
		return w, 0, err
	}
	w.from = time.Now()
	if err := wait(b.window); err != nil {
		return w, 0, err
	}
	after, err := t.cpu()
	w.to = time.Now()
	return w, after - before, err
}

// logged tells whether a first block of transactions has reached a log.
func logged(dir string) bool {
	names, _ := filepath.Glob(filepath.Join(dir, "log*"))
	return slices.ContainsFunc(names, func(name string) bool {
		info, err := os.Stat(name)
		return err == nil && info.Size() > 0
	})
}

// readLogs returns the latencies, in microseconds, of the transactions that ended in the window.
func readLogs(dir string, w interval) ([]int64, error) {
	names, err := filepath.Glob(filepath.Join(dir, "log*"))
	if err != nil {
		return nil, err
	}
	var latencies []int64
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		latencies, err = readLog(f, w, latencies)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return latencies, nil
}

// readLog appends the latencies of one log. Its lines are "client transaction latency script
// second microsecond", the last two being when the transaction ended; latency is a word
// ("failed", "skipped") for those that gave no result.
func readLog(r io.Reader, w interval, latencies []int64) ([]int64, error) {
	from, to := w.from.UnixMicro(), w.to.UnixMicro()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := bytes.Fields(lines.Bytes())
		if len(fields) < 6 {
			return nil, fmt.Errorf("line %q", lines.Text())
		}
		latency, err := strconv.ParseInt(string(fields[2]), 10, 64)
		if err != nil {
			continue
		}
		second, err1 := strconv.ParseInt(string(fields[4]), 10, 64)
		micro, err2 := strconv.ParseInt(string(fields[5]), 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		if end := second*1_000_000 + micro; end >= from && end < to {
			latencies = append(latencies, latency)
		}
	}
	return latencies, lines.Err()
}

var (
	failedTransactions = regexp.MustCompile(`number of failed transactions: (\d+)`)
	abortedClient      = regexp.MustCompile(`client \d+ (script \d+ )?aborted`)
)

// failures counts the failed transactions and aborted clients that pgbench reports.
func failures(out []byte) int {
	n := len(abortedClient.FindAll(out, -1))
	if m := failedTransactions.FindSubmatch(out); m != nil {
		failed, _ := strconv.Atoi(string(m[1]))
		n += failed
	}
	return n
}
