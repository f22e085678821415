package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgproto3"
)

func packet(code uint32, rest string) []byte {
	p := binary.BigEndian.AppendUint32(nil, uint32(8+len(rest)))
	p = binary.BigEndian.AppendUint32(p, code)
	return append(p, rest...)
}

func startupPacket(minor uint32, params ...string) []byte {
	return packet(3<<16|minor, strings.Join(params, "\x00")+"\x00\x00")
}

var (
	sslRequest    = packet(codeSSL, "")
	gssEncRequest = packet(codeGSSEnc, "")
)

// scripted is a connection whose peer has sent everything already. It notes what was answered and left unread.
type scripted struct {
	net.Conn
	in  bytes.Reader
	out bytes.Buffer
}

func script(parts ...[]byte) *scripted {
	s := &scripted{}
	s.in.Reset(bytes.Join(parts, nil))
	return s
}

func (s *scripted) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *scripted) Write(p []byte) (int, error)      { return s.out.Write(p) }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }
func (s *scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func TestAcceptStartup(t *testing.T) {
	pipelined := []byte("p\x00\x00\x00\x08abc\x00") // must stay in the connection
	for name, c := range map[string]struct {
		in     []byte
		want   Startup
		answer string
	}{
		"3.0": {startupPacket(0, "user", "u", "database", "d", "application_name", ""), Startup{
			Major: 3, Params: map[string]string{"user": "u", "database": "d", "application_name": ""},
		}, ""},
		"database defaults to user": {startupPacket(0, "user", "u"), Startup{
			Major: 3, Params: map[string]string{"user": "u", "database": "u"},
		}, ""},
		"3.2": {startupPacket(2, "user", "u"), Startup{
			Major: 3, Minor: 2, Params: map[string]string{"user": "u", "database": "u"},
		}, ""},
		"newer minor": {
			startupPacket(9999, "user", "u"),
			Startup{
				Major: 3, Minor: 2, Params: map[string]string{"user": "u", "database": "u"},
			},
			"v\x00\x00\x00\x0c\x00\x03\x00\x02\x00\x00\x00\x00",
		},
		"unknown options": {
			startupPacket(0, "_pq_.b", "1", "user", "u", "_pq_.a", "2"),
			Startup{
				Major: 3, Params: map[string]string{"user": "u", "database": "u"}, Unrecognized: []string{"_pq_.a", "_pq_.b"},
			},
			"v\x00\x00\x00\x1a\x00\x03\x00\x00\x00\x00\x00\x02_pq_.a\x00_pq_.b\x00",
		},
		"SSL and GSS refused": {bytes.Join([][]byte{gssEncRequest, sslRequest, startupPacket(0, "user", "u")}, nil), Startup{
			Major: 3, Params: map[string]string{"user": "u", "database": "u"},
		}, "NN"},
		"SSL before GSS": {bytes.Join([][]byte{sslRequest, gssEncRequest, startupPacket(0, "user", "u")}, nil), Startup{
			Major: 3, Params: map[string]string{"user": "u", "database": "u"},
		}, "NN"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := script(c.in, pipelined)
			got, err := Accept(testContext(t), conn, &AcceptConfig{})
			must(t, err)
			if got.Cancel != nil || got.Conn != net.Conn(conn) {
				t.Errorf("got %+v", got)
			}
			got.Startup.binding.Data = nil
			if d := cmp.Diff(c.want, *got.Startup, cmp.AllowUnexported(Startup{})); d != "" {
				t.Error(d)
			}
			if conn.out.String() != c.answer {
				t.Errorf("answered %q, want %q", conn.out.String(), c.answer)
			}
			if rest, _ := io.ReadAll(&conn.in); !bytes.Equal(rest, pipelined) {
				t.Errorf("left unread %q, want %q", rest, pipelined)
			}
		})
	}
}

