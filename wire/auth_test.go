package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"
)

// postgresVerifier is what PostgreSQL 15 stored for CREATE USER … PASSWORD 'secret'.
const postgresVerifier = Secret("SCRAM-SHA-256$4096:j2iVazKqQ4Z4iv/hl3O7Jg==$tSvwwutI+tsZDVWOTPDxojQRGL2SsMiI2vYODU79lak=:txRZBpUXIhjxTvXHhbt4tA6Y5+lMBcTIlWNLMbHQ6b4=")

// gate is a listener that asks everyone for the same proof and lets in with an empty session.
type gate struct {
	accept *AcceptConfig
	auth   *Authenticator
	method Method
	secret Secret
	known  bool

	outcome chan error
}

func openGate(t *testing.T, g *gate) (address string) {
	t.Helper()
	if g.accept == nil {
		g.accept = &AcceptConfig{}
	}
	if g.auth == nil {
		g.auth = NewAuthenticator(AuthConfig{})
	}
	g.outcome = make(chan error, 10)
	return serve(t, func(raw net.Conn) {
		got, err := Accept(context.Background(), raw, g.accept)
		if err != nil {
			g.outcome <- err
			return
		}
		err = g.auth.Authenticate(context.Background(), got.Conn, got.Startup, g.method, g.secret, g.known)
		g.outcome <- err
		if err == nil {
			_ = writeHandshake(got.Conn, &pgproto3.BackendKeyData{ProcessID: 7, SecretKey: []byte("abcd")}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
			_, _ = io.Copy(io.Discard, got.Conn)
		}
	})
}

// connectTo logs in with our own client.
func connectTo(t *testing.T, address, user, password string, secure *ClientTLS) error {
	t.Helper()
	server, err := Connect(testContext(t), &ConnectConfig{
		Network: "tcp", Address: address, User: user, Password: password, TLS: secure, Host: "localhost",
	})
	if err == nil {
		server.Conn.Close()
	}
	return err
}

// pgconnTo logs in with pgx, whose SCRAM is its own.
func pgconnTo(t *testing.T, address, user, password string) error {
	t.Helper()
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("postgres://%s@%s/d?sslmode=disable", user, address))
	must(t, err)
	cfg.Password = password
	conn, err := pgconn.ConnectConfig(testContext(t), cfg)
	if err == nil {
		err = conn.Close(context.Background())
	}
	return err
}

func TestAuthenticate(t *testing.T) {
	verifier, err := NewVerifier("secret")
	must(t, err)
	md5Secret := NewMD5Secret("u", "secret")
	for _, c := range []struct {
		name     string
		method   Method
		secret   Secret
		known    bool
		password string
		code     string // empty: let in
	}{
		{"trust", MethodTrust, "", false, "", ""},
		{"reject", MethodReject, "secret", true, "secret", CodeInvalidAuthorization},
		{"cert without", MethodCert, "secret", true, "secret", CodeInvalidAuthorization},
		{"password plain", MethodPassword, "secret", true, "secret", ""},
		{"password md5", MethodPassword, md5Secret, true, "secret", ""},
		{"password verifier", MethodPassword, verifier, true, "secret", ""},
		{"password wrong", MethodPassword, "secret", true, "Secret", CodeInvalidPassword},
		{"password md5 wrong", MethodPassword, md5Secret, true, "Secret", CodeInvalidPassword},
		{"password the md5 itself", MethodPassword, md5Secret, true, string(md5Secret), CodeInvalidPassword},
		{"password verifier wrong", MethodPassword, verifier, true, "Secret", CodeInvalidPassword},
		{"password the verifier itself", MethodPassword, verifier, true, string(verifier), CodeInvalidPassword},
		{"password unknown", MethodPassword, "secret", false, "secret", CodeInvalidPassword},
		{"password no secret", MethodPassword, "", true, "x", CodeInvalidPassword},
		{"md5 plain", MethodMD5, "secret", true, "secret", ""},
		{"md5 md5", MethodMD5, md5Secret, true, "secret", ""},
		{"md5 verifier is SCRAM", MethodMD5, verifier, true, "secret", ""},
		{"md5 wrong", MethodMD5, "secret", true, "Secret", CodeInvalidPassword},
		{"md5 unknown", MethodMD5, "secret", false, "secret", CodeInvalidPassword},
		{"md5 no secret", MethodMD5, "", true, "x", CodeInvalidPassword},
		{"scram plain", MethodSCRAM, "secret", true, "secret", ""},
		{"scram verifier", MethodSCRAM, verifier, true, "secret", ""},
		{"scram verifier of PostgreSQL", MethodSCRAM, postgresVerifier, true, "secret", ""},
		{"scram wrong", MethodSCRAM, verifier, true, "Secret", CodeInvalidPassword},
		{"scram md5 secret", MethodSCRAM, md5Secret, true, "secret", CodeInvalidPassword},
		{"scram unknown", MethodSCRAM, verifier, false, "secret", CodeInvalidPassword},
		{"scram no secret", MethodSCRAM, "", true, "x", CodeInvalidPassword},
		{"scram unprepared password", MethodSCRAM, "ke\u00a0y\u2168", true, "ke yIX", ""}, // SASLprep
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &gate{method: c.method, secret: c.secret, known: c.known}
			address := openGate(t, g)
			ours := connectTo(t, address, "u", c.password, nil)
			if outcome := <-g.outcome; (outcome == nil) != (c.code == "") {
				t.Errorf("the gate: %v", outcome)
			}
			theirs := pgconnTo(t, address, "u", c.password)
			if c.code == "" {
				must(t, errors.Join(ours, theirs))
				return
			}
			refusal := wantCode(t, ours, c.code)
			if c.code == CodeInvalidPassword && refusal.Message != `password authentication failed for user "u"` {
				t.Errorf("message %q", refusal.Message)
			}
			if pgErr, ok := errors.AsType[*pgconn.PgError](theirs); !ok || pgErr.Code != c.code || pgErr.Severity != "FATAL" {
				t.Errorf("pgconn got %v", theirs)
			}
		})
	}
}

