package wire

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/xdg-go/scram"
)

// SCRAMCache keeps the keys derived from a node's password, of which SCRAM needs the same ones
// for each connection. The zero value is ready; it may be used by many goroutines.
type SCRAMCache struct {
	mu       sync.Mutex
	password string
	client   *scram.Client
	uses     int // of client, which keeps keys for every salt it meets
}

const scramClientUsesMax = 1_000 // and so at most as many salts

// get gives the client of a password. Only the last password is kept. A nil cache keeps none.
func (c *SCRAMCache) get(password string) (*scram.Client, error) {
	if c == nil {
		return newSCRAMClient(password)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil || c.password != password || c.uses >= scramClientUsesMax {
		client, err := newSCRAMClient(password)
		if err != nil {
			return nil, err
		}
		c.password, c.client, c.uses = password, client, 0
	}
	c.uses++
	return c.client, nil
}

var errNoPassword = errors.New("server asks for a password, but none is configured")

// proveIdentity answers the server's authentication requests up to AuthenticationOk.
func proveIdentity(conn net.Conn, cfg *ConnectConfig) error {
	kind, body, err := readAuthRequest(conn)
	if err != nil {
		return err
	}
	if kind != pgproto3.AuthTypeOk && cfg.Password == "" {
		return errNoPassword
	}
	switch kind {
	case pgproto3.AuthTypeOk:
		return nil
	case pgproto3.AuthTypeCleartextPassword:
		err = writeHandshake(conn, &pgproto3.PasswordMessage{Password: cfg.Password})
	case pgproto3.AuthTypeMD5Password:
		if len(body) != 4 {
			return errors.New("malformed AuthenticationMD5Password")
		}
		answer := md5Answer(md5Hex(cfg.Password+cfg.User), body)
		err = writeHandshake(conn, &pgproto3.PasswordMessage{Password: answer})
	case pgproto3.AuthTypeSASL:
		err = proveBySCRAM(conn, cfg, body)
	default:
		return fmt.Errorf("server asks for authentication of kind %d, which is not supported", kind)
	}
	if err != nil {
		return err
	}
	_, err = expectAuth(conn, pgproto3.AuthTypeOk)
	return err
}

// readAuthRequest reads an Authentication message: its kind and what follows.
func readAuthRequest(conn net.Conn) (kind uint32, body []byte, err error) {
	messageType, body, err := readServerMessage(conn)
	if err != nil {
		return 0, nil, err
	}
	if messageType != 'R' || len(body) < 4 {
		return 0, nil, fmt.Errorf("unexpected message %q instead of an authentication request", messageType)
	}
	return binary.BigEndian.Uint32(body), body[4:], nil
}

func expectAuth(conn net.Conn, want uint32) (body []byte, err error) {
	kind, body, err := readAuthRequest(conn)
	if err != nil {
		return nil, err
	}
	if kind != want {
		return nil, fmt.Errorf("authentication message of kind %d instead of %d", kind, want)
	}
	return body, nil
}

// proveBySCRAM runs SCRAM up to the server's own proof. A server without that proof does not
// know the password, so AuthenticationOk from it would mean nothing.
func proveBySCRAM(conn net.Conn, cfg *ConnectConfig, offer []byte) error {
	mechanisms := strings.Split(strings.TrimRight(string(offer), "\x00"), "\x00")
	client, err := cfg.SCRAM.get(cfg.Password)
	if err != nil {
		return err
	}
	chosen, conversation, err := chooseSCRAM(conn, client, mechanisms)
	if err != nil {
		return err
	}
	first, err := conversation.Step("")
	if err != nil {
		return err
	}
	if err := writeHandshake(conn, &pgproto3.SASLInitialResponse{AuthMechanism: chosen, Data: []byte(first)}); err != nil {
		return err
	}
	challenge, err := expectAuth(conn, pgproto3.AuthTypeSASLContinue)
	if err != nil {
		return err
	}
	if err := checkIterations(string(challenge)); err != nil {
		return err
	}
	proof, err := conversation.Step(string(challenge))
	if err != nil {
		return fmt.Errorf("SCRAM: %w", err)
	}
	if err := writeHandshake(conn, &pgproto3.SASLResponse{Data: []byte(proof)}); err != nil {
		return err
	}
	final, err := expectAuth(conn, pgproto3.AuthTypeSASLFinal)
	if err != nil {
		return err
	}
	if _, err := conversation.Step(string(final)); err != nil {
		return fmt.Errorf("SCRAM: the server does not prove that it knows the password: %w", err)
	}
	return nil
}

// chooseSCRAM takes the strongest mechanism that both sides have.
func chooseSCRAM(conn net.Conn, client *scram.Client, mechanisms []string) (string, *scram.ClientConversation, error) {
	secure, onTLS := conn.(*tls.Conn)
	plus := slices.Contains(mechanisms, mechanismPlus)
	if plus && !onTLS {
		return "", nil, errors.New("server offers SCRAM-SHA-256-PLUS over a connection without TLS")
	}
	if plus {
		if binding := endpointBinding(secure.ConnectionState().PeerCertificates[0]); binding.IsSupported() {
			return mechanismPlus, client.NewConversationWithChannelBinding(binding), nil
		}
	}
	switch {
	case !slices.Contains(mechanisms, mechanism):
		return "", nil, fmt.Errorf("server offers none of our SASL mechanisms, but %q", mechanisms)
	case onTLS && !plus:
		// Says that we would have: if the server did offer it, someone took it away.
		return mechanism, client.NewConversationAdvertisingChannelBinding(), nil
	}
	return mechanism, client.NewConversation(), nil
}

// checkIterations refuses a challenge that would cost us seconds of work.
func checkIterations(challenge string) error {
	for field := range strings.SplitSeq(challenge, ",") {
		digits, ok := strings.CutPrefix(field, "i=")
		if !ok {
			continue
		}
		if n, err := strconv.Atoi(digits); err != nil || n < 1 || n > scramIterationsMax {
			return fmt.Errorf("SCRAM: server asks for %q iterations", digits)
		}
	}
	return nil
}
