package postgres

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newServer makes an initialized, stopped server.
func newServer(t *testing.T, port int) *Server {
	t.Helper()
	bin, err := Find()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := TempDir("shardproxy-postgrestest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := open(t, bin, filepath.Join(dir, "data"), port)
	if err := s.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t *testing.T, bin Binaries, dir string, port int) *Server {
	t.Helper()
	s, err := New(Config{Binaries: bin, Dir: dir, Log: dir + ".log", Port: port, Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.StopImmediately(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func start(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestLivesOfAServer(t *testing.T) {
	s := newServer(t, 0)
	if !s.Initialized() {
		t.Fatal("Init left no database cluster")
	}
	start(t, s)
	port := s.Port()

	t.Run("a second Start is refused", func(t *testing.T) {
		if err := s.Start(t.Context()); err == nil {
			t.Error("no error")
		}
	})
	t.Run("a start ends what a killed run left on the folder", func(t *testing.T) {
		later := open(t, s.cfg.Binaries, s.Dir(), port)
		start(t, later)
		<-s.Ended()
		if got := later.Port(); got != port {
			t.Errorf("port %d, was %d", got, port)
		}
		if err := later.Stop(); err != nil {
			t.Fatal(err)
		}
		if pids := processesOf(s.Dir()); len(pids) != 0 {
			t.Errorf("processes %v are left after Stop", pids)
		}
	})
	t.Run("a postmaster.pid of somebody else does not stop it", func(t *testing.T) {
		// Our own number: a living process that is no postmaster.
		if err := s.write("postmaster.pid", fmt.Sprintf("%d\n%s\n0\n%d\n", os.Getpid(), s.Dir(), port)); err != nil {
			t.Fatal(err)
		}
		start(t, s)
	})
	t.Run("Kill leaves no process", func(t *testing.T) {
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if pids := processesOf(s.Dir()); len(pids) != 0 {
			t.Errorf("processes %v are left", pids)
		}
		select {
		case <-s.Ended():
		default:
			t.Error("Ended is open")
		}
	})
	t.Run("a taken port is left alone", func(t *testing.T) {
		l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", fmt.Sprint(port)))
		if err != nil {
			t.Skipf("somebody else has port %d: %v", port, err)
		}
		defer l.Close()
		start(t, s)
		if s.Port() == port {
			t.Errorf("both listen on %d", port)
		}
	})
	t.Run("a start that fails says why", func(t *testing.T) {
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		s.cfg.Settings = map[string]string{"shared_buffers": "many"}
		if err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "shared_buffers") {
			t.Errorf("error %v does not name the setting", err)
		}
	})
}

func TestPortIsRetriedWhenItWasTakenMeanwhile(t *testing.T) {
	s := newServer(t, 0)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	// As if somebody had taken it between reservePort and the server.
	err = s.startOn(t.Context(), l.Addr().(*net.TCPAddr).Port, func() {})
	if !errors.Is(err, errPortTaken) {
		t.Errorf("got %v, want errPortTaken", err)
	}
}

func TestReadPIDFile(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		want    pidFile
		fails   bool
	}{
		"ready":         {"4711\n/data\n1700000000\n5433\n\n127.0.0.1\n    123456         7\nready   \n", pidFile{4711, 5433, 7, "ready"}, false},
		"being written": {"4711\n/data\n1700000000\n5433\n", pidFile{4711, 5433, 0, ""}, false},
		"empty":         {"", pidFile{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readPIDFile(dir)
			if (err != nil) != c.fails {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(pidFile{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCanEnterNamesTheClosedFolder(t *testing.T) {
	who, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	if !who.switched {
		t.Skip("servers run as our own user here")
	}
	dir, err := TempDir("shardproxy-postgrestest")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	below := filepath.Join(dir, "closed", "not", "there", "yet")
	if err := CanEnter(below); err != nil {
		t.Errorf("open parents: %v", err)
	}
	closed := filepath.Join(dir, "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := CanEnter(below); err == nil || !strings.Contains(err.Error(), closed) {
		t.Errorf("error %v does not name %s", err, closed)
	}
}

func TestSweepTempTakesOnlyTheDead(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	mine, err := TempDir("sweep")
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(os.TempDir(), "sweep-4194999-x") // above the kernel's highest pid
	if err := os.Mkdir(dead, 0o755); err != nil {
		t.Fatal(err)
	}
	SweepTemp("sweep")
	if _, err := os.Stat(mine); err != nil {
		t.Errorf("a living process lost its folder: %v", err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("a dead process's folder is still there: %v", err)
	}
}

func TestDSN(t *testing.T) {
	got := DSN("app", "p@ss/w", "127.0.0.1", 5433, "app")
	if want := "postgres://app:p%40ss%2Fw@127.0.0.1:5433/app?sslmode=disable"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