func TestAuthenticateSCRAMPlus(t *testing.T) {
	ca := newAuthority(t)
	secure := ca.serverTLS(t)
	g := &gate{accept: &AcceptConfig{TLS: secure}, method: MethodSCRAM, secret: "secret", known: true}
	address := openGate(t, g)
	must(t, connectTo(t, address, "u", "secret", ca.clientTLS(t, SSLVerifyFull)))
	must(t, <-g.outcome)
	wantCode(t, connectTo(t, address, "u", "wrong", ca.clientTLS(t, SSLVerifyFull)), CodeInvalidPassword)
	<-g.outcome

	t.Run("someone between with another certificate", func(t *testing.T) {
		// Both legs are TLS and everything inside is handed through, as a man in the middle does
		// whose certificate the client accepts (sslmode=require). The binding must betray him.
		front := newAuthority(t).serverTLS(t)
		middle := serve(t, func(raw net.Conn) {
			got, err := Accept(context.Background(), raw, &AcceptConfig{TLS: front})
			if err != nil {
				return
			}
			conn, err := tls.Dial("tcp", address, ca.goTLS(alpnProtocol))
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = conn.Write(startupPacket(0, "user", got.Startup.User()))
			go func() { _, _ = io.Copy(conn, got.Conn) }()
			_, _ = io.Copy(got.Conn, conn)
		})
		require, err := LoadClientTLS(ClientTLSFiles{Mode: SSLRequire})
		must(t, err)
		e := wantCode(t, connectTo(t, middle, "u", "secret", require), CodeInvalidAuthorization)
		if e.Message != "SCRAM channel binding check failed" {
			t.Errorf("got %v", e)
		}
	})
}

// saslPeer speaks SASL by hand to one Authenticate over a pipe.
type saslPeer struct {
	t       *testing.T
	conn    net.Conn
	outcome chan error
}

func newSASLPeer(t *testing.T, a *Authenticator, binding scram.ChannelBinding, user string, secret Secret, known bool) *saslPeer {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	must(t, near.SetDeadline(time.Now().Add(testTimeout)))
	p := &saslPeer{t: t, conn: near, outcome: make(chan error, 1)}
	st := &Startup{Params: map[string]string{"user": user, "database": "d"}, binding: binding}
	go func() {
		p.outcome <- a.Authenticate(context.Background(), far, st, MethodSCRAM, secret, known)
		far.Close()
	}()
	return p
}

// next reads a message and gives its body behind the kind of authentication.
func (p *saslPeer) next(want uint32) string {
	p.t.Helper()
	body, err := expectAuth(p.conn, want)
	must(p.t, err)
	return string(body)
}

