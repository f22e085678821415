package wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xdg-go/scram"
)

// ServerTLSFiles names the PEM files of our listener.
type ServerTLSFiles struct {
	Cert     string // the certificate and its intermediates
	Key      string
	ClientCA string // verifies client certificates; empty: none is asked for
}

// ServerTLS is our side of TLS towards clients. It may be reloaded while it is in use:
// connections keep the certificate they began with.
type ServerTLS struct {
	files   ServerTLSFiles
	current atomic.Pointer[serverTLSState]

	mu sync.Mutex // one reload at a time
}

// serverTLSState is one reading of the files. It is immutable.
type serverTLSState struct {
	config    *tls.Config
	binding   scram.ChannelBinding // none where the certificate's signature defines no hash
	certPEM   []byte
	keyPEM    []byte
	clientPEM []byte
}

// LoadServerTLS reads the files.
func LoadServerTLS(files ServerTLSFiles) (*ServerTLS, error) {
	s := &ServerTLS{files: files}
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads the files again. After an error the former certificate stays in use.
func (s *ServerTLS) Reload() error {
	_, err := s.reload()
	return err
}

// Run looks at the files every interval, reloads them when their content has changed, and tells
// report about each reload (nil) and each failure. It returns when ctx ends.
func (s *ServerTLS) Run(ctx context.Context, interval time.Duration, report func(error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if changed, err := s.reload(); changed || err != nil {
				report(err)
			}
		}
	}
}

func (s *ServerTLS) reload() (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := &serverTLSState{}
	if next.certPEM, err = os.ReadFile(s.files.Cert); err != nil {
		return false, fmt.Errorf("read TLS certificate: %w", err)
	}
	if next.keyPEM, err = os.ReadFile(s.files.Key); err != nil {
		return false, fmt.Errorf("read TLS key: %w", err)
	}
	if s.files.ClientCA != "" {
		if next.clientPEM, err = os.ReadFile(s.files.ClientCA); err != nil {
			return false, fmt.Errorf("read CA of client certificates: %w", err)
		}
	}
	if now := s.current.Load(); now != nil && bytes.Equal(now.certPEM, next.certPEM) &&
		bytes.Equal(now.keyPEM, next.keyPEM) && bytes.Equal(now.clientPEM, next.clientPEM) {
		return false, nil
	}
	if err := next.build(s.files); err != nil {
		return false, err
	}
	s.current.Store(next)
	return true, nil
}

func (n *serverTLSState) build(files ServerTLSFiles) error {
	cert, err := tls.X509KeyPair(n.certPEM, n.keyPEM)
	if err != nil {
		return fmt.Errorf("load TLS certificate %s with key %s: %w", files.Cert, files.Key, err)
	}
	n.config = &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{alpnProtocol},
		// A resumed session would outlive the CA that vouched for the client.
		SessionTicketsDisabled: true,
	}
	if n.clientPEM != nil {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(n.clientPEM) {
			return fmt.Errorf("no certificate found in %s", files.ClientCA)
		}
		n.config.ClientCAs = pool
		// As PostgreSQL: whoever shows a certificate must have a good one; whether one is
		// needed is said by the authentication method.
		n.config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	n.binding = endpointBinding(cert.Leaf)
	return nil
}

// endpointBinding is the tls-server-end-point data of a certificate (RFC 5929), none where its
// signature algorithm has no single hash (Ed25519).
func endpointBinding(cert *x509.Certificate) scram.ChannelBinding {
	binding, err := scram.NewTLSServerEndpointBinding(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}})
	if err != nil {
		return scram.ChannelBinding{}
	}
	return binding
}

// SSLMode is libpq's sslmode.
type SSLMode string

// The modes, from no protection to the whole.
const (
	SSLDisable    SSLMode = "disable"
	SSLAllow      SSLMode = "allow"  // TLS only if the server refuses plain text
	SSLPrefer     SSLMode = "prefer" // TLS if the server has it
	SSLRequire    SSLMode = "require"
	SSLVerifyCA   SSLMode = "verify-ca"
	SSLVerifyFull SSLMode = "verify-full" // the name in the certificate counts too
)

// systemRoots as RootCert stands for the CAs of the operating system.
const systemRoots = "system"

// ClientTLSFiles says how nodes are spoken to. Paths may be empty.
type ClientTLSFiles struct {
	Mode     SSLMode // empty: prefer
	RootCert string  // PEM file, or "system"; needed by verify-ca and verify-full. With it, require acts as verify-ca
	Cert     string  // our client certificate
	Key      string
}

// ClientTLS is our side of TLS towards nodes. It is immutable. nil acts as sslmode=disable.
type ClientTLS struct {
	mode   SSLMode
	config *tls.Config // without ServerName
	verify bool        // check the chain
}

// LoadClientTLS checks the mode and reads the files.
func LoadClientTLS(files ClientTLSFiles) (*ClientTLS, error) {
	c := &ClientTLS{mode: files.Mode}
	if c.mode == "" {
		c.mode = SSLPrefer
	}
	switch c.mode {
	case SSLDisable, SSLAllow, SSLPrefer:
	case SSLRequire:
		c.verify = files.RootCert != ""
	case SSLVerifyCA, SSLVerifyFull:
		if files.RootCert == "" {
			return nil, fmt.Errorf("sslmode=%s needs sslrootcert (a file, or \"system\")", c.mode)
		}
		c.verify = true
	default:
		return nil, fmt.Errorf("unknown sslmode %q: disable, allow, prefer, require, verify-ca or verify-full", c.mode)
	}
	c.config = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{alpnProtocol}}
	if c.verify {
		if err := c.loadRoots(files.RootCert); err != nil {
			return nil, err
		}
	}
	if (files.Cert == "") != (files.Key == "") {
		return nil, errors.New("sslcert and sslkey must be given together")
	}
	if files.Cert != "" {
		cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			return nil, fmt.Errorf("load client certificate: %w", err)
		}
		c.config.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

func (c *ClientTLS) loadRoots(file string) error {
	if file == systemRoots {
		if c.mode != SSLVerifyFull {
			// Anyone can have a certificate of a public CA.
			return errors.New("sslrootcert=system needs sslmode=verify-full")
		}
		return nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read sslrootcert: %w", err)
	}
	c.config.RootCAs = x509.NewCertPool()
	if !c.config.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("no certificate found in sslrootcert %s", file)
	}
	return nil
}

// Mode gives the sslmode in force.
func (c *ClientTLS) Mode() SSLMode {
	if c == nil {
		return SSLDisable
	}
	return c.mode
}

// configFor gives the configuration of one connection to host.
func (c *ClientTLS) configFor(host string) *tls.Config {
	config := c.config.Clone()
	config.ServerName = host
	if c.mode == SSLVerifyFull {
		return config
	}
	config.InsecureSkipVerify = true // the name is not checked; VerifyConnection checks the rest
	if c.verify {
		config.VerifyConnection = func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{Roots: config.RootCAs, Intermediates: x509.NewCertPool()}
			for _, cert := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(cert)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		}
	}
	return config
}
