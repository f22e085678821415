package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func onTLS(conn net.Conn) bool {
	_, ok := conn.(*tls.Conn)
	return ok
}

func (s *ServerTLS) shown() string {
	return s.current.Load().config.Certificates[0].Leaf.Subject.CommonName
}

func TestServerTLSReload(t *testing.T) {
	ca := newAuthority(t)
	oldCert, oldKey := ca.issue(t, "old")
	newCert, newKey := ca.issue(t, "new")
	dir := t.TempDir()
	files := ServerTLSFiles{Cert: filepath.Join(dir, "crt"), Key: filepath.Join(dir, "key"), ClientCA: filepath.Join(dir, "ca")}
	install := func(from, to string) {
		t.Helper()
		data, err := os.ReadFile(from)
		must(t, err)
		must(t, os.WriteFile(to, data, 0o600))
	}
	install(oldCert, files.Cert)
	install(oldKey, files.Key)
	install(ca.file, files.ClientCA)
	s, err := LoadServerTLS(files)
	must(t, err)
	binding := string(s.current.Load().binding.Data)

	state := s.current.Load()
	must(t, s.Reload())
	if s.current.Load() != state {
		t.Error("unchanged files were loaded again")
	}

	install(newCert, files.Cert) // and the key not yet
	if err := s.Reload(); err == nil || s.shown() != "old" {
		t.Errorf("a half installed certificate: %v, shown is %s", err, s.shown())
	}
	must(t, os.WriteFile(files.ClientCA, []byte("nonsense"), 0o600))
	install(newKey, files.Key)
	if err := s.Reload(); err == nil || s.shown() != "old" {
		t.Errorf("a broken CA: %v, shown is %s", err, s.shown())
	}
	install(ca.file, files.ClientCA)
	must(t, s.Reload())
	if s.shown() != "new" || string(s.current.Load().binding.Data) == binding {
		t.Errorf("shown is %s", s.shown())
	}

	reports := make(chan error, 100)
	ctx, cancel := context.WithCancel(testContext(t))
	ended := make(chan error)
	go func() { ended <- s.Run(ctx, time.Millisecond, func(err error) { reports <- err }) }()
	must(t, os.Remove(files.Key))
	if err := <-reports; !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing key is reported as %v", err)
	}
	install(oldCert, files.Cert)
	install(oldKey, files.Key)
	for err := range reports {
		if err == nil {
			break
		}
	}
	if s.shown() != "old" {
		t.Errorf("shown is %s", s.shown())
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run ended with %v", err)
	}
}

func TestLoadClientTLSRefuses(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, "x")
	for want, files := range map[string]ClientTLSFiles{
		"unknown sslmode":         {Mode: "verify"},
		"needs sslrootcert":       {Mode: SSLVerifyCA},
		"verify-full needs":       {Mode: SSLVerifyFull},
		"needs sslmode=verify":    {Mode: SSLVerifyCA, RootCert: systemRoots},
		"read sslrootcert":        {Mode: SSLRequire, RootCert: "nowhere"},
		"no certificate found":    {Mode: SSLVerifyFull, RootCert: key},
		"given together":          {Cert: cert},
		"load client certificate": {Cert: cert, Key: cert},
	} {
		if _, err := LoadClientTLS(files); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v gives %v, want %q", files, err, want)
		}
	}
	c, err := LoadClientTLS(ClientTLSFiles{Cert: cert, Key: key})
	must(t, err)
	if c.Mode() != SSLPrefer || (*ClientTLS)(nil).Mode() != SSLDisable {
		t.Errorf("modes %s, %s", c.Mode(), (*ClientTLS)(nil).Mode())
	}
}