func (p *saslPeer) choose(mechanism, first string) {
	p.t.Helper()
	must(p.t, writeHandshake(p.conn, &pgproto3.SASLInitialResponse{AuthMechanism: mechanism, Data: []byte(first)}))
}

func TestSCRAMDowngrades(t *testing.T) {
	binding := scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: make([]byte, 32)}
	a := NewAuthenticator(AuthConfig{})
	for name, c := range map[string]struct {
		binding          scram.ChannelBinding
		mechanism, first string
		code             string
	}{
		"PLUS was taken from the offer":  {binding, mechanism, "y,,n=,r=abc", CodeProtocolViolation},
		"PLUS without binding":           {binding, mechanismPlus, "n,,n=,r=abc", CodeProtocolViolation},
		"binding without PLUS":           {binding, mechanism, "p=tls-server-end-point,,n=,r=abc", CodeProtocolViolation},
		"another binding":                {binding, mechanismPlus, "p=tls-unique,,n=,r=abc", CodeProtocolViolation},
		"PLUS without TLS":               {scram.ChannelBinding{}, mechanismPlus, "p=tls-server-end-point,,n=,r=abc", CodeProtocolViolation},
		"unknown mechanism":              {binding, "SCRAM-SHA-1", "n,,n=,r=abc", CodeProtocolViolation},
		"garbage":                        {binding, mechanism, "\x00\x01", CodeProtocolViolation},
		"nothing":                        {binding, mechanism, "", CodeProtocolViolation},
		"authorization as somebody else": {binding, mechanism, "n,a=root,n=,r=abc", CodeFeatureNotSupported},
	} {
		t.Run(name, func(t *testing.T) {
			p := newSASLPeer(t, a, c.binding, "u", "secret", true)
			p.next(pgproto3.AuthTypeSASL)
			p.choose(c.mechanism, c.first)
			if told := readError(t, p.conn); told.Code != c.code {
				t.Errorf("told %v", told)
			}
			wantCode(t, <-p.outcome, c.code)
		})
	}
}

// TestUnknownUserLooksTheSame compares what is on the wire for a user with a wrong password and for none.
func TestUnknownUserLooksTheSame(t *testing.T) {
	key := []byte("0123456789abcdef")
	transcript := func(t *testing.T, a *Authenticator, user string, known bool) string {
		t.Helper()
		p := newSASLPeer(t, a, scram.ChannelBinding{}, user, "secret", known)
		seen := p.next(pgproto3.AuthTypeSASL)
		p.choose(mechanism, "n,,n=,r=abc")
		challenge := p.next(pgproto3.AuthTypeSASLContinue)
		nonce, rest, _ := strings.Cut(challenge, ",")
		must(t, writeHandshake(p.conn, &pgproto3.SASLResponse{Data: []byte("c=biws," + nonce + ",p=" + strings.Repeat("A", 43) + "=")}))
		told := readError(t, p.conn)
		wantCode(t, <-p.outcome, CodeInvalidPassword)
		return fmt.Sprintf("%q %d %q %v", seen, len(nonce), rest, told)
	}
	a, other := NewAuthenticator(AuthConfig{MockKey: key}), NewAuthenticator(AuthConfig{MockKey: key})
	known, unknown := transcript(t, a, "u", true), transcript(t, a, "u", false)
	if known != unknown {
		t.Errorf("known:   %s\nunknown: %s", known, unknown)
	}
	if again := transcript(t, other, "u", false); again != unknown {
		t.Errorf("another proxy with the same key: %s, not %s", again, unknown)
	}
	if transcript(t, a, "v", false) == strings.ReplaceAll(unknown, `"u"`, `"v"`) {
		t.Error("two users have the same salt")
	}
}

