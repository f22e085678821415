package wire

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"
)

// Method is how a client proves who it is, in pg_hba.conf's words.
type Method string

// The methods.
const (
	MethodTrust    Method = "trust"
	MethodReject   Method = "reject"
	MethodPassword Method = "password" // in clear text: over TLS only, if at all
	MethodMD5      Method = "md5"      // SCRAM where the secret is a SCRAM verifier, as in PostgreSQL; unknown users see md5
	MethodSCRAM    Method = "scram-sha-256"
	MethodCert     Method = "cert" // the certificate's common name is the user
)

// ParseMethod checks the name of a method.
func ParseMethod(s string) (Method, error) {
	switch m := Method(s); m {
	case MethodTrust, MethodReject, MethodPassword, MethodMD5, MethodSCRAM, MethodCert:
		return m, nil
	}
	return "", fmt.Errorf("unknown authentication method %q: trust, reject, password, md5, scram-sha-256 or cert", s)
}

const (
	passwordMax    = 65_535 // PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH
	saslMax        = 1_024  // PostgreSQL's PG_MAX_SASL_MESSAGE_LENGTH
	derivedMax     = 10_000 // users with plain secrets whose keys are kept
	mechanism      = "SCRAM-SHA-256"
	mechanismPlus  = "SCRAM-SHA-256-PLUS"
	defaultAuthMax = time.Minute // PostgreSQL's authentication_timeout
)

// Lookup finds the secret of a user. false means that there is no such user; an error, that it
// cannot be known now.
type Lookup func(ctx context.Context, user string) (Secret, bool, error)

// AuthConfig is the configuration of an Authenticator.
type AuthConfig struct {
	Timeout time.Duration // of one authentication; 0: one minute
	// MockKey makes the salts of unknown users (and of plain secrets). It must be the same on all
	// proxies and over restarts, else a changing salt tells which users exist. Empty: random.
	MockKey []byte
}

// Authenticator checks who clients are. It may be used by many goroutines.
type Authenticator struct {
	timeout time.Duration
	mockKey []byte

	mu      sync.Mutex
	derived map[[sha256.Size]byte]scram.StoredCredentials // of plain secrets, by user and secret
}

// NewAuthenticator makes an Authenticator.
func NewAuthenticator(cfg AuthConfig) *Authenticator {
	a := &Authenticator{
		timeout: cfg.Timeout,
		mockKey: cfg.MockKey,
		derived: make(map[[sha256.Size]byte]scram.StoredCredentials),
	}
	if a.timeout == 0 {
		a.timeout = defaultAuthMax
	}
	if len(a.mockKey) == 0 {
		a.mockKey = make([]byte, 32)
		_, _ = rand.Read(a.mockKey) // never fails
	}
	return a
}

// Authenticate lets the client prove that it is st.User() and answers with AuthenticationOk, or
// with an ErrorResponse. known is false for users that do not exist: the client then sees the
// same exchange as after a wrong password.
//
// What the client was told is the *Error inside the error; the text around it is for the log.
// A client that hangs up, as psql does to ask for a password, gives io.EOF.
func (a *Authenticator) Authenticate(ctx context.Context, conn net.Conn, st *Startup, method Method, secret Secret, known bool) error {
	g, err := guardConn(ctx, conn, a.timeout)
	if err != nil {
		return err
	}
	if !known {
		secret = ""
	}
	l := login{a: a, conn: conn, st: st, secret: secret}
	err = l.run(method)
	if refusal, ok := errors.AsType[*Error](err); ok {
		// The error that matters is the refusal, not that it could not be delivered.
		_, _ = conn.Write(refusal.Append(nil))
	}
	return g.release(err)
}

// login is one authentication.
type login struct {
	a      *Authenticator
	conn   net.Conn
	st     *Startup
	secret Secret // empty: nothing matches
}

func (l *login) run(method Method) error {
	switch method {
	case MethodTrust:
		return l.ok()
	case MethodReject:
		return RejectionError(l.st, l.conn.RemoteAddr())
	case MethodCert:
		return l.cert()
	case MethodPassword:
		return l.password()
	case MethodMD5:
		if _, isVerifier := l.secret.verifier(); isVerifier {
			return l.scram()
		}
		return l.md5()
	case MethodSCRAM:
		return l.scram()
	}
	return fmt.Errorf("unknown authentication method %q", method)
}

// ok ends the exchange. The messages go out together.
func (l *login) ok(before ...message) error {
	return writeHandshake(l.conn, append(before, &pgproto3.AuthenticationOk{})...)
}

// denied is PostgreSQL's answer to wrong passwords and unknown users alike.
func (l *login) denied() error {
	refusal := Fatalf(CodeInvalidPassword, "password authentication failed for user %q", l.st.User())
	if l.secret == "" {
		return fmt.Errorf("no secret for this user and method: %w", refusal)
	}
	return refusal
}

func (l *login) cert() error {
	switch l.st.PeerCN {
	case "":
		return Fatalf(CodeInvalidAuthorization, "connection requires a valid client certificate")
	case l.st.User():
		return l.ok()
	}
	return fmt.Errorf("certificate is for %q: %w", l.st.PeerCN,
		Fatalf(CodeInvalidAuthorization, "certificate authentication failed for user %q", l.st.User()))
}

// answer reads the client's next password or SASL message.
func (l *login) answer(bodyMax int) ([]byte, error) {
	messageType, body, err := readHandshakeMessage(l.conn, bodyMax)
	if err != nil {
		return nil, err
	}
	if messageType != 'p' {
		return nil, Fatalf(CodeProtocolViolation, "expected password response, got message type %d", messageType)
	}
	return body, nil
}

