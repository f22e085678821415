package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	defaultConnectTimeout = 10 * time.Second
	serverMessageMax      = 65_536 // libpq trusts an unauthenticated server with 30,000
	noticesMax            = 1_000  // messages before ReadyForQuery
)

// ConnectConfig says how a node is reached. It is not changed by Connect and may be shared.
type ConnectConfig struct {
	Network  string // "tcp" or "unix"
	Address  string // host:port, or the path of the socket
	Host     string // the name that the certificate must have; empty: the host of Address
	User     string
	Database string
	Password string
	Params   map[string]string // further settings for the StartupMessage
	TLS      *ClientTLS        // nil: disable; unix sockets never use TLS, as in libpq
	Timeout  time.Duration     // from dialling to ReadyForQuery; 0: 10 s

	// SCRAM spares each further connection a millisecond of key derivation. It is optional.
	SCRAM *SCRAMCache
}

// ServerConn is a connection to a node that is ready for a query.
type ServerConn struct {
	Conn   net.Conn          // TCP, unix or *tls.Conn; no deadline is set and nothing is read ahead
	Params map[string]string // ParameterStatus
	Key    CancelKey         // zero where the server gave none
}

// Connect dials a node, logs in, and returns at the first ReadyForQuery. What the server refused
// is the *Error inside the error.
func Connect(ctx context.Context, cfg *ConnectConfig) (*ServerConn, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.timeout())
	defer cancel()
	var server *ServerConn
	err := cfg.attempt(ctx, func(conn net.Conn) (err error) {
		server, err = logIn(conn, cfg)
		return err
	}, func(conn net.Conn) { server.Conn = conn })
	if err != nil {
		return nil, fmt.Errorf("connect to %s as %s: %w", cfg.Address, cfg.User, err)
	}
	return server, nil
}

// SendCancel asks the node to cancel what the session of key is doing, and returns once the
// node has dealt with it (which does not mean that something was cancelled).
func SendCancel(ctx context.Context, cfg *ConnectConfig, key CancelKey) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.timeout())
	defer cancel()
	err := cfg.attempt(ctx, func(conn net.Conn) error {
		request := &pgproto3.CancelRequest{ProcessID: key.PID, SecretKey: []byte(key.Secret)}
		if err := writeHandshake(conn, request); err != nil {
			return err
		}
		// The server says nothing; it hangs up when the signal is sent.
		_, err := conn.Read(make([]byte, 1))
		if err == nil {
			return errors.New("unexpected answer to a cancel request")
		}
		if ctx.Err() != nil {
			return err
		}
		return nil // an end or a reset
	}, func(conn net.Conn) { _ = conn.Close() })
	if err != nil {
		return fmt.Errorf("cancel on %s: %w", cfg.Address, err)
	}
	return nil
}

func (cfg *ConnectConfig) timeout() time.Duration {
	if cfg.Timeout > 0 {
		return cfg.Timeout
	}
	return defaultConnectTimeout
}

func (cfg *ConnectConfig) mode() SSLMode {
	if cfg.Network == "unix" {
		return SSLDisable
	}
	return cfg.TLS.Mode()
}

// tlsError marks a failure to come to TLS at all.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return "TLS: " + e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// attempt opens a connection by sslmode and runs do on it, where needed once more with or without
// TLS: "allow" after the server refused plain text, "prefer" after TLS failed or was refused.
// After success the connection is handed to keep, else it is closed.
func (cfg *ConnectConfig) attempt(ctx context.Context, do func(net.Conn) error, keep func(net.Conn)) error {
	mode := cfg.mode()
	secure, err := cfg.once(ctx, mode != SSLDisable && mode != SSLAllow, do, keep)
	if err == nil || ctx.Err() != nil {
		return err
	}
	refusal, _ := errors.AsType[*Error](err)
	refused := refusal != nil && refusal.Code == CodeInvalidAuthorization // no pg_hba.conf entry
	_, tlsFailed := errors.AsType[*tlsError](err)
	var again error
	switch {
	case mode == SSLAllow && refused:
		_, again = cfg.once(ctx, true, do, keep)
	case mode == SSLPrefer && (tlsFailed || secure && refused):
		_, again = cfg.once(ctx, false, do, keep)
	default:
		return err
	}
	if again != nil {
		return fmt.Errorf("%w (then, by sslmode=%s: %w)", err, mode, again)
	}
	return nil
}