func TestAcceptCancel(t *testing.T) {
	for _, secret := range []string{"abcd", "\x00\x00\x00\x00", strings.Repeat("k", 32), strings.Repeat("k", 256)} {
		conn := script(packet(codeCancel, "\x00\x00\x30\x39"+secret))
		got, err := Accept(testContext(t), conn, &AcceptConfig{RequireTLS: true})
		must(t, err)
		if got.Startup != nil || *got.Cancel != (CancelKey{PID: 12345, Secret: secret}) {
			t.Errorf("got %+v", got)
		}
	}
	for _, size := range []int{0, 3, 257} {
		conn := script(packet(codeCancel, "\x00\x00\x30\x39"+strings.Repeat("k", size)))
		if got, err := Accept(testContext(t), conn, &AcceptConfig{}); err == nil {
			t.Errorf("a key of %d bytes gives %+v", size, got)
		}
		if conn.out.Len() != 0 {
			t.Errorf("a cancel request was answered with %q", conn.out.String())
		}
	}
}

func TestAcceptRefuses(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	for name, c := range map[string]struct {
		in   []byte
		cfg  AcceptConfig
		code string
	}{
		"HTTP":                 {[]byte("GET / HTTP/1.1\r\n\r\n"), AcceptConfig{}, CodeProtocolViolation},
		"TLS without TLS":      {[]byte("\x16\x03\x01\x00\xff\x01\x00"), AcceptConfig{}, CodeProtocolViolation},
		"length 0":             {make([]byte, 8), AcceptConfig{}, CodeProtocolViolation},
		"no code":              {[]byte("\x00\x00\x00\x07abc"), AcceptConfig{}, CodeProtocolViolation},
		"too long":             {startupPacket(0, "user", "u", "options", long), AcceptConfig{}, CodeProtocolViolation},
		"too long for config":  {startupPacket(0, "user", "u", "options", long[:100]), AcceptConfig{MaxStartupBytes: 100}, CodeProtocolViolation},
		"protocol 2":           {packet(2<<16, strings.Repeat("\x00", 288)), AcceptConfig{}, CodeFeatureNotSupported},
		"protocol 4":           {packet(4<<16, "user\x00u\x00\x00"), AcceptConfig{}, CodeFeatureNotSupported},
		"second SSLRequest":    {append(bytes.Clone(sslRequest), sslRequest...), AcceptConfig{}, CodeFeatureNotSupported},
		"second GSSENCRequest": {append(bytes.Clone(gssEncRequest), gssEncRequest...), AcceptConfig{}, CodeFeatureNotSupported},
		"no terminator":        {packet(3<<16, "user\x00u\x00"), AcceptConfig{}, CodeProtocolViolation},
		"no parameters at all": {packet(3<<16, ""), AcceptConfig{}, CodeProtocolViolation},
		"name without value":   {packet(3<<16, "user\x00u\x00database\x00"), AcceptConfig{}, CodeProtocolViolation},
		"bytes behind the end": {packet(3<<16, "user\x00u\x00\x00x\x00y\x00\x00"), AcceptConfig{}, CodeProtocolViolation},
		"no user":              {startupPacket(0, "database", "d"), AcceptConfig{}, CodeInvalidAuthorization},
		"empty user":           {startupPacket(0, "user", "", "database", "d"), AcceptConfig{}, CodeInvalidAuthorization},
		"plain text":           {startupPacket(0, "user", "u"), AcceptConfig{RequireTLS: true}, CodeInvalidAuthorization},
	} {
		t.Run(name, func(t *testing.T) {
			conn := script(c.in)
			_, err := Accept(testContext(t), conn, &c.cfg)
			wantCode(t, err, c.code)
			answer := strings.TrimLeft(conn.out.String(), "N")
			if told := readError(t, strings.NewReader(answer)); told.Code != c.code || told.Severity != SeverityFatal {
				t.Errorf("the client was told %+v", told)
			}
		})
	}
}

func TestAcceptEnds(t *testing.T) {
	if _, err := Accept(testContext(t), script(), &AcceptConfig{}); err != io.EOF {
		t.Errorf("a port probe gives %v", err)
	}
	for _, in := range []string{"\x00", "\x00\x00\x00\x10", "\x00\x00\x00\x10\x00\x03\x00\x00user"} {
		if _, err := Accept(testContext(t), script([]byte(in)), &AcceptConfig{}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("an end after %q gives %v", in, err)
		}
	}
}

