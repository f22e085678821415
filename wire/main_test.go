package wire

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout bounds whatever should not take long.
const testTimeout = 10 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// authority is a CA made for one test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = a.sign(t, template, nil)
	a.file = a.write(t, "ca.crt", "CERTIFICATE", a.cert.Raw)
	return a
}

// sign makes a certificate and its key; parent nil signs itself.
func (a *authority) sign(t testing.TB, template, parent *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<60))
	must(t, err)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	signer := a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return cert, key
}

// issue writes a certificate for the common name (and for localhost) and its key.
func (a *authority) issue(t testing.TB, commonName string) (certFile, keyFile string) {
	t.Helper()
	cert, key := a.sign(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: commonName},
		DNSNames:    []string{"localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert)
	der, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	return a.write(t, commonName+".crt", "CERTIFICATE", cert.Raw), a.write(t, commonName+".key", "EC PRIVATE KEY", der)
}

func (a *authority) write(t testing.TB, name, block string, der []byte) string {
	t.Helper()
	file := filepath.Join(a.dir, name)
	must(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der}), 0o600))
	return file
}

// serverTLS is a listener's TLS with a certificate for localhost.
func (a *authority) serverTLS(t testing.TB) *ServerTLS {
	t.Helper()
	cert, key := a.issue(t, "localhost")
	s, err := LoadServerTLS(ServerTLSFiles{Cert: cert, Key: key, ClientCA: a.file})
	must(t, err)
	return s
}

func (a *authority) clientTLS(t testing.TB, mode SSLMode) *ClientTLS {
	t.Helper()
	c, err := LoadClientTLS(ClientTLSFiles{Mode: mode, RootCert: a.file})
	must(t, err)
	return c
}

// goTLS is the TLS of a Go client that trusts the authority.
func (a *authority) goTLS(alpn ...string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: alpn}
}

// serve runs handle for each connection to a new address, until the test ends.
func serve(t testing.TB, handle func(net.Conn)) (address string) {
	t.Helper()
	return serveOn(t, "tcp", "127.0.0.1:0", handle)
}

func serveOn(t testing.TB, network, address string, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen(network, address)
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var open []chan struct{}
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			ended := make(chan struct{})
			open = append(open, ended)
			go func() {
				defer close(ended)
				defer conn.Close()
				handle(conn)
			}()
		}
		for _, ended := range open {
			<-ended
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// tcpPair is two ends of a TCP connection, closed after the test.
func tcpPair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	near, err = net.Dial("tcp", l.Addr().String())
	must(t, err)
	far, err = l.Accept()
	must(t, err)
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

// wantCode fails unless err carries an *Error with the SQLSTATE.
func wantCode(t testing.TB, err error, code string) *Error {
	t.Helper()
	refusal, ok := errors.AsType[*Error](err)
	if !ok || refusal.Code != code {
		t.Fatalf("got error %v, want SQLSTATE %s", err, code)
	}
	return refusal
}

// readError reads an ErrorResponse.
func readError(t testing.TB, r io.Reader) *Error {
	t.Helper()
	messageType, body, err := readHandshakeMessage(r, 1<<16)
	must(t, err)
	if messageType != 'E' {
		t.Fatalf("got message %q, want an ErrorResponse", messageType)
	}
	e, err := DecodeError(body)
	must(t, err)
	return e
}

// wantNoDeadline fails if a deadline was left on either side of a TCP connection: it would have
// passed by now or would wake the read before the peer's byte.
func wantNoDeadline(t testing.TB, conn net.Conn, handshakeTimeout time.Duration, peer net.Conn) {
	t.Helper()
	timer := time.AfterFunc(handshakeTimeout+50*time.Millisecond, func() { _, _ = peer.Write([]byte{42}) })
	defer timer.Stop()
	got := make([]byte, 1)
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, []byte{42}) {
		t.Fatalf("read after the handshake: %v, %v", got, err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
