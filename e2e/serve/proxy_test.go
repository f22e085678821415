package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	patience = 20 * time.Second // for what takes milliseconds on an idle machine
	poll     = 5 * time.Millisecond
)

// process is a running shardproxy.
type process struct {
	pid   int
	ended chan struct{} // closed when it has ended
	state *os.ProcessState

	mu  sync.Mutex // guards log
	log bytes.Buffer
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *process) logged() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// launch starts the binary. It ends with this process: the kernel sends Pdeathsig when the thread ends that made it,
// so a goroutine keeps that thread.
func launch(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{ended: make(chan struct{})}
	cmd := exec.Command(proxyBin, args...)
	cmd.Stdout, cmd.Stderr = p, p
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait() // what it says is in state
			p.state = cmd.ProcessState
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(p.pid, s); err != nil {
		t.Fatalf("signal %v: %v", s, err)
	}
}

func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// await gives how the process ended; it must end by itself or by a signal sent before.
func (p *process) await(t *testing.T) *os.ProcessState {
	t.Helper()
	select {
	case <-p.ended:
		return p.state
	case <-time.After(patience):
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
		t.Fatalf("shardproxy does not end\n%s", p.logged())
		return nil
	}
}

// waitLogged waits until the log has what the expression matches, and gives its last group.
func (p *process) waitLogged(t *testing.T, expression string) string {
	t.Helper()
	re := regexp.MustCompile(expression)
	var found []string
	waitFor(t, "log line "+expression, func() bool {
		ended := !p.alive()
		if found = re.FindStringSubmatch(p.logged()); found == nil && ended {
			t.Fatalf("shardproxy has ended, and never logged %q:\n%s", expression, p.logged())
		}
		return found != nil
	})
	return found[len(found)-1]
}

// waitFor polls what tells nobody of a change.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("this does not come: %s", what)
		}
		time.Sleep(poll)
	}
}

const configFile = "shardproxy.toml"

// proxy is a process of `serve` that has been waited for.
type proxy struct {
	*process
	dir     string // of configFile
	address string // of the first listener
	web     string // http://…
}

// begin starts `serve` with the configuration that compose makes of settings. It does not wait for a shard. It is stopped
// after the test as an operator does, and must end well, unless the test has ended it.
func begin(t *testing.T, settings string) *proxy {
	t.Helper()
	dir := t.TempDir()
	p := &proxy{process: launch(t, "serve", "--config", put(t, dir, configFile, []byte(compose(settings)))), dir: dir}
	t.Cleanup(func() {
		if p.alive() {
			p.signal(t, syscall.SIGTERM)
			if state := p.await(t); !state.Success() {
				t.Errorf("shardproxy ended with %v", state)
			}
		}
		if t.Failed() {
			t.Logf("log of shardproxy:\n%s", p.logged())
		}
	})
	return p
}

// start is begin, and waits until clients may come.
func start(t *testing.T, settings string) *proxy {
	t.Helper()
	p := begin(t, settings)
	p.waitReady(t)
	return p
}

func (p *proxy) waitReady(t *testing.T) {
	t.Helper()
	waitFor(t, "/readyz is content", func() bool {
		status, _ := p.get(t, "/readyz")
		return status == http.StatusOK
	})
	p.address = p.waitLogged(t, `listening"?[ ,]"?address"?[=:]"?([^\s"]+)`)
}

// get asks for a page of the HTTP server.
func (p *proxy) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	if p.web == "" {
		p.web = "http://" + p.waitLogged(t, `metrics and health"[ ,]"?address"?[=:]"?([^\s"]+)`)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.web+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// compose adds to settings what they leave out and all tests need.
func compose(settings string) string {
	add := func(section, key, line string) {
		header := "\n[" + section + "]\n"
		before, body, found := strings.Cut(settings, header)
		if !found {
			settings += header + line + "\n"
			return
		}
		if own, _, _ := strings.Cut(body, "\n["); !strings.Contains("\n"+own, "\n"+key+" = ") {
			settings = before + header + line + "\n" + body
		}
	}
	settings = "\n" + settings
	add("listen", "addresses", `addresses = ["127.0.0.1:0"]`)
	add("admin", "http", "http = \"127.0.0.1:0\"\nusers = [\"admin\"]")
	add("cluster", "database", `database = "shop"`)
	add("cluster", "service_user", "service_user = \"app\"\nservice_password = \"app\"")
	add("server_tls", "sslmode", `sslmode = "disable"`) // spares a handshake
	for _, user := range []string{"app", "admin"} {
		if !strings.Contains(settings, "name = \""+user+"\"") {
			settings += fmt.Sprintf("\n[[users]]\nname = %q\nsecret = %[1]q\n", user)
		}
	}
	if !strings.Contains(settings, "[[shards]]") {
		settings += shard("s1", "127.0.0.1", server.Port(), "s1") + shard("s2", "127.0.0.1", server.Port(), "s2")
	}
	return settings
}

func shard(name, host string, port int, database string) string {
	return fmt.Sprintf("\n[[shards]]\nname = %q\nnodes = [{host = %q, port = %d, database = %q}]\n", name, host, port, database)
}

// psql runs PostgreSQL's own client, and so libpq, with the connection string.
func psql(t *testing.T, conninfo string, args ...string) (out string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "psql", append([]string{"-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", conninfo}, args...)...)
	cmd.Env = append(os.Environ(), "PGCONNECT_TIMEOUT=10", "PGPASSFILE="+filepath.Join(t.TempDir(), "none"), "HOME="+t.TempDir())
	text, err := cmd.CombinedOutput()
	if err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return "", errors.New(string(bytes.TrimSpace(text)))
	}
	return string(bytes.TrimSpace(text)), nil
}
