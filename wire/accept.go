package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sort"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"
)

const (
	protocolMajor = 3
	protocolMinor = 2 // the newest that Accept agrees to

	codeCancel = 1234<<16 | 5678
	codeSSL    = 1234<<16 | 5679
	codeGSSEnc = 1234<<16 | 5680

	defaultStartupMax    = 10_000 // PostgreSQL's MAX_STARTUP_PACKET_LENGTH
	defaultAcceptTimeout = time.Minute

	cancelSecretMin = 4
	cancelSecretMax = 256

	alpnProtocol       = "postgresql"
	tlsHandshakeRecord = 0x16 // first byte of a ClientHello; no startup packet may be so long
)

// CancelKey names a session to a CancelRequest.
type CancelKey struct {
	PID    uint32
	Secret string // 4 bytes in protocol 3.0, 4 to 256 in 3.2
}

// Startup is what a client said about itself before authentication.
type Startup struct {
	Major, Minor int               // as agreed: 3.0 to 3.2
	Params       map[string]string // user and database are always set; without _pq_. options
	Unrecognized []string          // _pq_. options, all refused by NegotiateProtocolVersion
	TLS          bool
	PeerCN       string // common name of the client certificate, empty unless verified

	binding scram.ChannelBinding // tls-server-end-point of the certificate that was shown
}

// User gives the name the client wants to log in as.
func (st *Startup) User() string { return st.Params["user"] }

// Database gives the database the client asked for, which defaults to the user's name.
func (st *Startup) Database() string { return st.Params["database"] }

// AcceptConfig says how clients are greeted. The zero value is plain text with the limits of
// PostgreSQL.
type AcceptConfig struct {
	TLS        *ServerTLS // nil: SSLRequest is answered with N
	RequireTLS bool       // refuse sessions in plain text, except over unix sockets
	// RequireClientCert refuses sessions without a verified client certificate, and so those in plain text,
	// except over unix sockets.
	RequireClientCert bool
	Timeout           time.Duration // from the first byte to the startup packet, TLS included; 0: one minute
	MaxStartupBytes   int           // 0: 10,000
}

// Accepted is a client that has either named its session or asked to cancel another one.
type Accepted struct {
	Conn    net.Conn   // the connection to go on with: the one given to Accept, or TLS over it
	Startup *Startup   // nil for a cancel request
	Cancel  *CancelKey // nil for a session
}

// Accept reads a client's GSSENCRequest, SSLRequest or direct TLS handshake and then its
// StartupMessage or CancelRequest. Nothing behind these is read.
//
// A client that breaks the protocol is told so before Accept returns the *Error. A client that
// leaves without a word, as port probes do, gives io.EOF. Accept never closes conn; it leaves no
// deadline set on success.
func Accept(ctx context.Context, conn net.Conn, cfg *AcceptConfig) (*Accepted, error) {
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = defaultAcceptTimeout
	}
	g, err := guardConn(ctx, conn, timeout)
	if err != nil {
		return nil, err
	}
	a := acceptor{cfg: cfg, conn: conn, startupMax: cfg.MaxStartupBytes}
	if a.startupMax == 0 {
		a.startupMax = defaultStartupMax
	}
	accepted, err := a.run()
	if refusal, ok := errors.AsType[*Error](err); ok {
		// The error that matters is the refusal, not that it could not be delivered.
		_, _ = a.conn.Write(refusal.Append(nil))
	}
	if err := g.release(err); err != nil {
		return nil, err
	}
	return accepted, nil
}

// acceptor is the state of one Accept.
type acceptor struct {
	cfg        *AcceptConfig
	conn       net.Conn
	startupMax int

	sslDone, gssDone bool // a second request of the same kind is not a request
	tls              bool
	verified         bool // the client has shown a good certificate
	peerCN           string
	binding          scram.ChannelBinding
}

func (a *acceptor) run() (*Accepted, error) {
	var length [4]byte
	if _, err := io.ReadFull(a.conn, length[:]); err != nil {
		return nil, err
	}
	if length[0] == tlsHandshakeRecord && a.cfg.TLS != nil {
		if err := a.directTLS(length[:]); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(a.conn, length[:]); err != nil {
			return nil, err
		}
	}
	for {
		body, err := a.readPacket(length)
		if err != nil {
			return nil, err
		}
		switch code := binary.BigEndian.Uint32(body); {
		case code == codeCancel:
			return a.cancel(body[4:])
		case code == codeSSL && !a.sslDone:
			err = a.answerSSL()
		case code == codeGSSEnc && !a.gssDone:
			a.gssDone = true
			_, err = a.conn.Write([]byte{'N'})
		default:
			return a.startup(code, body[4:])
		}
		if err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(a.conn, length[:]); err != nil {
			return nil, err
		}
	}
}

// readPacket reads the rest of a packet whose length is known: at least its code.
func (a *acceptor) readPacket(length [4]byte) ([]byte, error) {
	size := binary.BigEndian.Uint32(length[:])
	if size < 8 || size-4 > uint32(a.startupMax) {
		return nil, Fatalf(CodeProtocolViolation, "invalid length of startup packet")
	}
	body := make([]byte, size-4)
	if _, err := io.ReadFull(a.conn, body); err != nil {
		return nil, noEOF(err)
	}
	return body, nil
}