func TestAuthenticateProtocol(t *testing.T) {
	a := NewAuthenticator(AuthConfig{Timeout: 30 * time.Millisecond})
	st := &Startup{Params: map[string]string{"user": "u", "database": "d"}}
	run := func(method Method, answer []byte, hangUp bool) error {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		go func() {
			_, _, _ = readHandshakeMessage(near, 1000)
			_, _ = near.Write(answer)
			if hangUp {
				near.Close()
				return
			}
			_, _ = io.Copy(io.Discard, near)
		}()
		return a.Authenticate(context.Background(), far, st, method, "secret", true)
	}
	wantCode(t, run(MethodMD5, []byte("Q\x00\x00\x00\x05\x00"), false), CodeProtocolViolation)
	wantCode(t, run(MethodMD5, []byte("p\x00\x00\x00\x05\x00"), false), CodeInvalidPassword) // empty
	wantCode(t, run(MethodPassword, []byte("p\x00\x00\x00\x05x"), false), CodeProtocolViolation)
	wantCode(t, run(MethodPassword, []byte("p\x00\x00\x00\x07x\x00y"), false), CodeProtocolViolation)
	wantCode(t, run(MethodPassword, []byte("p\xff\xff\xff\xff"), false), CodeProtocolViolation)
	wantCode(t, run(MethodPassword, []byte("p\x00\x00\x00\x00"), false), CodeProtocolViolation)
	wantCode(t, run(MethodSCRAM, []byte("p\x00\x00\x10\x00"), false), CodeProtocolViolation) // above 1,024 bytes
	if err := run(MethodPassword, nil, true); err != io.EOF {
		t.Errorf("a client that hangs up gives %v", err)
	}
	if err := run(MethodPassword, []byte("p\x00\x00"), true); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a client that hangs up in a message gives %v", err)
	}
	if err := run(MethodPassword, nil, false); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent client gives %v", err)
	}
	if err := run("nonsense", nil, false); err == nil {
		t.Error("an unknown method lets in")
	}
}

func TestAuthenticateLeavesTheRest(t *testing.T) {
	near, far := tcpPair(t)
	_, err := near.Write([]byte("p\x00\x00\x00\x0bsecret\x00Q\x00\x00\x00\x05\x00"))
	must(t, err)
	const timeout = 50 * time.Millisecond
	a := NewAuthenticator(AuthConfig{Timeout: timeout})
	st := &Startup{Params: map[string]string{"user": "u", "database": "d"}}
	must(t, a.Authenticate(testContext(t), far, st, MethodPassword, "secret", true))
	messageType, body, err := readHandshakeMessage(far, 10)
	if err != nil || messageType != 'Q' || len(body) != 1 {
		t.Errorf("behind the password came %q %q, %v", messageType, body, err)
	}
	wantNoDeadline(t, far, timeout, near)
}

func TestSecrets(t *testing.T) {
	for _, s := range []Secret{
		"SCRAM-SHA-256$", "SCRAM-SHA-256$4096:$x:y", "SCRAM-SHA-256$0:AAAA$AAAA:AAAA", postgresVerifier + "x", postgresVerifier[:60],
		Secret(strings.Replace(string(postgresVerifier), "4096", "99999999", 1)),
		Secret(strings.Replace(string(postgresVerifier), "4096", "-1", 1)),
	} {
		if _, ok := s.verifier(); ok {
			t.Errorf("%q is taken for a verifier", string(s))
		}
	}
	for s, want := range map[Secret]bool{
		"md5" + Secret(strings.Repeat("0a", 16)): true, "md5" + Secret(strings.Repeat("0A", 16)): false, "md5": false, "md5secret": false,
	} {
		if s.isMD5() != want {
			t.Errorf("%q: isMD5 is %v", string(s), !want)
		}
	}
	if got := NewMD5Secret("u", "secret"); got != "md514ac701963725e89bfe34a2219d114a2" || !got.isMD5() {
		t.Errorf("md5 secret %q", string(got))
	}
	var log strings.Builder
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("x", "secret", Secret("hunter2"))
	fmt.Fprintf(&log, "%v %+v %#v %s", Secret("hunter2"), []Secret{"hunter2"}, struct{ S Secret }{"hunter2"}, Secret("hunter2"))
	if strings.Contains(log.String(), "hunter2") {
		t.Errorf("a secret shows itself: %s", log.String())
	}
}

func TestDerivedKeysAreKeptAndBounded(t *testing.T) {
	a := NewAuthenticator(AuthConfig{})
	first, genuine, err := a.credentials("u", "secret")
	if err != nil || !genuine {
		t.Fatal(genuine, err)
	}
	again, _, _ := a.credentials("u", "secret")
	if &first.StoredKey[0] != &again.StoredKey[0] {
		t.Error("keys were derived twice")
	}
	if other, _, _ := a.credentials("v", "secret"); other.Salt == first.Salt {
		t.Error("two users have the same salt")
	}
	for i := range derivedMax {
		a.derived[[32]byte{byte(i), byte(i >> 8), 1}] = first
	}
	if _, _, err := a.credentials("w", "secret"); err != nil || len(a.derived) != 1 {
		t.Errorf("%d users are kept, %v", len(a.derived), err)
	}
}