func TestAcceptTimesOut(t *testing.T) {
	for name, sent := range map[string][]byte{"silent": nil, "half a packet": []byte("\x00\x00\x00\x10\x00\x03")} {
		t.Run(name, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			defer server.Close()
			go func() { _, _ = client.Write(sent) }()
			_, err := Accept(testContext(t), server, &AcceptConfig{Timeout: 20 * time.Millisecond})
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAcceptEndsWithContext(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	ctx, cancel := context.WithCancelCause(context.Background())
	reason := errors.New("shutdown")
	go func() {
		_, _ = client.Write([]byte{0}) // Accept is reading
		cancel(reason)
	}()
	if _, err := Accept(ctx, server, &AcceptConfig{}); !errors.Is(err, reason) {
		t.Errorf("got %v", err)
	}
	if _, err := Accept(ctx, server, &AcceptConfig{}); !errors.Is(err, reason) {
		t.Errorf("with an ended context: %v", err)
	}
}

func TestAcceptLeavesNoDeadline(t *testing.T) {
	const timeout = 50 * time.Millisecond
	ca := newAuthority(t)
	for name, cfg := range map[string]*AcceptConfig{"plain": {Timeout: timeout}, "TLS": {Timeout: timeout, TLS: ca.serverTLS(t)}} {
		t.Run(name, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			defer server.Close()
			peers := make(chan net.Conn, 1)
			go func() {
				peer := client
				if cfg.TLS != nil {
					secure := tls.Client(client, ca.goTLS(alpnProtocol))
					_ = secure.Handshake()
					peer = secure
				}
				_, _ = peer.Write(startupPacket(0, "user", "u"))
				peers <- peer
			}()
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			got, err := Accept(ctx, server, cfg)
			cancel()
			must(t, err)
			wantNoDeadline(t, got.Conn, timeout, <-peers)
		})
	}
}

// acceptTLS lets a client script run against Accept and gives both outcomes.
func acceptTLS(t *testing.T, cfg *AcceptConfig, client func(net.Conn) error) (*Accepted, error, error) {
	t.Helper()
	near, far := tcpPair(t) // TLS writes on both sides at once, for which net.Pipe has no buffer
	clientErr := make(chan error, 1)
	go func() {
		defer near.Close()
		must(t, near.SetDeadline(time.Now().Add(testTimeout)))
		clientErr <- client(near)
	}()
	got, err := Accept(testContext(t), far, cfg)
	far.Close()
	return got, err, <-clientErr
}

func requestSSL(conn net.Conn) error {
	if _, err := conn.Write(sslRequest); err != nil {
		return err
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if answer[0] != 'S' {
		return errors.New("no TLS")
	}
	return nil
}

func TestAcceptTLS(t *testing.T) {
	ca := newAuthority(t)
	cfg := &AcceptConfig{TLS: ca.serverTLS(t), RequireTLS: true}
	clientCert, clientKey := ca.issue(t, "alice")
	pair, err := tls.LoadX509KeyPair(clientCert, clientKey)
	must(t, err)
	for name, c := range map[string]struct {
		direct bool
		alpn   []string
		cert   bool
	}{
		"SSLRequest":                  {},
		"SSLRequest with ALPN":        {alpn: []string{alpnProtocol}},
		"SSLRequest with certificate": {cert: true},
		"direct":                      {direct: true, alpn: []string{alpnProtocol}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err, clientErr := acceptTLS(t, cfg, func(conn net.Conn) error {
				if !c.direct {
					if err := requestSSL(conn); err != nil {
						return err
					}
				}
				config := ca.goTLS(c.alpn...)
				if c.cert {
					config.Certificates = []tls.Certificate{pair}
				}
				secure := tls.Client(conn, config)
				_, err := secure.Write(startupPacket(2, "user", "alice"))
				return err
			})
			must(t, errors.Join(err, clientErr))
			st := got.Startup
			wantCN := ""
			if c.cert {
				wantCN = "alice"
			}
			if _, ok := got.Conn.(*tls.Conn); !ok || !st.TLS || st.PeerCN != wantCN || !st.binding.IsSupported() {
				t.Errorf("got %T, %+v", got.Conn, st)
			}
		})
	}
}

func TestAcceptTLSRefuses(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	cfg := &AcceptConfig{TLS: ca.serverTLS(t)}

	t.Run("plain text behind SSLRequest", func(t *testing.T) {
		// As someone between could do, in the hope that it passes for the client's own.
		_, err, _ := acceptTLS(t, cfg, func(conn net.Conn) error {
			if err := requestSSL(conn); err != nil {
				return err
			}
			_, err := conn.Write(startupPacket(0, "user", "mallory"))
			return err
		})
		if err == nil || !strings.Contains(err.Error(), "unencrypted data after SSL request") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("plain text pipelined with SSLRequest", func(t *testing.T) {
		conn := script(sslRequest, startupPacket(0, "user", "mallory"))
		if got, err := Accept(testContext(t), conn, cfg); err == nil || !strings.Contains(err.Error(), "unencrypted data") {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	t.Run("direct without ALPN", func(t *testing.T) {
		_, err, clientErr := acceptTLS(t, cfg, func(conn net.Conn) error {
			secure := tls.Client(conn, ca.goTLS())
			if err := secure.Handshake(); err != nil {
				return err
			}
			_, body, err := readHandshakeMessage(secure, 1000)
			if err != nil {
				return err
			}
			told, err := DecodeError(body)
			if err == nil {
				return told
			}
			return err
		})
		wantCode(t, err, CodeProtocolViolation)
		wantCode(t, clientErr, CodeProtocolViolation)
	})
	t.Run("ALPN of another protocol", func(t *testing.T) {
		_, err, clientErr := acceptTLS(t, cfg, func(conn net.Conn) error { return tls.Client(conn, ca.goTLS("h2")).Handshake() })
		if err == nil || clientErr == nil {
			t.Errorf("got %v, the client %v", err, clientErr)
		}
	})
	t.Run("TLS 1.1", func(t *testing.T) {
		_, err, clientErr := acceptTLS(t, cfg, func(conn net.Conn) error {
			config := ca.goTLS(alpnProtocol)
			config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return tls.Client(conn, config).Handshake()
		})
		if err == nil || clientErr == nil {
			t.Errorf("got %v, the client %v", err, clientErr)
		}
	})
	t.Run("certificate of another CA", func(t *testing.T) {
		pair, err := tls.LoadX509KeyPair(stranger.issue(t, "alice"))
		must(t, err)
		got, err, _ := acceptTLS(t, cfg, func(conn net.Conn) error {
			config := ca.goTLS(alpnProtocol)
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
			_, err := tls.Client(conn, config).Write(startupPacket(0, "user", "alice"))
			return err
		})
		if err == nil {
			t.Errorf("got %+v", got.Startup)
		}
	})
}

func FuzzAccept(f *testing.F) {
	f.Add(startupPacket(0, "user", "u"), false)
	f.Add(bytes.Join([][]byte{gssEncRequest, sslRequest, startupPacket(7, "user", "u", "_pq_.x", "")}, nil), false)
	f.Add(append(bytes.Clone(sslRequest), "\x16\x03\x01\x00\x05hello"...), true)
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"), true)
	f.Add(packet(codeCancel, "\x00\x00\x00\x01abcd"), false)
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), false)
	f.Add([]byte("\xff\xff\xff\xff\x00\x03\x00\x00"), false)
	secure := newAuthority(f).serverTLS(f)
	f.Fuzz(func(t *testing.T, in []byte, withTLS bool) {
		cfg := &AcceptConfig{}
		if withTLS {
			cfg.TLS = secure
		}
		conn := script(in)
		got, err := Accept(context.Background(), conn, cfg)
		if refusal, ok := errors.AsType[*Error](err); ok && !withTLS {
			if !bytes.HasSuffix(conn.out.Bytes(), refusal.Append(nil)) {
				t.Fatalf("refused by %v, but answered %q", refusal, conn.out.Bytes())
			}
		}
		switch {
		case err != nil:
			if err.Error() == "" {
				t.Fatal("an error without words")
			}
		case got.Cancel != nil:
			if n := len(got.Cancel.Secret); n < cancelSecretMin || n > cancelSecretMax {
				t.Fatalf("key of %d bytes", n)
			}
		case got.Startup.User() == "" || got.Startup.Database() == "" || got.Startup.Minor > protocolMinor:
			t.Fatalf("accepted %+v", got.Startup)
		}
		if len(startupOf(got).Unrecognized) > 0 {
			var negotiate pgproto3.NegotiateProtocolVersion
			answer := bytes.TrimLeft(conn.out.Bytes(), "N")
			if err := negotiate.Decode(answer[5:]); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// startupOf is the Startup of what was accepted, or an empty one.
func startupOf(a *Accepted) *Startup {
	if a == nil || a.Startup == nil {
		return &Startup{}
	}
	return a.Startup
}