// answerSSL answers an SSLRequest. What a client (or someone between) sent behind the request
// is still unread, so it can only be taken for a part of the TLS handshake, which then fails:
// injected plain text is never mistaken for the client's (the matter of CVE-2021-23214).
func (a *acceptor) answerSSL() error {
	a.sslDone = true
	if a.cfg.TLS == nil {
		_, err := a.conn.Write([]byte{'N'})
		return err
	}
	a.gssDone = true
	if _, err := a.conn.Write([]byte{'S'}); err != nil {
		return err
	}
	return a.startTLS(a.conn)
}

// directTLS begins TLS without an SSLRequest. The handshake must name the protocol by ALPN, so
// that the client cannot have been sent here while it speaks another one.
func (a *acceptor) directTLS(read []byte) error {
	a.sslDone, a.gssDone = true, true
	if err := a.startTLS(&prefixConn{Conn: a.conn, prefix: read}); err != nil {
		return err
	}
	if a.conn.(*tls.Conn).ConnectionState().NegotiatedProtocol != alpnProtocol {
		return Fatalf(CodeProtocolViolation, "received direct SSL connection request without ALPN protocol negotiation extension")
	}
	return nil
}

func (a *acceptor) startTLS(conn net.Conn) error {
	current := a.cfg.TLS.current.Load()
	secure := tls.Server(conn, current.config)
	if err := secure.Handshake(); err != nil {
		if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
			return fmt.Errorf("received unencrypted data after SSL request: %w", err)
		}
		return fmt.Errorf("TLS handshake with client: %w", err)
	}
	a.conn, a.tls, a.binding = secure, true, current.binding
	if chains := secure.ConnectionState().VerifiedChains; len(chains) > 0 {
		a.verified, a.peerCN = true, chains[0][0].Subject.CommonName
	}
	return nil
}

func (a *acceptor) cancel(body []byte) (*Accepted, error) {
	if len(body) < 4+cancelSecretMin || len(body) > 4+cancelSecretMax {
		return nil, errors.New("invalid length of cancel request") // nobody listens for an answer
	}
	key := &CancelKey{PID: binary.BigEndian.Uint32(body), Secret: string(body[4:])}
	return &Accepted{Conn: a.conn, Cancel: key}, nil
}

func (a *acceptor) startup(code uint32, body []byte) (*Accepted, error) {
	major, minor := int(code>>16), int(code&0xffff)
	if major != protocolMajor {
		return nil, Fatalf(CodeFeatureNotSupported, "unsupported frontend protocol %d.%d: server supports %d.0 to %d.%d",
			major, minor, protocolMajor, protocolMajor, protocolMinor)
	}
	st := &Startup{Major: major, Minor: min(minor, protocolMinor), TLS: a.tls, PeerCN: a.peerCN, binding: a.binding}
	if err := st.parse(body); err != nil {
		return nil, err
	}
	if a.cfg.RequireTLS && !a.tls && !isUnix(a.conn.RemoteAddr()) {
		return nil, Fatalf(CodeInvalidAuthorization, "connection requires encryption").
			WithHint("Connect with sslmode=require or stronger.")
	}
	if a.cfg.RequireClientCert && !a.verified && !isUnix(a.conn.RemoteAddr()) {
		return nil, Fatalf(CodeInvalidAuthorization, "connection requires a valid client certificate")
	}
	if minor > protocolMinor || len(st.Unrecognized) > 0 {
		// The whole version, not only its minor part: so do PostgreSQL and libpq, against
		// the letter of the documentation.
		err := writeHandshake(a.conn, &pgproto3.NegotiateProtocolVersion{
			NewestMinorProtocol: uint32(st.Major)<<16 | uint32(st.Minor),
			UnrecognizedOptions: st.Unrecognized,
		})
		if err != nil {
			return nil, err
		}
	}
	return &Accepted{Conn: a.conn, Startup: st}, nil
}

// parse reads the name and value pairs of a StartupMessage, which end with an empty name.
func (st *Startup) parse(body []byte) error {
	st.Params = make(map[string]string)
	rest := string(body)
	for {
		name, after, ok := strings.Cut(rest, "\x00")
		if !ok || name == "" && after != "" {
			return Fatalf(CodeProtocolViolation, "invalid startup packet layout: expected terminator as last byte")
		}
		if name == "" {
			break
		}
		value, after, ok := strings.Cut(after, "\x00")
		if !ok {
			return Fatalf(CodeProtocolViolation, "invalid startup packet layout: expected terminator as last byte")
		}
		if strings.HasPrefix(name, "_pq_.") {
			st.Unrecognized = append(st.Unrecognized, name)
		} else {
			st.Params[name] = value
		}
		rest = after
	}
	sort.Strings(st.Unrecognized)
	if st.Params["user"] == "" {
		return Fatalf(CodeInvalidAuthorization, "no PostgreSQL user name specified in startup packet")
	}
	if st.Params["database"] == "" {
		st.Params["database"] = st.Params["user"]
	}
	return nil
}

func isUnix(addr net.Addr) bool { return addr != nil && addr.Network() == "unix" }

// prefixConn gives back bytes that were read to find out what the peer speaks.
type prefixConn struct {
	net.Conn
	prefix []byte
}

func (c *prefixConn) Read(p []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(p, c.prefix)
		c.prefix = c.prefix[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}