// once is one connection. secure tells whether do ran over TLS.
func (cfg *ConnectConfig) once(ctx context.Context, wantTLS bool, do func(net.Conn) error, keep func(net.Conn)) (secure bool, err error) {
	raw, err := new(net.Dialer).DialContext(ctx, cfg.Network, cfg.Address)
	if err != nil {
		return false, err
	}
	g, err := guardConn(ctx, raw, 0)
	if err != nil {
		_ = raw.Close()
		return false, err
	}
	conn := raw
	if wantTLS {
		conn, err = cfg.startTLS(raw)
		secure = conn != raw
	}
	if err == nil {
		err = do(conn)
	}
	if err := g.release(err); err != nil {
		_ = raw.Close()
		return secure, err
	}
	keep(conn)
	return secure, nil
}

// startTLS sends an SSLRequest. It returns raw itself where the server has no TLS and the mode
// does not insist. Only the one byte of the answer is read in plain text, so that what someone
// between put behind it breaks the handshake (CVE-2021-23222).
func (cfg *ConnectConfig) startTLS(raw net.Conn) (net.Conn, error) {
	if err := writeHandshake(raw, &pgproto3.SSLRequest{}); err != nil {
		return raw, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(raw, answer[:]); err != nil {
		return raw, &tlsError{noEOF(err)}
	}
	switch answer[0] {
	case 'S':
	case 'N':
		if cfg.TLS.mode == SSLPrefer {
			return raw, nil
		}
		return raw, &tlsError{fmt.Errorf("server does not support it, but sslmode=%s", cfg.TLS.mode)}
	default:
		// An ErrorResponse here is not authenticated: its text is not to be shown (CVE-2024-10977).
		return raw, &tlsError{fmt.Errorf("server answered %q to SSLRequest", answer[0])}
	}
	host := cfg.Host
	if host == "" {
		var err error
		if host, _, err = net.SplitHostPort(cfg.Address); err != nil {
			return raw, err
		}
	}
	secure := tls.Client(raw, cfg.TLS.configFor(host))
	if err := secure.Handshake(); err != nil {
		return raw, &tlsError{err}
	}
	return secure, nil
}

// logIn sends the StartupMessage and takes part in all that follows up to ReadyForQuery.
func logIn(conn net.Conn, cfg *ConnectConfig) (*ServerConn, error) {
	params := map[string]string{"user": cfg.User}
	if cfg.Database != "" {
		params["database"] = cfg.Database
	}
	for name, value := range cfg.Params {
		if name == "" || name == "user" || name == "database" {
			return nil, fmt.Errorf("parameter %q does not belong in Params", name)
		}
		params[name] = value
	}
	// 3.0 and no newer: older servers and poolers stumble over minor versions, and we need
	// nothing of 3.2 from a node.
	err := writeHandshake(conn, &pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersion30, Parameters: params})
	if err != nil {
		return nil, err
	}
	if err := proveIdentity(conn, cfg); err != nil {
		return nil, err
	}
	return readSession(conn)
}

// readSession reads from behind AuthenticationOk to ReadyForQuery.
func readSession(conn net.Conn) (*ServerConn, error) {
	server := &ServerConn{Params: make(map[string]string)}
	for range noticesMax {
		messageType, body, err := readServerMessage(conn)
		if err != nil {
			return nil, err
		}
		switch messageType {
		case 'S':
			var status pgproto3.ParameterStatus
			if err := status.Decode(body); err != nil {
				return nil, fmt.Errorf("malformed ParameterStatus: %w", err)
			}
			server.Params[status.Name] = status.Value
		case 'K':
			if len(body) < 4+cancelSecretMin || len(body) > 4+cancelSecretMax {
				return nil, fmt.Errorf("malformed BackendKeyData of %d bytes", len(body))
			}
			server.Key = CancelKey{PID: binary.BigEndian.Uint32(body), Secret: string(body[4:])}
		case 'Z':
			if len(body) != 1 || body[0] != 'I' {
				return nil, errors.New("malformed ReadyForQuery at the start of a session")
			}
			return server, nil
		default:
			return nil, fmt.Errorf("unexpected message %q at the start of a session", messageType)
		}
	}
	return nil, fmt.Errorf("no ReadyForQuery within %d messages", noticesMax)
}

// readServerMessage reads the next message that is not a notice. An ErrorResponse becomes an *Error.
func readServerMessage(conn net.Conn) (messageType byte, body []byte, err error) {
	for range noticesMax {
		messageType, body, err := readHandshakeMessage(conn, serverMessageMax)
		if violation, ok := errors.AsType[*Error](err); ok {
			// It is the node that broke the protocol, so this must not pass for an error from it.
			return 0, nil, errors.New(violation.Message)
		}
		if err != nil {
			return 0, nil, noEOF(err)
		}
		switch messageType {
		case 'N':
			continue
		case 'E':
			refusal, err := DecodeError(body)
			if err != nil {
				return 0, nil, err
			}
			return 0, nil, refusal
		}
		return messageType, body, nil
	}
	return 0, nil, fmt.Errorf("more than %d notices", noticesMax)
}