func (l *login) answerPassword() (string, error) {
	body, err := l.answer(passwordMax)
	if err != nil {
		return "", err
	}
	password, ok := strings.CutSuffix(string(body), "\x00")
	if !ok || strings.IndexByte(password, 0) >= 0 {
		return "", Fatalf(CodeProtocolViolation, "invalid password packet size")
	}
	if password == "" {
		return "", Fatalf(CodeInvalidPassword, "empty password returned by client")
	}
	return password, nil
}

func (l *login) password() error {
	if err := writeHandshake(l.conn, &pgproto3.AuthenticationCleartextPassword{}); err != nil {
		return err
	}
	password, err := l.answerPassword()
	if err != nil {
		return err
	}
	if !l.secret.matches(l.st.User(), password) {
		return l.denied()
	}
	return l.ok()
}

func (l *login) md5() error {
	request := &pgproto3.AuthenticationMD5Password{}
	_, _ = rand.Read(request.Salt[:]) // never fails
	if err := writeHandshake(l.conn, request); err != nil {
		return err
	}
	got, err := l.answerPassword()
	if err != nil {
		return err
	}
	want, ok := l.secret.md5Answer(l.st.User(), request.Salt[:])
	if !ok || !equalStrings(got, want) {
		return l.denied()
	}
	return l.ok()
}

// scram runs SCRAM-SHA-256 (RFC 7677) and, on TLS, SCRAM-SHA-256-PLUS with tls-server-end-point.
func (l *login) scram() error {
	binding := l.st.binding
	offer := &pgproto3.AuthenticationSASL{AuthMechanisms: []string{mechanism}}
	if binding.IsSupported() {
		offer.AuthMechanisms = []string{mechanismPlus, mechanism}
	}
	if err := writeHandshake(l.conn, offer); err != nil {
		return err
	}
	first, plus, err := l.saslInitial(binding.IsSupported())
	if err != nil {
		return err
	}
	stored, genuine, err := l.a.credentials(l.st.User(), l.secret)
	if err != nil {
		return err
	}
	if !genuine {
		l.secret = ""
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
	if err != nil {
		return err
	}
	conversation := server.NewConversationWithChannelBinding(binding)
	if plus {
		conversation = server.NewConversationWithChannelBindingRequired(binding)
	}
	challenge, err := conversation.Step(first)
	if err != nil {
		return malformedSCRAM(err)
	}
	if conversation.AuthzID() != "" {
		return Fatalf(CodeFeatureNotSupported, "client uses authorization identity, but it is not supported")
	}
	if err := writeHandshake(l.conn, &pgproto3.AuthenticationSASLContinue{Data: []byte(challenge)}); err != nil {
		return err
	}
	proof, err := l.answer(saslMax)
	if err != nil {
		return err
	}
	final, err := conversation.Step(string(proof))
	switch {
	case err == nil && conversation.Valid() && genuine:
		return l.ok(&pgproto3.AuthenticationSASLFinal{Data: []byte(final)})
	case err == nil || final == scram.ErrInvalidProof:
		return l.denied()
	case final == scram.ErrChannelBindingsDontMatch:
		return Fatalf(CodeInvalidAuthorization, "SCRAM channel binding check failed")
	}
	return malformedSCRAM(err)
}

// saslInitial reads the client's choice of a mechanism and its first SCRAM message.
func (l *login) saslInitial(plusOffered bool) (first string, plus bool, err error) {
	body, err := l.answer(saslMax)
	if err != nil {
		return "", false, err
	}
	var initial pgproto3.SASLInitialResponse
	if err := initial.Decode(body); err != nil {
		return "", false, malformedSCRAM(err)
	}
	first = string(initial.Data)
	bound := strings.HasPrefix(first, "p=")
	switch {
	case initial.AuthMechanism == mechanism && bound:
		return "", false, malformedSCRAM(errors.New("SCRAM-SHA-256 was chosen, but the message has channel binding data"))
	case initial.AuthMechanism == mechanism:
		return first, false, nil
	case initial.AuthMechanism == mechanismPlus && plusOffered:
		return first, true, nil
	}
	return "", false, Fatalf(CodeProtocolViolation, "client selected an invalid SASL authentication mechanism")
}

func malformedSCRAM(err error) error {
	return fmt.Errorf("%w: %w", err, Fatalf(CodeProtocolViolation, "malformed SCRAM message"))
}

// credentials gives the keys to check against. Where there are none (unknown user, or a secret in
// the md5 form) it makes up some which no password has, whose salt is always the same for the user.
func (a *Authenticator) credentials(user string, secret Secret) (stored scram.StoredCredentials, genuine bool, err error) {
	if stored, ok := secret.verifier(); ok {
		return stored, true, nil
	}
	salt := a.mac("salt", user)[:scramSaltBytes]
	if secret == "" || secret.isMD5() {
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(salt), Iters: scramIterations},
			StoredKey:  a.mac("stored key", user),
			ServerKey:  a.mac("server key", user),
		}, false, nil
	}
	id := [sha256.Size]byte(a.mac(user, string(secret)))
	a.mu.Lock()
	stored, ok := a.derived[id]
	a.mu.Unlock()
	if ok {
		return stored, true, nil
	}
	if stored, err = deriveKeys(string(secret), salt, scramIterations); err != nil {
		return stored, false, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.derived) >= derivedMax {
		clear(a.derived) // rare, and they are derived anew in a millisecond each
	}
	a.derived[id] = stored
	return stored, true, nil
}

func (a *Authenticator) mac(parts ...string) []byte {
	mac := hmac.New(sha256.New, a.mockKey)
	for _, p := range parts {
		_, _ = io.WriteString(mac, p)
		_, _ = mac.Write([]byte{0}) // so that ("a", "bc") is not ("ab", "c")
	}
	return mac.Sum(nil)
}
